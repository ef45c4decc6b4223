"""pathosyn check."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import tyro

from pathosyn.cli.limits import outside
from pathosyn.errors import InputError, refuse


@dataclasses.dataclass(frozen=True)
class CheckVerb:
    """Look for everything in a folder of subjects that would later stop work or spoil a training."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of subjects, or single subject folders."""
    workers: int = 0
    """Processes; 0: one a core."""

    def run(self) -> int:
        """Prints one table, then each fault and warning on a line; 2 if there is any fault."""
        if not self.roots:
            raise refuse("DIR", found="no folder", expected="one folder of subjects or more", remedy="give the folder that holds your subjects")
        if faults := outside("workers", self.workers):
            raise InputError(faults)
        from rich.console import Console

        from pathosyn.data.check import check, table
        from pathosyn.progress import track

        with track(100, "check", "%") as bar:
            shown = 0

            def progress(done: int, of: int) -> None:
                nonlocal shown
                now = round(100 * done / of)
                bar.advance(now - shown)
                shown = now

            rows = check(self.roots, workers=self.workers or None, progress=progress)
        # Wide enough that a file or a pipe gets whole rows.
        Console(width=None if sys.stdout.isatty() else 160).print(table(rows))
        for row in rows:
            for warning in row.warnings:
                print(f"warning: {warning}")
        faults = [fault for row in rows for fault in row.faults]
        for fault in faults:
            print(f"fault: {fault}", file=sys.stderr)
        subjects = sum(row.shape is not None for row in rows)
        print(f"{subjects} subjects can be read, {len(faults)} faults, {sum(len(row.warnings) for row in rows)} warnings")
        if not faults:
            print(f"next: pathosyn prepare {' '.join(map(str, self.roots))} --out slices.h5")
        return 2 if faults else 0


def parse(arguments: list[str]) -> CheckVerb:
    """From the command line."""
    return tyro.cli(CheckVerb, args=arguments, prog="pathosyn check")
