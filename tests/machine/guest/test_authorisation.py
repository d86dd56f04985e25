"""polkit decides: an ordinary user is refused, and let in by a rule that looks at the name."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import host
import pytest

_LOCAL_MODES = 3  # where tcgetattr(3)'s c_lflag is in Python's list
NOT_ALLOWED = 6  # exit statuses of mvirt-zfsctl, from its --help
RULES = Path("/etc/polkit-1/rules.d/40-machine-test.rules")
CI_MAY = """
polkit.addRule(function (action, subject) {
    var name = action.lookup("name") || "";
    var free = ["org.mvirt.zfs1.create", "org.mvirt.zfs1.delete"];
    if (free.indexOf(action.id) >= 0 && subject.user === "USER" && name.indexOf("ci-") === 0) {
        return polkit.Result.YES;
    }
});
"""


def ctl(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["runuser", "-u", user, "--", "mvirt-zfsctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def user() -> Iterator[str]:
    host.run("useradd", "--no-create-home", "guest-manager")
    yield "guest-manager"
    host.run("userdel", "guest-manager")


@pytest.fixture
def rule(user: str) -> Iterator[None]:
    written = RULES.parent.with_suffix(".new")
    written.write_text(CI_MAY.replace("USER", user))
    host.run("systemctl", "start", "polkit.service")
    with host.journal("polkit.service") as lines:
        written.rename(RULES)
        next(line for line in lines if "Finished loading" in line)
    yield
    with host.journal("polkit.service") as lines:
        RULES.unlink()
        next(line for line in lines if "Finished loading" in line)


def test_an_ordinary_user_reads_and_changes_nothing(service: None, user: str) -> None:
    host.run("mvirt-zfsctl", "volume", "create", "roots", "1M")
    refused = ctl(user, "volume", "create", "ci-1", "1M")
    assert refused.returncode == NOT_ALLOWED, refused.stderr
    assert ctl(user, "volume", "delete", "--yes", "roots").returncode == NOT_ALLOWED
    listed = ctl(user, "volume", "list")
    assert listed.returncode == 0 and "roots" in listed.stdout and "ci-1" not in listed.stdout


def test_a_rule_lets_a_user_in_by_the_name_of_the_volume(
    service: None, user: str, rule: None
) -> None:
    host.run("mvirt-zfsctl", "volume", "create", "roots", "1M")
    made = ctl(user, "volume", "create", "ci-1", "1M")
    assert made.returncode == 0, made.stderr
    assert ctl(user, "volume", "create", "other", "1M").returncode == NOT_ALLOWED
    assert ctl(user, "volume", "delete", "--yes", "roots").returncode == NOT_ALLOWED
    assert ctl(user, "volume", "delete", "--yes", "ci-1").returncode == 0
    listed = host.run("mvirt-zfsctl", "volume", "list")
    assert "roots" in listed and "ci-1" not in listed


@pytest.fixture
def root_password() -> Iterator[str]:
    """polkit asks for an administrator's; root has none in this machine."""
    subprocess.run(["chpasswd"], input="root:an-administrators", text=True, check=True)
    yield "an-administrators"
    host.run("passwd", "--delete", "root")


def on_terminal(user: str, answer: str, *arguments: str) -> tuple[int, str]:
    """The exit status of mvirt-zfsctl, and what a terminal shows where the prompt is answered."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("runuser", ["runuser", "-u", user, "--", "mvirt-zfsctl", *arguments])
    shown, answered = "", 0
    while chunk := _read(terminal):
        shown += chunk
        if "Password:" in shown[answered:]:
            answered = len(shown)
            while termios.tcgetattr(terminal)[_LOCAL_MODES] & termios.ECHO:
                os.sched_yield()  # pkttyagent forgets what was typed before it hides it
            os.write(terminal, f"{answer}\n".encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # how a terminal says that the program has ended
        return ""


def test_on_a_terminal_polkit_asks_for_a_password(
    service: None, user: str, root_password: str
) -> None:
    status, shown = on_terminal(user, root_password, "volume", "create", "asked", "1M")
    assert status == 0, shown
    assert "AUTHENTICATING FOR org.mvirt.zfs1.create" in shown
    assert "make the volume 'asked'" in shown
    status, shown = on_terminal(user, "wrong", "volume", "create", "other", "1M")
    assert status == NOT_ALLOWED, shown
    arguments = ("volume", "create", "other", "1M", "--no-ask-password")
    status, shown = on_terminal(user, root_password, *arguments)
    assert status == NOT_ALLOWED, shown
    assert "AUTHENTICATING" not in shown
    listed = host.run("mvirt-zfsctl", "volume", "list")
    assert "asked" in listed and "other" not in listed
