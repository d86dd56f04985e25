"""Imports of one disk in every format: ours against the tools people use for it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mvirt_zfs_dbus.image import Workers

from . import commands, contest, host, images, ours, server, service, targets, watch
from .contest import Case, Run
from .images import Images
from .report import Report, times, verdicts
from .samples import Sample, Samples, lines_of
from .watch import Watched

JOB, ENGINE, QEMU, SYNCED = "job", "engine", "qemu-img", " + sync"
CURL, DOWNLOAD = "curl, then qemu-img", "curl to /dev/null"
CP, DD = "cp --sparse=always", "dd conv=sparse"
PLAIN, ZLIB, ZSTD = "qcow2, plain", "qcow2, zlib", "qcow2, zstd"
SPARSE, FULL = "raw, sparse", "raw, full"
HTTP_RAW, HTTP_ZLIB = "HTTP, raw", "HTTP, qcow2 zlib"
HUGE, HTTP_HUGE = "qcow2, 2 TiB virtual", "HTTP, qcow2, 2 TiB virtual"
_MIB = 1 << 20
_CONVERT = "qemu-img convert -n --target-is-zero -W -m 16 -O raw -f"


@dataclass(frozen=True, slots=True)
class Options:
    size: int = 2 << 30
    """Bytes of the disk."""
    rounds: int = 5
    directory: Path | None = None
    """Where the disks are written; None for the checkout's ``build/bench``."""
    images: Path | None = None
    """Where the images are kept; None for the checkout's ``build/bench/images``."""
    only: str = ""
    """Run the cases alone whose names contain this."""


async def run(options: Options) -> Report:
    build = host.ROOT / "build" / "bench"
    directory = options.directory or build
    directory.mkdir(parents=True, exist_ok=True)
    machine = host.describe(directory)
    kept = options.images or build / "images"
    made = await asyncio.to_thread(images.make, kept, options.size)
    with tempfile.TemporaryDirectory(prefix="run-", dir=directory) as folder:
        async with _stage(Path(folder), made) as stage:
            cases = [case for case in stage.cases() if options.only in case.name]
            measured = await contest.run(cases, options.rounds, _tell)
            watches = [
                await watch.watched(name, stage.service, partial(ours.job, stage.service, source))
                for name, source in stage.watched().items()
                if options.only in name
            ]
            measured = _with_memory(measured, watches)
            found = targets.verdicts(measured, watches, stage.engine.spools)
    return Report(
        "imports",
        "make bench BENCH=imports",
        machine,
        [times(measured, JOB), _meanwhile(watches), verdicts(found)],
        {
            "rounds": options.rounds,
            "disk_bytes": options.size,
            "samples": [each.as_json() for each in measured],
            "watched": [each.as_json() for each in watches],
            "verdicts": [each.as_json() for each in found],
        },
    )


def _tell(text: str) -> None:
    print(text, flush=True)


@asynccontextmanager
async def _stage(folder: Path, made: Images) -> AsyncIterator[_Stage]:
    workers = Workers()
    await workers.start()
    try:
        with server.serve(made.raw.parent, folder) as url:
            async with service.running(folder) as running:
                yield _Stage(folder / "peer.raw", made, url, running, ours.Engine(workers))
    finally:
        await workers.close()


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where the contestants meet."""

    target: Path
    """Theirs and the engine's disk; on the file system of the service's."""
    images: Images
    url: str
    service: service.Service
    engine: ours.Engine

    def cases(self) -> list[Case]:
        made = self.images
        raw = {SPARSE: made.raw, FULL: made.full}
        qcow2 = {PLAIN: made.plain, ZLIB: made.zlib, ZSTD: made.zstd}
        return [
            *(Case(name, self._qcow2(image)) for name, image in qcow2.items()),
            *(Case(name, self._raw(image)) for name, image in raw.items()),
            Case(HTTP_RAW, self._http(made.raw, "raw")),
            Case(HTTP_ZLIB, self._http(made.zlib, "qcow2")),
        ]

    def watched(self) -> Mapping[str, Path | str]:
        made = self.images
        return {
            PLAIN: made.plain,
            ZLIB: made.zlib,
            ZSTD: made.zstd,
            SPARSE: made.raw,
            FULL: made.full,
            HTTP_RAW: self._address(made.raw),
            HTTP_ZLIB: self._address(made.zlib),
            HUGE: made.huge,
            HTTP_HUGE: self._address(made.huge),
        }

    def _qcow2(self, image: Path) -> dict[str, Run]:
        return self._ours(image) | self._synced_too(QEMU, f"{_CONVERT} qcow2 {image} {self.target}")

    def _raw(self, image: Path) -> dict[str, Run]:
        peers = {
            QEMU: f"{_CONVERT} raw {image} {self.target}",
            CP: f"cp --sparse=always {image} {self.target}",
            DD: f"dd if={image} of={self.target} bs=1M conv=sparse,notrunc status=none",
        }
        found = self._ours(image)
        for name, line in peers.items():
            found |= self._synced_too(name, line)
        return found

    def _http(self, image: Path, image_format: str) -> dict[str, Run]:
        address, copy = self._address(image), self.target.with_suffix(".download")
        fetch = f"curl --silent --fail --output {copy} {address}"
        line = f"{fetch} && {_CONVERT} {image_format} {copy} {self.target}"
        return {
            **self._ours(address),
            **self._synced_too(CURL, line),
            DOWNLOAD: partial(self._peer, f"curl --silent --fail --output /dev/null {address}"),
        }

    def _ours(self, source: Path | str) -> dict[str, Run]:
        return {
            JOB: partial(ours.job, self.service, source),
            ENGINE: partial(self.engine.run, source, self.target),
        }

    def _synced_too(self, name: str, line: str) -> dict[str, Run]:
        return {
            name: partial(self._peer, line),
            name + SYNCED: partial(self._peer, f"{line} && sync {self.target}"),
        }

    def _address(self, image: Path) -> str:
        return f"{self.url}/{image.name}"

    async def _peer(self, line: str) -> Sample:
        """Into a fresh sparse file of the disk's size, as the store makes them."""
        self.target.unlink(missing_ok=True)
        self.target.with_suffix(".download").unlink(missing_ok=True)
        with self.target.open("wb") as file:
            file.truncate(self.images.size)
        words = commands.shell(line) if "&&" in line else tuple(line.split())
        sample = await asyncio.to_thread(commands.measured, words)
        self.target.with_suffix(".download").unlink(missing_ok=True)
        return sample


def _with_memory(measured: Sequence[Samples], watches: Sequence[Watched]) -> list[Samples]:
    """A job's memory is that of the service, its daemon and the fork server included."""
    memory = {watched.case: watched.memory for watched in watches}
    return [
        replace(each, runs=[replace(run, memory=memory.get(each.case, 0)) for run in each.runs])
        if each.contestant == JOB
        else each
        for each in measured
    ]


def _meanwhile(watches: Sequence[Watched]) -> str:
    headings = (
        "during a job",
        "daemon grows MiB",
        "with workers MiB",
        "Ping median ms",
        "Ping max ms",
        "Pings",
    )
    rows = [
        [
            each.case,
            f"{each.daemon_growth / _MIB:.1f}",
            f"{each.growth / _MIB:.1f}",
            f"{each.ping_median * 1000:.2f}",
            f"{each.ping_max * 1000:.1f}",
            str(each.pings),
        ]
        for each in watches
    ]
    return "\n".join(lines_of(headings, rows))
