"""A file system that stops answering: real FUSE, with this process as its server.

As a dead NFS server does, it lets whoever waits for an answer hang where no signal reaches. Root
alone can mount it like this.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# linux/fuse.h
LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = (
    1, 2, 3, 14, 15, 17, 18, 25, 26, 36, 42,
)  # fmt: skip
_NO_REPLY = {FORGET, INTERRUPT, BATCH_FORGET}
_MNT_DETACH = 2
_FILE = 2

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
)


class HungFiles:
    """One file, ``image``, in a folder. It answers everything but ``hung``."""

    def __init__(self, folder: Path, content: bytes) -> None:
        self.folder = folder
        self.path = folder / "image"
        self.hung: set[int] = set()
        self.hung_for: int | None = None
        """The one process that hangs; None: all."""
        self.waited_for: set[int] = set()
        """What somebody waits for in vain."""
        self.hanging = threading.Event()
        self._content = content
        self._pending: list[bytes] = []
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._stop, self._stopper = os.pipe()
        options = f"fd={self._fuse},rootmode=40755,user_id=0,group_id=0,allow_other"
        where = str(folder).encode()
        if self._libc.mount(b"hung", where, b"fuse.hung", 0, options.encode()) < 0:
            raise OSError(ctypes.get_errno(), "mount")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def become(self, content: bytes) -> None:
        """The file is another one from now on, for who has it open as well."""
        self._content = content

    def go_on(self) -> None:
        """Everybody who waits gets the answer after all."""
        with self._lock:
            self.hung = set()
        while self._pending:
            self._reply(self._pending.pop())

    def close(self) -> None:
        """Everybody who waits gets an error."""
        os.close(self._stopper)
        self._thread.join()
        os.close(self._fuse)
        os.close(self._stop)
        self._libc.umount2(str(self.folder).encode(), _MNT_DETACH)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._fuse, self._stop], [], [])
            if self._stop in ready:
                return
            try:
                request = os.read(self._fuse, 1 << 20)
            except OSError:
                continue
            (opcode,) = struct.unpack_from("I", request, 4)
            if not self._keeps(opcode, request) and opcode not in _NO_REPLY:
                self._reply(request)

    def _keeps(self, opcode: int, request: bytes) -> bool:
        """Whether it is to wait; who lets everything go on finds all that do."""
        with self._lock:
            if opcode not in self.hung or not self._concerns(request):
                return False
            self._pending.append(request)
        self.waited_for.add(opcode)
        self.hanging.set()
        return True

    def _reply(self, request: bytes) -> None:
        _, opcode, unique, node = struct.unpack_from("IIQQ", request)
        error, answer = self._answer(opcode, node, request[40:])
        os.write(self._fuse, struct.pack("IiQ", 16 + len(answer), -error, unique) + answer)

    def _concerns(self, request: bytes) -> bool:
        if self.hung_for is None:
            return True
        (thread,) = struct.unpack_from("I", request, 32)
        return f"\nTgid:\t{self.hung_for}\n" in Path(f"/proc/{thread}/status").read_text()

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        match opcode:
            case 26:  # INIT
                return 0, struct.pack("IIIIHHIIHH", 7, 31, 0, 0, 9, 9, 65536, 1, 0, 0) + bytes(28)
            case 1 if body.rstrip(b"\0") == b"image":  # LOOKUP
                return 0, struct.pack("QQQQII", _FILE, 0, 0, 0, 0, 0) + self._attributes(_FILE)
            case 1:
                return errno.ENOENT, b""
            case 3:  # GETATTR
                return 0, struct.pack("QII", 0, 0, 0) + self._attributes(node)
            case 14 | 27:  # OPEN, OPENDIR
                return 0, struct.pack("QII", 1, 0, 0)
            case 15:  # READ
                _, offset, size = struct.unpack_from("QQI", body)
                return 0, self._content[offset : offset + size]
            case 17:  # STATFS
                return 0, bytes(80)
            case 18 | 25:  # RELEASE, FLUSH
                return 0, b""
            case _:
                return errno.ENOSYS, b""

    def _attributes(self, node: int) -> bytes:
        is_file = node == _FILE
        mode = stat.S_IFREG | 0o644 if is_file else stat.S_IFDIR | 0o755
        size = len(self._content) if is_file else 0
        return struct.pack(
            "QQQQQQIIIIIIIIII",
            node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 512, 0,
        )  # fmt: skip


@contextmanager
def hung_files(folder: Path, content: bytes = b"image" * 100_000) -> Iterator[HungFiles]:
    folder.mkdir()
    files = HungFiles(folder, content)
    try:
        yield files
    finally:
        files.close()
