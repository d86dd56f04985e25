"""One import, from the call to the published volume or template.

The order is what keeps a half-written disk out of sight: the image is looked at before anything is
made, the target is invisible until its bytes are synced and checked, and one step publishes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from .. import fds, rules
from ..errors import ChecksumMismatch, Error, InvalidSize, NoSpace
from ..hosts import ANY_HOST, HostRules
from ..image import Conversion, FdSource, ImageInfo, UrlSource, Workers
from ..image import Progress as ImageProgress
from ..model import Kind, Operation
from ..store.base import NewDataset, Store
from ..tasks import uninterrupted
from . import sources
from .catalog import Catalog
from .clock import now
from .jobs import Jobs
from .progress import Progress
from .spools import Spools

log = logging.getLogger(__name__)

FROM_FD: Final = "fd"
"""What stands as the source of an import whose caller passed a file descriptor."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a caller may say of an import; the contract's options in Python's names."""

    id: str | None = None
    size: int | None = None
    """Bytes; None for the image's."""
    format: str = "auto"
    checksum: str | None = None
    block_size: int = rules.DEFAULT_BLOCK_SIZE
    thin: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class ImportPolicy:
    """What the administrator allows; may change while the service runs."""

    directories: Sequence[Path] | None
    """Where path sources lie; None for anywhere."""
    max_image_size: int
    block_devices: bool = False
    """Whether path sources may be block devices."""
    hosts: HostRules = ANY_HOST
    """Where URL sources may lead."""

    def update(self, other: ImportPolicy) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


