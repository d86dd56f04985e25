"""The worker process that becomes qemu-img.

It is handed sockets that serve the image and the disk, and has nothing else from the moment its
program begins: no file but the program and its libraries, no socket of its own, no network, no
root, no other process. An image that takes qemu-img over has what the converter would have given it
anyway, the bytes of that image and of that one disk. Without Landlock and seccomp there is no
qemu-img: its parsers are C, and not ours.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from typing import Final, NoReturn

from ..errors import Error, UnsupportedImage
from . import channel, protocol, sandbox, seccomp

NAME: Final = "qemu-img"
MEMORY: Final = 2 << 30
"""Bytes of address space: it and its libraries take 0.2 GiB, its 16 buffers 32 MiB, and the map of
a VHDX of 64 TiB in blocks of 1 MiB takes 0.5 GiB."""
INSPECT_SECONDS: Final = 10
"""Of CPU time; opening an image takes some milliseconds."""
OUTPUT: Final = 1 << 20
"""Bytes it may write to a file, which is where its messages go."""
_LINKED: Final = re.compile(r"(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
"""A line of ld.so(8)'s list: a library by its full path, or the loader itself."""
_LOADER_CACHE: Final = "/etc/ld.so.cache"


def become(control: socket.socket, parent_pid: int) -> None:
    """Take one order and turn into the program, or tell why not. Success closes ``control``."""
    order, fds = channel.receive(control)
    try:
        _become(order, fds, parent_pid)
    except Error as error:
        channel.send(control, protocol.Failure(error.name, error.message))


def _become(order: protocol.Message, fds: list[int], parent_pid: int) -> NoReturn:
    output, errors, *disks = fds
    arguments = command(order, disks)
    path = _found(order)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for disk in disks:
        os.set_inheritable(disk, True)
    _confine(path, _seconds(order), parent_pid)
    try:
        os.execve(path, arguments, {})
    except OSError as error:
        raise Error(f"{path} cannot be run: {error.strerror}") from error


def command(order: protocol.Message, disks: list[int]) -> list[str]:
    """The words of the command line; ``disks`` are the sockets of the image and of the target.

    The format is always said, and never probed for.
    """
    if isinstance(order, protocol.Inspect):
        image = _image(order.image_format, disks[0])
        return [NAME, "info", "--output=json", "--image-opts", image]
    if isinstance(order, protocol.Convert):
        image, target = _image(order.image_format, disks[0]), f"driver=raw,{_served(disks[1])}"
        zero = ["--target-is-zero"] if order.target_is_zero else []
        # Out of order (-W) and 16 requests at a time (-m): they are answered by several threads.
        return [NAME, "convert", "-p", "-n", *zero, "-W", "-m", "16",
                "--image-opts", "--target-image-opts", image, target]  # fmt: skip
    raise Error(f"Inspect or Convert was expected, {type(order).__name__} came")


def _image(image_format: str, disk: int) -> str:
    if image_format not in _OPTIONS:
        raise Error(f"{NAME} is not asked for images of the format {image_format!r}")
    return f"driver={image_format}{_OPTIONS[image_format]},{_served(disk)}"


_OPTIONS: Final = {
    "vmdk": "",
    "vhdx": "",
    "vdi": "",
    # Its footer tells two sizes; what Virtual PC shows of the disk may be less than it has.
    "vpc": ",force_size_calc=current_size",
}


def _served(disk: int) -> str:
    return f"file.driver=nbd,file.server.type=fd,file.server.str={disk}"


def _seconds(order: protocol.Message) -> int:
    return order.seconds if isinstance(order, protocol.Convert) else INSPECT_SECONDS


def _found(order: protocol.Message) -> str:
    path = shutil.which(NAME)
    if path is None:
        assert isinstance(order, protocol.Inspect | protocol.Convert)
        raise UnsupportedImage(
            f"images of the format {order.image_format} are read by {NAME}, which is not installed"
            " on the service's host: install the package qemu-utils (Debian, Ubuntu) or qemu-img"
            " (Fedora, openSUSE), or convert the image to qcow2 elsewhere"
        )
    return path


def _confine(path: str, seconds: int, parent_pid: int) -> None:
    """UnsupportedImage: this kernel cannot, so the program does not begin."""
    if not sandbox.landlock_abi():
        raise UnsupportedImage(f"{NAME} is not let near an image without Landlock in the kernel")
    try:
        forbidden = seccomp.lonely_program()
    except OSError as error:
        raise UnsupportedImage(f"{NAME} is not let near an image without {error}") from error
    sandbox.enter_program(
        parent_pid, lambda: [path, *_libraries(path)], memory=MEMORY, seconds=seconds, output=OUTPUT
    )
    forbidden.load()


def _libraries(path: str) -> list[str]:
    """What the loader reads to run it, by the loader's own account (ld.so(8))."""
    listed = subprocess.run(
        [path],
        env={"LD_TRACE_LOADED_OBJECTS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return [_LOADER_CACHE, *_LINKED.findall(listed.stdout)]
