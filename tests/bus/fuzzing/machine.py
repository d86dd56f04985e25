"""The running service beside its model: what both have has to be the same after each step."""

from __future__ import annotations

import os
import signal
import uuid
from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Variant
from mvirt_zfs_dbus.names import Interface

from .model import Dataset, Model, Snapshot
from .world import World

KINDS = {"volume": Interface.VOLUME, "snapshot": Interface.SNAPSHOT, "template": Interface.TEMPLATE}


class ServiceBesideModel(RuleBasedStateMachine):
    world: World
    counted: Counter[str]
    """What was done in all series."""

    def __init__(self) -> None:
        super().__init__()
        self.counted["series"] += 1
        self.model = Model()
        self.ids: list[str] = []
        self.steps = 0

    # What an operation is done to

    def pick(self, things: dict[str, Any], choice: int) -> str:
        return sorted(things)[choice % len(things)]

    def new_id(self, choice: int) -> str:
        """Mostly one of its own; sometimes one that was used already."""
        if self.ids and choice % 8 == 0:
            return self.ids[choice % len(self.ids)]
        self.ids.append(str(uuid.UUID(int=len(self.ids) + 1)))
        return self.ids[-1]

    def call(self, path: str, member: str, signature: str, *body: Any) -> tuple[Any, str]:
        interface = KINDS[path.split("/")[-2]]
        return self.world.outcome(self.world.client.call(path, interface, member, signature, *body))

    def job(self, started: tuple[Any, str]) -> str:
        """The error of a call that starts a job, or of the job."""
        path, error = started
        if error:
            return error
        return str(self.world.run(self.world.client.completed(path))["ErrorName"]).rpartition(".")[
            2
        ]

    # The service itself

    @precondition(lambda self: self.steps % 5 == 3)
    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]))
    def restart(self, number: signal.Signals) -> None:
        self.counted[number.name] += 1
        self.world.run(self.world.restart(number))

    @rule()
    def refresh(self) -> None:
        drifted = self.world.run(self.world.client.manager("Refresh", "a{sv}", {}))
        assert drifted == 0

    # What it comes to

    @invariant()
    def the_bus_shows_what_the_model_has(self) -> None:
        self.steps += 1
        self.counted["steps"] += 1
        found = self.world.run(self.world.client.objects())
        shown = {
            path: interfaces[str(KINDS[kind])]
            for path, interfaces in found.items()
            if (kind := path.split("/")[-2]) in KINDS
        }
        expected = self.expected()
        assert shown.keys() == expected.keys()
        for path, properties in expected.items():
            assert {name: shown[path][name] for name in properties} == properties
        (pool,) = [each for path, each in found.items() if "/pool/" in path]
        volumes = self.model.visible(self.model.volumes)
        counted = pool[Interface.POOL]
        assert counted["VolumeCount"] == len(volumes)
        assert counted["TemplateCount"] == len(self.model.visible(self.model.templates))
        assert counted["ProvisionedBytes"] == sum(volume.size for volume in volumes.values())

    @invariant()
    def the_directory_has_what_the_model_has_and_no_more(self) -> None:
        disks: dict[str, Dataset | Snapshot] = {**self.model.volumes, **self.model.templates}
        disks |= {f"{s.volume}@{s.id}": s for s in self.model.snapshots.values()}
        assert self.files() == {f"{key}{end}" for key in disks for end in (".raw", ".json")}
        for key, disk in disks.items():
            with (self.world.directory / f"{key}.raw").open("rb") as raw:
                assert raw.read(9) == disk.content.ljust(9, b"\0")
                assert os.fstat(raw.fileno()).st_size == disk.size

    def teardown(self) -> None:
        """Everything can be deleted, clones first, and then nothing is left."""
        for volume in list(self.model.visible(self.model.volumes)):
            self.model.delete_volume(volume, snapshots=True, defer=True)
            options = {"snapshots": Variant("b", True), "defer": Variant("b", True)}
            assert not self.call(names.volume_path(volume), "Delete", "a{sv}", options)[1]
        for template in list(self.model.visible(self.model.templates)):
            options = {"defer": Variant("b", True)}
            assert not self.call(names.template_path(template), "Delete", "a{sv}", options)[1]
        log = self.world.service.log.read_text()
        assert self.files() == set(), log
        assert "Traceback" not in log

    def files(self) -> set[str]:
        return {file.name for file in self.world.directory.iterdir() if file.name[0] != "."}

    def expected(self) -> dict[str, dict[str, Any]]:
        volumes = self.model.visible(self.model.volumes)
        templates = self.model.visible(self.model.templates)
        snapshots = self.model.visible_snapshots()
        paths = {
            **{id: names.volume_path(id) for id in volumes},
            **{id: names.template_path(id) for id in templates},
            **{id: names.snapshot_path(id) for id in snapshots},
        }

        def path_of(id: str) -> str:
            return paths.get(id, names.NO_OBJECT)

        def clones(id: str, among: dict[str, Dataset]) -> list[str]:
            return sorted(paths[clone] for clone in self.model.clones(id) if clone in among)

        return {
            **{
                paths[id]: {
                    "Id": id,
                    "Name": volume.name,
                    "SizeBytes": volume.size,
                    "BlockSize": volume.block,
                    "Thin": volume.thin,
                    "Labels": volume.labels,
                    "Origin": path_of(volume.origin),
                    "Source": volume.source,
                    "Snapshots": [paths[each] for each in volume.snapshots if each in snapshots],
                }
                for id, volume in volumes.items()
            },
            **{
                paths[id]: {
                    "Id": id,
                    "Name": template.name,
                    "SizeBytes": template.size,
                    "Labels": template.labels,
                    "SourceVolume": path_of(template.source_volume),
                    "Clones": clones(id, volumes),
                    "CloneCount": len(clones(id, volumes)),
                }
                for id, template in templates.items()
            },
            **{
                paths[id]: {
                    "Id": id,
                    "Name": snapshot.name,
                    "Volume": path_of(snapshot.volume),
                    "SizeBytes": snapshot.size,
                    "Clones": clones(id, templates),
                }
                for id, snapshot in snapshots.items()
            },
        }
