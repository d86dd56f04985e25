"""examples/, built and run against the real service."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from .ctl import Ctl, Outcome
from .process import MIB

TOP = Path(__file__).parents[3]
EXAMPLES = TOP / "examples"


@pytest.fixture
def environment(ctl: Ctl, bus_address: str, tmp_path: Path) -> dict[str, str]:
    """Where mvirt-zfsctl is found, and both buses are the private one."""
    program = tmp_path / "bin/mvirt-zfsctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mvirt_zfs_dbus.cli.main "$@"\n')
    program.chmod(0o755)
    return ctl.environment | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "DBUS_SYSTEM_BUS_ADDRESS": bus_address,
        "PYTHONUNBUFFERED": "1",
    }


async def run(environment: dict[str, str], *command: str | Path) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def works(environment: dict[str, str], *command: str | Path) -> str:
    outcome = await run(environment, *command)
    assert (outcome.status, outcome.err) == (0, "")
    return outcome.out


async def test_the_python_client_imports_follows_and_clones(
    ctl: Ctl, environment: dict[str, str], images: dict[str, Path]
) -> None:
    example = EXAMPLES / "python/import_and_clone.py"
    said = await works(environment, sys.executable, example, images["qcow2"], "gold", "web")
    assert "done" in said
    assert f"web is {2 * MIB} bytes at " in said
    assert "kept: template 'gold' has clones" in said
    assert await ctl.content("web") == images["raw"].read_bytes()
    outcome = await run(environment, sys.executable, example, images["backing"], "bad", "other")
    assert outcome.status == 1
    assert outcome.err.startswith("UnsafeImage: ")


async def test_dbus_fast_alone_calls_reads_and_listens(
    ctl: Ctl, environment: dict[str, str]
) -> None:
    pytest.importorskip("dbus_fast.aio")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, EXAMPLES / "python/dbus_fast_only.py", "web", str(MIB)),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    while not (line := await process.stdout.readline()).startswith(b"Checksum"):
        assert line
    await ctl("volume", "resize", "web", "2M")
    assert await process.stdout.readline() == b"changed: {'SizeBytes': 2097152}\n"
    await ctl("volume", "delete", "web", "--yes")
    rest, _ = await process.communicate()
    assert rest.endswith(b"gone\n")
    assert process.returncode == 0


async def test_a_script_keeps_the_newest_snapshots_of_labelled_volumes(
    ctl: Ctl, environment: dict[str, str]
) -> None:
    script = EXAMPLES / "shell/keep-snapshots"
    await ctl("volume", "create", "web", "1M", "--label", "backup=nightly")
    await ctl("volume", "create", "scratch", "1M")
    await ctl("snapshot", "create", "web", "by-hand")
    for _ in range(4):
        await works(environment, script, "nightly", "2")
    names = [each["Name"] for each in await ctl.json("snapshot", "list")]
    assert names[0] == "by-hand"
    assert len(names) == 3
    assert all(name.startswith("nightly-") for name in names[1:])


async def test_a_script_imports_with_busctl_and_waits(
    ctl: Ctl, environment: dict[str, str], images: dict[str, Path], bus_address: str
) -> None:
    script = EXAMPLES / "shell/import-with-busctl"
    there = f"--address={bus_address}"
    said = await works(environment, script, "web", images["qcow2"], there)
    assert "done: /org/mvirt/Zfs1/volume/" in said
    assert await ctl.content("web") == images["raw"].read_bytes()
    outcome = await run(environment, script, "bad", images["backing"], there)
    assert outcome.status == 1
    assert outcome.err.startswith("failed: ")


async def test_the_c_program_imports_follows_and_clones(
    ctl: Ctl, environment: dict[str, str], images: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(EXAMPLES / "c", folder)
    interfaces = f"INTERFACES={TOP / 'data/dbus-1/interfaces'}"
    await works(environment, "make", "--silent", "-C", folder, interfaces)
    program = folder / "import-and-clone"
    said = await works(environment, program, images["qcow2"], "gold", "web")
    assert f"web is {2 * MIB} bytes at " in said
    assert await ctl.content("web") == images["raw"].read_bytes()
    outcome = await run(environment, program, images["backing"], "bad", "other")
    assert outcome.status == 1
    assert outcome.err.startswith("org.mvirt.Zfs1.Error.UnsafeImage: ")
    outcome = await run(environment, program, images["qcow2"], "gold", "other")
    assert outcome.err.startswith("org.mvirt.Zfs1.Error.AlreadyExists: ")
