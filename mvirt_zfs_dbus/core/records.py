"""What the service remembers of its jobs: one JSON file each in the state directory."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from ..errors import Error, NoSpace
from ..model import Job, JobState, Operation, Phase

log = logging.getLogger(__name__)

MAX_RECORD: Final = 1024 * 1024
"""Bytes; a record has a source of 8 KiB and a message of a few."""
_RECORD: Final = ".json"
_TEMPORARY: Final = ".tmp"
_DAMAGED: Final = ".damaged"
_NAMED: Final = re.compile("[0-9A-Za-z_-]+")
"""What makes an object path."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class DamagedRecord(ValueError):
    """What is wrong with a file that should be a record."""


class JobRecords:
    """Blocking; every write is whole or not at all (write, fsync, rename, fsync of the folder)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[Job]:
        """All jobs remembered, the oldest first.

        A damaged record is told of and set aside. A directory that cannot be read is told of and
        remembers nothing: disks are served without it, and a job is refused when it is submitted.
        """
        try:
            files = self._files()
        except OSError as error:
            log.error("%s", _failure(f"cannot open the state directory {self._directory}", error))
            return []
        for leftover in [file for file in files if file.suffix == _TEMPORARY]:
            self._try(leftover.unlink)
        jobs = [self._read(file) for file in files if file.suffix == _RECORD]
        return sorted(
            (job for job in jobs if job), key=lambda job: job.started_at or job.finished_at
        )

    def write(self, job: Job) -> None:
        """Failed or NoSpace: the record could not be written, and the one before it stands."""
        final = self._path(job.id)
        temporary = final.with_suffix(_TEMPORARY)
        try:
            self._make_directory()
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(job), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
            self._sync()
        except OSError as error:
            self._try(temporary.unlink)
            raise _failure(f"cannot write the job's record {final}", error) from error

    def remove(self, job_id: str) -> None:
        try:
            self._path(job_id).unlink(missing_ok=True)
        except OSError as error:
            raise _failure(f"cannot remove the job's record {self._path(job_id)}", error) from error

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}{_RECORD}"

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _files(self) -> list[Path]:
        self._make_directory()
        return sorted(self._directory.iterdir())

    def _sync(self) -> None:
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, file: Path) -> Job | None:
        try:
            return decode(file.stem, _content(file))
        except OSError as error:
            log.error("the job's record %s cannot be read: %s", file, error.strerror)
        except DamagedRecord as error:
            log.error("the job's record %s is damaged and is set aside: %s", file, error)
            self._try(lambda: file.rename(f"{file}{_DAMAGED}"))
        return None

    def _try(self, change: Callable[[], object]) -> None:
        """What would be tidier, and is not worth failing for."""
        try:
            change()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.error("in %s: %s", self._directory, error)


def decode(job_id: str, data: bytes) -> Job:
    """The job in a record. DamagedRecord says what is wrong with it."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DamagedRecord("no JSON object")
    known = {each.name: each.type for each in fields(Job)}
    if unknown := found.keys() - known:
        raise DamagedRecord(f"unknown fields {', '.join(map(repr, sorted(unknown)))}")
    try:
        job = Job(**{name: _KINDS[str(known[name])](name, value) for name, value in found.items()})
    except TypeError as error:  # one of those without a default is missing
        raise DamagedRecord(str(error)) from error
    if job.id != job_id or not _UUID.fullmatch(job_id):
        raise DamagedRecord(f"it is the record of {job.id!r:.100}")
    if job.state is JobState.DONE and not _NAMED.fullmatch(job.target_id):
        raise DamagedRecord(f"it is done and has made nothing: {job.target_id!r:.100}")
    return job


def _content(file: Path) -> bytes:
    """O_NONBLOCK: without it, opening a FIFO would wait for its writer."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DamagedRecord("it is no regular file")
        data = opened.read(MAX_RECORD + 1)
    if len(data) > MAX_RECORD:
        raise DamagedRecord(f"it is larger than {MAX_RECORD} bytes")
    return data


def _text(name: str, value: Any) -> str:
    if type(value) is not str:
        raise DamagedRecord(f"{name} is {value!r:.100}, not a text")
    return value


def _number(name: str, value: Any) -> int:
    most = 2**32 if name == "uid" else 2**64  # as they are on the bus
    if type(value) is not int or not 0 <= value < most:
        raise DamagedRecord(f"{name} is {value!r:.100}, not a number from 0 to {most - 1}")
    return value


def _one_of(kind: type[StrEnum]) -> Callable[[str, Any], StrEnum]:
    def read(name: str, value: Any) -> StrEnum:
        try:
            return kind(_text(name, value))
        except ValueError as error:
            raise DamagedRecord(f"{name} is {value!r:.100}, none of {', '.join(kind)}") from error

    return read


_KINDS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "str": _text,
    "int": _number,
    "Operation": _one_of(Operation),
    "JobState": _one_of(JobState),
    "Phase": _one_of(Phase),
}
"""How a field is read, by its type in :class:`~mvirt_zfs_dbus.model.Job`."""


def _failure(what: str, error: OSError) -> Error:
    kind = NoSpace if error.errno in (28, 122) else Error  # ENOSPC, EDQUOT
    return kind(f"{what}: {error.strerror}")
