"""Whether what a service holds has grown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from service.held import MIB, Held

MARGINS: Final = {"threads": 8, "memory": 2 * MIB, "fork_server_memory": MIB}
"""What may be more without having grown; of all else, nothing.

Threads come when all others are busy, and stay: their number creeps up to the most that were ever
needed at once. Each kind of them has a bound, the largest is ``fds.MAX_THREADS``.
"""


def grown(samples: Sequence[Held]) -> list[str]:
    """What is no longer as it was; empty where all is flat.

    Of samples taken at even distances the first quarter is for warming up. The least of the last
    quarter must not be over the most of the second, and a margin: noise is in both directions, and
    what leaks is in each sample.
    """
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for each in fields(Held):
        before = max(getattr(sample, each.name) for sample in second)
        after = min(getattr(sample, each.name) for sample in last)
        if after > before + MARGINS.get(each.name, 0):
            found.append(f"{each.name}: at most {before}, then at least {after}")
    return found
