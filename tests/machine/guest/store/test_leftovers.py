"""What a crash left in POOL/.tmp is cleared away at the next start, and nothing of others'."""

from __future__ import annotations

import uuid
from pathlib import Path

import host
import pytest
from stores import new, restarted

from mvirt_zfs_dbus.errors import PoolUnavailable
from mvirt_zfs_dbus.model import Kind
from mvirt_zfs_dbus.store.zfs import ZfsStore


async def test_what_a_power_cut_left_without_a_sign_of_whose_it_is_goes_at_the_start(
    store: ZfsStore, root: str, tmp_path: Path
) -> None:
    await store.close()
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/.tmp/{uuid.uuid4()}")
    made = f"{root}/.tmp/{uuid.uuid4()}"
    host.run("zfs", "create", "-s", "-V", "1M", made)
    host.run("zfs", "snapshot", f"{made}@img")
    await restarted(root, tmp_path)
    assert host.datasets(root) == set()


async def test_an_id_can_be_used_again_after_its_maker_could_not_clear_up(
    store: ZfsStore, root: str
) -> None:
    asked, target = new(), new("target")
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/.tmp/volumes/{asked.id}")
    host.run("zfs", "create", "-s", "-V", "1M", f"{root}/.tmp/{target.id}")
    assert (await store.create_volume(asked)).size == asked.size
    await store.create_target(Kind.VOLUME, target)
    await store.publish(target.id)
    assert host.datasets(root) == {asked.id, target.id}


async def test_a_place_without_its_properties_is_taken_over_and_a_strangers_is_not(
    root: str, tmp_path: Path
) -> None:
    host.run("zfs", "create", "-o", "mountpoint=none", f"{root}/.tmp")
    await restarted(root, tmp_path)
    assert host.get("org.mvirt:kind", f"{root}/.tmp") == "spool"
    assert host.get("volmode", f"{root}/.tmp") == "none"
    assert [host.get(name, f"{root}/.tmp") for name in ("mountpoint", "canmount")] == [
        "legacy",
        "noauto",
    ]
    host.run("zfs", "destroy", f"{root}/.tmp/volumes")
    host.run("zfs", "create", f"{root}/.tmp/volumes")
    await restarted(root, tmp_path)
    assert host.get("volmode", f"{root}/.tmp/volumes") == "dev"
    for theirs in (f"{root}/.tmp/theirs", f"{root}/.tmp/volumes"):
        host.run("zfs", "destroy", "-r", f"{root}/.tmp")
        host.run("zfs", "create", "-o", "mountpoint=none", f"{root}/.tmp")
        host.run("zfs", "create", theirs)
        with pytest.raises(PoolUnavailable, match="rename it"):
            await restarted(root, tmp_path)
        host.run("zfs", "list", theirs)


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_place_with_somebody_elses_files_is_left_as_it_is(
    root: str, tmp_path: Path, mounted: bool
) -> None:
    theirs = tmp_path / "theirs"
    host.run("zfs", "create", "-o", f"mountpoint={theirs}", f"{root}/.tmp")
    (theirs / "file").write_bytes(b"kept")
    if not mounted:
        host.run("zfs", "unmount", f"{root}/.tmp")
    with pytest.raises(PoolUnavailable, match="rename it"):
        await restarted(root, tmp_path)
    assert host.get("mountpoint", f"{root}/.tmp") == str(theirs)
    assert host.get("org.mvirt:kind", f"{root}/.tmp") == "-"
    if not mounted:
        host.run("zfs", "mount", f"{root}/.tmp")
    assert (theirs / "file").read_bytes() == b"kept"
