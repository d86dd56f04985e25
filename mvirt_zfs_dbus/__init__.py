"""ZFS volumes, snapshots, templates, clones and image imports as D-Bus objects."""

__version__ = "0.1.0"
