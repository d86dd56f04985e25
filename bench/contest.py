"""Rounds in which all contestants of all cases run, one after the other, in changing order."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from .samples import Sample, Samples

Run = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    contestants: Mapping[str, Run]


async def run(cases: Sequence[Case], rounds: int, tell: Callable[[str], None]) -> list[Samples]:
    """Every contestant once a round; each round begins a case with another one of them."""
    measured = {
        (case.name, name): Samples(case.name, name) for case in cases for name in case.contestants
    }
    for number in range(rounds):
        began = time.monotonic()
        for case in cases:
            for name in _turned(list(case.contestants), number):
                measured[case.name, name].runs.append(await case.contestants[name]())
        tell(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s")
    return list(measured.values())


def _turned(names: list[str], by: int) -> list[str]:
    first = by % len(names)
    return names[first:] + names[:first]
