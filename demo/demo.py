"""make demo: a real disk image, imported, cloned, changed and rolled back, every byte checked.

Everything happens in one temporary folder, on a private bus and on loopback, and is gone at the
end. Each command is printed before it runs, so that it can be repeated by hand.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from pathlib import Path

from image_server import serve
from stage import DemoFailed, Stage

RESCUE_DISK = Path("/usr/lib/grub-rescue/grub-rescue-usb.img")
"""A bootable disk of GRUB; Debian's and Ubuntu's package grub-rescue-pc."""


class Demo:
    def __init__(self, stage: Stage, image: Path) -> None:
        self.stage = stage
        self.image = image
        self.size = image.stat().st_size
        self.digest = hashlib.sha256(image.read_bytes()).hexdigest()

    async def run(self, url: str) -> None:
        await self.import_both_formats(url)
        await self.make_a_template()
        await self.clone_two_volumes()
        await self.change_one_and_roll_back()
        await self.show_what_there_is()
        await self.delete_everything()

    async def import_both_formats(self, url: str) -> None:
        title("Import the disk over HTTP: as a raw image, and as a compressed qcow2")
        run = self.stage.run
        await run(f"mvirt-zfsctl import rescue {url}/rescue.img --checksum sha256:{self.digest}")
        await self.verify("rescue")
        await run(f"mvirt-zfsctl import rescue-qcow2 {url}/rescue.qcow2")
        await self.verify("rescue-qcow2")

    async def make_a_template(self) -> None:
        title("Make a template of it: a snapshot, and a template from that")
        await self.stage.run("mvirt-zfsctl snapshot create rescue pristine")
        await self.stage.run("mvirt-zfsctl template create grub rescue pristine")

    async def clone_two_volumes(self) -> None:
        title("Clone two volumes from the template")
        for name in ("vm-1", "vm-2"):
            await self.stage.run(f"mvirt-zfsctl template clone grub {name}")
            await self.verify(name)

    async def change_one_and_roll_back(self) -> None:
        title("Snapshot one, overwrite its beginning, and roll it back")
        await self.stage.run("mvirt-zfsctl snapshot create vm-1 before")
        device = await self.device("vm-1")
        await self.stage.run(
            f"dd if=/dev/urandom of={device} bs=64K count=16 conv=notrunc status=none"
        )
        await self.verify("vm-1", changed=True)
        await self.verify("vm-2")
        await self.verify("rescue")
        await self.stage.run("mvirt-zfsctl snapshot rollback vm-1 before --yes")
        await self.verify("vm-1")

    async def show_what_there_is(self) -> None:
        title("What there is now, and how it looks on the bus")
        for what in ("volume list", "snapshot list", "template list", "job list", "pool"):
            await self.stage.run(f"mvirt-zfsctl {what}")
        await self.stage.run(f"busctl --address={self.stage.bus} tree org.mvirt.Zfs1")

    async def delete_everything(self) -> None:
        title("Delete it all")
        for name in ("vm-1", "vm-2", "rescue-qcow2"):
            await self.stage.run(f"mvirt-zfsctl volume delete {name} --snapshots --yes")
        await self.stage.run("mvirt-zfsctl template delete grub --yes")
        await self.stage.run("mvirt-zfsctl volume delete rescue --snapshots --yes")
        for kind in ("volume", "snapshot", "template"):
            left = json.loads(await self.stage.read(f"mvirt-zfsctl --json {kind} list"))
            check(not left, f"no {kind} is left")
        left = sorted(path.name for path in self.stage.disks.glob("*.raw"))
        check(not left, f"no disk is left in {self.stage.disks}")

    async def verify(self, name: str, *, changed: bool = False) -> None:
        """Compare a volume with the image; behind the image's end it has to be zeros."""
        device = Path(await self.device(name))
        content = await asyncio.to_thread(device.read_bytes)
        digest = hashlib.sha256(content[: self.size]).hexdigest()
        if changed:
            check(digest != self.digest, f"{name} differs from the image (sha256 {digest[:16]}…)")
            return
        check(digest == self.digest, f"{name} holds the image's bytes (sha256 {digest[:16]}…)")
        check(not any(content[self.size :]), f"{name} is zero behind them", quiet=True)

    async def device(self, name: str) -> str:
        shown = json.loads(await self.stage.read(f"mvirt-zfsctl --json volume show {name}"))
        return str(shown["Device"])


def title(text: str) -> None:
    print(f"\n== {text}")


def check(fulfilled: bool, statement: str, *, quiet: bool = False) -> None:
    if not fulfilled:
        raise DemoFailed(f"this should be so, and is not: {statement}")
    if not quiet:
        print(f"verified: {statement}", flush=True)


async def prepare_images(stage: Stage) -> Path:
    title("A real disk image: the bootable rescue disk of GRUB, raw and as a compressed qcow2")
    raw = stage.folder / "images" / "rescue.img"
    qcow2 = raw.with_suffix(".qcow2")
    raw.parent.mkdir()
    await stage.run(f"cp {RESCUE_DISK} {raw}")
    await stage.run(f"qemu-img convert -c -f raw -O qcow2 {raw} {qcow2}")
    await stage.run(f"ls -l {raw.parent}")
    return raw


async def demo(folder: Path) -> None:
    stage = Stage(folder)
    image = await prepare_images(stage)
    title("The service, on a directory, on a bus of its own")
    try:
        async with stage.private_bus(), stage.service(), serve(image.parent) as url:
            await Demo(stage, image).run(url)
    except DemoFailed:
        print(f"\nThe service's log ends with:\n{stage.log()}", file=sys.stderr)
        raise


def main() -> int:
    if not RESCUE_DISK.exists():
        print(f"{RESCUE_DISK} is missing: apt-get install grub-rescue-pc", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="mvirt-zfs-demo-") as folder:
        try:
            asyncio.run(demo(Path(folder)))
        except DemoFailed as failure:
            print(f"\ndemo: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    print("\nEvery step was verified. Bus, service, disks and images are gone again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
