"""A job as a client sees it: its properties, its progress as it comes, its outcome."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ..errors import Cancelled, from_name
from ..model import JobState
from ..names import Interface
from .remote import Property, RemoteObject, options


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. Bytes, bytes per second, and microseconds since the epoch."""

    state: JobState
    phase: str
    """``downloading``, ``converting``, ``writing`` or ``verifying``; empty before it runs."""
    fraction: float | None
    """0 to 1; None where the size of the source is not known."""
    bytes_done: int
    bytes_total: int
    """0: unknown."""
    rate: int
    expected_end_at: int
    """0: unknown."""

    @property
    def finished(self) -> bool:
        return self.state.finished

    @property
    def seconds_left(self) -> float | None:
        if not self.expected_end_at:
            return None
        return max(self.expected_end_at / 1e6 - time.time(), 0.0)


class Job(RemoteObject):
    """``async for progress in job`` yields what is known now, and then every change to the end."""

    interface = Interface.JOB

    id = Property[str]("Id")
    operation = Property[str]("Operation")
    phase = Property[str]("Phase")
    bytes_done = Property[int]("BytesDone")
    bytes_total = Property[int]("BytesTotal")
    rate = Property[int]("Rate")
    started_at = Property[int]("StartedAt")
    expected_end_at = Property[int]("ExpectedEndAt")
    finished_at = Property[int]("FinishedAt")
    name = Property[str]("Name")
    source = Property[str]("Source")
    result_path = Property[str]("Result")
    error_name = Property[str]("ErrorName")
    error_message = Property[str]("ErrorMessage")
    started_by_uid = Property[int]("StartedByUid")

    @property
    def state(self) -> JobState:
        return JobState(str(self.properties["State"]))

    @property
    def progress(self) -> Progress:
        return Progress(
            state=self.state,
            phase=self.phase,
            fraction=float(self["Progress"]) if self["ProgressValid"] else None,
            bytes_done=self.bytes_done,
            bytes_total=self.bytes_total,
            rate=self.rate,
            expected_end_at=self.expected_end_at,
        )

    async def __aiter__(self) -> AsyncIterator[Progress]:
        """ServiceUnreachable when the service ends before the job does."""
        async with self.remote.signals("PropertiesChanged", path=self.path) as signals:
            # Subscribed first and read then: whatever happens in between is in one of the two.
            await self.refresh()
            yield self.progress
            while not self.state.finished:
                for message in await signals.next():
                    self.take(message)
                yield self.progress

    async def wait(self) -> str:
        """The path of the volume or template it made, once it is done.

        The error it failed with, Cancelled, or ServiceUnreachable.
        """
        async for _ in self:
            pass
        self.raise_failure()
        return self.result_path

    def raise_failure(self) -> None:
        """Raise what a finished job ended with, unless it is done."""
        if self.state is JobState.CANCELLED:
            raise Cancelled(self.error_message or f"job {self.id} was cancelled")
        if self.state is JobState.FAILED:
            raise from_name(self.error_name, self.error_message)

    async def cancel(self) -> None:
        """Returns when everything the job had made is gone. NotCancelable when it is finished."""
        await self.call("Cancel", "a{sv}", options())

    async def remove(self) -> None:
        """Forget a finished job."""
        await self.call("Remove", "a{sv}", options())
