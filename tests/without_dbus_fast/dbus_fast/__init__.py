"""With this folder on PYTHONPATH, dbus-fast is not installed."""

raise ModuleNotFoundError("dbus-fast is hidden by tests/without_dbus_fast")
