"""Do drawn lesions stop at ventricles and sulci, and lie in white matter, as real ones do? Measured on BraTS scans with the tissue map of their atlas.

    python benchmarks/quality_tissue.py --data slices.h5 --subjects …/brats2021 --tissues …/sri24/tissues.nii.gz --synthetic NAME=SET …

A set is what `pathosyn generate` wrote, on any partition; only subjects that lie in --subjects are looked at. The map's labels are 1 fluid, 2 grey, 3 white
matter; it is the atlas's, laid over the subject by world coordinates, so it is wrong by some mm, for real and drawn lesions alike. For each set, per tissue
and contrast, in normalised units, real beside drawn, averaged over windows and then over subjects:

jump   the lesion's mean within 3 px of the mask's border less the mean of that tissue within 3 px beyond it
inside the lesion's mean where the map has that tissue under it, less the lesion's mean in the window
kept   (fluid) of the pixels in the feather that are fluid in map and T1, the share that is still as dark in T1
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt

from pathosyn.data.matching import matching
from pathosyn.data.subjects import find_subject
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.data.windows import Window, cut
from pathosyn.evaluate.realism import Scene

TISSUES = {"fluid": 1, "grey": 2, "white": 3}
NEAR = 3.0
LEAST = 12


def tissue_map(scan: Path, tissues: Path) -> np.ndarray:
    """Labels (Z, Y, X) at the voxels of a canonical 1 mm scan, 0 beyond the atlas."""
    image, atlas = nib.as_closest_canonical(nib.load(scan)), nib.load(tissues)
    labels = np.asarray(atlas.dataobj).squeeze()
    here = np.stack(np.meshgrid(*(np.arange(n) for n in image.shape[:3]), indexing="ij"), axis=-1).reshape(-1, 3)
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(atlas.affine) @ image.affine, here)).astype(int)
    inside = ((there >= 0) & (there < labels.shape)).all(axis=1)
    found = np.zeros(len(here), np.uint8)
    found[inside] = labels[tuple(there[inside].T)]
    return found.reshape(image.shape[:3]).transpose(2, 1, 0)


def measures(x: np.ndarray, real: np.ndarray, m: np.ndarray, S: np.ndarray, head: np.ndarray, tissue: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:  # noqa: N803
    """Name and value (C,) of each measure that this window is large enough for."""
    without, within = distance_transform_edt(~m), distance_transform_edt(m)
    for name, label in TISSUES.items():
        beyond = (tissue == label) & head & (without > 0) & (without <= NEAR)
        border = m & (within <= NEAR) & binary_dilation(beyond, iterations=int(2 * NEAR))
        if min(beyond.sum(), border.sum()) >= LEAST:
            yield f"jump at {name}", x[:, border].mean(axis=1) - x[:, beyond].mean(axis=1)
        under = m & (tissue == label)
        if min(under.sum(), (m & ~under).sum()) >= LEAST:
            yield f"inside, {name}", x[:, under].mean(axis=1) - x[:, m].mean(axis=1)
    healthy = head & (S == 0)
    fluid, grey = (real[0, healthy & (tissue == TISSUES[name])] for name in ("fluid", "grey"))
    if min(fluid.size, grey.size) >= LEAST:
        dark = 0.5 * (np.median(fluid) + np.median(grey))
        feather = (S > 0) & ~m & (tissue == TISSUES["fluid"]) & (real[0] < dark)
        if feather.sum() >= LEAST:
            yield "kept, fluid", np.full(len(x), (x[0, feather] < dark).mean())


def main() -> None:
    """Print one row a measure and set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--subjects", type=Path, required=True)
    parser.add_argument("--tissues", type=Path, required=True)
    parser.add_argument("--synthetic", nargs="+", required=True, metavar="NAME=SET")
    given = parser.parse_args()
    maps: dict[str, np.ndarray] = {}
    print("set | measure | subjects, windows | contrast: real, drawn")
    for text in given.synthetic:
        name, _, folder = text.partition("=")
        drawn = SyntheticSet(folder)
        slices = matching(given.data, drawn)
        found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
        for row, window in drawn.windows():
            subject = str(row["subject"])
            if not (given.subjects / subject).is_dir():
                continue
            if subject not in maps:
                maps[subject] = tissue_map(next(iter(find_subject(given.subjects / subject).images.values())), given.tissues)
            scene, number = Scene.of(slices, int(row["row"])), slices.subjects.index(subject)
            oy, ox = slices.origin_of(number)[1:]
            place = Window(0, scene.window.y + oy, scene.window.x + ox, scene.window.side)
            tissue = cut(maps[subject][scene.window.z + slices.origin_of(number)[0]], place, mode="zero")
            # Each with its own mask: where a lesion of another subject was pasted, the real one does not lie.
            real = dict(measures(scene.x, scene.x, scene.m, scene.S, scene.head, tissue))
            made = dict(measures(window["x_hat"], scene.x, window["m"] > 0, window["S"], scene.head, tissue))
            for measure in real.keys() & made.keys():
                found[measure][subject].append(np.stack([real[measure], made[measure]]))
        for measure, by_subject in sorted(found.items()):
            mean = np.mean([np.mean(each, axis=0) for each in by_subject.values()], axis=0)
            windows = sum(map(len, by_subject.values()))
            values = " · ".join(f"{c}: {r:.2f}, {d:.2f}" for c, (r, d) in zip(drawn.origin.contrasts, mean.T, strict=True))
            print(f"{name} | {measure} | {len(by_subject)}, {windows} | {values}", flush=True)


if __name__ == "__main__":
    main()
