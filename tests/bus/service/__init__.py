"""The whole service over the bus, as its clients meet it."""
