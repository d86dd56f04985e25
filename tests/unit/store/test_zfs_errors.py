from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mvirt_zfs_dbus.errors import (
    AlreadyExists,
    DeviceBusy,
    Error,
    HasClones,
    NoSpace,
    NotFound,
    PoolUnavailable,
)
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.openzfs import zpool
from mvirt_zfs_dbus.store.openzfs.deletion import Deletion
from mvirt_zfs_dbus.store.openzfs.kernel import Kernel, ProgramFailed, TooMuch, error_of
from mvirt_zfs_dbus.store.openzfs.programs import Outcome


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A double of the kernel's statistics: pool ``tank``, and the file that says how it is."""
    (tmp_path / "tank").mkdir()
    state = tmp_path / "tank" / "state"
    state.write_text("ONLINE\n")
    monkeypatch.setattr(zpool, "_KSTAT", tmp_path)
    return state


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, NotFound),
        (errno.EEXIST, AlreadyExists),
        (errno.EBUSY, DeviceBusy),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EIO, PoolUnavailable),
        (errno.EINVAL, Error),
        (1030, Error),
    ],
)
def test_an_errno_of_zfs_is_an_error_that_says_what_was_tried(
    pool: Path, number: int, kind: type[Error]
) -> None:
    found = error_of(number, "create tank/1", "tank")
    assert type(found) is kind
    assert "create tank/1" in found.message


@pytest.mark.parametrize("state", ["SUSPENDED", "FAULTED", "UNAVAIL"])
def test_a_lost_pool_explains_every_failure(pool: Path, state: str) -> None:
    pool.write_text(f"{state}\n")
    found = error_of(errno.ENOENT, "create tank/1", "tank")
    assert type(found) is PoolUnavailable
    assert state in found.message


@pytest.mark.parametrize("state", ["SUSPENDED", "UNAVAIL"])
async def test_a_lost_pool_is_not_even_asked(pool: Path, state: str) -> None:
    """A channel program in a suspended pool does not come back. The binding is a double."""
    pool.write_text(f"{state}\n")
    binding = SimpleNamespace(lzc_channel_program=None, lzc_channel_program_nosync=None)
    kernel = Kernel(binding, "tank/vm")
    with pytest.raises(PoolUnavailable, match=state):
        await kernel.read("return 1")
    with pytest.raises(PoolUnavailable, match=state):
        await kernel.change("a change", "return 1")
    kernel.close()


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, TooMuch), (errno.ENOMEM, TooMuch), (errno.ETIME, TooMuch), (44, ProgramFailed)],
)
async def test_a_program_that_reached_a_limit_says_so(
    pool: Path, number: int, kind: type[Error]
) -> None:
    """The binding is a double."""

    class Failed(Exception):
        errno = number

    def run(*_arguments: object) -> None:
        raise Failed("what it says")

    exceptions = SimpleNamespace(ZCPError=Failed, ZFSError=Failed)
    kernel = Kernel(
        SimpleNamespace(
            lzc_channel_program=run, lzc_channel_program_nosync=run, exceptions=exceptions
        ),
        "tank/vm",
    )
    with pytest.raises(ProgramFailed, match="what it says") as raised:
        await kernel.read("return 1")
    assert type(raised.value) is kind
    kernel.close()


async def test_what_stands_in_the_way_and_cannot_be_read_goes_by_the_name_zfs_has_for_it() -> None:
    """The kernel is a double."""

    async def change(*_what: str, **_arguments: object) -> Outcome:
        return Outcome(refused="clones", names=("tank/vm/unreadable",))

    async def read(_program: str, **_arguments: object) -> None:
        raise ProgramFailed("reading", "I/O error")

    kernel = SimpleNamespace(root="tank/vm", pool="tank", change=change, read=read)
    with pytest.raises(HasClones, match="tank/vm/unreadable"):
        await Deletion(cast(Kernel, kernel)).destroy(
            Kind.TEMPLATE, "its-id", snapshots=True, defer=False
        )


