"""How a D-Bus interface is written down: a class whose decorated methods are its members.

    class Lamp(Interface):
        name = "org.example.Lamp"
        signals = (Signal("Burnt", "hours:u"),)

        @prop("Level", "u", emits="true")
        def level(self, key: str) -> int: ...

        @query("Describe", "", "text:s")
        async def describe(self, call: Call, key: str) -> str: ...

        @method("SetLevel", "level:u", "", options={"slowly": "b"}, action=Action.MODIFY)
        async def set_level(self, call: Call, key: str, level: int) -> None: ...

One instance serves all objects of its kind; ``key`` says which one is meant. A property's getter
answers plain values. A handler answers nothing, one value, or a tuple of several; a value inside a
variant has to be a ``Variant`` already.

A member that changes something is a ``@method`` and cannot be written without saying which polkit
action guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

from ..names import Action

Emits = Literal["const", "true", "false"]
"""org.freedesktop.DBus.Property.EmitsChangedSignal of the D-Bus specification."""

Guard = Action | Callable[[Any, "Call", str], Action | None]
"""The action of a method, or a function (interface, call, key) that picks it; None is free."""

_F = TypeVar("_F", bound=Callable[..., Any])
_MEMBER = "__dbus_member__"


@dataclass(slots=True)
class Call:
    """One method call, as its handler sees it."""

    sender: str
    """The caller's unique name on the bus."""
    uid: int
    """The caller's user id; -1 in the record of a call refused before it was known."""
    interactive: bool
    """Whether the caller allows polkit to prompt (ALLOW_INTERACTIVE_AUTHORIZATION)."""
    path: str
    interface: str
    member: str
    args: tuple[Any, ...] = ()
    """The arguments without the trailing options. An ``h`` is the number of an open fd."""
    options: dict[str, Any] = field(default_factory=dict)
    """The trailing ``a{sv}``, checked and unpacked; what the caller left out is absent."""
    fds: list[int] = field(default_factory=list)
    """The fds that came with the message; all of them are closed after the call."""

    def take_fd(self, fd: int) -> int:
        """Take over an fd of this call: it stays open, and closing it is the taker's business."""
        self.fds.remove(fd)
        return fd


@dataclass(frozen=True, slots=True)
class Arg:
    name: str
    signature: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal: its name and its arguments as ``"name:signature name:signature"``."""

    name: str
    arguments: str = ""

    @property
    def args(self) -> tuple[Arg, ...]:
        return _parse_args(self.arguments)

    @property
    def signature(self) -> str:
        return _joined(self.args)


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """What a ``@query`` or ``@method`` says of itself."""

    name: str
    ins: tuple[Arg, ...]
    """The arguments without the options."""
    outs: tuple[Arg, ...]
    options: Mapping[str, str] | None
    """Option name → signature; None: the method takes no options argument."""
    changes: bool
    """True for a ``@method``: the caller is authorised and the call is audited."""
    guard: Guard | None
    attribute: str = ""

    @property
    def all_ins(self) -> tuple[Arg, ...]:
        return self.ins if self.options is None else (*self.ins, Arg("options", "a{sv}"))

    @property
    def signature(self) -> str:
        return _joined(self.all_ins)

    @property
    def out_signature(self) -> str:
        return _joined(self.outs)

    def action(self, interface: Interface, call: Call, key: str) -> Action | None:
        """The action this call needs; None if it is free."""
        if self.guard is None or isinstance(self.guard, Action):
            return self.guard
        return self.guard(interface, call, key)


@dataclass(frozen=True, slots=True)
class PropertySpec:
    name: str
    signature: str
    emits: Emits
    attribute: str = ""


class Interface:
    """The members of one D-Bus interface; see the module's text."""

    name: ClassVar[str]
    signals: ClassVar[tuple[Signal, ...]] = ()
    methods: ClassVar[dict[str, MethodSpec]] = {}
    properties: ClassVar[dict[str, PropertySpec]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            cls.name = str(cls.name)  # dbus-fast takes no subclass of str, as an enum's member is
        cls.methods = dict(cls.methods)
        cls.properties = dict(cls.properties)
        for attribute, value in vars(cls).items():
            spec = getattr(value, _MEMBER, None)
            if isinstance(spec, MethodSpec):
                cls.methods[spec.name] = _named(spec, attribute)
            elif isinstance(spec, PropertySpec):
                cls.properties[spec.name] = _named(spec, attribute)

    def details(self, call: Call, key: str) -> dict[str, str]:
        """What polkit's rules and its prompt may know of the object and the call."""
        return {}

    async def refresh(self, key: str) -> None:
        """Read again what properties with ``emits="false"`` show; called before they are read."""

    def signal(self, name: str) -> Signal:
        return next(signal for signal in self.signals if signal.name == name)


def query(
    name: str, ins: str = "", outs: str = "", *, options: Mapping[str, str] | None = None
) -> Callable[[_F], _F]:
    """A method that changes nothing and is free for everyone."""
    return _member(
        MethodSpec(name, _parse_args(ins), _parse_args(outs), options, changes=False, guard=None)
    )


def method(
    name: str,
    ins: str = "",
    outs: str = "",
    *,
    action: Guard,
    options: Mapping[str, str] | None = None,
) -> Callable[[_F], _F]:
    """A method that changes something, guarded by a polkit action."""
    if not isinstance(action, Action) and not callable(action):
        raise TypeError(f"method {name} needs a polkit action, or a function that picks one")
    return _member(
        MethodSpec(name, _parse_args(ins), _parse_args(outs), options, changes=True, guard=action)
    )


def prop(name: str, signature: str, *, emits: Emits) -> Callable[[_F], _F]:
    """A property that can be read; its getter takes the key and answers a plain value."""
    if emits not in ("const", "true", "false"):
        raise TypeError(f"property {name}: emits is const, true or false, not {emits!r}")
    return _member(PropertySpec(name, signature, emits))


def _member(spec: MethodSpec | PropertySpec) -> Callable[[_F], _F]:
    def mark(function: _F) -> _F:
        setattr(function, _MEMBER, spec)
        return function

    return mark


_S = TypeVar("_S", MethodSpec, PropertySpec)


def _named(spec: _S, attribute: str) -> _S:
    return replace(spec, attribute=attribute)


def _parse_args(text: str) -> tuple[Arg, ...]:
    """Read ``"name:signature name:signature"``."""
    args = []
    for word in text.split():
        name, colon, signature = word.partition(":")
        if not (name and colon and signature):
            raise TypeError(f"argument {word!r} is not written name:signature")
        args.append(Arg(name, signature))
    return tuple(args)


def _joined(args: tuple[Arg, ...]) -> str:
    return "".join(arg.signature for arg in args)
