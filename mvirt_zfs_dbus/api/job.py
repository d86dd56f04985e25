"""org.mvirt.Zfs1.Job: an import or a copy, while it runs and for a while after."""

from __future__ import annotations

from .. import names
from ..bus.interface import Call, Interface, Signal, method, prop
from ..core.service import Service
from ..model import Job, JobState, Kind
from ..names import Action

COMPLETED = Signal("Completed", "result:s error_name:s message:s")


def cancel_action(interface: Interface, call: Call, key: str) -> Action | None:
    """Free for whoever started the job."""
    assert isinstance(interface, JobInterface)
    return None if interface.job(key).uid == call.uid else Action.CANCEL


class JobInterface(Interface):
    name = names.Interface.JOB
    signals = (COMPLETED,)

    def __init__(self, service: Service) -> None:
        self._service = service

    def job(self, key: str) -> Job:
        return self._service.jobs.get(key)

    def details(self, call: Call, key: str) -> dict[str, str]:
        job = self.job(key)
        return {
            "pool": self._service.catalog.pool.name,
            "id": job.id,
            "name": job.name,
            "source": job.source,
        }

    @method("Cancel", options={}, action=cancel_action)
    async def cancel(self, call: Call, key: str) -> None:
        await self._service.jobs.cancel(key)

    @method("Remove", options={}, action=cancel_action)
    async def remove(self, call: Call, key: str) -> None:
        await self._service.jobs.remove(key)

    @prop("Id", "s", emits="const")
    def id(self, key: str) -> str:
        return key

    @prop("Operation", "s", emits="const")
    def operation(self, key: str) -> str:
        return self.job(key).operation.value

    @prop("State", "s", emits="true")
    def state(self, key: str) -> str:
        return self.job(key).state.value

    @prop("Phase", "s", emits="true")
    def phase(self, key: str) -> str:
        return self.job(key).phase.value

    @prop("Progress", "d", emits="true")
    def progress(self, key: str) -> float:
        return self.job(key).progress

    @prop("ProgressValid", "b", emits="true")
    def progress_valid(self, key: str) -> bool:
        return self.job(key).progress_valid

    @prop("BytesDone", "t", emits="true")
    def bytes_done(self, key: str) -> int:
        return self.job(key).bytes_done

    @prop("BytesTotal", "t", emits="true")
    def bytes_total(self, key: str) -> int:
        return self.job(key).bytes_total

    @prop("Rate", "t", emits="true")
    def rate(self, key: str) -> int:
        return self.job(key).rate

    @prop("StartedAt", "t", emits="true")
    def started_at(self, key: str) -> int:
        return self.job(key).started_at

    @prop("ExpectedEndAt", "t", emits="true")
    def expected_end_at(self, key: str) -> int:
        return self.job(key).expected_end_at

    @prop("FinishedAt", "t", emits="true")
    def finished_at(self, key: str) -> int:
        return self.job(key).finished_at

    @prop("Name", "s", emits="const")
    def target_name(self, key: str) -> str:
        return self.job(key).name

    @prop("Source", "s", emits="const")
    def source(self, key: str) -> str:
        return self.job(key).source

    @prop("Result", "o", emits="true")
    def result(self, key: str) -> str:
        job = self.job(key)
        if job.state is not JobState.DONE:
            return names.NO_OBJECT
        if job.kind is Kind.VOLUME:
            return names.volume_path(job.target_id)
        return names.template_path(job.target_id)

    @prop("ErrorName", "s", emits="true")
    def error_name(self, key: str) -> str:
        return self.job(key).error_name

    @prop("ErrorMessage", "s", emits="true")
    def error_message(self, key: str) -> str:
        return self.job(key).error_message

    @prop("StartedByUid", "u", emits="const")
    def started_by_uid(self, key: str) -> int:
        return self.job(key).uid
