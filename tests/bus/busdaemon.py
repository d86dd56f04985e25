"""A real dbus-daemon of one's own, set up as a system bus that lets everybody do everything."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:tmpdir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
{limits}</busconfig>
"""
_GENEROUS = '  <limit name="max_replies_per_connection">50000</limit>'
"""A system bus has 128 of them."""


def remove_socket(address: str) -> None:
    """dbus-daemon leaves it behind, in /tmp, where clients of all users can reach it."""
    Path(address.partition("path=")[2].partition(",")[0]).unlink(missing_ok=True)


class BusDaemon:
    """Runs until ``stop`` or ``kill``; ``pause`` makes it a bus that reads nothing."""

    def __init__(self, folder: Path, *, real_limits: bool = False) -> None:
        """``real_limits``: those of a system bus, which are too narrow for tests that pipeline."""
        configuration = folder / "bus.conf"
        limits = "" if real_limits else _GENEROUS
        configuration.write_text(_CONFIGURATION.format(limits=limits))
        self._log = (folder / "bus.log").open("wb")
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address"],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._process.stdout
        self.address = self._process.stdout.readline().decode().strip()
        self.pid = self._process.pid
        if not self.address:
            raise RuntimeError((folder / "bus.log").read_text())

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            self.resume()
            self._process.send_signal(number)
            self._process.wait()
        remove_socket(self.address)
        assert self._process.stdout
        self._process.stdout.close()
        self._log.close()
