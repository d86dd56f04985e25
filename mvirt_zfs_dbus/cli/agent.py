"""polkit's questions on the terminal: pkttyagent(1), started as systemctl(1) starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def password_agent() -> Iterator[None]:
    """Let polkit ask on this terminal, unless the session has an agent of its own.

    Root is asked nothing, and where there is no terminal nobody can be.
    """
    if os.geteuid() == 0 or not sys.stdin.isatty():
        yield
        return
    agent = _started()
    try:
        yield
    finally:
        if agent:
            agent.terminate()
            agent.wait()


def _started() -> subprocess.Popen[bytes] | None:
    """The agent, once it is registered; pkttyagent closes the fd it is given then."""
    ready, theirs = os.pipe()
    try:
        return subprocess.Popen(
            ["pkttyagent", "--notify-fd", str(theirs), "--fallback"], pass_fds=[theirs]
        )
    except FileNotFoundError:  # without polkit nobody will ask
        return None
    finally:
        os.close(theirs)
        os.read(ready, 1)
        os.close(ready)
