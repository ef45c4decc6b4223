"""nnU-Net v2's raw data set: each slice a 2-D case, real training slices beside the drawn ones, folds by subject.

DatasetNNN_NAME/imagesTr/CASE_0000.nii.gz …   one file a contrast, in the order of dataset.json
DatasetNNN_NAME/labelsTr/CASE.nii.gz          0 background, 1 lesion
DatasetNNN_NAME/dataset.json, splits_final.json
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathosyn.data.split import folds
from pathosyn.errors import refuse
from pathosyn.export.nifti import BYTES, native, save
from pathosyn.export.slices import Case, Picture, Source
from pathosyn.runfolder import write_json

SUFFIX = ".nii.gz"


def folder(out: Path, number: int, name: str) -> Path:
    """Where the data set goes. InputError for an id or a name that nnU-Net does not take, and for an id that is another data set's."""
    if not 1 <= number <= 999:
        raise refuse("--dataset-id", found=str(number), expected="1…999", remedy="give a number that none of your nnU-Net data sets has")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise refuse("--dataset-name", found=f"'{name}'", expected="letters, digits, - and _", remedy="give a plain name")
    mine = out / f"Dataset{number:03d}_{name}"
    if others := sorted(path.name for path in out.glob(f"Dataset{number:03d}_*") if path != mine):
        raise refuse("--dataset-id", found=f"{number}, which {others[0]} has", expected="an id of its own", remedy=f"give another, or delete {out / others[0]}")
    return mine


def refuse_judged(sources: Sequence[Source]) -> None:
    """A data set to train on may hold nothing of the subjects on which results are measured."""
    for each in sources:
        if each.drawn is not None and (each.drawn.origin.purpose, each.drawn.origin.partition) != ("train", "train"):
            found = f"a set with purpose {each.drawn.origin.purpose}, of {each.drawn.origin.partition} subjects"
            remedy = "make one with: pathosyn generate --purpose train"
            raise refuse(each.drawn.folder, found=found, expected="a set with purpose train, since nnU-Net trains on all of it", remedy=remedy)


def splits(cases: Sequence[Case], count: int) -> list[dict[str, list[str]]]:
    """`count` folds by subject over the real cases. A drawn case is trained on where none of its sources validates: anatomy, donor, mask."""
    real = [case for case in cases if not case.synthetic]
    subjects = sorted({case.subject for case in real})
    if not 2 <= count <= len(subjects):
        found, expected = f"{count} folds of {len(subjects)} subjects with a real slice", "2 folds or more, and a subject for each"
        raise refuse("--folds", found=found, expected=expected, remedy="give another number, or fewer --contrasts where some lack one")
    fold_of = folds([case.subject for case in real], count)
    every = []
    for fold in range(count):
        held = {case.subject for case, its in zip(real, fold_of, strict=True) if its == fold}
        train = [case.name for case in cases if not held & case.sources]
        every.append({"train": train, "val": [case.name for case in real if case.subject in held]})
    return every


class Layout:
    """Writes into `part`, the data set's folder."""

    def __init__(self, part: Path, cases: Sequence[Case], contrasts: Sequence[str], *, folds: int, about: dict[str, Any]) -> None:
        self.part, self.cases, self.contrasts, self.about = part, cases, contrasts, about
        self.splits = splits(cases, folds)
        for name in ("imagesTr", "labelsTr"):
            (part / name).mkdir()

    @staticmethod
    def files(case: Case, contrasts: Sequence[str]) -> tuple[int, float]:
        """Number and bytes."""
        height, width = case.source.shape(case.number)
        return len(contrasts) + 1, len(contrasts) * height * width * BYTES

    def add(self, case: Case, picture: Picture) -> None:
        """One case."""
        for channel, contrast in enumerate(self.contrasts):
            save(self.part / "imagesTr" / f"{case.name}_{channel:04d}{SUFFIX}", native(case, contrast, picture.image[channel]), case, flat=True)
        save(self.part / "labelsTr" / f"{case.name}{SUFFIX}", picture.label.astype(np.uint8), case, flat=True)

    def finish(self) -> None:
        """What describes them."""
        write_json(self.part / "splits_final.json", self.splits)
        drawn = sum(case.synthetic for case in self.cases)
        write_json(
            self.part / "dataset.json",
            {
                "channel_names": {str(channel): contrast for channel, contrast in enumerate(self.contrasts)},
                "labels": {"background": 0, "lesion": 1},
                "numTraining": len(self.cases),
                "file_ending": SUFFIX,
                "overwrite_image_reader_writer": "SimpleITKIO",
                "description": f"{len(self.cases) - drawn} real and {drawn} synthetic slices; provenance.csv says which. Research only, not for diagnosis",
                **({"licence": self.about["license"]} if "license" in self.about else {}),
            },
        )
