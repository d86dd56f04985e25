"""The running service under a long mixed load."""
