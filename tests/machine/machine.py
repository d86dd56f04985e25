"""One test machine: start it, run commands in it, cut its power, stop it.

Its state is a directory under build/machine/, so that it outlives the process that started it:
disks, the pid of qemu, the port of ssh, and what the guest said (console.log, journal.log).
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.machine import checkout, qemu
from tests.machine.image import Image
from tests.ports import held_ports

CHECKOUT = Path(__file__).parents[2]
GUEST_CHECKOUT = "/root/mvirt"
BOOT_SECONDS = 300  # 20 under emulation on 2 idle cores
STOP_SECONDS = 60
SSH_FAILED = 255
EXTRA_DISKS = {"pool": 16 << 30, "spare": 2 << 30}  # bytes, sparse


class MachineError(Exception):
    """The machine does not do what it must; the message has the last lines it said."""


class Machine:
    def __init__(self, name: str, processors: int = 1) -> None:
        self.processors = processors
        self.directory = CHECKOUT / "build" / "machine" / name
        self._pid = self.directory / "qemu.pid"

    # Life

    def start(self, image: Image) -> float:
        """Boots a new machine with an empty pool; the seconds that took."""
        if self.running():
            raise MachineError(f"{self.directory.name} runs already (pid {self._pid.read_text()})")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        for file in (image.kernel, image.initrd, image.ssh_key, image.known_hosts):
            shutil.copy(file, self.directory / file.name)
        command = ["cp", "--sparse=always", "--reflink=auto"]
        subprocess.run([*command, image.disk, self.directory / "root.img"], check=True)
        for name, size in EXTRA_DISKS.items():
            with (self.directory / f"{name}.img").open("wb") as disk:
                disk.truncate(size)
        return self.boot()

    def boot(self) -> float:
        """Boots from the disks as they are; the seconds that took."""
        began = time.monotonic()
        names = ["root", *EXTRA_DISKS]
        disks = [qemu.Disk(name, self.directory / f"{name}.img") for name in names]
        kernel = qemu.Kernel(self.directory / "vmlinuz", self.directory / "initrd.img")
        reading, writing = os.pipe()
        try:
            with held_ports(1) as [port]:
                (self.directory / "ssh_port").write_text(str(port))
                command = qemu.command(
                    kernel,
                    disks,
                    accelerator=qemu.accelerator(kernel),
                    console=self.directory / "console.log",
                    journal=self.directory / "journal.log",
                    status=writing,
                    ssh_port=port,
                    processors=self.processors,
                )
                command += ["-daemonize", "-pidfile", str(self._pid)]
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, pass_fds=[writing], check=False
                )
        finally:
            os.close(writing)
        if done.returncode:
            os.close(reading)
            raise self.error(f"qemu does not start: it ended with {done.returncode}")
        try:
            self._await_ready(reading)
        except BaseException:
            self.cut_power()
            raise
        finally:
            os.close(reading)
        return time.monotonic() - began

    def _await_ready(self, status: int) -> None:
        """Waits for the line the guest writes when it is up, or for the end of qemu."""
        deadline = time.monotonic() + BOOT_SECONDS
        said = b""
        while not said.endswith(b"\n"):
            readable, _, _ = select.select([status], [], [], max(0, deadline - time.monotonic()))
            if not readable:
                raise self.error(f"the machine is not up after {BOOT_SECONDS} s")
            received = os.read(status, 4096)
            if not received:
                raise self.error("qemu ended before the machine was up")
            said += received
        if said != b"ready\n":
            raise self.error(f"the machine came up without {said.decode().strip()}")

    def running(self) -> bool:
        """Whether the qemu of this machine lives (and not another process of its number)."""
        try:
            command = Path(f"/proc/{int(self._pid.read_text())}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        return f"{self.directory}/root.img".encode() in command

    def cut_power(self) -> None:
        """Kills qemu: what the guest had not written is lost. `boot` starts it again."""
        self._close_ssh()
        self._end(wait=0)

    def stop(self) -> None:
        """Shuts the guest down, or cuts its power if it does not go by itself."""
        if not self.running():
            return
        with contextlib.suppress(MachineError, subprocess.TimeoutExpired):
            ssh = self._ssh("systemctl poweroff --no-block")
            subprocess.run(ssh, cwd=self.directory, timeout=STOP_SECONDS, check=False)
        self._close_ssh()
        self._end(wait=STOP_SECONDS)

    def _end(self, wait: float) -> None:
        """Waits for qemu to end by itself, then kills it."""
        if not self.running():
            return
        pid = int(self._pid.read_text())
        try:
            qemu_process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if not select.select([qemu_process], [], [], wait)[0]:
                signal.pidfd_send_signal(qemu_process, signal.SIGKILL)
                select.select([qemu_process], [], [])
        finally:
            os.close(qemu_process)

    # Commands

    def exec(self, command: list[str], *, tty: bool = False, timeout: float | None = None) -> int:
        """Runs a command in the guest's checkout as root; its exit status.

        A single word is a line for the shell, several are a program and its arguments.
        """
        line = command[0] if len(command) == 1 else shlex.join(command)
        enter = f"cd {GUEST_CHECKOUT} 2>/dev/null || cd /root"
        ssh = self._ssh(f"{enter}\n{line}", tty=tty)
        try:
            done = subprocess.run(ssh, cwd=self.directory, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as stuck:
            raise self.error(f"not done after {timeout:.0f} s: {line}") from stuck
        if done.returncode == SSH_FAILED:
            self._check_answers()
        return done.returncode

    def start_command(self, line: str) -> subprocess.Popen[str]:
        """Starts a line of shell whose output comes through a pipe; its input, too."""
        return subprocess.Popen(
            self._ssh(f"cd {GUEST_CHECKOUT}; {line}"),
            cwd=self.directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def output(self, line: str) -> str:
        """What a line of shell prints; MachineError unless it ends with 0."""
        with self.start_command(line) as command:
            printed, _ = command.communicate()
        if command.returncode:
            raise self.error(f"in the machine, status {command.returncode}: {line}\n{printed}")
        return printed.strip()

    def push(self) -> None:
        """Makes the guest's copy of the checkout what the checkout is now."""
        receive = f"mkdir -p {GUEST_CHECKOUT} && tar -C {GUEST_CHECKOUT} -xf - && " + (
            # What an earlier push brought and this one did not goes; caches stay.
            f"cd {GUEST_CHECKOUT} && touch .pushed.old && "
            "LC_ALL=C comm -z -23 .pushed.old .pushed | xargs -0r rm -f -- && "
            "mv .pushed .pushed.old && sync ."  # for the power may be cut
        )
        with self._pipe(receive, stdin=subprocess.PIPE) as ssh:
            assert ssh.stdin is not None
            checkout.write_tar(CHECKOUT, ssh.stdin)

    def give(self, files: list[Path], directory: str) -> None:
        """Copies files of the host's into a directory of the guest's."""
        with self._pipe(
            f"mkdir -p {directory} && tar -C {directory} -xf -", stdin=subprocess.PIPE
        ) as ssh:
            with tarfile.open(fileobj=ssh.stdin, mode="w|") as tar:
                for file in files:
                    tar.add(file, file.name)
            assert ssh.stdin is not None
            ssh.stdin.close()

    def pull(self, directory: str, to: Path) -> None:
        """Copies the files of a guest's directory into one of the host's."""
        to.mkdir(parents=True, exist_ok=True)
        with self._pipe(f"tar -C {directory} -cf - .", stdout=subprocess.PIPE) as ssh:
            subprocess.run(["tar", "-C", to, "-xf", "-"], stdin=ssh.stdout, check=True)

    @contextlib.contextmanager
    def _pipe(
        self, line: str, *, stdin: int | None = None, stdout: int | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        command = self._ssh(line)
        with subprocess.Popen(command, cwd=self.directory, stdin=stdin, stdout=stdout) as ssh:
            yield ssh
        if ssh.returncode == SSH_FAILED:
            self._check_answers()
        if ssh.returncode:
            raise MachineError(f"in the machine, status {ssh.returncode}: {line}")

    def _ssh(self, line: str, *, tty: bool = False) -> list[str]:
        """An ssh command, to be run in the machine's directory (a socket's path must be short)."""
        if not self.running():
            raise MachineError(f"machine {self.directory.name} does not run; `start` starts it")
        options = {
            "Port": (self.directory / "ssh_port").read_text(),
            "IdentityFile": "ssh_key",
            "UserKnownHostsFile": "known_hosts",
            "HostKeyAlias": "machine",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "30",
            "ServerAliveInterval": "20",
            "ServerAliveCountMax": "6",
            # One connection for all commands: under emulation, a key exchange takes a second.
            "ControlMaster": "auto",
            "ControlPath": "ssh.sock",
            "ControlPersist": "yes",
            "LogLevel": "ERROR",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", "-F", "none", *words, "-tt" if tty else "-T", "root@127.0.0.1", line]

    def _close_ssh(self) -> None:
        if self.running() and (self.directory / "ssh.sock").exists():
            command = ["ssh", "-F", "none", "-o", "ControlPath=ssh.sock", "-O", "exit", "machine"]
            subprocess.run(command, cwd=self.directory, stderr=subprocess.DEVNULL, check=False)

    def _check_answers(self) -> None:
        """ssh's own 255 may be the command's, too: then the machine still answers."""
        with contextlib.suppress(subprocess.TimeoutExpired, MachineError):
            ssh = self._ssh("true")
            if subprocess.run(ssh, cwd=self.directory, timeout=60, check=False).returncode == 0:
                return
        raise self.error("the machine does not answer any more")

    # What it said

    def error(self, message: str) -> MachineError:
        """The error to raise, with the last lines that the machine said."""
        tails = [self._tail(name) for name in ("console.log", "journal.log")]
        return MachineError("\n".join([message, *filter(None, tails)]))

    def _tail(self, name: str, lines: int = 40) -> str:
        try:
            text = (self.directory / name).read_bytes()[-20_000:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        last = text.splitlines()[-lines:]
        return "\n".join([f"--- the last lines of {name}", *last]) if last else ""
