"""pathosyn insert."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from pathosyn.cli.many import Networks, each
from pathosyn.cli.sources import many_subjects

if TYPE_CHECKING:
    from pathosyn.checkpoint import Loaded
    from pathosyn.data.subjects import SubjectFiles


@dataclasses.dataclass(frozen=True)
class InsertVerb:
    """Put a lesion into scans. Without a mask, each subject's own lesion is taken out and drawn anew.

    For research only, not for diagnosis: what it writes is synthetic, and says so.
    """

    subjects: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Subject folders, or folders of subjects."""
    out: Path = tyro.MISSING
    """Folder for the results: one sub-folder a subject and replicate."""
    weights: Path | None = None
    """Weight file that `pathosyn train` wrote, or the name of shipped ones; the default ones if not given."""
    image: tuple[str, ...] = ()
    """Files of any name instead of a folder, CONTRAST=FILE each: --image flair=a.nii.gz t1=b.nii.gz"""
    mask: Path | None = None
    """Where to put the lesion: a mask on the scan's grid."""
    from_mask_of: Path | None = None
    """Take the shape of this subject's lesion, by world coordinates; with --at, its centroid goes there."""
    at: tuple[float, float, float] | None = None
    """A point in world mm (RAS), as a viewer shows it."""
    size_mm: float | None = None
    """With --at: diameter of a plain round lesion, mm."""
    severity: float = 1.0
    """0 leaves the scan without lesion, 1 is as trained, 2 doubles the deviation."""
    extent_mm: float = 0.0
    """Grow (> 0) or shrink (< 0) the mask by this much."""
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Move the mask: right, anterior, superior are positive."""
    replicates: int = 1
    """How many lesions to draw for each subject."""
    seed: int = 0
    steps: int | None = None
    """Network calls; the weights' own number if not given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["torch", "onnxruntime"] = "torch"
    """What runs the networks. onnxruntime: faster on a CPU, after a few seconds for translating them; pip install 'pathosyn[onnxruntime]'"""
    threads: int = 0
    """CPU threads; 0: as many as torch sees fit."""
    workers: int = 1
    """Processes that draw at once, each with its own copy of the weights; with --threads 1 and as many as there are cores, many scans are done soonest."""

    def run(self) -> int:
        """Faulty subjects are named at the end; the others are done."""
        subjects = many_subjects(self.subjects, self.image)
        each("insert", subjects, self._insert, Networks(self.weights, self.device, self.threads, self.backend), self.workers)
        print("next: look at the PNG in each folder; the JSON beside it says what was done")
        return 0

    def _insert(self, files: SubjectFiles, loaded: Loaded, device: str) -> list[Path]:
        from pathosyn.insert import insert
        from pathosyn.types import Controls

        return insert(
            files,
            self.out,
            loaded,
            mask=self.mask,
            from_mask_of=self.from_mask_of,
            at=self.at,
            size_mm=self.size_mm,
            controls=Controls(self.severity, self.extent_mm, self.shift_mm, self.seed),
            replicates=self.replicates,
            steps=self.steps,
            device=device,
        )


def parse(arguments: list[str]) -> InsertVerb:
    """From the command line."""
    return tyro.cli(InsertVerb, args=arguments, prog="pathosyn insert")
