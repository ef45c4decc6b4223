"""BIDS derivatives: each drawn slice a volume of one slice, with a sidecar that says that it is synthetic and where it comes from.

    sub-ID/anat/sub-ID[_ce-gadolinium]_chunk-NNN_desc-TAGrR_{T1w,T2w,FLAIR}.nii.gz, .json
    sub-ID/anat/sub-ID_chunk-NNN_label-lesion_desc-TAGrR_mask.nii.gz, .json
    dataset_description.json, participants.tsv and .json, descriptions.tsv and .json, README

`chunk` is BIDS's word for a spatial piece of a whole, here the slice of that number; `desc` is its free label for how a derivative was made, here method
and replicate. `run` and `acq` would claim another measurement of the patient, of which there was none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pathosyn.export.nifti import BYTES, native, save
from pathosyn.export.slices import Case, Picture, file_names
from pathosyn.runfolder import package_version, write_json
from pathosyn.weights import shipped

VERSION = "1.10.0"
"""Of the standard: the first that lets derivatives of `anat` have a chunk."""
SUFFIXES = {"t1": ("", "T1w"), "t1ce": ("_ce-gadolinium", "T1w"), "t2": ("", "T2w"), "flair": ("", "FLAIR")}
"""Contrast → entity and suffix."""
STRIPPED = 0.95
OURS = ("provenance.csv", "export.json")

README = """# Synthetic lesions

Each file here is one slice of a scan into which pathosyn has drawn a lesion: synthetic, for research only, not for diagnosis.
Sidecars and provenance.csv say from which subject, mask, seed and weights it comes.

Images are in the units of the source scans, on a grid of {grid:g} mm within the slice, right-anterior-superior; 0 mm is the source scan's first voxel, not
the scanner's zero. Masks are 1 on lesion. SkullStripped is true where nearly all around the
head is one value, which is what tools leave that strip the skull: a guess, since no header tells.
"""


class Layout:
    """Writes into `part`, the data set's folder."""

    def __init__(self, part: Path, cases: Sequence[Case], contrasts: Sequence[str], *, about: dict[str, Any]) -> None:
        self.part, self.cases, self.contrasts, self.about = part, cases, contrasts, about
        self.names = file_names({case.subject for case in cases}, keep="", instead="")

    @staticmethod
    def files(case: Case, contrasts: Sequence[str]) -> tuple[int, float]:
        """Number and bytes."""
        height, width = case.source.shape(case.number)
        there = len(case.contrasts(contrasts))
        return 2 * (there + 1), there * height * width * BYTES + 2000 * (there + 1)

    def add(self, case: Case, picture: Picture) -> None:
        """One case; an absent contrast has no file."""
        folder = self.part / f"sub-{self.names[case.subject]}" / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for contrast, plane in zip(self.contrasts, picture.image, strict=True):
            if contrast not in case.contrasts(self.contrasts):
                continue
            entity, suffix = SUFFIXES[contrast]
            name = self._name(case, before=entity, suffix=suffix)
            save(folder / f"{name}.nii.gz", native(case, contrast, plane), case, flat=False)
            about = {
                "Description": f"{contrast} slice with a drawn lesion",
                "SkullStripped": _stripped(plane, picture.head),
                "Units": "arbitrary",
                **self._sidecar(case),
            }
            write_json(folder / f"{name}.json", about)
            written.append(f"bids::{folder.relative_to(self.part)}/{name}.nii.gz")
        name = self._name(case, label="_label-lesion", suffix="mask")
        save(folder / f"{name}.nii.gz", picture.label.astype(np.uint8), case, flat=False)
        about = {
            "Description": "Lesion of the slice, drawn and, where some was left, real",
            "Type": "Lesion",
            "Sources": written,
            "SpatialReference": written[0],
        }
        write_json(folder / f"{name}.json", {**about, **self._sidecar(case)})

    def _name(self, case: Case, *, suffix: str, before: str = "", label: str = "") -> str:
        return f"sub-{self.names[case.subject]}{before}_chunk-{case.slice:03d}{label}_desc-{_desc(case)}_{suffix}"

    def _sidecar(self, case: Case) -> dict[str, Any]:
        row = case.provenance()
        return {
            "Synthetic": True,
            "Use": "research only, not for diagnosis",
            "Method": row["method"],
            "Seed": int(row["seed"]) if row["seed"].isdecimal() else row["seed"],
            "Replicate": row["replicate"],
            "SourceSubject": row["subject"],
            "SourcePartition": row["partition"],
            "SourceSlice": row["slice"],
            "MaskSource": row["mask_source"],
            "Donor": row["donor"],
            "WeightsSHA256": row["weights"],
        }

    def finish(self) -> None:
        """What describes them."""
        weights = sorted({case.provenance()["weights"] for case in self.cases})
        known = {each.sha256: f"{each.name} {each.version}" for each in shipped().values()}
        sources = sorted({str(case.source.attribute(case.number, "set")) for case in self.cases})
        write_json(
            self.part / "dataset_description.json",
            {
                "Name": "Synthetic lesions by pathosyn",
                "BIDSVersion": VERSION,
                "DatasetType": "derivative",
                "GeneratedBy": [
                    {
                        "Name": "pathosyn",
                        "Version": package_version(),
                        "Description": ", ".join(f"weights {known[sha] + ' ' if sha in known else ''}sha256 {sha}" if sha else "no weights" for sha in weights),
                    }
                ],
                "SourceDatasets": [{"Version": f"{name}, prepared by pathosyn"} for name in sources],
                **({"License": self.about["license"]} if "license" in self.about else {}),
            },
        )
        self._tables()
        grid = self.cases[0].source.slices.geometry.grid_mm
        (self.part / "README").write_text(README.format(grid=grid))
        (self.part / ".bidsignore").write_text("".join(f"{name}\n" for name in OURS))

    def _tables(self) -> None:
        who = {case.subject: case for case in self.cases}
        people = [
            {
                "participant_id": f"sub-{self.names[s]}",
                "source_subject": s,
                "partition": case.provenance()["partition"],
                "source_set": case.source.attribute(case.number, "set"),
            }
            for s, case in sorted(who.items())
        ]
        _tsv(self.part / "participants.tsv", people)
        columns = {
            "source_subject": "Name in the prepared data",
            "partition": "Its partition there: train, validation or test",
            "source_set": "Folder that it came from",
        }
        self._columns("participants", "The subjects of the source scans", columns)
        columns = {"desc_id": "Label after desc- in file names", "description": "Method, replicate and set that it stands for"}
        self._columns("descriptions", "How each derivative was made", columns)
        made = {_desc(case): case for case in self.cases}
        _tsv(
            self.part / "descriptions.tsv",
            [
                {"desc_id": f"desc-{desc}", "description": f"{case.provenance()['method']}, replicate {case.replicate}, of the set {case.provenance()['set']}"}
                for desc, case in sorted(made.items())
            ],
        )


    def _columns(self, table: str, whole: str, columns: dict[str, str]) -> None:
        """The sidecar of a table."""
        write_json(self.part / f"{table}.json", {"Description": whole, **{name: {"Description": what} for name, what in columns.items()}})


def _stripped(plane: np.ndarray, head: np.ndarray) -> bool:
    """Whether nearly all of plane (H, W) outside the head is one value: what tools leave that strip the skull. Specks do not count."""
    outside = plane[~head]
    return bool(outside.size) and float((outside == np.median(outside)).mean()) > STRIPPED


def _desc(case: Case) -> str:
    return f"{case.source.tag}r{case.replicate}" + (f"n{case.nth}" if case.nth else "")


def _tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False, na_rep="n/a")
