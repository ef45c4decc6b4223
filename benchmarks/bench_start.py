"""What a user waits for before anything happens, and for one lesion in one volume.

    python benchmarks/bench_start.py [SUBJECT_DIR (a BraTS subject beside the repository, else a phantom)] [--rounds 5] [--threads 2]

help      `pathosyn --help`, beside an interpreter that does nothing
version   `pathosyn --version`, which reads the shipped weights' index
torch     an interpreter that imports torch, beside the start-up of `insert`: imports and weights, up to the first byte of a scan that is read
insert    the whole command on one volume, its own lesion drawn anew

Each is a fresh process; medians over `--rounds`, all in turn. Seconds are the clock's, then the processor's (with its children).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import timing

from pathosyn.data.phantom import make_phantoms

START = """
import sys
from pathosyn.cli import main
import pathosyn.scan.job
def stop(*_, **__): sys.exit(0)
pathosyn.scan.job.read_scan = stop
sys.argv = sys.argv[:1]
main({arguments!r})
"""
"""`insert` up to where it would read the scan."""


def timed(command: list[str]) -> timing.Spent:
    """One fresh process."""
    before = timing.ended()
    spent = timing.once(partial(subprocess.run, command, check=True, capture_output=True))
    return timing.Spent(spent.clock, timing.ended() - before)


def default_subject(scratch: Path) -> Path:
    """A BraTS subject beside the repository, or a phantom."""
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "brats2021"
    if real.is_dir():
        return next(path for path in sorted(real.iterdir()) if path.is_dir())
    make_phantoms(scratch / "phantoms", subjects=1, seed=0)
    return next((scratch / "phantoms").iterdir())


def main() -> None:
    """A row a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        subject = given.subject or default_subject(scratch)
        tool = str(Path(sys.executable).with_name("pathosyn"))
        insert = ["insert", str(subject), "--threads", str(given.threads), "--out"]
        commands = {
            "an empty interpreter": [sys.executable, "-c", ""],
            "pathosyn --help": [tool, "--help"],
            "pathosyn --version": [tool, "--version"],
            "import torch": [sys.executable, "-c", "import torch"],
            "insert: start-up": [sys.executable, "-c", START.format(arguments=[*insert, str(scratch / "none")])],
            "insert: all of it": [tool, *insert],
        }
        print(timing.machine(), f"\n{subject.name}, insert on {given.threads} threads")
        found: dict[str, list[timing.Spent]] = {name: [] for name in commands}
        for number in range(given.rounds + 1):
            for name, command in commands.items():
                # What lies there already would be kept, and nothing drawn.
                spent = timed([*command, str(scratch / f"out-{number}")] if command[-1] == "--out" else command)
                if number:  # the first round fills the page cache
                    found[name].append(spent)
        for name, each in found.items():
            print(f"{name:22s} {median(s.clock for s in each):6.2f} s   processor {median(s.used for s in each):6.2f} s")


if __name__ == "__main__":
    main()
