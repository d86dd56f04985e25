"""mvirt-zfsctl with a person in front of it: questions, bars, and tables that fit."""

from __future__ import annotations

from pathlib import Path

from .ctl import Ctl
from .terminal import CTRL_C, terminal


async def test_progress_on_a_terminal_is_a_bar(ctl: Ctl, image: Path) -> None:
    async with ctl.on_terminal("import", "disk", str(image)) as shown:
        assert await shown.end() == 0
    assert "━" in shown.shown
    assert "100 %" in shown.shown


async def test_what_destroys_data_is_asked_for_and_a_no_changes_nothing(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    async with ctl.on_terminal("volume", "delete", "web") as shown:
        await shown.until("Destroy volume web of 1 MiB, with all data? [y/N] ")
        await shown.type("n\n")
        assert await shown.end() == 9
    assert "nothing was changed" in shown.shown
    async with ctl.on_terminal("volume", "delete", "web") as shown:
        await shown.until("[y/N] ")
        await shown.type("y\n")
        assert await shown.end() == 0
    assert await ctl.json("volume", "list") == []


async def test_ctrl_c_at_a_question_changes_nothing(ctl: Ctl) -> None:
    await ctl("volume", "create", "web", "1M")
    async with ctl.on_terminal("volume", "delete", "web") as shown:
        await shown.until("[y/N] ")
        await shown.type(CTRL_C)
        assert await shown.end() == 130
    assert len(await ctl.json("volume", "list")) == 1


async def test_ctrl_c_of_an_import_asks_and_a_yes_cancels_it(ctl: Ctl, slow_url: str) -> None:
    async with ctl.on_terminal("import", "disk", slow_url) as shown:
        await shown.until("downloading")
        await shown.type(CTRL_C)
        await shown.until("Cancel the import-volume of disk? [y/N] ")
        await shown.type("y\n")
        assert await shown.end() == 130
    assert "is cancelled" in shown.shown
    assert (await ctl.json("job", "show", "disk"))["State"] == "cancelled"


async def test_ctrl_c_of_an_import_and_a_no_leave_it_running(ctl: Ctl, slow_url: str) -> None:
    async with ctl.on_terminal("import", "disk", slow_url) as shown:
        await shown.until("downloading")
        await shown.type(CTRL_C)
        await shown.until("[y/N] ")
        await shown.type("\n")
        assert await shown.end() == 130
    assert "goes on: mvirt-zfsctl job watch disk" in shown.shown
    assert (await ctl.json("job", "show", "disk"))["State"] == "running"


async def test_a_second_ctrl_c_leaves_an_import_running(ctl: Ctl, slow_url: str) -> None:
    async with ctl.on_terminal("import", "disk", slow_url) as shown:
        await shown.until("downloading")
        await shown.type(CTRL_C)
        await shown.until("[y/N] ")
        await shown.type(CTRL_C)
        assert await shown.end() == 130
    assert (await ctl.json("job", "show", "disk"))["State"] == "running"


async def test_ctrl_c_of_an_import_from_a_pipe_cancels_without_a_question(ctl: Ctl) -> None:
    """What it is piped from stays: were it to end too, the import might be done before it hears."""
    source = "(trap '' INT; while head -c 1M /dev/zero; do sleep 0.05; done)"
    command = f"{source} | {' '.join(ctl.command)} import disk - --size 4G --format raw"
    async with terminal("bash", "-c", command, environment=ctl.environment) as shown:
        await shown.until("downloading")
        await shown.type(CTRL_C)
        await shown.end()
    assert "is cancelled" in shown.shown
    assert await ctl.json("volume", "list") == []


async def test_ctrl_c_of_job_watch_leaves_the_job_running(ctl: Ctl, slow_url: str) -> None:
    await ctl("import", "disk", slow_url, "--no-wait")
    async with ctl.on_terminal("job", "watch", "disk") as shown:
        await shown.until("downloading")
        await shown.type(CTRL_C)
        assert await shown.end() == 130
    assert (await ctl.json("job", "show", "disk"))["State"] == "running"


async def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(ctl: Ctl) -> None:
    name = "a-volume-with-a-rather-long-name-indeed"
    identity = (await ctl.json("volume", "create", name, "1M"))["Id"]
    async with ctl.on_terminal("volume", "list", columns=60) as shown:
        await shown.end()
    assert all(len(line) <= 60 for line in shown.shown.splitlines())
    assert "a-volume-with" in shown.shown
    assert identity not in shown.shown
    whole = await ctl("volume", "list")
    assert name in whole
    assert identity in whole
