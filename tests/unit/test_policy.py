"""The polkit policy: every action of the code, with the defaults of the contract."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mvirt_zfs_dbus.names import Action

POLKIT = Path(__file__).parents[2] / "polkit"
DETAILS = {"name", "new-name", "id", "pool", "source", "size"}

ASK = ("auth_admin", "auth_admin", "auth_admin_keep")
ASK_EACH_TIME = ("auth_admin", "auth_admin", "auth_admin")
DEFAULTS = {
    Action.CREATE: ASK,
    Action.MODIFY: ASK,
    Action.SNAPSHOT: ASK,
    Action.TEMPLATE: ASK,
    Action.IMPORT: ASK,
    Action.IMPORT_PATH: ASK_EACH_TIME,
    Action.IMPORT_URL: ASK,
    Action.DELETE: ASK_EACH_TIME,
    Action.ROLLBACK: ASK_EACH_TIME,
    Action.CANCEL: ASK,
}


def actions() -> dict[str, ET.Element]:
    found = ET.parse(POLKIT / "org.mvirt.zfs1.policy").getroot().findall("action")
    assert len({action.get("id") for action in found}) == len(found)
    return {action.get("id", ""): action for action in found}


def test_the_policy_has_the_actions_the_code_asks_for_and_no_other() -> None:
    assert set(actions()) == set(Action) == set(DEFAULTS)


@pytest.mark.parametrize("action", Action)
def test_an_action_asks_as_the_contract_says(action: Action) -> None:
    defaults = actions()[action].find("defaults")
    assert defaults is not None
    assert tuple(child.tag for child in defaults) == (
        "allow_any",
        "allow_inactive",
        "allow_active",
    )
    assert tuple(child.text for child in defaults) == DEFAULTS[action]


@pytest.mark.parametrize("action", Action)
def test_a_prompt_names_the_object_with_details_every_check_has(action: Action) -> None:
    assert actions()[action].findtext("description")
    used = set(re.findall(r"\$\((\w*)\)", actions()[action].findtext("message", "")))
    assert "name" in used
    assert used <= DETAILS
    assert ("source" in used) == (action in (Action.IMPORT_PATH, Action.IMPORT_URL))


def test_the_example_rules_use_actions_and_details_that_exist() -> None:
    rules = (POLKIT / "50-mvirt-zfs.rules.example").read_text()
    assert set(re.findall(r'"(org\.mvirt\.zfs1\.[a-z-]+)"', rules)) <= set(Action)
    assert set(re.findall(r'action\.lookup\("([\w-]+)"\)', rules)) <= DETAILS


@pytest.mark.skipif(not shutil.which("node"), reason="needs a JavaScript interpreter: nodejs")
@pytest.mark.parametrize(
    ("action", "details", "user", "groups", "decision"),
    [
        (Action.CREATE, {"name": "web"}, "ann", ["vmadmins"], "yes"),
        (Action.CREATE, {"name": "web"}, "bob", [], None),
        (Action.DELETE, {"name": "web"}, "ann", ["vmadmins"], None),
        (Action.DELETE, {"name": "ci-web"}, "ci", [], "yes"),
        (Action.DELETE, {"name": "web"}, "ci", [], None),
        (Action.MODIFY, {"name": "ci-web"}, "ci", [], "yes"),
        (Action.MODIFY, {"name": "ci-web", "new-name": "ci-db"}, "ci", [], "yes"),
        (Action.MODIFY, {"name": "ci-web", "new-name": "db"}, "ci", [], None),
        (Action.ROLLBACK, {"name": "ci-1", "source": "ci-web"}, "ci", [], "yes"),
        (Action.ROLLBACK, {"name": "ci-1", "source": "web"}, "ci", [], None),
        (Action.SNAPSHOT, {"name": "ci-1", "source": "web"}, "ci", [], None),
        (Action.TEMPLATE, {"name": "ci-gold", "source": "web@ci-1"}, "ci", [], None),
        (Action.IMPORT_PATH, {"name": "ci-web", "source": "/etc/shadow"}, "ci", [], None),
        (Action.IMPORT_URL, {"name": "ci-a", "source": "http://other/"}, "ci", [], "no"),
        (
            Action.IMPORT_URL,
            {"name": "ci-a", "source": "https://images.example.org/a"},
            "ci",
            [],
            "yes",
        ),
    ],
)
def test_the_example_rules_decide_by_group_by_name_and_by_source(
    action: Action, details: dict[str, str], user: str, groups: list[str], decision: str | None
) -> None:
    """node with a double of polkitd's ``polkit`` object; polkitd itself runs in tests/machine."""
    program = f"""
        var rules = [], details = {json.dumps(details)}, groups = {json.dumps(groups)};
        var polkit = {{ Result: {{ YES: "yes", NO: "no" }}, addRule: (rule) => rules.push(rule) }};
        {(POLKIT / "50-mvirt-zfs.rules.example").read_text()}
        var action = {{ id: "{action}", lookup: (key) => details[key] }};
        var subject = {{ user: "{user}", isInGroup: (group) => groups.includes(group) }};
        var decided = rules.map((rule) => rule(action, subject)).find((found) => found);
        console.log(JSON.stringify(decided || null));
    """
    result = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == decision
