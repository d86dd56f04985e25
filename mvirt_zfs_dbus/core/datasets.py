"""What can be done to a volume and to a template alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from .. import rules
from ..model import Kind, Template, Volume
from ..store.base import Store
from .catalog import Catalog
from .locks import Locks


class Datasets:
    kind: ClassVar[Kind]

    def __init__(self, store: Store, catalog: Catalog, locks: Locks) -> None:
        self._store = store
        self._catalog = catalog
        self._locks = locks

    async def rename(self, dataset_id: str, name: str) -> None:
        """InvalidName, AlreadyExists."""
        rules.name(name)
        async with self._locks.hold(dataset_id):
            if self._dataset(dataset_id).name == name:
                return
            with self._catalog.reserve_name(self.kind, name):
                await self._store.rename(dataset_id, name)
                self._catalog.put(replace(self._dataset(dataset_id), name=name))

    async def set_labels(self, dataset_id: str, labels: Mapping[str, str]) -> None:
        """Replace all labels. InvalidArgs."""
        allowed = rules.labels(labels)
        async with self._locks.hold(dataset_id):
            self._dataset(dataset_id)
            await self._store.set_labels(dataset_id, allowed)
            self._catalog.put(replace(self._dataset(dataset_id), labels=allowed))

    def _new_id(self, chosen: str | None) -> str:
        """Of a volume: what its caller chose, or one the store is prepared for."""
        if chosen is not None:
            return rules.object_id(chosen)
        while self._catalog.is_taken(new_id := self._store.new_id()):
            pass  # a caller chose it
        return new_id

    def _dataset(self, dataset_id: str) -> Volume | Template:
        if self.kind is Kind.VOLUME:
            return self._catalog.volume(dataset_id)
        return self._catalog.template(dataset_id)
