"""What polkit's rules and its prompt may know of a call.

It is checked first: a name that is none, or a source that is neither a path nor a URL, is refused
before anybody is asked, and no prompt shows a caller's own text.
"""

from __future__ import annotations

from .. import rules
from ..bus.interface import Call


def of_new(call: Call) -> dict[str, str]:
    """The name of what the call would make, and the id and size its options ask for."""
    details = {"name": rules.name(call.args[0])}
    if "id" in call.options:
        details["id"] = rules.object_id(call.options["id"])
    if "size" in call.options:
        details["size"] = str(call.options["size"])
    return details


def of_rename(call: Call) -> dict[str, str]:
    """The name an object would get: a rule by name is about the old one and the new one."""
    return {"new-name": rules.name(call.args[0])} if call.member == "Rename" else {}


def of_source(source: str) -> dict[str, str]:
    """Where an import reads, without the secrets that a URL may hold."""
    return {"source": rules.shown_source(rules.source(source))}
