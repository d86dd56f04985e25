"""Which hosts and addresses an image may come from, however they are written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus.errors import AccessDenied, InvalidArgs
from mvirt_zfs_dbus.hosts import MAX_ENTRIES, MAX_LENGTH, HostRules, faces, literal

METADATA = IPv4Address("169.254.169.254")


def permitted(rules: HostRules, host: str, address: str | None = None) -> bool:
    """Whether a host may be downloaded from; ``address`` is what it leads to."""
    found = literal(host) or ip_address(address or "203.0.113.7")
    try:
        rules.check(host)
        rules.check_address(host, found)
    except AccessDenied:
        return False
    return True


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "[::1]", "10.0.0.1", "2001:db8::1"])
def test_nothing_but_special_addresses_is_denied_by_default(host: str) -> None:
    assert permitted(HostRules(), host)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "0xa9fea9fe",
        "0XA9.0xfe.0251.0376",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "①⑥⑨.254.169.254",
        "[::ffff:169.254.169.254]",
        "::ffff:a9fe:a9fe",
        "[64:ff9b::169.254.169.254]",
        "64:ff9b:1::1",
        "2002:a9fe:a9fe::1",
        "::a9fe:a9fe",
        "2001:0:4136:e378:8000:63bf:5601:5601",  # Teredo: all bits of the client's are turned over
        "fe80::1",
        "fe80::1%25eth0",
        "[fe80::1%eth0]",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "0",
        "0.0.0.0",
        "[::]",
        "255.255.255.255",
        "ff02::1",
    ],
)
def test_link_local_and_metadata_addresses_are_denied_in_every_spelling(host: str) -> None:
    with pytest.raises(AccessDenied, match="import-hosts-allow"):
        HostRules().check(host)
    with pytest.raises(AccessDenied, match="import-hosts-allow"):
        HostRules(allow=["*"]).check_unresolved(host)


def test_a_name_is_denied_by_what_it_leads_to() -> None:
    HostRules().check("images.example.org")
    with pytest.raises(AccessDenied, match=r"'images\.example\.org' leads to 169\.254\.169\.254"):
        HostRules().check_address("images.example.org", METADATA)


def test_whoever_owns_a_name_cannot_open_a_special_address_by_it() -> None:
    rules = HostRules(allow=["images.example.org", "*"])
    assert permitted(rules, "images.example.org")
    assert not permitted(rules, "images.example.org", "169.254.169.254")


def test_a_special_address_is_allowed_by_address() -> None:
    rules = HostRules(allow=["169.254.7.0/24"])
    assert permitted(rules, "169.254.7.9")
    assert permitted(rules, "store.example.org", "169.254.7.9")
    assert permitted(rules, "::ffff:169.254.7.9")
    assert not permitted(rules, "169.254.169.254")


@pytest.mark.parametrize(
    ("deny", "host", "address", "allowed"),
    [
        (["10.0.0.0/8"], "10.1.2.3", None, False),
        (["10.0.0.0/8"], "012.1.2.3", None, False),
        (["10.0.0.0/8"], "inside.example.org", "10.1.2.3", False),
        (["10.0.0.0/8"], "inside.example.org", "64:ff9b::a01:203", False),
        (["10.0.0.0/8"], "example.org", "11.0.0.1", True),
        (["127.0.0.0/8", "::1"], "localhost", "127.0.0.1", False),
        (["127.0.0.0/8", "::1"], "localhost", "::1", False),
        (["127.0.0.0/8"], "0x7f.1", None, False),
        (["127.0.0.0/8"], "[::127.0.0.1]", None, False),
        (["example.org"], "EXAMPLE.org.", None, False),
        (["Example.ORG."], "example.org", None, False),
        (["example.org"], "a.example.org", None, True),
        (["*.example.org"], "a.b.example.org", None, False),
        (["*.example.org"], "example.org", None, True),
        (["*.example.org"], "badexample.org", None, True),
        (["bücher.example"], "xn--bcher-kva.example", None, False),
        (["*"], "example.org", None, False),
        (["*"], "127.0.0.1", None, False),
        (["2001:db8::/32"], "2001:DB8::5", None, False),
        (["192.0.2.7/24"], "192.0.2.200", None, False),
    ],
)
def test_what_is_listed_is_denied(
    deny: list[str], host: str, address: str | None, allowed: bool
) -> None:
    assert permitted(HostRules(deny=deny), host, address) is allowed


def test_what_is_allowed_is_an_exception_from_what_is_denied() -> None:
    rules = HostRules(allow=["images.example.org", "192.0.2.0/24"], deny=["*"])
    assert permitted(rules, "images.example.org")
    assert permitted(rules, "images.example.org", "10.0.0.1")
    assert permitted(rules, "192.0.2.5")
    assert permitted(rules, "other.example.org", "192.0.2.5")
    assert not permitted(rules, "other.example.org")
    assert not permitted(rules, "10.0.0.1")


def test_a_denied_name_is_refused_before_it_is_looked_up_unless_its_address_may_be_allowed() -> (
    None
):
    with pytest.raises(AccessDenied, match="denied by import-hosts-deny"):
        HostRules(allow=["a.example.org"], deny=["*"]).check("b.example.org")
    rules = HostRules(allow=["10.0.0.0/8"], deny=["*"])
    rules.check("b.example.org")
    with pytest.raises(AccessDenied):  # nobody tells what a proxy finds
        rules.check_unresolved("b.example.org")


@pytest.mark.parametrize(
    "entry",
    ["", " ", "a b", "http://a", "a/b", "10.0.0.0/33", "10.0.0", "0x7f.1", "a*.b", "*.*", "a..b",
     "1.2.3.4:80", "[::1]", "-a", "x" * 64],
)  # fmt: skip
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(InvalidArgs, match="is no host"):
        HostRules(deny=[entry])


def test_more_entries_than_a_worker_can_be_told_are_refused() -> None:
    HostRules(["a"] * (MAX_ENTRIES // 2), ["b"] * (MAX_ENTRIES // 2))
    with pytest.raises(InvalidArgs, match="too many"):
        HostRules(["a"] * MAX_ENTRIES, ["b"])
    with pytest.raises(InvalidArgs, match="too many"):
        HostRules(["a.b" * 20] * (MAX_LENGTH // 60 + 1))


@given(st.ip_addresses(v=4))
def test_every_way_to_write_an_ipv4_address_means_it(address: IPv4Address) -> None:
    number = int(address)
    a, b, c, d = address.packed
    for text in (
        str(number), hex(number), f"0{number:o}", f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{c << 8 | d}", f"0x{a:x}.0{b:o}.{c}.0x{d:X}", f"{address}.",
    ):  # fmt: skip
        assert literal(text) == address
    for prefix in ("::ffff:", "64:ff9b::"):
        assert address in faces(ip_address(f"{prefix}{address}"))
    assert address in faces(IPv6Address(0x2002 << 112 | number << 80 | 1))


@given(st.ip_addresses())
def test_an_address_is_denied_with_each_of_its_faces(address: IPv4Address | IPv6Address) -> None:
    for face in faces(address):
        rules = HostRules(allow=["0.0.0.0/0", "::/0"])
        rules.check_address("example.org", address)
        if face.version == address.version:
            assert not permitted(HostRules(deny=[str(face)]), str(address))


@given(st.text(max_size=50))
def test_any_text_is_a_host_or_none(text: str) -> None:
    permitted(HostRules(deny=["*.example.org", "10.0.0.0/8"]), text)
