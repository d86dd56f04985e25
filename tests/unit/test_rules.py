"""What a name, id, size, label, checksum or source may be, and what a refusal says."""

from __future__ import annotations

import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvirt_zfs_dbus import rules
from mvirt_zfs_dbus.errors import InvalidArgs, InvalidName, InvalidSize, LimitsExceeded, WouldShrink

ALNUM = string.ascii_letters + string.digits
NAMES = st.builds(
    "{}{}".format, st.sampled_from(ALNUM), st.text(st.sampled_from(ALNUM + "._-+@:"), max_size=127)
)
# What a D-Bus string may hold.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
BLOCKS = st.sampled_from([512 << shift for shift in range(9)])
SIZES = st.integers(1, 2**64 - 1)


# Names


@given(NAMES)
def test_a_name_of_the_allowed_characters_is_taken_as_it_is(name: str) -> None:
    assert rules.name(name) == name


@given(TEXTS)
def test_any_other_text_is_no_name(text: str) -> None:
    allowed = 1 <= len(text) <= 128 and text[0] in ALNUM and set(text) <= set(ALNUM + "._-+@:")
    if allowed:
        assert rules.name(text) == text
    else:
        with pytest.raises(InvalidName, match="1 to 128 letters"):
            rules.name(text)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "-rf", "a/b", "a b", "a\n", "ä", "１", "a" * 129, "@img", "a%"]
)
def test_a_name_that_would_mean_something_to_zfs_or_a_shell_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        rules.name(name)


@given(TEXTS)
def test_a_refusal_is_one_short_printable_line(text: str) -> None:
    try:
        rules.name(text)
    except InvalidName as error:
        assert error.message.isprintable()
        assert len(error.message) < 1200


# Ids


@given(st.uuids())
def test_a_uuid_is_taken_in_either_case(value: uuid.UUID) -> None:
    assert rules.object_id(str(value).upper()) == str(value)


def test_no_id_is_a_new_one_each_time() -> None:
    first, second = rules.object_id(None), rules.object_id(None)
    assert first != second
    assert str(uuid.UUID(first)) == first


@pytest.mark.parametrize(
    "value",
    [
        "",
        "web",
        "{1b4e28ba-2fa1-11d2-883f-0016d3cca427}",
        "urn:uuid:1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        "1b4e28ba2fa111d2883f0016d3cca427",
        "1b4e28ba-2fa1-11d2-883f-0016d3cca42",
        "1b4e28ba-2fa1-11d2-883f-0016d3cca42７",
        "../../../etc/passwd",
    ],
)
def test_an_id_in_any_other_form_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgs, match="no UUID"):
        rules.object_id(value)


# Sizes


@given(st.integers(0, 2**32 - 1))
def test_a_block_size_is_a_power_of_two_zfs_takes(value: int) -> None:
    if value in [512 << shift for shift in range(9)]:
        assert rules.block_size(value) == value
    else:
        with pytest.raises(InvalidSize, match=f"{value} is not a power of two from 512 to 131072"):
            rules.block_size(value)


@given(SIZES, BLOCKS)
def test_a_size_is_rounded_up_to_whole_blocks(size: int, block: int) -> None:
    rounded = rules.volume_size(size, block, 2**65)
    assert rounded % block == 0
    assert 0 <= rounded - size < block


@given(SIZES, BLOCKS, SIZES)
def test_a_size_over_the_limit_is_refused(size: int, block: int, limit: int) -> None:
    try:
        assert rules.volume_size(size, block, limit) <= limit
    except InvalidSize as error:
        assert -(-size // block) * block > limit
        assert str(size) in error.message and str(limit) in error.message


@given(BLOCKS)
def test_the_largest_size_is_whole_blocks_and_a_file_offset(block: int) -> None:
    assert rules.MAX_VOLUME_SIZE % block == 0
    largest = rules.volume_size(rules.MAX_VOLUME_SIZE, block, rules.MAX_VOLUME_SIZE)
    assert largest == rules.MAX_VOLUME_SIZE < 2**63


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSize, match="positive"):
        rules.volume_size(0, 512, 2**63)


@given(SIZES, SIZES, BLOCKS)
def test_a_volume_never_gets_smaller(size: int, current: int, block: int) -> None:
    present = rules.volume_size(current, block, 2**65)
    try:
        assert rules.grown_size(size, present, block, 2**65) >= present
    except WouldShrink as error:
        assert size < present
        assert str(present) in error.message


@pytest.mark.parametrize("size", [1, 512, 1024])
def test_even_one_block_less_would_shrink(size: int) -> None:
    with pytest.raises(WouldShrink, match=f"size {size} is smaller than the present 1536 bytes"):
        rules.grown_size(size, 1536, 512, 2**63)


def test_resizing_to_the_present_size_is_fine() -> None:
    assert rules.grown_size(1, 512, 512, 2**63) == 512


# Labels


def test_labels_are_taken_as_they_are() -> None:
    labels = {"owner": "ann", "ünï": "", "k" * 128: "v" * 4096}
    assert rules.labels(labels) == labels
    assert rules.labels(labels) is not labels


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"k" * 129: "x"}, "longer than 128 characters"),
        ({"k": "v" * 4097}, "at most 4096"),
        ({str(number): "" for number in range(65)}, "more than the 64"),
        ({"a": "ä" * 4000}, "8001 bytes in all; at most 6144"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: dict[str, str], said: str) -> None:
    with pytest.raises(LimitsExceeded, match=said):
        rules.labels(labels)


def test_a_label_has_a_name() -> None:
    with pytest.raises(InvalidArgs, match="1 to 128 characters"):
        rules.labels({"": "x"})


# Compression and image format


