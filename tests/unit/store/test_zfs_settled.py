from __future__ import annotations

import asyncio

import pytest

from mvirt_zfs_dbus.errors import NotFound
from mvirt_zfs_dbus.store.openzfs.settled import settled


class Work:
    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.done = False

    @settled
    async def run(self, failure: Exception | None = None) -> int:
        await self.go_on.wait()
        self.done = True
        if failure:
            raise failure
        return 7


async def test_an_answer_and_a_failure_pass_through() -> None:
    work = Work()
    work.go_on.set()
    assert await work.run() == 7
    with pytest.raises(NotFound):
        await work.run(NotFound("gone"))


@pytest.mark.parametrize("failure", [None, NotFound("gone")])
async def test_a_cancelled_caller_is_told_so_when_the_work_has_ended(
    failure: Exception | None,
) -> None:
    work = Work()
    calling = asyncio.create_task(work.run(failure))
    for _ in range(3):
        await asyncio.sleep(0)
        calling.cancel()
    await asyncio.sleep(0)
    assert not calling.done() and not work.done
    work.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert work.done
