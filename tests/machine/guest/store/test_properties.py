"""What volumes of the ZFS store are made with."""

from __future__ import annotations

import ctypes
import ctypes.util
import uuid
from dataclasses import replace

import host
from stores import BLOCK, new

from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.openzfs.properties import COMPRESSIONS
from mvirt_zfs_dbus.store.zfs import ZfsStore


def test_every_compression_has_the_number_libzfs_gives_its_name() -> None:
    libzfs = ctypes.CDLL(ctypes.util.find_library("zfs"))
    libzfs.libzfs_init.restype = ctypes.c_void_p
    assert libzfs.libzfs_init()
    compression = libzfs.zfs_name_to_prop(b"compression")
    number = ctypes.c_uint64()
    for name, ours in COMPRESSIONS.items():
        assert (
            libzfs.zfs_prop_string_to_index(compression, name.encode(), ctypes.byref(number)) == 0
        )
        assert (name, ours) == (name, number.value)


async def test_a_volume_is_compressed_as_asked_or_as_its_parent(store: ZfsStore, root: str) -> None:
    asked = await store.create_volume(new(compression="zstd-fast-30"))
    plain = await store.create_volume(new("plain"))
    assert host.get("compression", f"{root}/{asked.id}") == "zstd-fast-30"
    assert host.get("compression", f"{root}/{plain.id}") == host.get("compression", root)


async def test_a_thick_volume_reserves_what_zfs_create_reserves_and_grows_so(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=64 * host.MIB, thin=False))
    host.run("zfs", "create", "-b", str(BLOCK), "-V", "64M", f"{root}/twin")
    assert host.get("refreservation", f"{root}/{made.id}") == host.get(
        "refreservation", f"{root}/twin"
    )
    await store.resize(made.id, 96 * host.MIB)
    host.run("zfs", "set", "volsize=96M", f"{root}/twin")
    assert host.get("refreservation", f"{root}/{made.id}") == host.get(
        "refreservation", f"{root}/twin"
    )
    assert int(host.get("refreservation", f"{root}/twin")) > 96 * host.MIB


async def test_a_thick_volume_that_was_turned_back_reserves_what_its_size_takes(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=32 * host.MIB, thin=False))
    dataset = f"{root}/{made.id}"
    small = host.get("refreservation", dataset)
    taken = await store.create_snapshot(made.id, str(uuid.uuid4()), "small", 1)
    await store.resize(made.id, 48 * host.MIB)
    large = host.get("refreservation", dataset)
    await store.rollback(taken.id, destroy_newer=False)
    assert host.get("refreservation", dataset) == small
    # A crash right after the rollback leaves the larger reservation.
    host.run("zfs", "set", f"refreservation={large}", dataset)
    await store.resize(made.id, 64 * host.MIB)
    assert int(host.get("refreservation", dataset)) > 64 * host.MIB


async def test_a_part_that_an_administrator_reserved_stays_as_it_is(
    store: ZfsStore, root: str
) -> None:
    made = await store.create_volume(new(size=32 * host.MIB))
    host.run("zfs", "set", "refreservation=16M", f"{root}/{made.id}")
    await store.resize(made.id, 64 * host.MIB)
    assert host.get("refreservation", f"{root}/{made.id}") == str(16 * host.MIB)


async def test_a_template_reserves_nothing_for_writes_that_never_come(
    store: ZfsStore, root: str
) -> None:
    imported = new(size=32 * host.MIB, thin=False)
    await store.create_target(Kind.TEMPLATE, imported)
    assert int(host.get("refreservation", f"{root}/.tmp/{imported.id}")) > 32 * host.MIB
    await store.publish(imported.id)
    assert host.get("refreservation", f"{root}/{imported.id}") == "0"


async def test_a_thin_volume_reserves_nothing(store: ZfsStore, root: str) -> None:
    made = await store.create_volume(new(thin=True))
    assert host.get("refreservation", f"{root}/{made.id}") == "0"


async def test_a_checksum_is_kept_without_a_source(store: ZfsStore) -> None:
    asked = replace(new(), checksum="sha256:" + "0" * 64)
    await store.create_target(Kind.VOLUME, asked)
    await store.publish(asked.id)
    assert (await store.scan()).volumes[asked.id].checksum == asked.checksum
