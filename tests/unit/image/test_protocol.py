"""What comes from a worker is a message, or an error; it is never guessed at."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_fds import open_fds

from mvirt_zfs_dbus.errors import Error
from mvirt_zfs_dbus.image import channel, protocol

text = st.text(max_size=50)
number = st.integers(0, 2**63 - 1)
messages = st.one_of(
    st.builds(protocol.Open, text, st.none() | text, st.none() | number),
    st.builds(protocol.Image, text, st.none() | number, st.none() | number),
    st.builds(protocol.Write, number, st.booleans()),
    st.builds(protocol.Report, text, number, number),
    st.builds(protocol.Failure, text, text),
    st.builds(protocol.Exited, number),
    st.just(protocol.NeedSpool()),
)


@pytest.fixture
def pair():
    ours, theirs = channel.pair()
    with ours, theirs:
        yield ours, theirs


@settings(deadline=None)
@given(messages)
def test_every_message_arrives_as_it_was_sent(message):
    assert protocol.decode(protocol.encode(message)) == message


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_an_error(data):
    with pytest.raises(Error):
        protocol.decode(data)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "unknown type"),
        ({"type": "Message"}, "unknown type"),
        ({"type": ["Write"]}, "unknown type"),
        ({"type": "Rm"}, "unknown type 'Rm'"),
        ({"type": "Write", "size": 1}, "wrong fields"),
        ({"type": "Write", "size": 1, "is_zero": True, "more": 1}, "wrong fields"),
        ({"type": "Write", "size": "1", "is_zero": True}, "wrong fields"),
        ({"type": "Write", "size": True, "is_zero": True}, "wrong fields"),
        ({"type": "Write", "size": -1, "is_zero": True}, "wrong fields"),
        ({"type": "Write", "size": 2**63, "is_zero": True}, "wrong fields"),
        ({"type": "Write", "size": 1.0, "is_zero": True}, "wrong fields"),
        ({"type": "Failure", "name": None, "message": ""}, "wrong fields"),
        ([1], "no message"),
    ],
)
def test_a_message_with_anything_wrong_is_an_error(values, says):
    with pytest.raises(Error, match=says):
        protocol.decode(json.dumps(values).encode())


def test_nested_beyond_all_measure_is_an_error():
    with pytest.raises(Error, match="no message"):
        protocol.decode(b"[" * 60000)


def test_a_message_that_does_not_fit_a_frame_is_not_sent():
    with pytest.raises(Error, match="too long"):
        protocol.encode(protocol.Failure("x", "y" * protocol.MAX_FRAME))


def test_a_frame_that_is_too_long_is_an_error(pair):
    ours, theirs = pair
    theirs.send(b"{" * (protocol.MAX_FRAME + 1))
    with pytest.raises(Error, match="more than 65536 bytes"):
        channel.receive(ours)


def test_file_descriptors_travel_with_the_message(pair):
    ours, theirs = pair
    with Path("/etc/hostname").open("rb") as file:
        channel.send(theirs, protocol.Spool(), [file.fileno()])
        _, (fd,) = channel.receive(ours)
        assert os.path.sameopenfile(fd, file.fileno())
        assert not os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.parametrize("count", [0, 2, 4, 10])
def test_another_number_of_file_descriptors_is_an_error_and_leaves_none_open(pair, count):
    ours, theirs = pair
    before = open_fds()
    socket.send_fds(theirs, [protocol.encode(protocol.Spool())], [0] * count)
    with pytest.raises(Error, match="file descriptors in place of 1"):
        channel.receive(ours)
    assert open_fds() == before


def test_a_closed_end_is_the_end(pair):
    ours, theirs = pair
    theirs.close()
    with pytest.raises(EOFError):
        channel.receive(ours)


def test_an_end_that_closed_without_reading_is_the_end(pair):
    ours, theirs = pair
    channel.send(ours, protocol.NeedSpool())
    theirs.close()
    with pytest.raises(EOFError):
        channel.receive(ours)


def test_an_unexpected_message_is_an_error_and_leaves_no_descriptor_open(pair):
    ours, theirs = pair
    before = open_fds()
    channel.send(theirs, protocol.Spool(), [0])
    with pytest.raises(Error, match="Write was expected, Spool came"):
        channel.Connection(ours).expect(protocol.Write)
    assert open_fds() == before


async def test_the_daemons_end_waits_without_blocking(pair):
    ours, theirs = pair
    connection = channel.AsyncConnection(ours)
    waiting = asyncio.create_task(connection.receive())
    await asyncio.sleep(0)
    channel.send(theirs, protocol.NeedSpool())
    assert await waiting == (protocol.NeedSpool(), [])


async def test_the_daemons_end_waits_for_room(pair):
    ours, theirs = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = channel.AsyncConnection(ours)
    sent = 0

    async def flood():
        nonlocal sent
        while sent < 2000:
            await connection.send(protocol.Failure("x", "y" * 1000))
            sent += 1

    flooding = asyncio.create_task(flood())
    await asyncio.sleep(0)
    assert sent < 2000
    for _ in range(2000):
        await asyncio.to_thread(channel.receive, theirs)
    await flooding


async def test_a_cancelled_wait_leaves_nothing_on_the_loop(pair):
    ours, _ = pair
    connection = channel.AsyncConnection(ours)
    waiting = asyncio.create_task(connection.receive())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not asyncio.get_running_loop().remove_reader(ours)
