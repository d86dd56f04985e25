"""A real sshd on loopback with keys of its own, as the other machine of ``--host``."""

from __future__ import annotations

import asyncio
import getpass
import os
import shlex
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ports import held_ports

_SSHD = "/usr/sbin/sshd"
_PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Where sshd insists on it when root starts it; Debian's unit makes it."""


@dataclass(frozen=True)
class Machine:
    """Who runs ``ssh`` with this ``environment`` can log in at ``host``."""

    host: str
    environment: Mapping[str, str]
    bridge: Path
    """The systemd-stdio-bridge that a login finds."""


@asynccontextmanager
async def machine_with(bus_address: str, folder: Path) -> AsyncIterator[Machine]:
    """A machine whose system bus is the one at this address."""
    ours, theirs = folder / "our-bin", folder / "their-bin"
    bridge = _program(
        theirs / "systemd-stdio-bridge",
        f'exec /usr/bin/systemd-stdio-bridge --bus-path={shlex.quote(bus_address)} "$@"',
    )
    for key in ("host-key", "user-key"):
        await _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
    _program(ours / "ssh", f'exec /usr/bin/ssh -F {folder}/ssh-config -o BatchMode=yes "$@"')
    environment = os.environ | {"PATH": f"{ours}:{os.environ['PATH']}", "TERM": "xterm"}
    with held_ports(1) as [port]:
        public = (folder / "host-key.pub").read_text()
        (folder / "known-hosts").write_text(f"[127.0.0.1]:{port} {public}")
        (folder / "ssh-config").write_text(
            f"IdentityFile {folder}/user-key\n"
            f"IdentitiesOnly yes\nUserKnownHostsFile {folder}/known-hosts\n"
        )
        async with _sshd(folder, port, path=f"{theirs}:/usr/bin:/bin"):
            yield Machine(f"{getpass.getuser()}@127.0.0.1:{port}", environment, bridge)


@asynccontextmanager
async def _sshd(folder: Path, port: int, path: str) -> AsyncIterator[None]:
    configuration = folder / "sshd-config"
    configuration.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host-key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user-key.pub\nStrictModes no\nPermitRootLogin yes\n"
        f"PasswordAuthentication no\nUsePAM no\nSetEnv PATH={path}\n"
    )
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        _SSHD, "-D", "-e", "-f", configuration, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr
        said = ""
        while "Server listening" not in said:
            line = (await process.stderr.readline()).decode()
            assert line, f"sshd does not start: {said}"
            said += line
        log = asyncio.create_task(process.stderr.read())
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    await log


def _program(path: Path, line: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


async def _run(*command: str | Path) -> None:
    program = shutil.which(command[0])
    assert program, f"{command[0]} is missing"
    process = await asyncio.create_subprocess_exec(program, *command[1:])
    assert await process.wait() == 0