class Imports:
    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        jobs: Jobs,
        workers: Workers,
        spools: Spools,
        policy: ImportPolicy,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._jobs = jobs
        self._workers = workers
        self._spools = spools
        self._policy = policy

    async def from_source(
        self, kind: Kind, name: str, source: str, options: ImportOptions, uid: int
    ) -> str:
        """Import from an absolute path or a URL; the answer is the job's id.

        Raises InvalidName, InvalidArgs, InvalidSize, AlreadyExists, AccessDenied, NotFound; what is
        wrong with the image itself is the job's error.
        """
        order = _Order.of(kind, name, rules.source(source), options)
        with ExitStack() as resources:
            resources.enter_context(self._catalog.reserve(kind, name, order.new.id))
            if rules.is_url(source):
                sources.check_url(source, self._policy.hosts)
                return await self._submit(order, UrlSource(source), uid, resources.pop_all())
            policy = self._policy
            fd = await sources.open_path(source, policy.directories, policy.block_devices)
            resources.callback(fds.close, fd)
            return await self._submit(order, FdSource(fd), uid, resources.pop_all())

    async def from_fd(
        self, kind: Kind, name: str, fd: int, options: ImportOptions, uid: int
    ) -> str:
        """Import from a file, device, pipe or socket that the caller opened; ``fd`` is ours now."""
        with ExitStack() as resources:
            resources.callback(fds.close, fd)
            await sources.check_fd(fd)
            order = _Order.of(kind, name, FROM_FD, options)
            resources.enter_context(self._catalog.reserve(kind, name, order.new.id))
            return await self._submit(order, FdSource(fd), uid, resources.pop_all())

    async def _submit(
        self, order: _Order, source: FdSource | UrlSource, uid: int, resources: ExitStack
    ) -> str:
        async def work(progress: Progress) -> None:
            await self._run(order, source, progress)

        new = order.new
        return await self._jobs.submit(
            order.operation, new.name, new.source, uid, new.id, work, resources
        )

    async def _run(self, order: _Order, source: FdSource | UrlSource, progress: Progress) -> None:
        new = order.new
        try:
            async with (
                self._spools.of_import() as open_spool,
                self._workers.convert(
                    source,
                    image_format=order.image_format,
                    checksum_algorithm=order.checksum.algorithm if order.checksum else None,
                    hosts=self._policy.hosts,
                    open_spool=open_spool,
                    progress=lambda report: _report(progress, report),
                ) as conversion,
            ):
                info = await conversion.probe()
                target = await self._fitting(order, info)
                await self._store.create_target(order.kind, target)
                digest = await self._write(order, target, conversion)
            _verify(order, digest)
            progress.commit()
            self._catalog.put(await self._store.publish(new.id))
        except BaseException:
            await uninterrupted(self._abandon(new.id))
            raise

    async def _abandon(self, target_id: str) -> None:
        """Destroy what an import has made; what ended the import is told, not what this meets."""
        try:
            await self._store.abandon(target_id)
        except Error as error:
            log.error("the unfinished %s stays until the next start: %s", target_id, error)

    async def _fitting(self, order: _Order, info: ImageInfo) -> NewDataset:
        """The target an image needs, once it is known to be allowed and to fit."""
        wanted, image = order.size, info.virtual_size
        if image is not None and image > self._policy.max_image_size:
            raise InvalidSize(
                f"the image is a disk of {image} bytes; at most"
                f" {self._policy.max_image_size} are allowed (max-image-size)"
            )
        if image is not None and wanted and wanted < image:
            raise InvalidSize(f"size {wanted} is less than the image's {image} bytes")
        size = _rounded(wanted or image or order.new.block_size, order.new.block_size)
        needed = (info.allocated or 0) if order.new.thin else size
        available = (await self._store.pool()).usage.available
        if needed > available:
            raise NoSpace(f"the image needs {needed} bytes and the pool has {available} left")
        return replace(order.new, size=size)

    async def _write(self, order: _Order, target: NewDataset, conversion: Conversion) -> str:
        """Write the target; the answer is the source's digest, empty when none was asked for."""

        async def resize(size: int) -> None:
            """Make room for a source that has no known length, or cut it to what came."""
            if size > (order.size or self._policy.max_image_size):
                raise InvalidSize(
                    f"the source is larger than the {order.size or self._policy.max_image_size}"
                    " bytes it may have"
                )
            await self._store.resize_target(
                target.id, _rounded(max(size, order.size, 1), target.block_size)
            )

        fd = await self._store.open_target(target.id)
        try:
            outcome = await conversion.write(
                fd, target_size=target.size, target_is_zero=True, resize=resize
            )
        finally:
            os.close(fd)
        return outcome.digest or ""


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for, checked as far as it can be without the image."""

    kind: Kind
    new: NewDataset
    size: int
    """Bytes; 0 for the image's."""
    image_format: str
    checksum: rules.Checksum | None

    @classmethod
    def of(cls, kind: Kind, name: str, source: str, options: ImportOptions) -> _Order:
        block = rules.block_size(options.block_size)
        size = 0
        if options.size is not None:
            size = rules.volume_size(options.size, block, rules.MAX_VOLUME_SIZE)
        checksum = None if options.checksum is None else rules.checksum(options.checksum)
        new = NewDataset(
            id=rules.object_id(options.id),
            name=rules.name(name),
            size=size,
            block_size=block,
            thin=options.thin,
            labels=rules.labels(options.labels),
            source=rules.shown_source(source),
            checksum=str(checksum or ""),
            created_at=now(),
        )
        return cls(kind, new, size, rules.image_format(options.format), checksum)

    @property
    def operation(self) -> Operation:
        if self.kind is Kind.VOLUME:
            return Operation.IMPORT_VOLUME
        return Operation.IMPORT_TEMPLATE


def _verify(order: _Order, digest: str) -> None:
    if order.checksum and digest != order.checksum.digest:
        raise ChecksumMismatch(
            f"the source's {order.checksum.algorithm} is {digest}, not {order.checksum.digest}"
        )


def _rounded(size: int, block: int) -> int:
    return -(-size // block) * block


def _report(progress: Progress, report: ImageProgress) -> None:
    progress.report(report.phase, report.bytes_done, report.bytes_total)
