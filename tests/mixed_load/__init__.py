"""A mixed load on the service, and what must exist whatever becomes of the service meanwhile."""
