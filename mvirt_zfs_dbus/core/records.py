"""What the service remembers of its jobs: one JSON file each in the state directory."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from ..errors import Error, NoSpace
from ..model import Job, JobState, Operation, Phase

log = logging.getLogger(__name__)


class JobRecords:
    """Blocking; every write is whole or not at all (write, fsync, rename, fsync of the folder)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[Job]:
        """All jobs remembered, the oldest first. A damaged record is told of and left alone."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = sorted(self._directory.iterdir())
        except OSError as error:
            raise _failure(f"cannot open the state directory {self._directory}", error) from error
        for leftover in [file for file in files if file.suffix == ".tmp"]:
            leftover.unlink(missing_ok=True)
        jobs = [self._read(file) for file in files if file.suffix == ".json"]
        return sorted(
            (job for job in jobs if job), key=lambda job: job.started_at or job.finished_at
        )

    def write(self, job: Job) -> None:
        """Failed or NoSpace: the record could not be written, and the one before it stands."""
        final = self._path(job.id)
        temporary = final.with_suffix(".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(asdict(job), file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(final)
            self._sync()
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _failure(f"cannot write the job's record {final}", error) from error

    def remove(self, job_id: str) -> None:
        try:
            self._path(job_id).unlink(missing_ok=True)
        except OSError as error:
            raise _failure(f"cannot remove the job's record {self._path(job_id)}", error) from error

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}.json"

    def _sync(self) -> None:
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, file: Path) -> Job | None:
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            fields["operation"] = Operation(fields["operation"])
            fields["state"] = JobState(fields["state"])
            fields["phase"] = Phase(fields["phase"])
            job = Job(**fields)
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("the job's record %s is damaged and is passed over: %s", file, error)
            return None
        return job if self._path(job.id) == file else None


def _failure(what: str, error: OSError) -> Error:
    kind = NoSpace if error.errno in (28, 122) else Error  # ENOSPC, EDQUOT
    return kind(f"{what}: {error.strerror}")
