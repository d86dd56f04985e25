"""One file for each D-Bus interface: read the arguments, await core, answer."""
