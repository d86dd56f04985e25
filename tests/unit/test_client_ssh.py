from __future__ import annotations

import pytest

from mvirt_zfs_dbus.client.ssh import command
from mvirt_zfs_dbus.errors import InvalidArgs


@pytest.mark.parametrize(
    ("host", "machine", "options"),
    [
        ("web", "web", []),
        ("root@web.example.org", "root@web.example.org", []),
        ("root@web:2222", "root@web", ["-p", "2222"]),
        ("2001:db8::1", "2001:db8::1", []),
        ("[2001:db8::1]:2222", "2001:db8::1", ["-p", "2222"]),
        ("root@[2001:db8::1]:2222", "root@2001:db8::1", ["-p", "2222"]),
        ("-oProxyCommand=reboot", "-oProxyCommand=reboot", []),
    ],
)
def test_a_host_is_a_machine_perhaps_with_user_and_port_and_never_an_option(
    host: str, machine: str, options: list[str]
) -> None:
    expected = ["ssh", "-xT", *options, "--", machine, "systemd-stdio-bridge"]
    assert command(host) == expected


def test_an_empty_host_is_no_other_name_for_this_machine() -> None:
    with pytest.raises(InvalidArgs, match="the host is empty"):
        command("")
