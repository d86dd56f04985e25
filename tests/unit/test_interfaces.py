"""The introspection XML: complete, documented, and what D-Bus tools accept."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from mvirt_zfs_dbus.names import Action, ErrorName, Interface

XML = Path(__file__).parents[2] / "data/dbus-1/interfaces"
FILES = {str(interface): XML / f"{interface}.xml" for interface in Interface}
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"
READING = re.compile(r"Get|List|Refresh")

COUNTERS = {
    "Pool": {"AllocatedBytes", "FreeBytes", "AvailableBytes", "CompressionRatio"},
    "Volume": {"UsedBytes", "ReferencedBytes", "CompressionRatio"},
    "Snapshot": {"UsedBytes", "ReferencedBytes"},
    "Template": {"UsedBytes", "ReferencedBytes"},
}

# The contract once more, in shorthand: whoever changes a name or signature breaks every client, so
# it takes two places.
SIGNATURES = {
    "Manager": """
        Version s
        Pools ao
        Jobs ao
        CreateVolume(sta{sv})o
        ImportVolume(ssa{sv})o
        ImportVolumeFromFd(sha{sv})o
        ImportTemplate(ssa{sv})o
        ImportTemplateFromFd(sha{sv})o
        GetVolume(s)o
        ListVolumes(a{sv})ao
        GetTemplate(s)o
        ListTemplates(a{sv})ao
        GetJob(s)o
        ListJobs(a{sv})ao
        Refresh(a{sv})u
    """,
    "Pool": """
        Name s
        Health s
        SizeBytes t
        AllocatedBytes t
        FreeBytes t
        AvailableBytes t
        ProvisionedBytes t
        CompressionRatio d
        VolumeCount u
        TemplateCount u
    """,
    "Volume": """
        Id s
        Name s
        Pool o
        Device s
        SizeBytes t
        BlockSize u
        UsedBytes t
        ReferencedBytes t
        CompressionRatio d
        Thin b
        Origin o
        Snapshots ao
        CreatedAt t
        Labels a{ss}
        Source s
        Checksum s
        Resize(ta{sv})
        Rename(sa{sv})
        SetLabels(a{ss}a{sv})
        Delete(a{sv})
        CreateSnapshot(sa{sv})o
        GetUsers(a{sv})aa{sv}
    """,
    "Snapshot": """
        Id s
        Name s
        Volume o
        UsedBytes t
        ReferencedBytes t
        SizeBytes t
        CreatedAt t
        Clones ao
        Rollback(a{sv})
        Delete(a{sv})
        CreateTemplate(sa{sv})o
        CopyToTemplate(sa{sv})o
    """,
    "Template": """
        Id s
        Name s
        SizeBytes t
        UsedBytes t
        ReferencedBytes t
        Snapshot s
        CreatedAt t
        Clones ao
        CloneCount u
        SourceVolume o
        Source s
        Checksum s
        Labels a{ss}
        Clone(sa{sv})o
        Rename(sa{sv})
        SetLabels(a{ss}a{sv})
        Delete(a{sv})
    """,
    "Job": """
        Id s
        Operation s
        State s
        Phase s
        Progress d
        ProgressValid b
        BytesDone t
        BytesTotal t
        Rate t
        StartedAt t
        ExpectedEndAt t
        FinishedAt t
        Name s
        Source s
        Result o
        ErrorName s
        ErrorMessage s
        StartedByUid u
        Cancel(a{sv})
        Remove(a{sv})
        signal Completed(sss)
    """,
}


def parse(path: Path) -> ET.Element:
    builder = ET.TreeBuilder(insert_comments=True)
    return ET.parse(path, ET.XMLParser(target=builder)).getroot()


def documented(root: ET.Element) -> Iterator[tuple[ET.Element, str]]:
    """Each interface, method, property and signal with the comment right before it, or ''."""
    for parent in root.iter():
        comment = ""
        for child in parent:
            if child.tag is ET.Comment:
                comment = child.text or ""
            else:
                if child.tag in ("interface", "method", "property", "signal"):
                    yield child, comment
                comment = ""


def elements(kind: str) -> list[tuple[str, ET.Element, str]]:
    return [
        (interface, element, comment)
        for interface, path in FILES.items()
        for element, comment in documented(parse(path))
        if element.tag == kind
    ]


def label(value: object) -> str:
    return value.get("name", "") if isinstance(value, ET.Element) else str(value)[-24:].strip()


def sections(comment: str, title: str) -> list[str]:
    found = re.search(rf"^ *{title}: (.*)$", comment, re.MULTILINE)
    return re.split(r", ", found[1]) if found else []


def test_there_is_one_file_for_each_interface_and_nothing_else() -> None:
    assert sorted(path.name for path in XML.iterdir()) == sorted(
        f"{interface}.xml" for interface in Interface
    )


@pytest.mark.parametrize("interface", FILES)
def test_a_file_holds_the_interface_it_is_named_after(interface: str) -> None:
    assert [found.get("name") for found in parse(FILES[interface]).iter("interface")] == [interface]


@pytest.mark.parametrize(
    ("interface", "element", "comment"),
    [*elements("interface"), *elements("method"), *elements("property"), *elements("signal")],
    ids=label,
)
def test_every_element_has_a_comment_of_its_own_name_that_says_something(
    interface: str, element: ET.Element, comment: str
) -> None:
    lines = [line.strip() for line in comment.strip().splitlines()]
    assert lines, "no comment right before it"
    assert lines[0] == f"{element.get('name')}:"
    assert any(line and not line.startswith(("@", "Errors", "Authorisation")) for line in lines[1:])


@pytest.mark.parametrize(
    ("interface", "element", "comment"), [*elements("method"), *elements("signal")], ids=label
)
def test_every_argument_has_a_snake_case_name_and_is_documented_in_order(
    interface: str, element: ET.Element, comment: str
) -> None:
    names = [argument.get("name", "") for argument in element.iter("arg")]
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in names)
    assert re.findall(r"^ *@(\w+): \S.*\.$", comment, re.MULTILINE) == names


@pytest.mark.parametrize(("interface", "method", "comment"), elements("method"), ids=label)
def test_a_method_that_changes_something_ends_in_options(
    interface: str, method: ET.Element, comment: str
) -> None:
    ends = [arg for arg in method.iter("arg") if arg.get("direction") == "in"][-1]
    if not READING.match(method.get("name", "")):
        assert (ends.get("name"), ends.get("type")) == ("options", "a{sv}")
        assert re.search(r"^ *Authorisation: ", comment, re.MULTILINE)


@pytest.mark.parametrize(("interface", "method", "comment"), elements("method"), ids=label)
def test_a_method_tells_errors_and_polkit_actions_that_exist(
    interface: str, method: ET.Element, comment: str
) -> None:
    known = {name.rpartition(".")[2] for name in ErrorName}
    errors = sections(comment, "Errors")
    assert errors and set(errors) <= known
    assert set(sections(comment, "Errors of the job")) <= known
    assert set(re.findall(r"org\.mvirt\.zfs1\.[a-z-]+", comment)) <= set(Action)
    if any(argument.get("name") == "options" for argument in method.iter("arg")):
        assert "InvalidArgs" in errors


@pytest.mark.parametrize(("interface", "method", "comment"), elements("method"), ids=label)
def test_each_option_has_a_type_and_a_default(
    interface: str, method: ET.Element, comment: str
) -> None:
    options = [line.strip() for line in comment.splitlines() if line.strip().startswith("- ")]
    assert bool(options) == ("@options: Options, see below." in comment)
    for option in options:
        assert re.match(r'- "[a-z-]+" \((s|t|u|b|a\{ss\})\): .* Default: .*\.$', option), option


def test_every_polkit_action_guards_a_method() -> None:
    guards = " ".join(comment for _, _, comment in elements("method"))
    assert {action for action in Action if re.search(rf"{action}\b(?!-)", guards)} == set(Action)


@pytest.mark.parametrize(("interface", "prop", "comment"), elements("property"), ids=label)
def test_every_property_is_read_only_and_says_whether_its_changes_are_told(
    interface: str, prop: ET.Element, comment: str
) -> None:
    emits = [a.get("value") for a in prop.iter("annotation") if a.get("name") == EMITS]
    assert prop.get("access") == "read"
    assert emits in (["const"], ["true"], ["false"])
    short = interface.rpartition(".")[2]
    assert (emits == ["false"]) == (prop.get("name") in COUNTERS.get(short, set()))
    if prop.get("name") in ("Id", "Pool", "CreatedAt", "BlockSize", "Checksum", "Source"):
        assert emits == ["const"]


@pytest.mark.parametrize(("interface", "prop", "comment"), elements("property"), ids=label)
def test_every_property_that_is_a_number_of_bytes_or_a_time_says_its_unit(
    interface: str, prop: ET.Element, comment: str
) -> None:
    if prop.get("type") == "t":
        unit = "microseconds" if prop.get("name", "").endswith("At") else "bytes"
        assert unit in comment


@pytest.mark.skipif(not shutil.which("gdbus-codegen"), reason="needs libglib2.0-dev-bin")
@pytest.mark.parametrize("output", ["--generate-c-code", "--generate-docbook"])
def test_gdbus_codegen_accepts_them_all(output: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [
            "gdbus-codegen",
            "--interface-prefix=org.mvirt.Zfs1.",
            "--c-namespace=Mvirt",
            "--c-generate-object-manager",
            f"--output-directory={tmp_path}",
            output,
            "mvirt",
            *map(str, FILES.values()),
        ],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.iterdir())


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def shorthand(element: ET.Element) -> str:
    def types(direction: str | None) -> str:
        found = (a.get("type", "") for a in element.iter("arg") if a.get("direction") == direction)
        return "".join(found)

    name = element.get("name", "")
    if element.tag == "method":
        return f"{name}({types('in')}){types('out')}"
    if element.tag == "signal":
        return f"signal {name}({types(None)})"
    return f"{name} {element.get('type')}"


@pytest.mark.parametrize("interface", FILES)
def test_names_and_signatures_are_those_of_the_contract(interface: str) -> None:
    members = [
        shorthand(element)
        for element in next(parse(FILES[interface]).iter("interface"))
        if element.tag is not ET.Comment
    ]
    assert members == lines(SIGNATURES[interface.rpartition(".")[2]])
