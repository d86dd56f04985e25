"""Whatever an object says of itself can be sent: what cannot, takes all other objects with it."""

from __future__ import annotations

import pytest

from mvirt_zfs_dbus.bus.values import variant
from mvirt_zfs_dbus.bus.wire import Message


@pytest.mark.parametrize(
    ("signature", "value", "sent"),
    [
        ("s", "größer", "größer"),
        ("s", "a\0b", "a\ufffdb"),
        ("s", "a\udcffb", "a?b"),
        ("a{ss}", {"k\0": "\ud800"}, {"k\ufffd": "?"}),
        ("t", 2**64 - 1, 2**64 - 1),
        ("t", 3 * 2**63, 2**64 - 1),
    ],
)
def test_what_no_message_can_hold_is_made_to_fit(
    signature: str, value: object, sent: object
) -> None:
    made = variant(signature, value)
    assert made.value == sent
    message = Message.new_signal("/a", "org.example.A", "Said", "v", [made])
    message.serial = 1
    assert message._marshall(False)
