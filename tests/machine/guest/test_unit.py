"""The unit: activation by the bus, restart, stop in the middle of work, confinement."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from pathlib import Path

import host
import pytest
from host import MIB, UNIT, unit

from mvirt_zfs_dbus.client import Client
from mvirt_zfs_dbus.errors import Interrupted

NAME, ROOT = "org.mvirt.Zfs1", "/org/mvirt/Zfs1"


def test_the_first_call_on_the_bus_starts_the_service(service: None) -> None:
    host.run("systemctl", "stop", UNIT)
    assert unit("ActiveState") == "inactive"
    version = host.run(
        *("busctl", "--timeout=300", "get-property", NAME, ROOT, f"{NAME}.Manager", "Version")
    )
    assert version.startswith('s "')
    assert unit("ActiveState") == "active"


async def test_volumes_and_their_bytes_outlive_a_restart(client: Client) -> None:
    volume = await client.manager.create_volume("kept", 16 * MIB, labels={"owner": "Jürgen"})
    host.write(volume.device, b"guest's bytes", offset=8 * MIB)
    snapshot = await volume.create_snapshot("first")
    host.run("systemctl", "restart", UNIT)
    found = await client.manager.volume("kept")
    assert found.properties == volume.properties | {
        "Snapshots": [snapshot.path],
        "UsedBytes": found.used_bytes,
        "ReferencedBytes": found.referenced_bytes,
        "CompressionRatio": found["CompressionRatio"],
    }
    assert host.read(found.device, 13, offset=8 * MIB) == b"guest's bytes"


async def test_stopping_during_an_import_ends_it_cleanly(client: Client) -> None:
    reading, writing = os.pipe()
    feeding = threading.Thread(target=host.feed, args=(writing, 8 * MIB), daemon=True)
    feeding.start()
    try:
        job = await client.manager.import_image("endless", reading, size=64 * MIB, format="raw")
        async for progress in job:
            if progress.bytes_done:
                break
        with host.stirring():
            host.run("systemctl", "stop", UNIT)
    finally:
        os.close(reading)  # the service has its own
        feeding.join()
        os.close(writing)
    assert (unit("Result"), unit("ExecMainStatus")) == ("success", "0")
    assert host.datasets() == set()
    host.run("systemctl", "start", UNIT)
    with pytest.raises(Interrupted):
        await (await client.manager.job(job.id)).wait()


def test_the_unit_confines_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    report = host.run("systemd-analyze", "security", "--no-pager", UNIT)
    [exposure] = re.findall(r"Overall exposure level for .*: ([0-9.]+)", report)
    with capsys.disabled():
        print(f"\nsystemd-analyze security {UNIT}: {exposure}")
    assert float(exposure) <= 3.0, "\n".join(line for line in report.splitlines() if "✗" in line)


NEEDED = {
    "write below its state directory",
    "open /dev/zfs",
    "open an Internet socket",
    "read an image of another user's",
}
"""Of what the probe tries, all that the service needs; the rest is an attacker's."""
STOPPED = {
    "Operation not permitted",
    "Permission denied",
    "Read-only file system",
    "No such file or directory",
    "Address family not supported by protocol",
    "timed out",  # what IPAddressDeny= does to a connection: its packets are dropped
}


def test_a_service_that_was_taken_over_reaches_little_of_the_host(
    service: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe runs in the unit's place: the same settings, another program."""
    answer, image = Path("/var/lib/mvirt-zfs-dbus/probe.json"), host.IMAGES / "probe.raw"
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(b"theirs")
    image.chmod(0o600)
    shutil.chown(image, "nobody")
    probe = Path(__file__).with_name("probe.py").read_text()
    program = Path("/usr/local/lib/mvirt-probe.py")  # no home is visible to it
    program.write_text(probe)
    lines = Path(host.unit("FragmentPath")).read_text().splitlines()
    settings = [line for line in lines if not line.startswith(("Type=", "BusName=", "Restart="))]
    text = re.sub(
        r"^ExecStart=.*",
        f"ExecStart=/usr/bin/python3 {program} {answer} {image}\nType=oneshot",
        "\n".join(settings),
        flags=re.MULTILINE,
    )
    probing = Path("/run/systemd/system/mvirt-probe.service")
    probing.write_text(text)
    metadata = ("169.254.169.254/32", "dev", "lo")
    host.run("ip", "address", "add", *metadata)  # without it, it is out of reach for anybody
    try:
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "start", probing.name)
        found = json.loads(answer.read_text())
    finally:
        host.run("ip", "address", "delete", *metadata)
        for file in (probing, program, image, answer, answer.with_name("probe")):
            file.unlink(missing_ok=True)
        answer.with_suffix(".suid").unlink(missing_ok=True)
        host.run("systemctl", "daemon-reload")
    with capsys.disabled():
        print("".join(f"\n  {what}: {outcome}" for what, outcome in found.items()))
    assert {what for what, outcome in found.items() if outcome == "done"} == NEEDED
    assert {found[what] for what in found.keys() - NEEDED} <= STOPPED
