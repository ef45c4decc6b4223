"""Seconds to draw a lesion anew, and voxels changed outside its support, on real scans.

    python benchmarks/bench_insert.py SUBJECT_DIR [SUBJECT_DIR …] --weights runs/lgg/weights.safetensors [--out DIR] [--csv FILE]

Each subject's own lesion is drawn anew through the public `insert`. The written files are then loaded with nibabel alone and compared with the
sources, stored value by stored value. The support is computed here independently: voxels within grow + feather of the mask by SciPy's exact Euclidean
transform. Seconds include reading, both networks and writing, not the loading of the weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import distance_transform_edt

from pathosyn import insert, load
from pathosyn.data.subjects import find_subjects


def stored(path: Path) -> np.ndarray:
    """The file's own voxels, unscaled, 3-D."""
    image = nib.load(path)
    return np.asanyarray(image.dataobj.get_unscaled()).reshape(image.shape[:3])


def compare(folder: Path, seg: Path, reach_mm: float) -> dict[str, int]:
    """Voxels of all contrasts together: changed, and changed further than `reach_mm` from the source's mask."""
    sidecar = json.loads((folder / f"{folder.name}.json").read_text())
    mask = nib.load(seg)
    distance = distance_transform_edt(np.asarray(mask.dataobj).reshape(mask.shape[:3]) == 0, sampling=mask.header.get_zooms()[:3])
    far = distance >= reach_mm
    total = {"changed": 0, "outside": 0, "compared": 0}
    for contrast, source in sidecar["sources"].items():
        before, after = stored(Path(source["file"])), stored(folder / sidecar["files"][contrast])
        if before.dtype != after.dtype:
            raise SystemExit(f"{folder}: {contrast}: dtype changed")
        differs = before != after
        total["changed"] += int(differs.sum())
        total["outside"] += int((differs & far).sum())
        total["compared"] += int(far.sum())
    return total


def main() -> None:
    """One row a subject, then the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    loaded = load(given.weights)
    reach = loaded.config.geometry.grow_mm + loaded.config.geometry.feather_mm
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for files in (files for root in given.subjects for files in find_subjects(root)):
            if files.seg is None:
                continue
            start = time.perf_counter()
            (folder,) = insert(files, given.out or Path(scratch), loaded)
            seconds = time.perf_counter() - start
            mask = np.asarray(nib.load(files.seg).dataobj).squeeze() > 0
            slices = int(mask.any(axis=(0, 1)).sum())
            rows.append({"subject": files.name, "lesion_slices": slices, "seconds": round(seconds, 2), **compare(folder, files.seg, reach)})
            print(rows[-1], flush=True)
    sums = {key: sum(row[key] for row in rows) for key in ("lesion_slices", "seconds", "changed", "outside", "compared")}
    each = [row["seconds"] / row["lesion_slices"] for row in rows if row["lesion_slices"]]
    print(f"{len(rows)} subjects: {sums['outside']} voxels changed outside the support of {sums['compared']} compared; {sums['changed']} changed inside")
    print(f"median {np.median([row['seconds'] for row in rows]):.1f} s a volume, {np.median(each):.2f} s a lesion slice")
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
