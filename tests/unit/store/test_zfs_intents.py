"""Ids that are written down ahead, on a double of the kernel: it takes what it is told to keep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mvirt_zfs_dbus.errors import AlreadyExists, Error, NoSpace
from mvirt_zfs_dbus.store.openzfs import programs
from mvirt_zfs_dbus.store.openzfs.intents import Intents
from mvirt_zfs_dbus.store.openzfs.programs import Outcome


class Pool:
    """Both the kernel and the place of :class:`Intents`."""

    root, dataset = "tank", "tank/.tmp"

    def __init__(self) -> None:
        self.intents: set[str] = set()
        self.writings = 0
        self.half_made: list[str] = []
        self.full = False
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def ensure(self) -> None:
        """It is there."""

    async def look(self) -> dict[bytes, bytes]:
        return {b"intents": " ".join(self.intents).encode()} if self.intents else {}

    async def read(self, program: str, **arguments: Any) -> dict[bytes, Any]:
        if program == programs.NOBODYS:
            left = [name for name in arguments["names"] if name in self.half_made]
            return {b"names": {b"%d" % n: name.encode() for n, name in enumerate(left, 1)}}
        return {b"value": b"12288"}

    async def create(self, dataset: str, _kind: str, _properties: object) -> None:
        if self.full:
            raise NoSpace(f"create {dataset}")

    async def destroy(self, _dataset: str) -> None:
        """The probe is gone."""

    async def exists(self, _dataset: str) -> bool:
        return False

    async def change(self, _what: str, _program: str, **arguments: Any) -> Outcome:
        if self.full:
            raise NoSpace("the pool is full")
        if "set" not in arguments:
            self.half_made = [each for each in self.half_made if each not in arguments["names"]]
            return Outcome("settled")
        await self.may_write.wait()
        self.intents = set(arguments["set"][b"org.mvirt:intents"].decode().split())
        self.writings += 1
        return Outcome("set")


@pytest.fixture
async def pool() -> Pool:
    return Pool()


@pytest.fixture
async def intents(pool: Pool) -> Intents:
    return Intents(pool, pool)  # type: ignore[arg-type]


async def make(intents: Intents, dataset_id: str) -> None:
    async with intents.making(dataset_id) as name:
        assert name == f"tank/{dataset_id}"


async def test_one_writing_does_for_many(pool: Pool, intents: Intents) -> None:
    for _ in range(60):
        await make(intents, intents.new_id())
    assert pool.writings == 1


async def test_what_is_being_made_is_always_written_down(pool: Pool, intents: Intents) -> None:
    for _ in range(200):
        async with intents.making(new_id := intents.new_id()):
            assert new_id in pool.intents


async def test_no_id_is_given_to_two_while_others_are_written_down(
    pool: Pool, intents: Intents
) -> None:
    await make(intents, intents.new_id())
    pool.may_write.clear()
    chosen = asyncio.create_task(make(intents, "11111111-1111-4111-8111-111111111111"))
    await asyncio.sleep(0)
    given = [intents.new_id() for _ in range(100)]
    pool.may_write.set()
    await chosen
    given += [intents.new_id() for _ in range(100)]
    assert len(set(given)) == len(given)
    for each in given:
        async with intents.making(each):
            assert each in pool.intents


async def test_an_id_that_its_caller_read_in_the_pool_is_not_given_to_another(
    pool: Pool, intents: Intents
) -> None:
    await make(intents, intents.new_id())
    chosen = sorted(pool.intents)[:5]
    for each in chosen:
        await make(intents, each)
    assert not {intents.new_id() for _ in range(100)} & set(chosen)


async def test_a_strangers_id_is_written_down_no_more(pool: Pool, intents: Intents) -> None:
    with pytest.raises(AlreadyExists):
        async with intents.making("11111111-1111-4111-8111-111111111111"):
            raise AlreadyExists("a stranger was first")
    assert "11111111-1111-4111-8111-111111111111" not in pool.intents


async def test_who_was_first_is_the_answer_whether_it_can_be_written_down_or_not(
    pool: Pool, intents: Intents
) -> None:
    chosen = "11111111-1111-4111-8111-111111111111"
    with pytest.raises(AlreadyExists):
        async with intents.making(chosen):
            pool.full = True
            raise AlreadyExists("a stranger was first")
    pool.full = False
    await make(intents, intents.new_id())
    assert chosen not in pool.intents


async def test_an_id_is_fresh_until_something_is_made_with_it(intents: Intents) -> None:
    await make(intents, first := intents.new_id())
    given = intents.new_id()
    assert intents.is_fresh(given) and not intents.is_fresh(first)
    with pytest.raises(Error):
        async with intents.making(given):
            assert not intents.is_fresh(given)
            raise NoSpace("the pool is full")
    assert not intents.is_fresh(given)


async def test_a_full_pool_with_something_half_made_in_it_is_served(
    pool: Pool, intents: Intents
) -> None:
    left = "11111111-1111-4111-8111-111111111111"
    pool.intents, pool.half_made, pool.full = {left}, [f"tank/{left}"], True
    await intents.recover()
    await intents.renew()
    assert pool.half_made
    pool.full = False
    await make(intents, intents.new_id())
    assert left in pool.intents  # to be destroyed at the next start
    await intents.recover()
    await intents.renew()
    assert not pool.half_made
    assert left not in pool.intents


async def test_what_failed_and_is_gone_takes_no_room(pool: Pool, intents: Intents) -> None:
    for _ in range(300):
        with pytest.raises(NoSpace):
            async with intents.making(intents.new_id()):
                raise NoSpace("the pool is full")
    assert intents.have_room


async def test_a_start_writes_nothing_in_a_pool_that_never_used_it(
    pool: Pool, intents: Intents
) -> None:
    await intents.recover()
    await intents.renew()
    assert pool.writings == 0
    await make(intents, intents.new_id())
    await intents.recover()
    await intents.renew()
    assert pool.writings == 2
