"""The manual pages: well-formed, and in step with the parsers, the configuration and the bus."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from ctl_commands import COMMANDS

from mvirt_zfs_dbus import config, rules
from mvirt_zfs_dbus.cli import exits, main
from mvirt_zfs_dbus.names import Action

MAN = Path(__file__).parents[2] / "man"
PAGES = sorted(MAN.iterdir())
CLIENT = (MAN / "mvirt-zfsctl.1").read_text()
DAEMON = (MAN / "mvirt-zfs-dbus.8").read_text()
CONFIGURATION = (MAN / "mvirt-zfs-dbus.toml.5").read_text()


def section(page: str, name: str) -> str:
    return page.partition(f"\n.Sh {name}\n")[2].partition("\n.Sh ")[0]


def options(text: str) -> set[str]:
    """``--json`` of ``.Fl -json``, and of each further one after a ``|``."""
    text = re.sub(r"\.Fl (\S+) \| -", r".Fl \1\n.Fl -", text)
    text = re.sub(r"(Fl [\w-]+) \| (-[\w-]+)", r"\1 Fl \2", text)
    return {f"-{name}" for name in re.findall(r"\bFl (-?[\w-]+)", text)}


# Well-formed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_against_a_page(page: Path) -> None:
    said = subprocess.run(
        ["mandoc", "-Tlint", "-Wstyle", page], capture_output=True, text=True
    ).stdout
    # Which other pages are installed is not the page's fault.
    own = [line for line in said.splitlines() if "manual not found" not in line]
    assert own == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_formats_a_page_without_a_warning(page: Path) -> None:
    shown = subprocess.run(
        ["man", "--warnings=w", "--local-file", page],
        capture_output=True,
        text=True,
        env={"MANPAGER": "cat", "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    assert shown.stderr == ""
    assert f"{page.stem.upper()}({page.suffix[1:]})" in shown.stdout


# The client


GLOBAL = {name for action in main.parser()._actions for name in action.option_strings}


def documented() -> dict[str, list[str]]:
    """Each command of the page, and its arguments as mdoc has them, one each."""
    found = {}
    for block in section(CLIENT, "COMMANDS").split("\n.It ")[1:]:
        given = block.partition("\n.Xc\n")[0] if block.startswith("Xo\n") else block.split("\n")[0]
        text = given.removeprefix("Xo\n").replace("\n.", " ").lstrip(".")
        command, *arguments = re.split(
            r" (?=Ar |Op |Cm |Fl )", text.removeprefix("Ic "), maxsplit=1
        )
        found[command] = re.split(r" ?\bOp ", " ".join(arguments))
    return found


def test_the_page_has_every_command_and_no_other() -> None:
    assert set(documented()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_the_page_has_its_options_and_arguments(command: str) -> None:
    parser = COMMANDS[command]
    given = documented()[command]
    taken = {name for action in parser._actions for name in action.option_strings}
    assert set().union(*map(options, given)) == taken - GLOBAL - {"-h", "--help"}
    positionals = [
        "|".join(action.choices) if action.choices else (action.metavar or action.dest).lower()
        for action in parser._actions
        if not action.option_strings
    ]
    words = " ".join(each for each in given if "Fl " not in each).replace(" | ", "|").split()
    assert [word for word in words if word not in ("Ar", "Cm")] == positionals


def test_the_page_has_each_image_format() -> None:
    text = section(CLIENT, "COMMANDS").partition(".Fl -format\nsays so:\n")[2].partition("\n.Pp")[0]
    assert tuple(re.findall(r"[a-z0-9]{3,}", text.replace(".Cm", ""))) == rules.IMAGE_FORMATS


def test_the_page_has_the_global_options() -> None:
    assert options(section(CLIENT, "OPTIONS")) >= GLOBAL


def test_the_page_explains_each_exit_status_as_the_help_does() -> None:
    pairs = re.findall(r"^\.It (\d+)\n(.*)$", section(CLIENT, "EXIT STATUS"), re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in pairs] == list(exits.MEANINGS)


def test_the_examples_of_the_page_are_commands() -> None:
    text = section(CLIENT, "EXAMPLES").replace("\\e\n", "")
    examples = re.findall(r"^(?:.*[|(] ?)?(mvirt-zfsctl .*)$", text, re.MULTILINE)
    assert len(examples) >= 9
    for example in examples:
        words = re.split(r" [|<]|\)$", example)[0].split()
        main.parser().parse_args(words[1:])


# The daemon and its configuration


def test_the_page_has_each_option_of_the_service() -> None:
    taken = {name for action in config._parser()._actions for name in action.option_strings}
    assert options(section(DAEMON, "OPTIONS")) == taken
    assert options(section(DAEMON, "SYNOPSIS")) == taken - {"-h", "--help"}


def test_the_page_has_each_polkit_action() -> None:
    found = re.findall(r"^\.It Li (\S+)$", section(DAEMON, "AUTHORISATION"), re.MULTILINE)
    assert found == list(Action)


def test_the_page_has_each_key_of_the_configuration() -> None:
    found = re.findall(r"^\.It Va (\S+)$", section(CONFIGURATION, "KEYS"), re.MULTILINE)
    assert found == list(config._KEYS)


def test_the_example_configuration_is_one(tmp_path: Path) -> None:
    text = section(CONFIGURATION, "EXAMPLES").partition("-offset indent\n")[2].partition(".Ed")[0]
    file = tmp_path / "example.toml"
    file.write_text(text)
    assert config.load(["--config", str(file)]).max_imports == 2
