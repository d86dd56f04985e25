"""The parts of the ZFS store."""
