from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.machine import cache, debian, image


def writes(text: str, times: list[str]) -> cache.Build:
    def build(target: Path) -> None:
        times.append(text)
        (target / "content").write_text(text)

    return build


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_a_list_of_packages_may_have_comments_and_many_names_in_a_line() -> None:
    assert debian.packages("# all\nudev dbus # both\n\nkmod\n") == ["udev", "dbus", "kmod"]


def test_the_guests_test_tools_are_those_that_pyproject_requires() -> None:
    pyproject = Path(__file__).parents[3] / "pyproject.toml"
    names = [line.partition(">")[0] for line in image.test_tools(pyproject.read_text())]
    assert sorted(names) == sorted(image.TEST_TOOLS)


def test_the_hosts_own_archive_serves_the_machines_release() -> None:
    listed = (
        "Debian trixie http://mirror.example/debian/\n"
        "Debian trixie-updates http://mirror.example/debian/\n"
        "Debian trixie-security http://mirror.example/security/\n"
        "Other stable http://other.example/\n"
        "\n"
    )
    assert debian.mirror_lines(listed) == [
        "deb http://mirror.example/debian/ bookworm main contrib",
        "deb http://mirror.example/debian/ bookworm-updates main contrib",
        "deb http://mirror.example/security/ bookworm-security main contrib",
    ]


def test_a_host_that_is_no_debian_leaves_the_mirror_to_mmdebstrap() -> None:
    assert debian.mirror_lines("Ubuntu noble http://mirror.example/ubuntu/\n") == []


@pytest.mark.parametrize("change", ["content", "mode", "name", "word"])
def test_every_input_counts_for_the_key(change: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cache, "HERE", tmp_path)
    file = tmp_path / "unit"
    file.write_text("one")
    before = cache.digest(["word"], [file])
    assert cache.digest(["word"], [file]) == before
    if change == "content":
        file.write_text("two")
    elif change == "mode":
        file.chmod(0o755)
    elif change == "name":
        file = file.rename(tmp_path / "other")
    words = ["another"] if change == "word" else ["word"]
    assert cache.digest(words, [file]) != before


def test_what_is_in_the_cache_is_not_built_again(tmp_path: Path) -> None:
    built: list[str] = []
    first = cache.cached(tmp_path, "base", "key", writes("one", built))
    second = cache.cached(tmp_path, "base", "key", writes("two", built))
    assert first == second and built == ["one"]
    assert (first / "content").read_text() == "one"


def test_a_build_that_fails_leaves_nothing_and_the_next_begins_anew(tmp_path: Path) -> None:
    def fails(target: Path) -> None:
        (target / "half").write_text("")
        raise debian.ImageError("no")

    with pytest.raises(debian.ImageError):
        cache.cached(tmp_path, "base", "key", fails)
    assert entries(tmp_path) == []
    entry = cache.cached(tmp_path, "base", "key", writes("whole", []))
    assert [path.name for path in entry.iterdir()] == ["content"]


def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".base-killed" / "entry").mkdir(parents=True)
    cache.cached(tmp_path, "base", "key", writes("whole", []))
    assert entries(tmp_path) == ["base-key"]


def test_two_who_want_the_same_build_it_once(tmp_path: Path) -> None:
    built: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def slowly(target: Path) -> None:
        inside.set()
        assert leave.wait(10)
        writes("one", built)(target)

    first = threading.Thread(target=cache.cached, args=(tmp_path, "base", "key", slowly))
    second = threading.Thread(
        target=cache.cached, args=(tmp_path, "base", "key", writes("two", built))
    )
    first.start()
    assert inside.wait(10)
    second.start()
    leave.set()
    first.join(10)
    second.join(10)
    assert built == ["one"]


def test_old_entries_go_and_those_used_last_stay(tmp_path: Path) -> None:
    for number in range(cache.KEPT):
        entry = cache.cached(tmp_path, "disk", str(number), writes("x", []))
        os.utime(entry, (number, number))  # all may be of one tick of the kernel's clock
    cache.cached(tmp_path, "disk", "0", writes("x", []))
    cache.cached(tmp_path, "disk", "new", writes("x", []))
    cache.cached(tmp_path, "base", "other", writes("x", []))
    assert "disk-0" in entries(tmp_path) and "disk-1" not in entries(tmp_path)
    assert len(entries(tmp_path)) == cache.KEPT + 1
