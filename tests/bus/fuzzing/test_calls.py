"""Tens of thousands of generated calls to the running service.

``MVIRT_FUZZ_CALLS`` says how many (``make fuzz-bus`` makes more), ``MVIRT_FUZZ_SEED`` repeats them.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from service.held import MIB, Held, held
from service.process import PROPERTIES, Client, ServiceProcess, client_on

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import ConnectionLost, RemoteError, Variant
from mvirt_zfs_dbus.errors import Error, PropertyReadOnly
from mvirt_zfs_dbus.names import ErrorName, Interface

from .generate import Call, Generator
from .values import DEEPEST, depth

CALLS = int(os.environ.get("MVIRT_FUZZ_CALLS", 20_000))
SEED = int(os.environ.get("MVIRT_FUZZ_SEED", random.SystemRandom().getrandbits(32)))
AT_A_TIME = 16
IN_A_ROW = 4
ROUNDS = 8
EVERYWHERE = frozenset(
    name.rpartition(".")[2]
    for name in (
        ErrorName.INVALID_ARGS,
        ErrorName.UNKNOWN_OBJECT,
        ErrorName.LIMITS_EXCEEDED,
    )
)
"""What any method may answer."""


class Fuzz:
    def __init__(self, client: Client, service: ServiceProcess, generator: Generator) -> None:
        self.client = client
        self.service = service
        self.generator = generator
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []

    async def round(self, calls: int) -> None:
        """So many calls, several at a time; which objects there are is asked in between."""
        for _ in range(0, calls, IN_A_ROW * AT_A_TIME):
            objects = await self.client.objects()
            self.generator.paths = list(objects)
            self._judge_jobs(objects)
            async with asyncio.TaskGroup() as callers:
                for _ in range(AT_A_TIME):
                    callers.create_task(self._some(IN_A_ROW))

    async def _some(self, calls: int) -> None:
        for _ in range(calls):
            await self._one(self.generator.call())

    async def _one(self, call: Call) -> None:
        try:
            await self.client.connection.call(
                names.BUS_NAME,
                call.path,
                call.interface or None,  # type: ignore[arg-type]
                call.member,
                call.signature,
                call.body,
                unix_fds=call.fds,
            )
        except RemoteError as error:
            self._judge(call, error.name, error.message)
        except Error as error:
            self._judge(call, error.name, error.message)
        except TimeoutError:
            self.faults.append(f"{call}: no answer")
        else:
            self.answers["ok"] += 1

    def _judge(self, call: Call, error_name: str, message: str) -> None:
        name = error_name.rpartition(".")[2]
        self.answers[name] += 1
        documented = call.errors is None or name in call.errors | EVERYWHERE
        if name == "Failed" or not documented:
            self.faults.append(f"{call}: {name}: {message}")

    def _judge_jobs(self, objects: dict[str, dict[str, dict[str, Any]]]) -> None:
        for interfaces in objects.values():
            job = interfaces.get(Interface.JOB, {})
            if job.get("ErrorName") == ErrorName.FAILED:
                self.faults.append(f"job {job['Name']} from {job['Source']}: {job['ErrorMessage']}")

    async def clean_up(self) -> None:
        """Delete all there is, until nothing but the pool is left."""
        while True:
            objects = await self.client.objects()
            self._judge_jobs(objects)
            paths = [path for path in objects if "/pool/" not in path]
            if not paths:
                return
            # Not all at once: one caller may have 256 calls under way.
            await asyncio.gather(*(self._delete(path) for path in paths[:100]))

    async def _delete(self, path: str) -> None:
        kind = path.split("/")[-2]
        member, interface = {
            "volume": ("Delete", Interface.VOLUME),
            "template": ("Delete", Interface.TEMPLATE),
            "snapshot": ("Delete", Interface.SNAPSHOT),
            "job": ("Remove", Interface.JOB),
        }[kind]
        try:
            if kind == "job":
                await self._quietly(path, interface, "Cancel")
            await self.client.call(path, interface, member, "a{sv}", {})
        except Error as error:
            name = error.name.rpartition(".")[2]
            known = ("UnknownObject", "NotFound", "HasClones", "HasSnapshots")
            assert name in known, f"{path} {member}: {error}"

    async def _quietly(self, path: str, interface: str, member: str) -> None:
        try:
            await self.client.call(path, interface, member, "a{sv}", {})
        except Error as error:
            assert error.name.rpartition(".")[2] in ("NotCancelable", "UnknownObject")


async def test_whatever_is_called_the_service_stays_well_and_keeps_nothing(
    client: Client,
    service: ServiceProcess,
    images: dict[str, Path],
    tmp_path: Path,
    directory: Path,
) -> None:
    print(f"\nseed {SEED}")
    empty = tmp_path / "empty"
    empty.touch()
    with ExitStack() as resources:
        generator = Generator(SEED, [*images.values(), empty], resources)
        fuzz = Fuzz(client, service, generator)
        seen: list[Held] = []
        for _ in range(ROUNDS):
            await fuzz.round(CALLS // ROUNDS)
            await fuzz.clean_up()
            seen.append(await held(service))
            print(seen[-1])
    print(dict(fuzz.answers.most_common()))
    assert not fuzz.faults, f"seed {SEED}\n" + "\n".join(fuzz.faults[:20])
    log = service.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") - 1000 :][:5000]
    assert service.process
    assert service.process.returncode is None
    assert [path.name for path in directory.iterdir() if not path.name.startswith(".")] == []
    warm, last = seen[1], seen[-1]
    assert last.tasks <= warm.tasks
    while last.files > warm.files:  # some are still being closed
        last = await held(service)
    assert last.memory <= warm.memory + 8 * MIB


async def test_the_deepest_call_that_a_bus_passes_on_is_answered(
    client: Client, bus_address: str
) -> None:
    value = Variant("s", "deep")
    while depth(value) < DEEPEST:
        value = Variant("v", value)
    version = (names.ROOT, PROPERTIES, "Set", "ssv", Interface.MANAGER, "Version")
    with pytest.raises(PropertyReadOnly):
        await client.call(*version, value)
    async with client_on(bus_address) as other:
        with pytest.raises(ConnectionLost):
            await other.call(*version, Variant("v", value))
    await client.objects()


def test_no_call_is_deeper_than_a_bus_passes_on() -> None:
    with ExitStack() as resources:
        generator = Generator(1, [Path(os.devnull)], resources, deepest=3)
        depths = {max(map(depth, generator.call().body), default=0) for _ in range(1000)}
    assert depths == {0, 1, 2, 3}
