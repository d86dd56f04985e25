"""D-Bus plumbing: the connection, the object tree, dispatch and polkit. It knows no volumes."""
