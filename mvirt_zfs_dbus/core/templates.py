"""The operations on templates, with their rules."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace

from .. import rules
from ..errors import InvalidSize, NotFound
from ..model import Kind, Operation, Phase, Template, Volume
from ..store.base import NewClone, Store
from ..tasks import uninterrupted
from .catalog import Catalog
from .clock import now
from .datasets import Datasets
from .jobs import Jobs
from .locks import Locks
from .progress import Progress


class Templates(Datasets):
    kind = Kind.TEMPLATE

    def __init__(self, store: Store, catalog: Catalog, locks: Locks, jobs: Jobs) -> None:
        super().__init__(store, catalog, locks)
        self._jobs = jobs

    async def create(
        self,
        snapshot_id: str,
        name: str,
        *,
        template_id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Template:
        """A template that is a copy-on-write clone of a snapshot. InvalidName, AlreadyExists."""
        new = _new(name, template_id, labels)
        volume_id = self._catalog.snapshot(snapshot_id).volume_id
        async with self._locks.hold(volume_id):
            self._catalog.snapshot(snapshot_id)
            with self._catalog.reserve(Kind.TEMPLATE, new.name, new.id):
                template = await self._store.template_from_snapshot(snapshot_id, new)
                self._catalog.put(template)
        return template

    async def copy(
        self,
        snapshot_id: str,
        name: str,
        uid: int,
        *,
        template_id: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Start an independent full copy of a snapshot; the answer is the job's id."""
        new = _new(name, template_id, labels)
        snapshot = self._catalog.snapshot(snapshot_id)
        source = f"{self._catalog.volume(snapshot.volume_id).name}@{snapshot.name}"

        async def work(progress: Progress) -> None:
            def report(done: int, total: int) -> None:
                progress.report(Phase.WRITING, done, total)

            try:
                self._catalog.put(await self._store.copy_to_template(snapshot_id, new, report))
            except asyncio.CancelledError:
                await uninterrupted(self._discard(new.id))
                raise

        resources = ExitStack()
        resources.enter_context(self._catalog.reserve(Kind.TEMPLATE, new.name, new.id))
        return await self._jobs.submit(
            Operation.COPY_TEMPLATE, new.name, source, uid, new.id, work, resources
        )

    async def _discard(self, template_id: str) -> None:
        """Undo a copy whose cancelling may have come too late to stop it."""
        with suppress(NotFound):
            await self._store.destroy_template(template_id, defer=False)

    async def clone(
        self,
        template_id: str,
        name: str,
        *,
        volume_id: str | None = None,
        size: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """A copy-on-write clone, of the template's size or a larger one. InvalidSize."""
        template = self._catalog.template(template_id)
        size = _clone_size(size, template)
        new = replace(_new(name, self._new_id(volume_id), labels), size=size)
        async with self._locks.hold(new.id):
            with self._catalog.reserve(Kind.VOLUME, new.name, new.id):
                volume = await self._store.clone(template_id, new)
                self._catalog.put(volume)
        return volume

    async def delete(self, template_id: str, *, defer: bool) -> None:
        """HasClones, unless ``defer``: then it is gone from sight at once, its space later."""
        async with self._locks.hold(template_id):
            self._catalog.template(template_id)
            await self._store.destroy_template(template_id, defer=defer)
            self._catalog.remove(template_id)


def _new(name: str, object_id: str | None, labels: Mapping[str, str] | None) -> NewClone:
    return NewClone(
        id=rules.object_id(object_id),
        name=rules.name(name),
        labels=rules.labels(labels or {}),
        created_at=now(),
    )


def _clone_size(size: int | None, template: Template) -> int:
    if size is None:
        return template.size
    rounded = rules.volume_size(size, template.block_size, rules.MAX_VOLUME_SIZE)
    if rounded < template.size:
        raise InvalidSize(
            f"size {size} is less than the template's {template.size} bytes;"
            " a clone is as large or larger"
        )
    return rounded
