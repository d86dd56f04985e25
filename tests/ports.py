"""Ports of loopback for servers that have to be told theirs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """So many free ports, which the kernel gives to nobody else until the end.

    They are bound here, with SO_REUSEADDR. Who sets that too (nginx, sshd and qemu do) may bind
    one and listen on it, as nobody listens yet (socket(7)); who asks for any free port gets
    another.
    """
    with ExitStack() as stack:
        ports = []
        for _ in range(count):
            held = stack.enter_context(socket.socket())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            ports.append(held.getsockname()[1])
        yield ports
