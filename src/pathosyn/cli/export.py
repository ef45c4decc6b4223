"""pathosyn export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from pathosyn.cli.limits import outside
from pathosyn.errors import InputError


@dataclasses.dataclass(frozen=True)
class ExportVerb:
    """Write sets that `pathosyn generate` drew as whole slices, in a layout that other tools read. Lesion is 1 in every mask, all else 0."""

    sets: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `pathosyn generate` wrote."""
    data: Path
    """The slices file that they were drawn on."""
    to: Literal["nnunet", "bids", "png"]
    """nnunet: a raw data set of nnU-Net v2 to train on, the real training slices beside. bids: BIDS derivatives. png: pairs of image and mask."""
    out: Path
    """Folder for the files: a new one, or an older export, which is replaced. nnunet: your nnUNet_raw, which may hold other data sets."""
    contrasts: tuple[str, ...] | None = None
    """Which, in this order; all that the sets have if not given."""
    folds: int = 5
    """nnunet: folds of splits_final.json, by subject."""
    dataset_id: int = 500
    """nnunet: number of the data set, 1…999."""
    dataset_name: str = "Pathosyn"
    """nnunet: its name."""
    real_per_subject: int = 0
    """nnunet: at most this many real slices with lesion of a subject, evenly spread; 0: all."""
    healthy: int = 0
    """nnunet: so many real slices without lesion of each subject, evenly spread."""

    def run(self) -> int:
        """Prints what was written, and what comes next."""
        from pathosyn.export import export

        if faults := [f for name in ("real_per_subject", "healthy") for f in outside(name, getattr(self, name))]:
            raise InputError(faults)
        folder = export(
            self.sets,
            self.data,
            self.to,
            self.out,
            contrasts=self.contrasts,
            folds=self.folds,
            dataset_id=self.dataset_id,
            dataset_name=self.dataset_name,
            real_per_subject=self.real_per_subject,
            healthy=self.healthy,
        )
        print(f"{self.to}: {folder}")
        if self.to == "nnunet":
            print(f"next: nnUNetv2_plan_and_preprocess -d {self.dataset_id} -c 2d --verify_dataset_integrity, with nnUNet_raw={self.out}; then copy")
            print(f"      {folder / 'splits_final.json'} into nnUNet_preprocessed/{folder.name}")
        return 0


def parse(arguments: list[str]) -> ExportVerb:
    """From the command line."""
    return tyro.cli(ExportVerb, args=arguments, prog="pathosyn export")
