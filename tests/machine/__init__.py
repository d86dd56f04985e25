"""The test machine: a booted Debian with real ZFS, systemd, the system bus and polkit."""
