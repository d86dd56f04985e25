"""``python tests/fuzz/run.py SECONDS``: fuzz every target, for that long in all.

Seeds and what was learned are in build/fuzz/corpus/, inputs that found a fault in
build/fuzz/faults/TARGET/; keep those in tests/fuzz/found/TARGET/, and they are tests from then on.
It ends with 1 if any was found: an exception that is none of ours, a wrong disk, an input that
takes longer than 20 s, or more memory than 512 MiB.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "fuzz"
SHARES = {"tables": 5, "qcow2": 3, "packed": 2, "formats": 2, "header": 1}
"""How the time is divided."""
SLOWEST = 20
"""Seconds for one input, on a slow machine; most take 2 ms."""
MEMORY = 512
"""MiB of the whole process."""
LONGEST = 1 << 17
"""Bytes of an input."""


def main(seconds: int) -> int:
    sys.path.insert(0, str(HERE.parent))
    from fuzz import seeds

    seeds.write(BUILD / "seeds")
    failed = [target for target, share in SHARES.items() if not run(target, seconds * share)]
    if failed:
        print(f"Faults in {', '.join(failed)}; the inputs are below {BUILD / 'faults'}.")
    return bool(failed)


def run(target: str, shares: int) -> bool:
    """Whether nothing was found in so many of all shares of a second."""
    corpus, faults = BUILD / "corpus" / target, BUILD / "faults" / target
    for folder in (corpus, faults):
        folder.mkdir(parents=True, exist_ok=True)
    kept = [folder for folder in (HERE / "found" / target,) if folder.is_dir()]
    seconds = max(1, shares // sum(SHARES.values()))
    print(f"== {target}: {seconds} s", flush=True)
    limits = (f"-max_total_time={seconds}", f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}")
    options = (f"-max_len={LONGEST}", f"-artifact_prefix={faults}/", "-print_final_stats=1")
    folders = (corpus, BUILD / "seeds" / target, *kept)
    log = BUILD / f"{target}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, __file__, target, *limits, *options, *folders],
            stdout=output,
            stderr=output,
        )
    lines = log.read_text(errors="replace").splitlines()
    if done.returncode:
        print("\n".join(lines[-40:]))
        return False
    for line in lines:
        if line.startswith(("stat::number_of", "stat::average", "stat::slowest", "stat::peak")):
            print(line.removeprefix("stat::"))
    return True


def fuzz(target: str, arguments: list[str]) -> None:
    import atheris

    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=["mvirt_zfs_dbus.image"]):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        sys.exit(main(int(sys.argv[1])))
    fuzz(sys.argv[1], sys.argv[2:])
