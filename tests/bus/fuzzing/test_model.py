"""Whatever is done to it in whatever order, the service is what a plain model of it is.

``MVIRT_FUZZ_EXAMPLES`` says how many series of operations are tried.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Variant

from .machine import ServiceBesideModel
from .model import DEFAULT_BLOCK
from .world import World

EXAMPLES = int(os.environ.get("MVIRT_FUZZ_EXAMPLES", 25))
STEPS = 40

name_of = st.sampled_from("abcde")
sizes = st.sampled_from([0, 1, 512, 16384, 16385, 40_000, 65_536, 200_000, 2**63 - 1, 2**64 - 1])
clone_sizes = st.sampled_from([None, 0, 1, 16384, 65_536, 200_000, 2**64 - 1])
blocks = st.sampled_from([DEFAULT_BLOCK, DEFAULT_BLOCK, 512, 131_072, 513, 0])
texts = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=5)
labels_of = st.dictionaries(name_of, texts, max_size=2)
contents = st.binary(max_size=7).map(lambda data: b"." + data)
"""What begins no image format: hypothesis tries the constants it finds in the code, magics too."""
choices = st.integers(0, 10**6)


class Machine(ServiceBesideModel):
    has_volumes = precondition(lambda self: self.model.visible(self.model.volumes))
    has_templates = precondition(lambda self: self.model.visible(self.model.templates))
    has_snapshots = precondition(lambda self: self.model.visible_snapshots())

    @initialize(rich=st.booleans())
    def begin(self, rich: bool) -> None:
        """With nothing, or with what chance would seldom lead to."""
        assert self.files() == set()
        if rich:
            self.create("a", 16384, DEFAULT_BLOCK, True, {}, 1)
            self.create_snapshot(0, "a", 1)
            self.create_snapshot(0, "b", 1)
            newest = list(self.model.snapshots)[-1]
            choice = sorted(self.model.snapshots).index(newest)
            self.create_template(choice, "a", {}, 1, copy=False)
            self.clone(0, "b", 0, {}, 1)

    # Volumes

    @rule(name=name_of, size=sizes, block=blocks, thin=st.booleans(), labels=labels_of, id=choices)
    def create(
        self, name: str, size: int, block: int, thin: bool, labels: dict[str, str], id: int
    ) -> None:
        chosen = self.new_id(id)
        options = {
            "id": Variant("s", chosen),
            "block-size": Variant("u", block),
            "thin": Variant("b", thin),
            "labels": Variant("a{ss}", labels),
        }
        expected = self.model.create(chosen, name, size, block, thin, labels)
        path, error = self.world.outcome(
            self.world.client.manager("CreateVolume", "sta{sv}", name, size, options)
        )
        assert error == expected
        assert error or path == names.volume_path(chosen)

    @rule(name=name_of, size=clone_sizes, content=contents, labels=labels_of, id=choices)
    def import_volume(
        self, name: str, size: int | None, content: bytes, labels: dict[str, str], id: int
    ) -> None:
        chosen = self.new_id(id)
        options = {"id": Variant("s", chosen), "labels": Variant("a{ss}", labels)}
        if size is not None:
            options["size"] = Variant("t", size)
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        expected = self.model.import_volume(chosen, name, size, content, labels)
        started = self.world.outcome(
            self.world.client.manager(
                "ImportVolumeFromFd", "sha{sv}", name, 0, options, fds=[reader]
            )
        )
        os.close(reader)
        assert self.job(started) == expected

    @has_volumes
    @rule(choice=choices, size=sizes)
    def resize(self, choice: int, size: int) -> None:
        id = self.pick(self.model.visible(self.model.volumes), choice)
        expected = self.model.resize(id, size)
        assert self.call(names.volume_path(id), "Resize", "ta{sv}", size, {})[1] == expected

    @has_volumes
    @rule(choice=choices, name=name_of)
    def rename_volume(self, choice: int, name: str) -> None:
        id = self.pick(self.model.visible(self.model.volumes), choice)
        expected = self.model.rename(self.model.volumes, id, name)
        assert self.call(names.volume_path(id), "Rename", "sa{sv}", name, {})[1] == expected

    @has_volumes
    @rule(choice=choices, labels=labels_of)
    def set_labels(self, choice: int, labels: dict[str, str]) -> None:
        id = self.pick(self.model.visible(self.model.volumes), choice)
        self.model.volumes[id].labels = labels
        path = names.volume_path(id)
        assert not self.call(path, "SetLabels", "a{ss}a{sv}", labels, {})[1]

    @has_volumes
    @rule(choice=choices, content=contents)
    def write(self, choice: int, content: bytes) -> None:
        """As the guest would."""
        id = self.pick(self.model.visible(self.model.volumes), choice)
        self.model.volumes[id].content = content
        device = self.world.run(self.world.client.device(names.volume_path(id)))
        with device.open("r+b") as disk:
            disk.write(content.ljust(8, b"\0"))

    @has_volumes
    @rule(choice=choices, snapshots=st.booleans(), defer=st.booleans())
    def delete_volume(self, choice: int, snapshots: bool, defer: bool) -> None:
        id = self.pick(self.model.visible(self.model.volumes), choice)
        options = {"snapshots": Variant("b", snapshots), "defer": Variant("b", defer)}
        expected = self.model.delete_volume(id, snapshots, defer)
        assert self.call(names.volume_path(id), "Delete", "a{sv}", options)[1] == expected

    # Snapshots

    @has_volumes
    @rule(choice=choices, name=name_of, id=choices)
    def create_snapshot(self, choice: int, name: str, id: int) -> None:
        volume = self.pick(self.model.visible(self.model.volumes), choice)
        chosen = self.new_id(id)
        expected = self.model.create_snapshot(chosen, volume, name)
        options = {"id": Variant("s", chosen)}
        path, error = self.call(
            names.volume_path(volume), "CreateSnapshot", "sa{sv}", name, options
        )
        assert error == expected
        assert error or path == names.snapshot_path(chosen)

    @has_snapshots
    @rule(choice=choices, defer=st.booleans())
    def delete_snapshot(self, choice: int, defer: bool) -> None:
        id = self.pick(self.model.visible_snapshots(), choice)
        expected = self.model.delete_snapshot(id, defer)
        options = {"defer": Variant("b", defer)}
        assert self.call(names.snapshot_path(id), "Delete", "a{sv}", options)[1] == expected

    @has_snapshots
    @rule(choice=choices, destroy_newer=st.booleans())
    def rollback(self, choice: int, destroy_newer: bool) -> None:
        id = self.pick(self.model.visible_snapshots(), choice)
        expected = self.model.rollback(id, destroy_newer)
        options = {"destroy-newer": Variant("b", destroy_newer)}
        assert self.call(names.snapshot_path(id), "Rollback", "a{sv}", options)[1] == expected

    # Templates

    @has_snapshots
    @rule(choice=choices, name=name_of, labels=labels_of, id=choices, copy=st.booleans())
    def create_template(
        self, choice: int, name: str, labels: dict[str, str], id: int, copy: bool
    ) -> None:
        snapshot = self.pick(self.model.visible_snapshots(), choice)
        chosen = self.new_id(id)
        options = {"id": Variant("s", chosen), "labels": Variant("a{ss}", labels)}
        expected = self.model.create_template(chosen, snapshot, name, labels, copy)
        member = "CopyToTemplate" if copy else "CreateTemplate"
        path = names.snapshot_path(snapshot)
        answer = self.call(path, member, "sa{sv}", name, options)
        assert (self.job(answer) if copy else answer[1]) == expected

    @has_templates
    @rule(choice=choices, name=name_of, size=clone_sizes, labels=labels_of, id=choices)
    def clone(
        self, choice: int, name: str, size: int | None, labels: dict[str, str], id: int
    ) -> None:
        template = self.pick(self.model.visible(self.model.templates), choice)
        chosen = self.new_id(id)
        options = {"id": Variant("s", chosen), "labels": Variant("a{ss}", labels)}
        if size is not None:
            options["size"] = Variant("t", size)
        expected = self.model.clone(chosen, template, name, size, labels)
        path = names.template_path(template)
        assert self.call(path, "Clone", "sa{sv}", name, options)[1] == expected

    @has_templates
    @rule(choice=choices, name=name_of)
    def rename_template(self, choice: int, name: str) -> None:
        id = self.pick(self.model.visible(self.model.templates), choice)
        expected = self.model.rename(self.model.templates, id, name)
        assert self.call(names.template_path(id), "Rename", "sa{sv}", name, {})[1] == expected

    @has_templates
    @rule(choice=choices, defer=st.booleans())
    def delete_template(self, choice: int, defer: bool) -> None:
        id = self.pick(self.model.visible(self.model.templates), choice)
        expected = self.model.delete_template(id, defer)
        options = {"defer": Variant("b", defer)}
        assert self.call(names.template_path(id), "Delete", "a{sv}", options)[1] == expected


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_the_service_is_what_a_plain_model_of_it_is(world: World) -> None:
    class MachineInThisWorld(Machine):
        pass

    MachineInThisWorld.world = world
    MachineInThisWorld.counted = Counter()
    run_state_machine_as_test(
        MachineInThisWorld,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.target, Phase.shrink],
        ),
    )
    print(f"\n{dict(MachineInThisWorld.counted)}")
