"""What the demo stands on: a private bus, the service on a directory, commands as a transcript."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
"""Where the service and its client are installed: beside the Python that runs this."""
PATIENCE = 30
"""Seconds that the bus and the service have to start or to end."""


class DemoFailed(Exception):
    """A step did not do what it should; the message is for people."""


class Stage:
    """A folder of its own, and the environment that the commands run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks = folder / "disks"
        self.bus = f"unix:path={folder}/bus"
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "MVIRT_ZFS_BUS": self.bus,
        }

    async def run(self, command: str) -> None:
        """Run a command line as it is printed; what it says goes to the terminal."""
        await self._finish(command, await self._start(command))

    async def read(self, command: str) -> str:
        """What a command prints, with nothing of it on the terminal."""
        process = await self._start(command, stdout=asyncio.subprocess.PIPE, quiet=True)
        output, _ = await process.communicate()
        await self._finish(command, process)
        return output.decode()

    async def _start(
        self, command: str, stdout: int | None = None, quiet: bool = False
    ) -> asyncio.subprocess.Process:
        if not quiet:
            print(f"\n$ {command}", flush=True)
        return await asyncio.create_subprocess_shell(
            command, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, env=self.environment
        )

    async def _finish(self, command: str, process: asyncio.subprocess.Process) -> None:
        if status := await process.wait():
            raise DemoFailed(f"exit status {status}: {command}")

    @asynccontextmanager
    async def private_bus(self) -> AsyncIterator[None]:
        """A bus that only this demo is on: nothing of the machine's own buses is touched."""
        command = ["dbus-daemon", "--session", "--nofork", "--print-address=1"]
        print(f"\n$ dbus-daemon --session --fork --address={self.bus}")
        async with _running(
            [*command, f"--address={self.bus}"],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        ) as daemon:
            assert daemon.stdout is not None
            async with asyncio.timeout(PATIENCE):
                await daemon.stdout.readline()  # the address: it listens
            print(f"$ export MVIRT_ZFS_BUS={self.bus}")
            yield

    @asynccontextmanager
    async def service(self) -> AsyncIterator[None]:
        """The service, from the moment it says that it is ready, as systemd waits for it."""
        self.disks.mkdir()
        arguments = ["--directory", str(self.disks), "--bus", self.bus]
        arguments += ["--state-directory", str(self.folder / "state")]
        print(f"$ mvirt-zfs-dbus {shlex.join(arguments)} &", flush=True)
        with _notify_socket(self.folder / "notify") as ready, self._log().open("wb") as log:
            environment = {**self.environment, "NOTIFY_SOCKET": str(self.folder / "notify")}
            program = str(BIN / "mvirt-zfs-dbus")
            async with _running([program, *arguments], stderr=log, env=environment) as service:
                await self._wait_until_ready(ready, service)
                yield
            if service.returncode:
                raise DemoFailed(f"the service ended with exit status {service.returncode}")

    async def _wait_until_ready(
        self, ready: socket.socket, service: asyncio.subprocess.Process
    ) -> None:
        notified = asyncio.ensure_future(_read_until_ready(ready))
        ended = asyncio.ensure_future(service.wait())
        try:
            await asyncio.wait(
                (notified, ended), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if not notified.done():
                raise DemoFailed("the service did not start")
        finally:
            notified.cancel()
            ended.cancel()

    def _log(self) -> Path:
        return self.folder / "service.log"

    def log(self) -> str:
        """The last lines the service logged."""
        lines = self._log().read_text().splitlines() if self._log().exists() else []
        return "\n".join(lines[-20:])


@asynccontextmanager
async def _running(
    command: list[str], **options: object
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is asked to end when the block is left, and has to end well."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the demo's to handle
        **options,  # type: ignore[arg-type]
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise DemoFailed(f"{command[0]} did not end within {PATIENCE} s") from None


def _notify_socket(path: Path) -> socket.socket:
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.setblocking(False)
    ready.bind(str(path))
    return ready


async def _read_until_ready(ready: socket.socket) -> None:
    """sd_notify(3): a datagram of lines, one of them READY=1."""
    loop = asyncio.get_running_loop()
    while b"READY=1" not in (await loop.sock_recv(ready, 4096)).splitlines():
        pass
