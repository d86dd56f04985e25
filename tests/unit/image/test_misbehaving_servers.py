"""Servers that break HTTP in every way: a download is whole, or it is an error that says why."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_fds import open_fds

from mvirt_zfs_dbus.errors import DownloadFailed, Error, Truncated
from mvirt_zfs_dbus.image.download import download

from .raw_server import Connection, RawServer, Request, head, raw_server
from .test_download import fetched

BODY = random.Random(4).randbytes(300_000)
WHOLE = head(200, Content_Length=len(BODY), ETag='"one"') + BODY


async def get(server: RawServer, path: str = "/image", **options) -> bytes:
    return (await fetched(server.url + path, **{"retry_delay": 0.001, **options}))[0]


async def refused(answer: bytes, error: type[Error] = DownloadFailed) -> str:
    """What is said of a server that answers this, having been asked once."""
    async with raw_server(answer) as server:
        with pytest.raises(error) as caught:
            await get(server)
        assert len(server.requests) == 1
        return str(caught.value)


def part(start: int, end: int = len(BODY), **fields: object) -> bytes:
    """A right answer to a request for the bytes from ``start``; it may be told not to be."""
    told = {
        "Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}",
        "Content_Length": len(BODY) - start,
        "ETag": '"one"',
    }
    return head(206, **told | fields) + BODY[start:end]


# Connections that end


async def test_a_server_that_dies_at_every_byte_of_its_answer_costs_no_byte_of_the_body():
    body = bytes(range(40))
    first = head(200, Content_Length=len(body), ETag='"one"') + body
    for end in range(len(first)):

        async def rest(connection: Connection, request: Request) -> None:
            start = request.start
            told = f"bytes {start}-{len(body) - 1}/{len(body)}"
            answer = head(206, Content_Range=told, Content_Length=len(body) - start, ETag='"one"')
            await connection.send(answer + body[start:] if start else first)

        async with raw_server(first[:end], rest) as server:
            assert await get(server) == body
            assert len(server.requests) == 2


async def test_resets_at_random_places_cost_no_byte_of_the_body():
    places = random.Random(11)

    async def flaky(connection: Connection, request: Request) -> None:
        start = request.start
        end = start + places.randrange(60_000)
        await connection.send(part(start, end) if start else WHOLE[: end + 60])
        if end < len(BODY):
            # The kernel throws away what the client has not read when it is reset.
            await asyncio.sleep(places.choice([0, 0.002]))
            connection.reset()

    for _ in range(15):
        async with raw_server(flaky) as server:
            assert await get(server) == BODY


async def test_a_body_without_a_length_is_resumed_to_its_end():
    chunked = head(200, Transfer_Encoding="chunked", ETag='"one"')
    first = chunked + b"%x\r\n" % 1000 + BODY[:1000] + b"\r\n"

    async def rest(connection: Connection, request: Request) -> None:
        assert request.headers["if-range"] == '"one"'
        # First only some of what is left: the length of the whole is known by now.
        end = 5000 if request.start == 1000 else len(BODY)
        told = f"bytes {request.start}-{end - 1}/{len(BODY)}"
        await connection.send(
            part(request.start, end, Content_Range=told, Content_Length=end - request.start)
        )

    async with raw_server(first, rest) as server:
        assert await get(server) == BODY
        assert [request.start for request in server.requests] == [0, 1000, 5000]


async def test_a_body_whose_end_nobody_can_tell_is_taken_with_a_checksum_alone():
    async with raw_server(head(200) + BODY) as server:
        assert await get(server, checked_later=True) == BODY
    assert "give the checksum" in await refused(head(200) + BODY)
    assert "give the checksum" in await refused(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)


# Answers to ask again after, or not


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_server_that_is_busy_for_a_moment_is_asked_again(status):
    busy = head(status, Content_Length=0)
    async with raw_server(busy, busy, busy, busy, busy, WHOLE) as server:
        assert await get(server) == BODY
    async with raw_server(busy) as server:
        with pytest.raises(DownloadFailed, match=f"the server answered {status} So it is"):
            await get(server)
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    "status", [201, 204, 206, 300, 304, 400, 401, 403, 404, 410, 416, 451, 501]
)
async def test_a_server_that_says_no_is_not_asked_again(status):
    assert f"the server answered {status}" in await refused(head(status, Content_Length=0))


async def test_a_server_may_say_how_long_to_wait():
    async with raw_server(head(503, Content_Length=0, Retry_After=1), WHOLE) as server:
        loop = asyncio.get_running_loop()
        before = loop.time()
        assert await get(server) == BODY
        assert loop.time() - before >= 1


async def test_a_file_that_changes_before_its_first_byte_comes_is_noticed():
    async with raw_server(head(200, Content_Length=10), WHOLE) as server:
        with pytest.raises(DownloadFailed, match=f"had 10 bytes, and now it has {len(BODY)}"):
            await get(server)


# Answers to a request for the rest


FIRST = WHOLE[: WHOLE.index(BODY) + 941]


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (WHOLE, "the server would not go on from there"),
        (head(200, Content_Length=len(BODY), ETag='"two"') + BODY, "the server had another file"),
        (head(404, Content_Length=0), "the server answered 404"),
        (head(416, Content_Range="bytes */5", Content_Length=0), "the server answered 416"),
        (part(0), "in place of byte"),
        (part(941, Content_Range="bytes 940-299999/300000"), "in place of byte"),
        (part(941, Content_Range="bytes 941-299999/300001"), "of 300000 bytes"),
        (part(941, ETag='"two"'), 'the file was "one" and is now \'"two"\''),
        (part(941, Content_Encoding="gzip"), r"encoded \(gzip\)"),
        (head(206, Content_Type="multipart/byteranges; boundary=x"), "the server resumed at ''"),
        (part(941, Content_Length=len(BODY)) + b"x" * 941, f"sent more than {len(BODY)} bytes"),
    ],
)
async def test_what_is_not_the_rest_of_the_same_file_is_refused(rest, said):
    async with raw_server(FIRST, rest) as server:
        with pytest.raises(DownloadFailed, match=said):
            await get(server)
        assert len(server.requests) == 2
        assert server.requests[1].start == 941


async def test_what_can_be_told_from_another_file_by_its_date_is_resumed_and_checked_by_it():
    dates = {"Last_Modified": "Sun, 22 Nov 2026 09:00:00 GMT", "ETag": ""}
    first = head(200, Content_Length=len(BODY), Date="Mon, 23 Nov 2026 09:00:00 GMT", **dates)
    async with raw_server(first + BODY[:941], part(941, **dates)) as server:
        assert await get(server) == BODY
        assert server.requests[1].headers["if-range"] == dates["Last_Modified"]
    other = part(941, Last_Modified="Mon, 23 Nov 2026 10:00:00 GMT", ETag="")
    async with raw_server(first + BODY[:941], other) as server:
        with pytest.raises(DownloadFailed, match="and is now 'Mon, 23 Nov 2026 10"):
            await get(server)


# Lengths and encodings


@pytest.mark.parametrize("length", ["-5", "5x", "0x5", "", "9" * 30, "5\r\nContent-Length: 6"])
async def test_a_length_that_is_none_is_refused(length):
    await refused(head(200, Content_Length=length) + b"hello")


async def test_a_length_no_file_has_is_refused():
    assert "which no file has" in await refused(head(200, Content_Length=2**63) + b"hello")


async def test_a_length_beside_chunks_is_refused():
    chunks = head(200, Content_Length=5, Transfer_Encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    await refused(chunks)


@pytest.mark.parametrize("body", [b"hello world", BODY + b"x" * 10])
async def test_a_body_longer_than_its_length_is_refused(body):
    await refused(head(200, Content_Length=len(body) - 1) + body)


async def test_a_body_longer_than_its_length_is_refused_when_its_end_comes_late():
    async def late(connection: Connection, _: Request) -> None:
        await connection.send(head(200, Content_Length=len(BODY)) + BODY[:-5])
        await asyncio.sleep(0.05)  # the client has read so much
        await connection.send(BODY[-5:] + b"more")

    async with raw_server(late) as server:
        with pytest.raises(DownloadFailed, match=f"sent more than {len(BODY)} bytes"):
            await get(server)


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-5\r\nhello\r\n", b"5\r\nhelloX", b"f" * 40])
async def test_chunks_that_are_none_are_refused(chunks):
    async with raw_server(head(200, Transfer_Encoding="chunked") + chunks) as server:
        with pytest.raises((DownloadFailed, Truncated)):
            await get(server)


@pytest.mark.parametrize(
    "fields",
    [
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": "br, identity"},
        {"Transfer_Encoding": "gzip, chunked"},
        {"Transfer_Encoding": "gzip"},
    ],
)
async def test_an_encoding_nobody_asked_for_is_refused(fields):
    assert "encoded (" in await refused(head(200, **fields) + b"5\r\nhello\r\n0\r\n\r\n")


# Time and memory


async def drip(connection: Connection, first: bytes, again: bytes, every: float) -> None:
    await connection.send(first)
    while True:
        await connection.send(again)
        await asyncio.sleep(every)


@pytest.mark.parametrize(
    ("first", "again", "every"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X", 0.02),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\n", b"X" * 10_000, 0),
        (b"", b"X", 0.02),
    ],
)
async def test_headers_without_end_are_given_up(first, again, every):
    async def answer(connection: Connection, _: Request) -> None:
        await drip(connection, first, again, every)

    async with raw_server(answer) as server, asyncio.timeout(30):
        with pytest.raises(DownloadFailed):
            await get(server, stall_timeout=0.5)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"5\r\nhello\r\n0\r\n", b"X: y\r\n"),  # trailers
        (b"5\r\nhello\r\n5;", b"x=y;"),  # an extension of a chunk
        (b"5\r\nhello\r\n", b""),
    ],
)
async def test_a_body_that_goes_on_without_a_byte_is_given_up(first, again):
    async def answer(connection: Connection, _: Request) -> None:
        await drip(connection, head(200, Transfer_Encoding="chunked") + first, again, 0.01)

    async with raw_server(answer) as server, asyncio.timeout(30):
        with pytest.raises((DownloadFailed, Truncated)):
            await get(server, stall_timeout=0.5)


async def test_a_slow_body_is_no_stalled_one(monkeypatch):
    """By a clock that goes on between two bytes alone, however long this process is stopped."""
    seconds = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: seconds)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    body = b""
    all_read = asyncio.Event()

    async def answer(connection: Connection, _: Request) -> None:
        nonlocal seconds, body
        await connection.send(head(200, Content_Length=40))
        for _ in range(40):
            seconds += 0.3
            await connection.send(b"x")
            body += await asyncio.to_thread(os.read, reading, 40)
        all_read.set()

    async with raw_server(answer) as server:
        try:
            await download(f"{server.url}/image", writing, lambda _: None, stall_timeout=0.4)
        finally:
            os.close(writing)
        await all_read.wait()  # the last byte may still be in the pipe
    os.close(reading)
    assert body == b"x" * 40


# Redirects


async def test_redirects_whose_own_bodies_never_end_are_followed_all_the_same():
    async def endless(connection: Connection, _: Request) -> None:
        await drip(connection, head(302, Location="/there", Content_Length=1 << 40), b"x", 0.01)

    async with raw_server(endless, WHOLE) as server:
        assert await get(server) == BODY
        assert [request.line for request in server.requests] == [
            "GET /image HTTP/1.1",
            "GET /there HTTP/1.1",
        ]


@pytest.mark.parametrize(
    "location", ["", "ftp://127.0.0.1/", "https:///x", "//[", "http://[::1/", "x:y"]
)
async def test_a_redirect_to_nowhere_is_refused(location):
    assert "only http and https are followed" in await refused(
        head(302, Location=location, Content_Length=0)
    )


@pytest.mark.parametrize(
    "location", ["http://a..b/x", "http://" + "a" * 64 + ".invalid/", "//\xff/"]
)
async def test_a_redirect_to_a_host_that_cannot_be_is_refused(location):
    await refused(head(302, Location=location, Content_Length=0))


# Secrets


async def test_no_password_of_a_netrc_file_is_used(tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    async with raw_server(WHOLE) as server:
        await get(server)
        assert "authorization" not in server.requests[0].headers


async def test_no_cookie_is_kept():
    first = head(302, Location="/there", Set_Cookie="a=b", Content_Length=0)
    async with raw_server(first, WHOLE) as server:
        await get(server)
        assert "cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense", head(404), head(302), head(200), head(200, Content_Length="x")],
)
async def test_no_error_tells_a_secret_of_the_url(answer):
    async with raw_server(answer) as server:
        server.url = server.url.replace("//", "//me:secret@")
        with pytest.raises(Error) as caught:
            await get(server, "/image?signature=secret#secret")
        assert "secret" not in str(caught.value)
        assert server.requests[0].headers["authorization"].startswith("Basic ")


# Anything


@pytest.mark.parametrize(
    "odd",
    [
        head(200, Content_Length=len(BODY), ETag='"\xff"', Last_Modified="\xff", Date="\xff"),
        head(200, Content_Length=len(BODY), Last_Modified="Mon, 23 Nov 99999 0:0:0 GMT"),
        head(200, Content_Length=len(BODY), ETag="x", Accept_Ranges="\xff"),
    ],
)
async def test_a_body_that_ends_early_under_odd_headers_is_truncated(odd):
    async with raw_server(odd + BODY[:100]) as server:
        with pytest.raises(Truncated):
            await get(server)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 206 Partial\r\n", b"HTTP/1.1 302 Found\r\n",
                    b"HTTP/1.1 503 Later\r\n", b"HTTP/1.1 101 Switch\r\n", b"HTTP/1.0 200 OK\r\n",
                    b"Content-Length: 5\r\n", b"Content-Length: 3\r\n", b"Location: /\r\n",
                    b"Transfer-Encoding: chunked\r\n", b'ETag: "x"\r\n', b"Upgrade: h2c\r\n",
                    b"Connection: upgrade\r\n", b"Retry-After: 0\r\n",
                    b"Content-Range: bytes 3-4/5\r\n",
                    b"Retry-After: Mon, 23 Nov 1 00:00:00 GMT\r\n", b"Location: http://\xff\xfe/\r\n",
                    b"\r\n", b"\r\n\r\n", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n",
                ]
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_a_server_sends_is_a_body_or_an_error_of_ours(pieces):
    async def run() -> None:
        async with raw_server(b"".join(pieces)) as server:
            try:
                await get(server, stall_timeout=5)
            except Error as error:
                assert isinstance(error, DownloadFailed | Truncated)

    asyncio.run(run())


def test_nothing_is_left_open():
    before = open_fds()
    asyncio.run(test_no_cookie_is_kept())
    asyncio.run(test_redirects_whose_own_bodies_never_end_are_followed_all_the_same())
    assert open_fds() == before
