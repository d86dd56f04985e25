"""The daemon: options → store → core → api on the bus; start, reload, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from . import config, logs, names, systemd
from .api.publisher import Publisher
from .bus.dispatch import Dispatcher
from .bus.objects import ObjectTree
from .bus.polkit import Authority, OwnerAuthority, PolkitAuthority
from .bus.wire import BusError, Connection, connect
from .config import Config, ConfigError
from .core.imports import ImportPolicy
from .core.service import Service, Settings
from .errors import Error
from .garbage import lasting
from .store.base import Store

log = logging.getLogger(__name__)

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit status: 0 when asked to stop, 1 for a failure, 2 for wrong options."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        loaded = config.load(arguments)
    except ConfigError as error:
        print(f"mvirt-zfs-dbus: {error}", file=sys.stderr)
        return WRONG_USAGE
    logs.set_up(loaded.log_level)
    return asyncio.run(Daemon(loaded, arguments).run())


class Daemon:
    def __init__(self, loaded: Config, arguments: Sequence[str]) -> None:
        self._config = loaded
        self._arguments = arguments
        self._policy = _import_policy(loaded)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, _tell_what_is_held)
        try:
            async with AsyncExitStack() as resources:
                return await self._serve(resources)
        except (Error, BusError) as error:
            log.critical("%s", error)
            return FAILED

    async def _serve(self, resources: AsyncExitStack) -> int:
        """Start everything in the order in which ``resources`` will end it backwards."""
        connection = await connect(self._config.bus)
        resources.push_async_callback(connection.close)
        service = Service(self._store(), self._settings())
        resources.push_async_callback(service.close)
        tree = ObjectTree()
        Publisher(service, tree)
        with lasting():
            await service.start()
            tree.publish(connection.send)
        dispatcher = Dispatcher(connection, tree, self._authority(connection))
        resources.push_async_callback(dispatcher.close)
        await connection.request_name(names.BUS_NAME)
        log.info("%s serves %s", names.BUS_NAME, service.store.pool_name)
        systemd.notify("READY=1", f"STATUS=Serving {service.store.pool_name}")
        return await self._until_stopped(connection, service)

    async def _until_stopped(self, connection: Connection, service: Service) -> int:
        """Serve until a signal, the bus or a fault says otherwise."""
        watchdog = asyncio.create_task(systemd.keep_watchdog())
        stopped = asyncio.create_task(self._stop.wait())
        lost = asyncio.create_task(connection.lost.wait())
        following = asyncio.create_task(service.follow())
        try:
            await asyncio.wait([stopped, lost, following], return_when=asyncio.FIRST_COMPLETED)
        finally:
            systemd.notify("STOPPING=1")
            for task in (watchdog, stopped, lost, following):
                task.cancel()
            await asyncio.wait([watchdog, stopped, lost, following])
        if self._stop.is_set():
            log.info("stopping")
            return OK
        if not following.cancelled() and (fault := following.exception()):
            log.critical("stopping: the pool cannot be followed", exc_info=fault)
        else:
            log.error("stopping: %s", connection.why_lost)
        return FAILED

    def _store(self) -> Store:
        if self._config.directory:
            from .store.directory import DirectoryStore

            return DirectoryStore(self._config.directory)
        from .store.zfs import ZfsStore  # needs libzfs, which only hosts with ZFS have

        return ZfsStore(self._config.pool)

    def _settings(self) -> Settings:
        return Settings(
            self._config.state_directory,
            self._config.max_imports,
            self._policy,
            self._config.limits,
        )

    def _authority(self, connection: Connection) -> Authority:
        """The system bus means polkit; on any other, the owner of this process alone may change."""
        if self._config.bus == "system":
            return PolkitAuthority(connection)
        return OwnerAuthority(os.getuid())

    def _reload(self) -> None:
        """Read the configuration again; what is wrong with it is told, and all stays as it was."""
        systemd.notify("RELOADING=1")
        try:
            loaded = config.load(self._arguments)
        except ConfigError as error:
            log.error("the configuration stays as it was: %s", error)
        else:
            logging.getLogger().setLevel(loaded.log_level)
            self._policy.update(_import_policy(loaded))
            log.info("the configuration was read again")
        systemd.notify("READY=1")


def _tell_what_is_held() -> None:
    """What would grow if it leaked."""
    log.info(
        "held now: %d tasks, %d threads, %d open files",
        len(asyncio.all_tasks()),
        threading.active_count(),
        len(list(Path("/proc/self/fd").iterdir())) - 1,
    )


def _import_policy(loaded: Config) -> ImportPolicy:
    return ImportPolicy(
        loaded.import_directories,
        loaded.max_image_size,
        loaded.import_block_devices,
        loaded.import_hosts,
    )
