"""What a service tells systemd of itself: sd_notify(3)."""

from __future__ import annotations

import asyncio
import os
import socket


def notify(*lines: str) -> None:
    """Send a state as ``READY=1``. Without systemd, nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket, unix(7)
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.sendall("\n".join(lines).encode())


async def keep_watchdog() -> None:
    """Tell the watchdog, at half its time, that the event loop turns (sd_watchdog_enabled(3))."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    while microseconds and ours:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 2 / 1_000_000)
