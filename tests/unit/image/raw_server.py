"""An HTTP server that sends exactly the bytes it is told to, however wrong they are."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    """By names in small letters."""

    @property
    def start(self) -> int:
        """Where the range that is asked for begins."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def request(self) -> Request:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.split("\r\n")[:-2]
        pairs = (field.partition(":") for field in fields)
        return Request(line, {name.lower(): value.strip() for name, _, value in pairs})

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait_for_the_end(self) -> None:
        """Until the client has gone."""
        while await self._reader.read(1 << 16):
            pass

    def reset(self) -> None:
        """RST in place of FIN: what the client has not read yet is lost."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


Answer = Callable[[Connection, Request], Awaitable[None]]


def head(status: int | str, **fields: object) -> bytes:
    """A status line and fields, whose underscores are written as hyphens."""
    lines = [f"HTTP/1.1 {status}" + ("" if " " in str(status) else " So it is")]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def says(data: bytes) -> Answer:
    """Sends these bytes and ends the connection."""

    async def answer(connection: Connection, _: Request) -> None:
        await connection.send(data)

    return answer


class RawServer:
    """The n-th connection gets the n-th answer, and all further ones the last."""

    def __init__(self, *answers: Answer | bytes) -> None:
        self.answers = [says(each) if isinstance(each, bytes) else each for each in answers]
        self.requests: list[Request] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            request = await connection.request()
            self.requests.append(request)
            answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
            await answer(connection, request)
        writer.close()


@contextlib.asynccontextmanager
async def raw_server(
    *answers: Answer | bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawServer]:
    server = RawServer(*answers)
    connections: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append((asyncio.create_task(server.handle(reader, writer)), writer))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listening.close()
        for task, writer in connections:
            task.cancel()
            await asyncio.wait([task])
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
