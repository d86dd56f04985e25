"""qemu's command line, and whether this host's KVM can be had."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.machine.cache import cache_directory

PROBE_SECONDS = 20  # a kernel under working KVM is through in 2
_APPEND = (
    "console=ttyS0 panic=-1 net.ifnames=0 mitigations=off init_on_alloc=0 norandmaps tsc=reliable"
)
"""Without what the kernel does against attackers, as that is emulated too, and without random
addresses (norandmaps), which make starting a program dearer. With room for a second processor the
kernel distrusts the TSC and asks the HPET instead, of which each reading leaves the emulated
processor; all processors of qemu read the host's one TSC. The two take a sixth off the contract's
tests."""
_TCG = ["-accel", "tcg,thread=multi", "-cpu", "qemu64"]  # "max" boots in 25 s instead of 21
_KVM = ["-accel", "kvm", "-cpu", "host"]


@dataclass(frozen=True)
class Kernel:
    image: Path
    initrd: Path

    @property
    def options(self) -> list[str]:
        return ["-kernel", str(self.image), "-initrd", str(self.initrd)]


@dataclass(frozen=True)
class Disk:
    """A raw file that the guest sees as /dev/disk/by-id/virtio-SERIAL."""

    serial: str
    file: Path


def command(
    kernel: Kernel,
    disks: list[Disk],
    *,
    accelerator: list[str],
    console: Path,
    journal: Path,
    status: int,
    ssh_port: int,
    processors: int,
    memory: int = 3072,
) -> list[str]:
    """The command of one machine; its first disk is the root.

    What comes out: the serial console and the journal into files, a line on the file descriptor
    `status` once it is up. In goes ssh from `ssh_port` of the host's loopback; the guest reaches
    nothing outside. Disks are raw and qemu passes every write to the host's kernel, so killing
    qemu is to the guest what a power cut is.
    """
    return [
        *("qemu-system-x86_64", "-machine", "q35", *accelerator),
        *("-smp", several(processors), "-m", str(memory)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *kernel.options,
        *("-append", f"{_APPEND} root=/dev/vda rw quiet systemd.show_status=no"),
        *("-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci"),
        *("-chardev", f"file,id=journal,path={journal},append=on"),
        *("-device", "virtserialport,chardev=journal,name=journal"),
        *("-chardev", f"file,id=status,path=/dev/fd/{status}"),
        *("-device", "virtserialport,chardev=status,name=status"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *(
            "-object",
            "rng-random,id=rng,filename=/dev/urandom",
            "-device",
            "virtio-rng-pci,rng=rng",
        ),
        *(word for disk in disks for word in _drive(disk)),
    ]


def _drive(disk: Disk) -> list[str]:
    drive = f"file={disk.file},id={disk.serial},format=raw,if=none,cache=unsafe,discard=unmap"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={disk.serial},serial={disk.serial}"]


def several(processors: int) -> str:
    """The value of -smp, with room for a second processor where there is one.

    For a machine that can never have two, qemu leaves the guest's memory barriers and atomic
    instructions out of what it emulates (tcg_gen_mb, up to qemu 8.0; c914d46d0a64 there), though
    its own threads share the rings of virtio with the guest: once in some dozen runs a disk
    answered no more, and ZFS waited for it for ever.
    """
    return f"{processors},maxcpus={max(processors, 2)}"


def accelerator(kernel: Kernel) -> list[str]:
    """qemu's options for KVM where it boots this very kernel, else for emulation.

    MVIRT_MACHINE_ACCEL=tcg or =kvm decides without asking. The answer is kept until the host boots
    again: some hosts have /dev/kvm, let it be opened, and then hang in the kernel's first second.
    """
    asked = os.environ.get("MVIRT_MACHINE_ACCEL")
    if asked:
        return {"tcg": _TCG, "kvm": _KVM}[asked]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return _TCG
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    key = hashlib.sha256(boot.encode() + kernel.image.read_bytes()).hexdigest()[:16]
    answer = cache_directory() / "kvm-probe"
    if not answer.is_file() or answer.read_text().split()[0] != key:
        answer.write_text(f"{key} {'works' if _kvm_boots(kernel) else 'fails'}\n")
    return _KVM if answer.read_text().split()[1] == "works" else _TCG


def _kvm_boots(kernel: Kernel) -> bool:
    """Boots the kernel under KVM with /bin/true as its init: it ran if the kernel mourns it."""
    try:
        done = subprocess.run(
            [
                *("qemu-system-x86_64", "-machine", "q35", *_KVM, "-smp", "2", "-m", "512"),
                *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
                *kernel.options,
                *("-append", f"{_APPEND} rdinit=/bin/true", "-serial", "stdio"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return b"Attempted to kill init! exitcode=0x00000000" in done.stdout
