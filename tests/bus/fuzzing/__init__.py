"""The running service, called with whatever a generator comes up with."""
