"""The figures that imports were asked for, and what this run has to say to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import imports
from .samples import Figures, Samples, Verdict
from .watch import Watched

_MIB = 1 << 20


def verdicts(measured: Sequence[Samples], watches: Sequence[Watched], spools: int) -> list[Verdict]:
    figures = Figures(measured)
    at_least = [
        _faster(figures, imports.ZLIB, imports.QEMU, 2.5),
        _faster(figures, imports.ZSTD, imports.QEMU, 2.5),
        _faster(figures, imports.PLAIN, imports.QEMU, 1.0),
        _faster(figures, imports.SPARSE, imports.QEMU, 1.5),
        _faster(figures, imports.FULL, imports.QEMU, 1.5),
        _faster(figures, imports.SPARSE, imports.CP, 1.0),
        _faster(figures, imports.FULL, imports.CP, 1.0),
        _faster(figures, imports.HTTP_ZLIB, imports.CURL, 2.5),
    ]
    return [
        *at_least,
        Verdict(
            "HTTP, qcow2 zlib: times the slower of download and local job",
            _or_none(lambda: _over_the_slower(figures)),
            1.3,
            at_least=False,
        ),
        Verdict("temporary files over HTTP", float(spools), 0, at_least=False),
        *_meanwhile(watches),
    ]


def _faster(figures: Figures, case: str, peer: str, wanted: float) -> Verdict:
    ratio = _or_none(lambda: figures.times_as_fast(case, imports.JOB, peer))
    return Verdict(f"{case}: job is times as fast as {peer}", ratio, wanted, at_least=True)


def _over_the_slower(figures: Figures) -> float:
    download = figures.seconds(imports.HTTP_ZLIB, imports.DOWNLOAD)
    local = figures.seconds(imports.ZLIB, imports.JOB)
    return figures.seconds(imports.HTTP_ZLIB, imports.JOB) / max(download, local)


def _meanwhile(watches: Sequence[Watched]) -> list[Verdict]:
    if not watches:
        return []
    growth = max(watched.daemon_growth for watched in watches) / _MIB
    together = max(watched.growth for watched in watches) / _MIB
    middle = max(watched.ping_median for watched in watches) * 1000
    longest = max(watched.ping_max for watched in watches) * 1000
    return [
        Verdict("the daemon's growth during any import", growth, 150, False, " MiB"),
        Verdict("the same with its workers", together, 150, False, " MiB"),
        Verdict("median Ping during any import", middle, 5, False, " ms"),
        Verdict("longest Ping during any import", longest, 50, False, " ms"),
    ]


def _or_none(figure: Callable[[], float]) -> float | None:
    try:
        return figure()
    except KeyError:
        return None
