"""What --json prints is what docs/json.md says, command by command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .ctl import Ctl

DOCS = Path(__file__).parents[3] / "docs/json.md"

STRINGS = "of strings"
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "boolean": bool,
    f"array {STRINGS}": list,
    f"object {STRINGS}": dict,
}


def keys(kind: str) -> dict[str, str]:
    text = DOCS.read_text().partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))


def is_a(kind: str, value: dict[str, Any]) -> bool:
    documented = keys(kind)
    assert set(value) == set(documented)
    for key, type in documented.items():
        assert isinstance(value[key], TYPES[type]), key
        assert isinstance(value[key], bool) == (type == "boolean"), key
    assert f"/{kind}/" in value["Path"]
    return True


async def test_every_command_prints_the_documented_object(ctl: Ctl, image: Path) -> None:
    async def prints(kind: str, *command: str | Path) -> None:
        assert is_a(kind, await ctl.json(*command))

    async def lists(kind: str, *command: str) -> None:
        found = await ctl.json(*command)
        assert found
        assert all(is_a(kind, each) for each in found)

    await prints("volume", "volume", "create", "web", "1M")
    await prints("volume", "volume", "show", "web")
    await prints("volume", "volume", "resize", "web", "2M")
    await prints("volume", "volume", "rename", "web", "db")
    await prints("volume", "volume", "label", "db", "--set", "a=b")
    await prints("snapshot", "snapshot", "create", "db", "fresh")
    await prints("volume", "snapshot", "rollback", "db", "fresh", "--yes")
    await prints("template", "template", "create", "gold", "db", "fresh")
    await prints("template", "template", "copy", "copy", "db", "fresh")
    await prints("job", "template", "copy", "later", "db", "fresh", "--no-wait")
    await prints("template", "template", "show", "gold")
    await prints("template", "template", "rename", "gold", "silver")
    await prints("template", "template", "label", "silver", "--set", "a=b")
    await prints("volume", "template", "clone", "silver", "vm")
    await prints("volume", "import", "disk", image)
    await prints("template", "import", "image", image, "--template")
    await prints("job", "job", "show", "disk")
    await prints("job", "job", "watch", "disk")
    await lists("volume", "volume", "list")
    await lists("snapshot", "snapshot", "list")
    await lists("template", "template", "list")
    await lists("job", "job", "list")
    await lists("pool", "pool")
    await prints("volume", "volume", "delete", "vm", "--yes")
    await prints("template", "template", "delete", "silver", "--yes")
    await prints("snapshot", "snapshot", "delete", "db", "fresh", "--yes")
    await prints("job", "job", "remove", "disk")
    device = (await ctl.json("volume", "show", "db"))["Device"]
    with Path(device).open("rb"):
        (user,) = await ctl.json("volume", "users", "db")
    assert {key: type(value) for key, value in user.items()} == {"pid": int, "command": str}
