"""pathosyn heal."""

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
class HealVerb:
    """Take the lesion out of scans: the subject's own mask, or the one given.

    For research only, not for diagnosis: what it writes is synthetic, and says so.
    """

    subjects: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Subject folders, or folders of subjects."""
    out: Path = tyro.MISSING
    """Folder for the results: one sub-folder a subject."""
    weights: Path | None = None
    """Weight file that `pathosyn train` wrote, or the name of shipped ones; the default ones if not given."""
    image: tuple[str, ...] = ()
    """Files of any name instead of a folder, CONTRAST=FILE each."""
    mask: Path | None = None
    """The lesion to take out, on the scan's grid."""
    texture: bool = True
    """Put the scan's own grain on what is filled in, which is smooth without it. --no-texture: the substrate as the network gives it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    backend: Literal["torch", "onnxruntime"] = "torch"
    """What runs the networks. onnxruntime: faster on a CPU, after a few seconds for translating them; pip install 'pathosyn[onnxruntime]'"""
    threads: int = 0
    """CPU threads; 0: as many as torch sees fit."""
    workers: int = 1
    """Processes that work at once, each with its own copy of the weights."""

    def run(self) -> int:
        """Faulty subjects are named at the end; the others are done."""
        subjects = many_subjects(self.subjects, self.image)
        each("heal", subjects, self._heal, Networks(self.weights, self.device, self.threads, self.backend), self.workers)
        return 0

    def _heal(self, files: SubjectFiles, loaded: Loaded, device: str) -> list[Path]:
        from pathosyn.insert import heal

        return [heal(files, self.out, loaded, mask=self.mask, texture=self.texture, device=device)]


def parse(arguments: list[str]) -> HealVerb:
    """From the command line."""
    return tyro.cli(HealVerb, args=arguments, prog="pathosyn heal")
