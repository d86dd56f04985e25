"""Where messages begin and end, seen as the D-Bus library sees it, on a real socket."""

from __future__ import annotations

import array
import gc
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_fds import open_fds

from mvirt_zfs_dbus.bus.framing import _CHUNK, Framing, LargeMessage
from mvirt_zfs_dbus.bus.library import Message, MessageFlag, MessageType, Variant


def close_fds(fds: Iterable[int]) -> None:
    """At once, as the service's does not."""
    for fd in fds:
        os.close(fd)


LARGEST = 4096


@pytest.fixture(scope="module", autouse=True)
def no_garbage() -> None:
    """Else what the tests of other files left may be closed while these look at what is open."""
    gc.collect()


@dataclass(frozen=True)
class Sent:
    serial: int
    kind: MessageType
    size: int
    fds: int
    quiet: bool
    sender: str

    @property
    def data(self) -> bytes:
        message = Message(
            message_type=self.kind,
            path="/a/path",
            interface="org.example.A",
            member="Member",
            sender=self.sender,
            reply_serial=1,
            error_name="org.example.Error",
            signature="sv",
            body=["x" * self.size, Variant("u", 7)],
            flags=MessageFlag.NO_REPLY_EXPECTED if self.quiet else MessageFlag.NONE,
            serial=self.serial,
        )
        return with_sender(bytes(message._marshall(False)), self.sender)

    @property
    def too_large(self) -> bool:
        limited = self.kind in (MessageType.METHOD_CALL, MessageType.SIGNAL)
        return limited and len(self.data) > LARGEST


def with_sender(data: bytes, sender: str) -> bytes:
    """What a bus adds: a header field, behind the others."""
    (length,) = struct.unpack_from("<I", data, 12)
    fields, body = data[16 : 16 + length], data[16 + length + -length % 8 :]
    fields += bytes(-length % 8) + b"\x07\x01s\0" + struct.pack("<I", len(sender))
    fields += sender.encode() + b"\0"
    return data[:12] + struct.pack("<I", len(fields)) + fields + bytes(-len(fields) % 8) + body


messages = st.lists(
    st.builds(
        Sent,
        serial=st.integers(1, 2**32 - 1),
        kind=st.sampled_from(list(MessageType)),
        size=st.one_of(
            st.integers(0, 300), st.integers(0, 2 * LARGEST), st.integers(0, 3 * _CHUNK)
        ),
        fds=st.integers(0, 3),
        quiet=st.booleans(),
        sender=st.sampled_from([":1.1", ":1.22", ":1.333"]),
    ),
    max_size=12,
)


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Library:
    """Reads as both D-Bus libraries do: 16 bytes, then what they announce; resumes after EAGAIN."""

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.data = b""
        self.fds: list[int] = []
        self.read: list[tuple[bytes, list[int]]] = []

    def read_all(self) -> None:
        blocked = 0
        while blocked < 3:  # a large message gives way after each piece
            try:
                self.read_one()
                blocked = 0
            except BlockingIOError:
                blocked += 1

    def read_one(self) -> None:
        self.read_to(16)
        fields, body = (int.from_bytes(self.data[at : at + 4], "little") for at in (12, 4))
        self.read_to(16 + fields + -fields % 8 + body)
        self.read.append((self.data, self.fds))
        self.data, self.fds = b"", []

    def read_to(self, size: int) -> None:
        while len(self.data) < size:
            data, control, *_ = self.framing.recvmsg(size - len(self.data))
            if not data:
                raise EOFError
            self.data += data
            for _, _, numbers in control:
                self.fds += array.array("i", numbers)


def write(theirs: socket.socket, message: Sent, cuts: list[int]) -> None:
    """Fds go with the first byte, as every bus sends them; the rest may come in pieces."""
    with Path(os.devnull).open() as null:
        control = array.array("i", [null.fileno()] * message.fds)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, control)] if message.fds else []
        places = sorted({0, *(cut % len(message.data) for cut in cuts), len(message.data)})
        for start, end in itertools.pairwise(places):
            theirs.sendmsg([message.data[start:end]], ancillary)
            ancillary = []


@settings(deadline=None, max_examples=60)
@given(messages, st.lists(st.integers(0, 10**6), max_size=3), st.booleans())
def test_the_library_gets_every_message_that_is_not_too_large_with_its_own_fds(
    sent: list[Sent], cuts: list[int], often: bool
) -> None:
    large: list[LargeMessage] = []
    gc.collect()  # what earlier tests left closes nothing from here on
    before = open_fds()
    with pair() as (ours, theirs):
        framing = Framing(ours, lambda: True, close_fds)
        framing.limit(LARGEST, large.append)
        library = Library(framing)
        for message in sent:
            write(theirs, message, cuts)
            if often:
                library.read_all()
        library.read_all()
        for _, fds in library.read:
            for fd in fds:
                os.close(fd)
    whole = [(message.data, message.fds) for message in sent if not message.too_large]
    assert [(data, len(fds)) for data, fds in library.read] == whole
    assert [(m.serial, m.sender, m.size, m.kind) for m in large] == [
        (m.serial, m.sender, len(m.data), m.kind.value) for m in sent if m.too_large
    ]
    assert open_fds() == before


@settings(deadline=None, max_examples=60)
@given(messages)
def test_of_a_flood_only_calls_that_want_no_answer_go_by_unread(sent: list[Sent]) -> None:
    flooding = ":1.22"
    with pair() as (ours, theirs):
        framing = Framing(ours, lambda: True, close_fds)
        framing.pass_over(flooding, seconds=3600)
        library = Library(framing)
        for message in sent:
            write(theirs, replace(message, size=10, fds=0), [])
        library.read_all()
    read = [int.from_bytes(data[8:12], "little") for data, _ in library.read]
    assert read == [
        m.serial
        for m in sent
        if not (m.quiet and m.sender == flooding and m.kind is MessageType.METHOD_CALL)
    ]


def test_a_flood_is_read_again_after_a_while() -> None:
    with pair() as (ours, theirs):
        framing = Framing(ours, lambda: True, close_fds)
        framing.pass_over(":1.22", seconds=0)
        library = Library(framing)
        write(theirs, Sent(1, MessageType.METHOD_CALL, 1, 0, True, ":1.22"), [])
        library.read_all()
    assert len(library.read) == 1


def test_a_turn_ends_when_it_has_had_its_share_and_nothing_is_lost() -> None:
    may_read = True
    with pair() as (ours, theirs):
        framing = Framing(ours, lambda: may_read, close_fds)
        library = Library(framing)
        for serial in range(1, 200):
            write(theirs, Sent(serial, MessageType.METHOD_CALL, 30, 0, False, ":1.1"), [])
        library.read_one()
        may_read = False
        library.read_all()
        in_one_read = len(library.read)
        may_read = True
        library.read_all()
    assert 1 < in_one_read < 100
    assert len(library.read) == 199


def test_the_end_of_the_connection_is_seen_in_the_middle_of_a_large_message() -> None:
    with pair() as (ours, theirs):
        framing = Framing(ours, lambda: True, close_fds)
        framing.limit(LARGEST, lambda large: None)
        library = Library(framing)
        theirs.sendall(Sent(1, MessageType.METHOD_CALL, 2 * LARGEST, 0, False, ":1.1").data[:-1])
        theirs.close()
        try:
            library.read_all()
            library.read_all()
        except EOFError:
            return
    raise AssertionError("the end was not seen")
