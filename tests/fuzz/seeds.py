"""What the fuzzer begins with: small images as qemu-img makes them, and packed files."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

_NOISE = random.Random(3).randbytes(3000)
_DISK = _NOISE + bytes(9000) + b"again" * 2000 + bytes(20_000) + _NOISE[:1000]


def write(folder: Path) -> None:
    """One file each into ``folder``/TARGET/."""
    images = dict(_images())
    for target, seeds in {
        "qcow2": {name: data for name, data in images.items() if "qcow2" in name},
        "header": {name: data[:4096] for name, data in images.items() if "qcow2" in name},
        "tables": {f"choices-{n}": random.Random(n).randbytes(400) for n in range(100)},
        "packed": dict(_packed()),
        "formats": images | dict(_packed()) | {"raw": _DISK},
    }.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            (folder / target / name).write_bytes(data)


def _images() -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as temporary:
        raw, made = Path(temporary, "raw"), Path(temporary, "made")
        raw.write_bytes(_DISK.ljust(1 << 16, b"\0"))
        for number, (options, packed) in enumerate(_options()):
            word = ["-o", ",".join(options)]
            _qemu("qemu-img", "convert", "-O", "qcow2", *packed, *word, raw, made)
            yield f"qcow2-{number:02}", made.read_bytes()
            if "refcount_bits=1" not in options:  # then nothing can be shared
                _qemu("qemu-img", "snapshot", "-c", "before", made)
            commands = ("write -P 7 1000 5000", "write -z 20k 9k", "discard 50k 8k")
            _qemu("qemu-io", "-f", "qcow2", *[w for c in commands for w in ("-c", c)], made)
            yield f"qcow2-{number:02}-written", made.read_bytes()
        for number, options in enumerate(
            (["preallocation=metadata"], ["preallocation=falloc"], ["lazy_refcounts=on"])
        ):
            _qemu(
                "qemu-img", "create", "-f", "qcow2",
                "-o", ",".join(["cluster_size=512", *options]), made, "70000",
            )  # fmt: skip
            yield f"qcow2-created-{number}", made.read_bytes()
        for kind in ("vmdk", "vdi", "vpc"):
            _qemu("qemu-img", "convert", "-O", kind, raw, made)
            yield kind, made.read_bytes()[: 1 << 17]


def _options() -> Iterator[tuple[list[str], list[str]]]:
    for compat, size, kind in itertools.product(("0.10", "1.1"), (512, 4096), ("", "zlib", "zstd")):
        if kind == "zstd" and compat == "0.10":
            continue
        options = [f"compat={compat}", f"cluster_size={size}"]
        yield (
            options + ([f"compression_type={kind}"] if kind == "zstd" else []),
            (["-c"] if kind else []),
        )
    for packed in ([], ["-c"]):
        yield ["extended_l2=on", "cluster_size=16384"], packed
    for width in (1, 64):
        yield [f"refcount_bits={width}", "cluster_size=512"], []


def _packed() -> Iterator[tuple[str, bytes]]:
    zstd = zstandard.ZstdCompressor(write_checksum=True, write_content_size=True)
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    for name, content in {"disk": _DISK, "little": b"little", "nothing": b""}.items():
        one = {
            "gzip": gzip.compress(content, mtime=0),
            "bzip2": bz2.compress(content),
            "xz": lzma.compress(content),
            "xz-crc32": lzma.compress(content, check=lzma.CHECK_CRC32),
            "zstd": zstd.compress(content),
            "zstd-skippable": skippable + zstd.compress(content) + skippable,
        }
        yield from ((f"{kind}-{name}", data) for kind, data in one.items())
        yield from ((f"{kind}-{name}-twice", data * 2) for kind, data in one.items())
        yield from ((f"{kind}-{name}-more", data + b"\0" * 4 + b"x") for kind, data in one.items())
    with_name = gzip.compress(_DISK)
    yield "gzip-named", with_name[:3] + b"\x08" + with_name[4:10] + b"name\0" + with_name[10:]


def _qemu(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, timeout=60)
    assert done.returncode == 0, (words, done.stderr)
