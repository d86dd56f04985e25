"""Pools that cannot be served, or not whole."""

from __future__ import annotations

import uuid
from pathlib import Path

import host
import pytest
from stores import new, opened, restarted

from mvirt_zfs_dbus.errors import PoolUnavailable
from mvirt_zfs_dbus.store.openzfs.properties import PIECE, PREFIX
from mvirt_zfs_dbus.store.zfs import ZfsStore


async def test_a_volume_too_large_to_be_read_does_not_hide_the_others(
    store: ZfsStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is a double: what a program may take at most is 100 MiB."""
    small, large, other = [await store.create_volume(new()) for _ in range(3)]
    dataset = f"{store.pool_name}/{large.id}"
    pieces = [f"{PREFIX}labels{f'-{n}' if n else ''}={'x' * PIECE}" for n in range(20)]
    host.run("zfs", "set", *pieces, dataset)
    assert set((await store.scan()).volumes) == {small.id, large.id, other.id}
    monkeypatch.setattr("mvirt_zfs_dbus.store.openzfs.kernel.MEMORY_LIMIT", 512 * 1024)
    assert set((await store.scan()).volumes) == {small.id, other.id}
    assert f"{dataset} cannot be read" in caplog.text


async def test_a_root_that_leaves_no_room_for_names_is_refused(root: str, tmp_path: Path) -> None:
    longest = root + "/" + "x" * (181 - len(f"{root}/"))
    host.run("zfs", "create", "-o", "mountpoint=none", longest)
    with pytest.raises(PoolUnavailable, match="longer than"):
        await restarted(f"{longest}x", tmp_path)
    async with opened(longest, tmp_path) as store:
        made = await store.create_volume(new())
        await store.create_snapshot(made.id, str(uuid.uuid4()), "taken", 1)
        assert len((await store.scan()).snapshots) == 1


async def test_a_pool_that_is_locked_says_so(root: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    locked = f"{root}/locked"
    encryption = ["-o", "encryption=on", "-o", "keyformat=raw", "-o", f"keylocation=file://{key}"]
    host.run("zfs", "create", "-o", "mountpoint=none", *encryption, locked)
    async with opened(locked, tmp_path) as store:
        made = await store.create_volume(new())
        host.write(made.device, b"secret")
        host.run("udevadm", "settle")
        host.run("zfs", "unload-key", locked)
        with pytest.raises(PoolUnavailable, match="load-key"):
            await store.scan()
        host.run("zfs", "load-key", locked)
        assert set((await store.scan()).volumes) == {made.id}
    host.run("udevadm", "settle")
    host.run("zfs", "unload-key", locked)
    with pytest.raises(PoolUnavailable, match="load-key"):
        await restarted(locked, tmp_path)
