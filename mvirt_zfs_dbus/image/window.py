"""The part of a stream that is still needed."""

from __future__ import annotations

from collections import deque


class Window:
    """Chunks as they came, never put together: what is asked for is shown where it lies."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[int, memoryview]] = deque()
        self.end = 0
        """Bytes of the stream that have come."""

    def __len__(self) -> int:
        """Bytes that are held."""
        return sum(len(chunk) for _, chunk in self._chunks)

    def add(self, chunk: bytes) -> None:
        self._chunks.append((self.end, memoryview(chunk)))
        self.end += len(chunk)

    def drop(self, position: int) -> None:
        """Forget what is needed no more: all before a place in the stream, at most."""
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= position:
            self._chunks.popleft()

    def view(self, start: int, end: int) -> memoryview:
        """Bytes of the stream that have come and were not dropped."""
        pieces = []
        for base, chunk in self._chunks:
            if start < base + len(chunk):
                if end <= base + len(chunk):
                    pieces.append(chunk[max(start - base, 0) : end - base])
                    break
                pieces.append(chunk[max(start - base, 0) :])
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
