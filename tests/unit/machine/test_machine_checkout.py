from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.machine import checkout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    for name in ("kept.py", "gone.py", "changed.py"):
        (tmp_path / name).write_text("committed\n")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git("add", ".")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "changed.py").write_text("changed\n")
    (tmp_path / "new ü.py").write_text("new\n")
    (tmp_path / "kept.pyc").write_text("ignored\n")
    return tmp_path


def test_the_guest_gets_the_working_tree_and_not_the_last_commit(tree: Path) -> None:
    output = io.BytesIO()
    checkout.write_tar(tree, output)
    output.seek(0)
    with tarfile.open(fileobj=output) as tar:
        names = tar.getnames()
        changed, listed = tar.extractfile("changed.py"), tar.extractfile(checkout.LIST)
        assert changed and changed.read() == b"changed\n"
        assert listed and listed.read().decode().split("\0")[:-1] == names[:-1]
    assert names[:-1] == [".gitignore", "changed.py", "kept.py", "new ü.py"]


def test_the_order_of_the_list_is_that_of_the_c_locale(tree: Path) -> None:
    for name in ("a-b", "a/c", "aé", "B"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("")
    encoded = [name.encode() for name in checkout.files(tree)]
    assert encoded == sorted(encoded)
