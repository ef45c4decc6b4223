"""pathosyn prepare."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from pathosyn.cli.limits import bad_geometry, outside
from pathosyn.config import Geometry
from pathosyn.errors import InputError


@dataclasses.dataclass(frozen=True)
class PrepareVerb:
    """Turn folders of NIfTI into one slices.h5 for training. Interrupted work resumes with the same command."""

    roots: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of subjects, or single subject folders."""
    out: Path
    """The file to write."""
    split: Path | None = None
    """CSV with the columns subject, partition (train, validation, test) and, if you like, set."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Without --split: shares of the subjects for training, validation and test."""
    seed: int = 0
    """Without --split: the seed of the random split."""
    inpaint: Literal["harmonic", "biharmonic"] = "harmonic"
    """Inp(x, m), the pseudo-healthy target of Eq. 3."""
    workers: int | None = None
    """Processes; one a core if not given."""
    geometry: Geometry = dataclasses.field(default_factory=Geometry)

    def run(self) -> int:
        """Prints what was written."""
        from pathosyn.data.prepare import prepare

        if faults := [*outside("seed", self.seed), *outside("workers", self.workers), *bad_geometry(self.geometry)]:
            raise InputError(faults)
        summary = prepare(
            self.roots,
            self.out,
            split=self.split,
            fractions=self.fractions,
            seed=self.seed,
            geometry=self.geometry,
            inpaint=self.inpaint,
            workers=self.workers,
        )
        print(f"{summary}\nnext: pathosyn train --data {self.out} --run runs/first")
        return 0


def parse(arguments: list[str]) -> PrepareVerb:
    """From the command line."""
    return tyro.cli(PrepareVerb, args=arguments, prog="pathosyn prepare")
