"""Which hosts an image may be downloaded from: ``import-hosts-allow`` and ``import-hosts-deny``.

An entry is a host name, ``*.name`` for every name below it, ``*`` for any host, an address, or a
network. As in hosts_access(5), and with IPAddressAllow= and IPAddressDeny= of
systemd.resource-control(5): what the allow list has is allowed; else what the deny list has is
denied; else it is allowed. What :data:`NEVER` has is denied too, and there a name in the allow list
is not enough: whoever owns a name decides where it leads.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from .errors import AccessDenied, InvalidArgs

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_ENTRIES: Final = 1000
MAX_LENGTH: Final = 32 * 1024
"""Characters of both lists: a worker process is told them in one message."""

NEVER: Final[Sequence[tuple[Network, str]]] = tuple(
    (ip_network(network), what)
    for network, what in (
        # RFC 1122, 3.2.1.3, RFC 4291, 2.5.2; Linux connects to itself.
        ("0.0.0.0/8", "the address of no host"),
        ("::/128", "the address of no host"),
        # RFC 3927, RFC 4291, 2.5.6; where most clouds hand out a machine's credentials.
        ("169.254.0.0/16", "a link-local address"),
        ("fe80::/10", "a link-local address"),
        # Where they do so elsewhere: AWS, Google, Alibaba, Azure, Oracle.
        ("fd00:ec2::/32", "a cloud's metadata address"),
        ("fd20:ce::254/128", "a cloud's metadata address"),
        ("100.100.100.200/32", "a cloud's metadata address"),
        ("168.63.129.16/32", "a cloud's metadata address"),
        ("192.0.0.192/32", "a cloud's metadata address"),
        # RFC 5771, RFC 4291, 2.7, RFC 1112, 4: no one answers TCP there.
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        # RFC 8215; where an IPv4 address stands in it is each site's own choice.
        ("64:ff9b:1::/48", "an address of a local NAT64"),
    )
)

_NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052, 2.1."""
_COMPATIBLE: Final = IPv6Network("::/96")
"""RFC 4291, 2.5.5.1; ``::1`` lies in it, and its last 32 bits are nobody's address."""
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"\*|(\*\.)?({_LABEL}\.)*{_LABEL}")
_NUMBERS: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")
"""What inet_aton(3), and so name resolution, takes for an address: ``0xa9fea9fe``, ``127.1``."""


class HostRules:
    """Both lists. InvalidArgs: an entry is none, or there are too many."""

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        entries = [*allow, *deny]
        if len(entries) > MAX_ENTRIES or sum(map(len, entries)) > MAX_LENGTH:
            raise InvalidArgs(
                f"{len(entries)} entries are too many: both lists of hosts together take"
                f" {MAX_ENTRIES} of them and {MAX_LENGTH} characters"
            )
        self.allow = list(allow)
        self.deny = list(deny)
        self._allowed = _Entries(allow)
        self._denied = _Entries(deny)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostRules) and (self.allow, self.deny) == (other.allow, other.deny)

    def __hash__(self) -> int:
        return hash((*self.allow, "", *self.deny))

    def check(self, host: str) -> None:
        """AccessDenied: the host of a URL alone tells that it is denied."""
        if literal(host) or not self._allowed.networks:
            self.check_unresolved(host)

    def check_unresolved(self, host: str) -> None:
        """As :meth:`check`, where somebody else looks the name up and connects, as a proxy does."""
        if address := literal(host):
            self.check_address(host, address)
        elif self._denied.names(host) and not self._allowed.names(host):
            raise AccessDenied(f"host {host[:255]!r} is denied by import-hosts-deny")

    def permitted(self, host: str, addresses: set[str]) -> set[str]:
        """Those of a host's addresses that may be connected to. AccessDenied: there is none."""
        permitted, denied = set(), None
        for text in addresses:
            address = literal(text)
            assert address
            try:
                self.check_address(host, address)
                permitted.add(text)
            except AccessDenied as error:
                denied = error
        if denied and not permitted:
            raise denied
        return permitted

    def check_address(self, host: str, address: Address) -> None:
        """AccessDenied: for this host no connection may be made to this address."""
        for face in faces(address):
            if self._allowed.cover(face):
                continue
            leads = "" if literal(host) else f" leads to {face}, which"
            for network, what in NEVER:
                if face in network:
                    raise AccessDenied(
                        f"host {host[:255]!r}{leads} is {what}, and denied unless"
                        " import-hosts-allow has it as an address"
                    )
            if self._allowed.names(host):
                continue
            if self._denied.names(host) or self._denied.cover(face):
                raise AccessDenied(f"host {host[:255]!r}{leads} is denied by import-hosts-deny")


class _Entries:
    """One list."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._names: set[str] = set()
        self._suffixes: set[str] = set()
        self.networks: list[Network] = []
        for entry in entries:
            try:
                self.networks.append(ip_network(entry, strict=False))
            except ValueError:
                self._add_name(entry)

    def _add_name(self, entry: str) -> None:
        name = _plain(entry)
        if not _NAME.fullmatch(name) or _NUMBERS.fullmatch(name):
            raise InvalidArgs(
                f"{entry[:255]!r} is no host: neither a name nor *.name, nor an address or network"
                " as 192.0.2.0/24"
            )
        if name.startswith("*"):
            self._suffixes.add(name[1:])
        else:
            self._names.add(name)

    def names(self, host: str) -> bool:
        name = _plain(host)
        return name in self._names or any(map(name.endswith, self._suffixes))

    def cover(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


ANY_HOST: Final = HostRules()
"""Nothing is said, so all but :data:`NEVER` is allowed."""


def literal(host: str) -> Address | None:
    """The address a host is if it is none to look up, in every way to write one that works."""
    text = _plain(host).strip("[]").partition("%")[0]
    try:
        return ip_address(text)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(text)) if _NUMBERS.fullmatch(text) else None
    except OSError:
        return None


def faces(address: Address) -> Iterator[Address]:
    """The address, and those that a connection to it may end up at."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped:  # the kernel's way to write an IPv4 address
        yield address.ipv4_mapped
        return
    yield address
    if address.sixtofour:  # RFC 3056
        yield address.sixtofour
    if address.teredo:  # RFC 4380: the server, and the client behind it
        yield from address.teredo
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _plain(host: str) -> str:
    """A name as names are compared: no case, no last dot, in ASCII."""
    name = host.rstrip(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return name
    return name
