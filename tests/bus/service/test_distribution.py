"""The wheel and the source distribution, and the client that pipx makes of the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from mvirt_zfs_dbus import __version__

from .ctl import Ctl

pytest.importorskip("dbus_fast.aio", reason="built and installed in the first run of these tests")

TOP = Path(__file__).parents[3]
NOT_SOURCES = (".*", "build", "dist", "*.egg-info", "__pycache__", "*.pyc")


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, for a build leaves files behind."""
    copy = tmp_path_factory.mktemp("sources") / "mvirt-zfs-dbus"
    shutil.copytree(TOP, copy, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    return copy


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` makes: the source distribution, and the wheel of what is in that."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, sources)
    return folder


def test_the_source_distribution_has_every_file_of_the_project(sources: Path, built: Path) -> None:
    files = {path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.is_file()}
    name = f"mvirt-zfs-dbus-{__version__}"
    archive = next(built.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        parts = (Path(member.name).parts[1:] for member in tar if member.isfile())
        packed = {"/".join(each) for each in parts}
    assert archive.name.replace("_", "-") == f"{name}.tar.gz"
    assert files - packed == set()


def test_the_wheel_has_the_package_with_all_its_files_and_nothing_else(
    sources: Path, built: Path
) -> None:
    package = (sources / "mvirt_zfs_dbus").rglob("*")
    files = {path.relative_to(sources).as_posix() for path in package if path.is_file()}
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == files


def library(entry: Path) -> str:
    """What a folder or its metadata, with a version in its name, belongs to."""
    return re.split(r"-\d", entry.name)[0]


@pytest.fixture
def pipx(tmp_path: Path) -> dict[str, str]:
    """The environment of a pipx that has its own folders and no package index.

    The libraries of the tests lie where pipx keeps what all its environments share, as if they had
    been fetched before: which versions will do is still for pip to say.
    """
    home = tmp_path / "pipx"
    venv.create(home / "shared", with_pip=True)
    [shared] = (home / "shared/lib").glob("python*/site-packages")
    there = {library(entry) for entry in shared.iterdir()}
    for folder in [Path(each) for each in sys.path if each.endswith("-packages")]:
        found = [entry for entry in folder.iterdir() if "mvirt" not in entry.name]
        entries = [entry for entry in found if library(entry) not in there]
        for entry in entries:
            (shared / entry.name).symlink_to(entry)
        there |= {library(entry) for entry in entries}
    return os.environ | {
        "PIPX_HOME": str(home),
        "PIPX_BIN_DIR": str(tmp_path / "bin"),
        "PIPX_DEFAULT_PYTHON": sys.executable,
        "PIP_NO_INDEX": "1",
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }


async def test_pipx_makes_a_working_client_of_the_wheel(
    built: Path, pipx: dict[str, str], ctl: Ctl, image: Path
) -> None:
    [wheel] = built.glob("*.whl")
    said = run("pipx", "install", f"{wheel}[cli]", env=pipx)
    assert "- mvirt-zfsctl\n" in said and "- mvirt-zfs-dbus\n" in said
    client = Path(pipx["PIPX_BIN_DIR"]) / "mvirt-zfsctl"
    ctl.command = [str(client)]
    assert await ctl("--version") == f"mvirt-zfsctl {__version__}\n"
    assert (await ctl("import", "disk", image)).splitlines()[-1].startswith("imported volume disk")
    assert [each["Name"] for each in await ctl.json("volume", "list")] == ["disk"]
    assert "complete -F" in await ctl("completion", "bash")

    python = client.resolve().parent / "python"
    where = run(python, "-I", "-c", "import mvirt_zfs_dbus; print(mvirt_zfs_dbus.__file__)")
    assert Path(where.strip()).is_relative_to(pipx["PIPX_HOME"])
