"""What is there to stay is none of the garbage collector's business."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from mvirt_zfs_dbus.garbage import lasting


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_lasts_is_not_gone_through_and_all_else_is() -> None:
    with lasting():
        assert not gc.isenabled()
        kept = {"a": ["value"]}
    later: list[object] = [[]]
    assert gc.isenabled()
    tracked = {id(each) for each in gc.get_objects()}
    assert id(kept) not in tracked
    assert id(later) in tracked


def test_a_start_that_fails_leaves_the_collector_on() -> None:
    with pytest.raises(OSError, match="x"), lasting():
        raise OSError("x")
    assert gc.isenabled()
