"""The parts of the directory store, which :mod:`mvirt_zfs_dbus.store.directory` puts together."""
