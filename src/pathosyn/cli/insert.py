"""pathosyn insert."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Literal

import tyro

from pathosyn.cli.sources import many_subjects, open_weights, tell
from pathosyn.errors import Fault, InputError


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

    def run(self) -> int:
        """Faulty subjects are named at the end; the others are done."""
        from pathosyn.progress import track

        subjects = many_subjects(self.subjects, self.image)
        loaded, device = open_weights(self.weights, self.device, self.threads, self.backend)
        from pathosyn.insert import insert
        from pathosyn.types import Controls

        faults: list[Fault] = []
        controls = Controls(self.severity, self.extent_mm, self.shift_mm, self.seed)
        with track(len(subjects), "insert", "subjects") as bar:
            for files in subjects:
                start = time.monotonic()
                try:
                    folders = insert(
                        files,
                        self.out,
                        loaded,
                        mask=self.mask,
                        from_mask_of=self.from_mask_of,
                        at=self.at,
                        size_mm=self.size_mm,
                        controls=controls,
                        replicates=self.replicates,
                        steps=self.steps,
                        device=device,
                    )
                    tell(folders, time.monotonic() - start)
                except InputError as error:
                    faults += error.faults
                bar.advance(note=files.name)
        if faults:
            raise InputError(dict.fromkeys(faults))
        print("next: look at the PNG in each folder; the JSON beside it says what was done")
        return 0


def parse(arguments: list[str]) -> InsertVerb:
    """From the command line."""
    return tyro.cli(InsertVerb, args=arguments, prog="pathosyn insert")
