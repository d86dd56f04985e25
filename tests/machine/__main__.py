"""`python3 -m tests.machine VERB`: the test machine from the command line."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.machine import image, parts
from tests.machine.debian import ImageError
from tests.machine.machine import CHECKOUT, Machine, MachineError

INSTALL = "tests/machine/guest/install"
START = "systemctl restart mvirt-zfs-dbus.service || systemctl status mvirt-zfs-dbus.service"
RESULTS = "/root/results"
PACKAGES = "/root/packages"


def main() -> int:
    arguments = _parser().parse_args()
    for rest in ("command", "pytest"):  # argparse leaves the `--` that ends our own options
        if getattr(arguments, rest, [])[:1] == ["--"]:
            getattr(arguments, rest).pop(0)
    machine = Machine(arguments.name)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        status: int = arguments.verb(machine, arguments)
    except (MachineError, ImageError) as error:
        print(f"test machine: {error}", file=sys.stderr)
        return 125
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tests.machine", description=__doc__)
    name = os.environ.get("MVIRT_MACHINE", "default")
    parser.add_argument("--name", default=name, help="which of several machines: %(default)s")
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def verb(function: Callable[[Machine, argparse.Namespace], int], text: str) -> None:
        sub = verbs.add_parser(function.__name__.strip("_"), help=text, description=text)
        sub.set_defaults(verb=function)
        if function in (_exec, _run):
            sub.add_argument("--timeout", type=float, default=900, help="seconds; %(default)s")
            sub.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
        if function is _test:
            sub.add_argument("--timeout", type=float, default=4 * 3600, help="seconds; %(default)s")
            sub.add_argument("--part", choices=parts.PARTS, help="one of those that are run")
            sub.add_argument("pytest", nargs=argparse.REMAINDER, metavar="PYTEST-ARGUMENT")

    verb(_build, "build kernel and disk, or find them in the cache")
    verb(_start, "boot a new machine with an empty pool `tank` and push the checkout")
    verb(_push, "make the guest's /root/mvirt what the checkout is now")
    verb(_install, "push, install the product in the guest and start its service anew")
    verb(_exec, "run a command in the guest as root, in its checkout")
    verb(_cut, "cut the power and boot again from the same disks")
    verb(_stop, "shut the machine down")
    verb(_run, "start, run one command, stop; its exit status")
    verb(_test, "start, install, run the machine tests, bring back the results, stop")
    verb(_shell, "a root shell in the machine, started and installed where it is not yet")
    return parser


def _build(machine: Machine, arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    built = image.ensure()
    print(f"{built.disk.parent} ({time.monotonic() - began:.0f} s)")
    return 0


def _start(machine: Machine, arguments: argparse.Namespace) -> int:
    if machine.running():
        print(f"machine {machine.directory.name} runs already", file=sys.stderr)
        return 0
    seconds = machine.start(image.ensure())
    machine.push()
    print(f"machine {machine.directory.name} is up after {seconds:.0f} s", file=sys.stderr)
    return 0


def _push(machine: Machine, arguments: argparse.Namespace) -> int:
    machine.push()
    return 0


def _install(machine: Machine, arguments: argparse.Namespace) -> int:
    machine.push()
    return machine.exec([f"{INSTALL} && {START}"])


def _exec(machine: Machine, arguments: argparse.Namespace) -> int:
    return machine.exec(arguments.command, tty=sys.stdin.isatty(), timeout=arguments.timeout)


def _cut(machine: Machine, arguments: argparse.Namespace) -> int:
    machine.cut_power()
    seconds = machine.boot()
    print(f"machine {machine.directory.name} is up again after {seconds:.0f} s", file=sys.stderr)
    return 0


def _stop(machine: Machine, arguments: argparse.Namespace) -> int:
    machine.stop()
    return 0


def _run(machine: Machine, arguments: argparse.Namespace) -> int:
    try:
        return _start(machine, arguments) or _exec(machine, arguments)
    finally:
        machine.stop()


def _test(machine: Machine, arguments: argparse.Namespace) -> int:
    """All parts side by side, or one, or what pytest is told to run; the exit status."""
    if arguments.part:
        return _test_in(machine, [arguments.part], arguments)
    if arguments.pytest:
        return _test_in(machine, ["only", *arguments.pytest], arguments)
    return parts.run_all(machine.directory.name)


def _test_in(machine: Machine, what: list[str], arguments: argparse.Namespace) -> int:
    """Exit status of the first tests that fail; results and logs stay in build/machine/NAME/."""
    results = machine.directory / "results"
    machine.cut_power()  # one that a run left behind has its code and its pool
    try:
        _start(machine, arguments)
        machine.give(sorted((CHECKOUT / "build/deb").glob("*.deb")), PACKAGES)
        status = machine.exec([INSTALL], timeout=arguments.timeout)
        if status == 0:
            command = ["env", *_settings(), "tests/machine/guest/run", RESULTS, *what]
            status = machine.exec(command, timeout=arguments.timeout)
            machine.pull(RESULTS, results)
        if status == 0 and arguments.part:
            status = _test_from_outside(machine, results, arguments)
        return status
    finally:
        machine.stop()
        print(f"results and logs: {machine.directory.relative_to(CHECKOUT)}", file=sys.stderr)


def _settings() -> list[str]:
    """What the host's environment sets for the tests, such as MVIRT_TEST_KILLS=10."""
    names = sorted(name for name in os.environ if name.startswith("MVIRT_TEST_"))
    return [f"{name}={os.environ[name]}" for name in names]


def _test_from_outside(machine: Machine, results: Path, arguments: argparse.Namespace) -> int:
    """What the host does to the machine: cut its power, boot a disk that it made."""
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=0"]
    tests = parts.FROM_OUTSIDE[arguments.part]
    try:
        return subprocess.run(
            [*pytest, *tests, f"--junitxml={results / 'outside.xml'}"],
            cwd=CHECKOUT,
            env={**os.environ, "MVIRT_MACHINE": machine.directory.name},
            timeout=arguments.timeout,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as stuck:
        raise machine.error(f"{tests[0]} is not done after {arguments.timeout:.0f} s") from stuck


def _shell(machine: Machine, arguments: argparse.Namespace) -> int:
    if not machine.running():
        _start(machine, arguments)
        _install(machine, arguments)
    stop = f"python3 -m tests.machine --name {machine.directory.name} stop"
    print(f"`exit` leaves; the machine runs on until `{stop}`.")
    return machine.exec(["exec bash -l"], tty=True)


if __name__ == "__main__":
    sys.exit(main())