async def test_what_is_left_of_a_broken_deletion_is_looked_for_once_and_after_a_failure() -> None:
    """The kernel is a double: a program that takes ``finish`` is one that looks for it."""
    looked: list[object] = []
    broken: list[str] = []

    async def change(what: str, *_program: str, **arguments: object) -> Outcome:
        if what in broken:
            raise Error(f"{what}: Interrupted system call")
        if "finish" in arguments:
            looked.append(arguments["finish"])
        return Outcome("done")

    kernel = SimpleNamespace(root="tank/vm", pool="tank", change=change)
    deletion = Deletion(cast(Kernel, kernel))
    await deletion.finish({"tank/vm/waits"})
    await deletion.collect()
    assert looked == [True, False]
    broken.append("destroy tank/vm/id")
    with pytest.raises(Error, match="Interrupted"):
        await deletion.destroy(Kind.VOLUME, "id", snapshots=True, defer=False)
    broken.append("collect what was deleted")
    with pytest.raises(Error, match="Interrupted"):
        await deletion.collect()
    broken.clear()
    await deletion.collect()
    await deletion.collect()
    assert looked == [True, False, True, False]


def test_a_pool_that_is_not_imported_is_unavailable(pool: Path) -> None:
    assert zpool.health("tank") == "ONLINE"
    assert zpool.health("elsewhere") == "UNAVAIL"
    assert type(error_of(errno.ENOENT, "create", "elsewhere")) is PoolUnavailable


@pytest.mark.parametrize(
    ("complaint", "kind"),
    [
        ("cannot open 'tank/x': dataset does not exist\n", NotFound),
        ("cannot open 'tank': no such pool\n", PoolUnavailable),
        (
            "cannot set property for 'tank/x': size is greater than available space\n",
            NoSpace,
        ),
        ("cannot set property for 'tank/x': out of space\n", NoSpace),
        ("cannot set property for 'tank/x': dataset is busy\n", DeviceBusy),
        ("cannot set property for 'tank/x': pool I/O is currently suspended\n", PoolUnavailable),
        ("cannot set property for 'tank/x': permission denied\n", Error),
        ("cannot set property for 'suspended/busy': permission denied\n", Error),
        ("cannot set property for 'suspended/busy': out of space\n", NoSpace),
        ("", Error),
    ],
)
def test_what_zfs_8_complains_of_is_an_error_that_quotes_it(
    complaint: str, kind: type[Error]
) -> None:
    found = zpool.error_from("zfs set volsize=1 tank/x", complaint)
    assert type(found) is kind
    assert complaint.strip() in found.message


def test_a_missing_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zpool, "_PATH", "/nonexistent")
    with pytest.raises(PoolUnavailable, match="zfsutils-linux"):
        zpool.executable("zpool")


async def test_a_command_that_no_signal_ends_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double of one that waits in the kernel: after it was killed another has its output."""
    program, pid = tmp_path / "zfs", tmp_path / "pid"
    program.write_text("#!/bin/sh\nsleep 60 &\necho $! >$(dirname $0)/pid\nwait\n")
    program.chmod(0o755)
    started: list[asyncio.subprocess.Process] = []
    create = asyncio.create_subprocess_exec

    async def start(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        started.append(await create(*arguments, **options))
        # Nothing tells when the file is written.
        while not pid.exists() or not pid.read_text():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return started[0]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(zpool, "executable", lambda _: str(program))
    monkeypatch.setattr(zpool, "_TIMEOUT", 0.5)
    monkeypatch.setattr(zpool, "_UNTIL_KILLED", 0.1)
    try:
        with pytest.raises(PoolUnavailable, match="zfs set did not end within"):
            async with asyncio.timeout(30):
                await zpool.set_properties("tank/disk", {"volsize": "1G"})
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
        await started[0].communicate()
