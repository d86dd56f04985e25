"""Calls by chance: mostly almost right, so that they get far; sometimes not right at all."""

from __future__ import annotations

import os
import random
import socket
import string
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvirt_zfs_dbus import names
from mvirt_zfs_dbus.bus.wire import Variant
from mvirt_zfs_dbus.names import Interface

from . import schema
from .values import DEEPEST, depth, parts
from .vocabulary import (
    BLOCK_SIZES,
    ENDS,
    NAMES,
    NUMBERS,
    ODD_TEXTS,
    SIZES,
    SOURCES,
    STANDARD,
    TYPES,
    WORDS,
)


@dataclass(frozen=True)
class Call:
    path: str
    interface: str
    member: str
    signature: str
    body: list[Any]
    errors: frozenset[str] | None = None
    """The last part of each name that is documented; None where anything may be answered."""
    fds: tuple[int, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        body = f"{self.body!r:.1000}"
        return f"{self.path:.200} {self.interface}.{self.member:.200}({self.signature}) {body}"


class Generator:
    """Makes calls; ``paths`` are objects that were there when it was last told."""

    def __init__(
        self,
        seed: int,
        images: Sequence[Path],
        resources: ExitStack,
        *,
        deepest: int = DEEPEST,
    ) -> None:
        self.random = random.Random(seed)
        self._deepest = deepest
        self.paths: list[str] = []
        self._methods = schema.methods()
        self._weights = [1 if each.name in ENDS else 3 for each in self._methods]
        self._properties = schema.properties()
        self._images = images
        self._ids = [str(uuid.UUID(int=self.random.getrandbits(128))) for _ in range(8)]
        self._fds = [self._opened(make, resources) for make in self._openers()]

    # Calls

    def call(self) -> Call:
        while True:
            call = self._any()
            if max(map(depth, call.body), default=0) <= self._deepest:
                return call

    def _any(self) -> Call:
        kind = self.random.random()
        if kind < 0.75:
            return self._method()
        if kind < 0.9:
            return self._standard()
        return self._nonsense()

    def _method(self) -> Call:
        (method,) = self.random.choices(self._methods, self._weights)
        path = self._path_of(method.interface)
        body = [self._argument(name, kind) for name, kind in method.args]
        if method.takes_options:
            body.append(self._options(method))
        fds = (self.random.choice(self._fds),) if "h" in method.signature else ()
        call = Call(path, method.interface, method.name, method.signature, body, method.errors, fds)
        return self._spoiled(call) if self._chance(0.1) else call

    def _standard(self) -> Call:
        interface, member, signature = self.random.choice(STANDARD)
        known = self.random.choice(self._properties)
        on = self._one_of(known.interface, "", "org.example.No")
        body: list[Any] = {
            "ss": [on, self._one_of(known.name, self._text())],
            "s": [on],
            "ssv": [on, known.name, self._variant()],
            "": [],
        }[signature]
        return Call(self._any_path(), interface, member, signature, body)

    def _nonsense(self) -> Call:
        signature = "".join(self.random.choices(TYPES, k=self.random.randrange(4)))
        body = [self._value(kind) for kind in parts(signature)]
        interface = self._one_of("", "org.example.No", *(str(i) for i in Interface))
        member = self._one_of(
            "No", "a" * 255, *(method.name for method in self._methods[:8]), "GetManagedObjects"
        )
        return Call(self._any_path(), interface, member, signature, body)

    def _spoiled(self, call: Call) -> Call:
        """With another signature, more fds, or on an object of another kind."""
        match self.random.randrange(3):
            case 0:
                signature = "".join(self.random.choices(TYPES, k=self.random.randrange(4)))
                body = [self._value(kind) for kind in parts(signature)]
                return Call(call.path, call.interface, call.member, signature, body)
            case 1:
                fds = tuple(self.random.choices(self._fds, k=self.random.randrange(16)))
                return Call(
                    call.path, call.interface, call.member, call.signature, call.body, None, fds
                )
            case _:
                return Call(
                    self._any_path(), call.interface, call.member, call.signature, call.body
                )

    # Paths

    def _path_of(self, interface: str) -> str:
        if interface == Interface.MANAGER:
            return names.ROOT
        kind = interface.rpartition(".")[2].lower()
        there = [path for path in self.paths if f"/{kind}/" in path]
        if there and not self._chance(0.05):
            return self.random.choice(there)
        return names.object_path(kind, self._one_of(*self._ids, "0"))

    def _any_path(self) -> str:
        return self._one_of(
            "/",
            "/org",
            names.ROOT,
            f"{names.ROOT}/volume",
            f"{names.ROOT}/volume/{'a' * 10_000}",
            f"{names.ROOT}/pool/_",
            "/a" * 500,
            *(self.random.sample(self.paths, min(8, len(self.paths)))),
        )

    # Arguments

    def _argument(self, name: str, kind: str) -> Any:
        if self._chance(0.05):
            return self._value(kind)
        match name, kind:
            case ("name" | "name_or_id", "s"):
                return self._one_of(*NAMES, *self._ids[:2])
            case ("source", "s"):
                if self._chance(0.5):
                    return str(self.random.choice(self._images))
                return self.random.choice(SOURCES)
            case ("size", "t"):
                return self.random.choice(SIZES)
            case ("labels", "a{ss}"):
                return self._labels()
            case ("id", "s"):
                return self.random.choice(self._ids)
        return self._value(kind)

    def _options(self, method: schema.Method) -> dict[str, Variant]:
        chosen = {}
        for name, kind in method.options.items():
            if self._chance(0.3):
                chosen[name] = Variant(kind, self._option(name, kind))
        if chosen.get("thin") == Variant("b", False) and self._chance(0.5):
            chosen.pop("thin")
        if self._chance(0.05):
            chosen[self._one_of("", "force", "Name", *method.options)] = self._variant()
        return chosen

    def _option(self, name: str, kind: str) -> Any:
        if name == "block-size" and not self._chance(0.05):
            return self.random.choice(BLOCK_SIZES)
        if name in WORDS and not self._chance(0.1):
            return self.random.choice(WORDS[name])
        return self._argument(name, kind)

    def _labels(self) -> dict[str, str]:
        match self.random.randrange(8):
            case 0:
                return {str(number): "x" for number in range(self._one_of(63, 64, 65, 1000))}
            case 1:
                return {self._text(): self._text()}
            case 2:
                return {"k": "v" * self._one_of(4095, 4096, 4097, 6000)}
        return {self.random.choice(NAMES): self._text() for _ in range(self.random.randrange(4))}

    # Values

    def _value(self, kind: str) -> Any:
        if kind in NUMBERS:
            low, high = NUMBERS[kind]
            return self._one_of(low, high, 0, 1, self.random.randint(low, high))
        match kind[0]:
            case "b":
                return self._chance(0.5)
            case "d":
                return self._one_of(0.0, -1.5, 1e308, float("inf"), float("nan"))
            case "s":
                return self._text()
            case "o":
                return self._any_path()
            case "g":
                return self._one_of("", "s", "a{sv}", "(" * 20 + "s" + ")" * 20)
            case "v":
                return self._variant()
            case "h":
                return self._one_of(0, 0, 0, 0, 1, 2**32 - 1)
            case "(":
                return [self._value(part) for part in parts(kind[1:-1])]
        if kind.startswith("a{"):
            return {self._value(kind[2]): self._value(kind[3:-1]) for _ in range(self._few())}
        if kind == "ay":
            return self.random.randbytes(self._few())
        return [self._value(kind[1:]) for _ in range(self._few())]

    def _variant(self) -> Variant:
        if self._chance(0.1):
            inner = Variant("s", "deep")
            for _ in range(self._one_of(3, 20, 50)):
                inner = Variant("v", inner)
            return inner
        kind = self.random.choice(TYPES)
        return Variant(kind, self._value(kind))

    def _text(self) -> str:
        if self._chance(0.5):
            return self.random.choice(ODD_TEXTS)
        letters = string.ascii_letters + string.digits + "._-+@: /\\\"'\n"
        return "".join(self.random.choices(letters, k=self.random.randrange(40)))

    def _few(self) -> int:
        return self._one_of(0, 1, 2, 3, 50 if self._chance(0.1) else 1)

    def _one_of(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def _chance(self, of: float) -> bool:
        return self.random.random() < of

    # File descriptors

    def _openers(self) -> list[Callable[[], int]]:
        def closed_pipe() -> int:
            reader, writer = os.pipe()
            os.write(writer, b"x" * 5000)
            os.close(writer)
            return reader

        def closed_socket() -> int:
            ours, theirs = socket.socketpair()
            theirs.close()
            return ours.detach()

        def write_only() -> int:
            return os.open(os.devnull, os.O_WRONLY)

        return [
            closed_pipe,
            closed_socket,
            write_only,
            lambda: os.open("/", os.O_RDONLY),
            lambda: os.open("/", os.O_PATH),
            lambda: os.open(os.devnull, os.O_RDONLY),
            lambda: os.memfd_create("empty"),
            lambda: os.eventfd(0),
            *(lambda image=image: os.open(image, os.O_RDONLY) for image in self._images),  # type: ignore[misc]
        ]

    def _opened(self, make: Callable[[], int], resources: ExitStack) -> int:
        fd = make()
        resources.callback(os.close, fd)
        return fd
