"""The machine's power is cut in the middle of work; after the next boot all is whole or gone."""

from __future__ import annotations

import json

import pytest

from tests.machine.machine import Machine

UNFINISHED = "python3 tests/machine/outside/unfinished.py"
MAKERS = "python3 tests/machine/outside/makers.py"
BEFORE = """
set -e
mvirt-zfsctl volume create kept 16M
head -c 4M /dev/urandom >/root/kept
dd if=/root/kept of=$(mvirt-zfsctl --json volume show kept | python3 -c '
import json, sys; print(json.load(sys.stdin)["Device"])') bs=1M conv=fsync,notrunc status=none
mvirt-zfsctl snapshot create kept first
sync
"""


def test_a_power_cut_leaves_nothing_half_made_and_loses_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """An import, a template's import and a copy are under way, and eight clients make and clone
    volumes without an end."""
    machine.output(BEFORE)
    with machine.start_command(MAKERS) as makers, machine.start_command(UNFINISHED) as client:
        assert makers.stdout is not None and client.stdout is not None
        answered = [makers.stdout.readline().strip() for _ in range(20)]
        jobs = client.stdout.readline().split()
        assert len(jobs) == 3, "the client ended before its jobs were under way"
        machine.cut_power()
        answered += makers.stdout.read().split()
    seconds = machine.boot()
    machine.output("systemctl start mvirt-zfs-dbus.service")

    assert machine.output("zpool list -H -o health tank") == "ONLINE"
    listed = json.loads(machine.output("mvirt-zfsctl --json volume list"))
    volumes = {volume["Id"]: volume for volume in listed}
    assert set(answered) <= set(volumes)
    named = {volume["Name"]: volume for volume in listed}
    assert "cut" not in named and "big" in named
    volume = named["kept"]
    assert len(volume["Snapshots"]) == 1
    machine.output(f"cmp -n 4194304 /root/kept {volume['Device']}")
    templates = json.loads(machine.output("mvirt-zfsctl --json template list"))
    assert len(templates) == 1, "that of the clients"
    for job in jobs:
        ended = json.loads(machine.output(f"mvirt-zfsctl --json job show {job}"))
        how = (ended["State"], ended["ErrorName"])
        assert how == ("failed", "org.mvirt.Zfs1.Error.Interrupted")
    datasets = machine.output("zfs list -H -o name -r tank").splitlines()
    expected = {f"tank/{found['Id']}" for found in (*listed, *templates)}
    assert {name for name in datasets if name.count("-") == 4} == expected
    with capsys.disabled():
        print(
            f"\npower cut during three jobs, {len(answered)} volumes made before it: up again in"
            f" {seconds:.0f} s, nothing lost, none left"
        )
