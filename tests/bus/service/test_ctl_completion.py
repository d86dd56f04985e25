"""Completion in real shells, with names of a running service."""

from __future__ import annotations

import asyncio
import shlex
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from .ctl import Ctl
from .terminal import terminal

START_OF_LINE = "\x01"


@pytest.fixture
async def shell(ctl: Ctl, tmp_path: Path) -> Mapping[str, str]:
    """The environment of a shell that finds mvirt-zfsctl, with two volumes and a snapshot."""
    program = tmp_path / "mvirt-zfsctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mvirt_zfs_dbus.cli.main "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    await ctl("volume", "create", "web-1", "1M")
    await ctl("volume", "create", "web:2@x", "1M")
    await ctl("snapshot", "create", "web-1", "fresh")
    path = f"{tmp_path}:{ctl.environment['PATH']}"
    return ctl.environment | {"PATH": path, "HOME": str(tmp_path), "PS1": "$ "}


async def output(environment: Mapping[str, str], *command: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode().splitlines()


async def in_bash(environment: Mapping[str, str], line: str) -> list[str]:
    """What bash offers: its function is called as readline would call it."""
    script = f"""
        source <(mvirt-zfsctl completion bash)
        COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
        compopt() {{ echo "compopt $*"; }}
        _mvirt_zfsctl mvirt-zfsctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return [word for word in await output(environment, "bash", "-c", script) if word]


async def test_bash_completes_commands_options_names_and_files(shell: Mapping[str, str]) -> None:
    assert await in_bash(shell, "mvirt-zfsctl snap") == ["snapshot"]
    assert await in_bash(shell, "mvirt-zfsctl volume delete --sn") == ["--snapshots"]
    assert await in_bash(shell, "mvirt-zfsctl volume show web-") == ["web-1"]
    assert await in_bash(shell, "mvirt-zfsctl snapshot rollback web-1 ") == ["fresh"]
    assert await in_bash(shell, "mvirt-zfsctl import x ") == ["compopt -o default"]


async def test_bash_gets_only_what_it_replaces_of_a_name_it_cuts(shell: Mapping[str, str]) -> None:
    assert await in_bash(shell, "mvirt-zfsctl volume show web:") == ["2@x"]
    assert await in_bash(shell, "mvirt-zfsctl volume show web:2@") == ["x"]


async def test_fish_completes_with_descriptions(shell: Mapping[str, str]) -> None:
    async def offered(line: str) -> list[str]:
        script = f"mvirt-zfsctl completion fish | source; complete -C {shlex.quote(line)}"
        return await output(shell, "fish", "--no-config", "-c", script)

    names = await offered("mvirt-zfsctl volume show web")
    assert sorted(names) == ["web-1\t1 MiB", "web:2@x\t1 MiB"]
    assert await offered("mvirt-zfsctl snapshot delete web-1 ") == ["fresh\tof web-1"]
    assert await offered("mvirt-zfsctl volume del") == ["delete\tdestroy a volume and its data"]
    assert "/etc/passwd" in await offered("mvirt-zfsctl import x /etc/passw")


async def test_zsh_completes_on_the_tab_key(shell: Mapping[str, str]) -> None:
    async with terminal("zsh", "-f", "-i", environment=shell) as shown:
        await shown.type(
            "PS1='$ '; autoload -U compinit; compinit -u -D; "
            "source <(mvirt-zfsctl completion zsh); echo rea''dy\n"
        )
        await shown.until("ready")
        await shown.type("mvirt-zfsctl snapshot rollback web-\tf\t--destroy\t")
        await shown.type(f"{START_OF_LINE}echo \n")
        await shown.until("\nmvirt-zfsctl snapshot rollback web-1 fresh --destroy-newer")
