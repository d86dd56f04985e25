"""What systemd is told, read from a socket that stands in for its."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from mvirt_zfs_dbus import systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_reaches_systemd(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"@mvirt-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(10)
        receiver.bind("\0" + name[1:] if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        systemd.notify("READY=1", "STATUS=ready")
        assert receiver.recv(1000) == b"READY=1\nSTATUS=ready"


async def test_the_watchdog_is_told_more_often_than_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setblocking(False)
        receiver.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        task = asyncio.create_task(systemd.keep_watchdog())
        loop = asyncio.get_running_loop()
        for _ in range(3):
            assert await loop.sock_recv(receiver, 1000) == b"WATCHDOG=1"
        task.cancel()
        await asyncio.wait([task])


async def test_no_watchdog_is_kept_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    await systemd.keep_watchdog()


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