@pytest.mark.parametrize(
    "value",
    [
        "on",
        "off",
        "lz4",
        "lzjb",
        "zle",
        "gzip",
        "gzip-1",
        "gzip-9",
        "zstd",
        "zstd-1",
        "zstd-19",
        "zstd-fast",
        "zstd-fast-1",
        "zstd-fast-10",
        "zstd-fast-90",
        "zstd-fast-1000",
    ],
)
def test_a_compression_zfs_knows_is_taken(value: str) -> None:
    assert rules.compression(value) == value


@pytest.mark.parametrize(
    "value",
    ["LZ4", "gzip-0", "gzip-10", "zstd-0", "zstd-20", "zstd-fast-11", "on ", "lz4\n", "x", ""],
)
def test_a_compression_zfs_does_not_know_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgs, match="none ZFS knows"):
        rules.compression(value)


@pytest.mark.parametrize("value", ["", "QCOW2", "vhd", "auto "])
def test_an_image_format_that_cannot_be_asked_for_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgs, match="none of auto, raw, qcow2, vmdk, vhdx, vdi, vpc"):
        rules.image_format(value)


# Checksums


@given(st.binary(min_size=32, max_size=32), st.booleans())
def test_a_checksum_is_taken_in_either_case(digest: bytes, upper: bool) -> None:
    text = digest.hex().upper() if upper else digest.hex()
    assert str(rules.checksum(f"sha256:{text}")) == f"sha256:{digest.hex()}"


def test_a_sha512_is_taken_too() -> None:
    assert rules.checksum("sha512:" + "0" * 128) == rules.Checksum("sha512", "0" * 128)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0" * 64,
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 128,
        "md5:" + "0" * 32,
        "SHA256:" + "0" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "0" * 64 + "\n",
        "sha256: " + "0" * 63,
    ],
)
def test_a_checksum_in_any_other_form_is_refused(value: str) -> None:
    with pytest.raises(InvalidArgs, match="neither sha256: and 64"):
        rules.checksum(value)


# Sources


@pytest.mark.parametrize(
    "value",
    [
        "/var/lib/mvirt/images/debian 12.qcow2",
        "https://images.example.org/debian.qcow2?x=1#part",
        "http://[::1]:8080/a",
        "HTTP://host",
        "https://user:secret@host/a",
        "https://host/ä",
    ],
)
def test_a_path_or_an_http_url_is_a_source(value: str) -> None:
    assert rules.source(value) == value
    assert rules.is_url(value) == (not value.startswith("/"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "images/a.raw",
        "file:///etc/shadow",
        "ftp://host/a",
        "http://",
        "http:///a",
        "http:host",
        "http://host:0/",
        "http://host:99999/",
        "http://[::1/",
        " http://host/",
        "http://host/a b",
        "http://host/\r\nHost: other",
        "ht\ttp://host/",
        "http://host/\x7f",
        "http://host/\u2028",
        "json:{}",
        "nbd://host",
    ],
)
def test_anything_else_is_no_source(value: str) -> None:
    with pytest.raises(InvalidArgs, match="neither an absolute path nor"):
        rules.source(value)


@pytest.mark.parametrize("character", "\0\n\x1b\x7f\x9b\u2028\u202e\u2066")
def test_a_path_that_would_change_what_a_prompt_or_a_terminal_shows_is_refused(
    character: str,
) -> None:
    with pytest.raises(InvalidArgs, match="control character") as refused:
        rules.source(f"/images/a{character}b")
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    "path", ["/images/\u3000", "/images/ä", "/images/a\u200cb", "/images/👩\u200d💻"]
)
def test_a_path_in_any_language_is_a_source(path: str) -> None:
    assert rules.source(path) == path


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/var/lib/a@b", "/var/lib/a@b"),
        ("/var/lib/what?#", "/var/lib/what?#"),
        ("https://example.org/a?x@y", "https://example.org/a"),
        ("https://example.org/a?X-Signature=secret\n#x", "https://example.org/a"),
        ("htps://user:secret@example.org/a", "htps://example.org/a"),
        ("https://user:secret@example.org/a", "https://example.org/a"),
        ("http://a@b@example.org/a", "http://example.org/a"),
        ("HTTPS://user:secret@example.org", "HTTPS://example.org"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret_in_it(source: str, shown: str) -> None:
    assert rules.shown_source(source) == shown


@pytest.mark.parametrize(
    "value",
    [
        "htps://user:secret@host/a",
        "http://user:secret@host:99999/",
        " http://user:secret@host/",
        "http://user:my/secret@host/",
        "http://user:my?secret@host/",
        "http://user:my#secret@host/",
        "http://host/a b?signature=secret",
        "http://user:secret@host/".ljust(rules.MAX_SOURCE + 1, "a"),
    ],
)
def test_a_url_that_is_refused_is_told_without_its_secrets(value: str) -> None:
    with pytest.raises(InvalidArgs) as refused:
        rules.source(value)
    assert "secret" not in refused.value.message
    assert "host" in refused.value.message


@pytest.mark.parametrize("start", ["/", "https://host/"])
def test_a_source_longer_than_any_real_one_is_refused(start: str) -> None:
    rules.source(start.ljust(rules.MAX_SOURCE, "a"))
    with pytest.raises(InvalidArgs, match="longer than 8192 bytes") as refused:
        rules.source(start.ljust(rules.MAX_SOURCE + 1, "a"))
    assert len(refused.value.message) < 200


@given(TEXTS)
def test_no_text_breaks_a_rule_another_way_than_by_its_error(text: str) -> None:
    for rule in (rules.source, rules.checksum, rules.object_id, rules.compression):
        try:
            rule(text)
        except InvalidArgs as error:
            assert error.message.isprintable()
