"""The D-Bus plumbing on a toy service: everything of bus/ but volumes."""
