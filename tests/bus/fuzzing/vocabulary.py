"""What generated calls are made of: right and wrong values, and those between."""

from __future__ import annotations

from typing import Final

PROPERTIES: Final = "org.freedesktop.DBus.Properties"
STANDARD: Final = (
    (PROPERTIES, "Get", "ss"),
    (PROPERTIES, "GetAll", "s"),
    (PROPERTIES, "Set", "ssv"),
    ("org.freedesktop.DBus.Introspectable", "Introspect", ""),
    ("org.freedesktop.DBus.Peer", "Ping", ""),
    ("org.freedesktop.DBus.Peer", "GetMachineId", ""),
    ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects", ""),
)
NUMBERS: Final = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
SIZES: Final = (
    0,
    1,
    511,
    512,
    513,
    4096,
    16384,
    2**20,
    2**20 + 1,
    2**21,
    2**50,
    2**62,
    2**63 - 2**17,
)
"""None between what may be reserved and what cannot be."""
BLOCK_SIZES: Final = (0, 1, 511, 512, 4096, 16384, 131072, 131073, 262144)
NAMES: Final = tuple("abcdefgh")
ODD_TEXTS: Final = (
    "",
    " ",
    ".",
    "..",
    "-",
    "a" * 128,
    "a" * 129,
    "x" * 100_000,
    "ä\N{SNOWMAN}\U0001f4bf",
    "\x01\x1b[2J\u202e",
    "a/b",
    "a@b",
    "../../etc/passwd",
    "%s%n",
    "'; rm -rf /",
    "\ufffd",
)
SOURCES: Final = (
    "/",
    "/etc",
    "/dev/null",
    "/dev/zero",
    "/proc/self/mem",
    "/proc/self/fd/0",
    "/nonexistent",
    "/" + "a" * 5000,
    "relative",
    "http://",
    "http://127.0.0.1:1/x",
    "http://user:secret@127.0.0.1:1/x?token=secret",
    "https://127.0.0.1:1/",
    "http://[::1]:1/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http://[::1/",
    "http://a b/",
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
)
WORDS: Final[dict[str, tuple[str, ...]]] = {
    "format": ("auto", "raw", "qcow2", "vmdk", "vpc", "RAW"),
    "checksum": (f"sha256:{'0' * 64}", f"sha512:{'a' * 128}", "sha256:", "md5:0", ":"),
    "compression": ("", "on", "lz4", "zstd-19", "zstd-20", "gzip-0"),
}
ENDS: Final = ("Delete", "Cancel", "Remove", "Rollback")
"""What ends objects is called less often, so that there are some."""
TYPES: Final = ("b", *NUMBERS, "d", "s", "o", "g", "v", "as", "ao", "a{ss}", "a{sv}", "(sv)", "aay")
