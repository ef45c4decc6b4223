"""f_sub by the rules of the BraTS inpainting challenge: T1 alone, official metric, beside harmonic and biharmonic filling.

    pip install inpainting                  # the challenge's own package; a tool for this script, not a dependency of pathosyn
    python benchmarks/quality_inpainting.py …/brats2021 --split split.csv [--partition validation] [--weights NAME|FILE] [--masks 4] [--csv FILE]

Healthy masks as the challenge's published rule has them (Kofler et al., arXiv 2305.08992, and its data script): connected parts of at least 800 voxels
of another subject's tumour, dilated by 5 voxels, mirrored at random, placed at random at least 5 voxels from this subject's tumour and with at least
75 % on the brain. Healthy mask and tumour are voided together; every method fills both (f_sub also with the grain that `heal` writes, which costs it in
such figures), and the metric is taken on the healthy mask. Rows are means over masks, then over subjects; with the few subjects here there is no interval
worth printing, so each subject has its own rows.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from pathosyn.checkpoint import Loaded, load
from pathosyn.data.inpaint import inpaint
from pathosyn.insert import heal
from pathosyn.weights import find

SMALLEST, DILATION, CLEARANCE, ON_BRAIN = 800, 5, 5, 0.75
SEED = 2023
METRICS = ("ssim", "psnr_01", "mse")


def parts(tumour: np.ndarray) -> list[np.ndarray]:
    """The tumour's large connected parts, dilated, each cut to its box."""
    labels, _ = ndimage.label(tumour)
    found = []
    for index, box in enumerate(ndimage.find_objects(labels), 1):
        part = labels[box] == index
        if part.sum() >= SMALLEST:
            found.append(ndimage.binary_dilation(np.pad(part, DILATION), iterations=DILATION))
    return found


def placed(shape: np.ndarray, brain: np.ndarray, far: np.ndarray, rng: np.random.Generator, tries: int = 200) -> np.ndarray | None:
    """`shape` mirrored and put where the rule allows, as a mask of the volume; None if no place was found. `far`: far enough from the tumour."""
    shape = np.flip(shape, axis=tuple(int(a) for a in range(3) if rng.integers(2)))
    for _ in range(tries):
        corner = [int(rng.integers(0, max(1, whole - side + 1))) for whole, side in zip(brain.shape, shape.shape, strict=True)]
        box = tuple(slice(start, start + side) for start, side in zip(corner, shape.shape, strict=True))
        if brain[box].shape != shape.shape:
            return None
        if (brain[box] & shape).sum() >= ON_BRAIN * shape.sum() and far[box][shape].all():
            mask = np.zeros(brain.shape, bool)
            mask[box] = shape
            return mask
    return None


def filled(kind: str, t1: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Harmonic or biharmonic, slice by slice, as the training target does it."""
    out = t1.copy()
    for z in np.flatnonzero(hole.any(axis=(0, 1))):
        out[..., z] = inpaint(kind, t1[None, ..., z], hole[..., z])[0]
    return out


def healed(image: nib.Nifti1Image, hole: np.ndarray, loaded: Loaded, *, texture: bool) -> np.ndarray:
    """f_sub through `pathosyn heal` on a folder that holds the T1 alone, as smooth as it is or with the scan's grain."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "subject"
        folder.mkdir()
        nib.save(image, folder / "t1.nii.gz")
        nib.save(nib.Nifti1Image(hole.astype(np.uint8), image.affine), Path(name) / "hole.nii.gz")
        made = heal(folder, Path(name) / "out", loaded, mask=Path(name) / "hole.nii.gz", texture=texture)
        return np.asarray(nib.load(made / f"{made.name}_t1.nii.gz").dataobj, np.float32)


def metric(prediction: np.ndarray, t1: np.ndarray, hole: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The challenge's own figures on the healthy mask."""
    from inpainting.challenge_metrics_2023 import generate_metrics

    tensor = [torch.from_numpy(np.ascontiguousarray(a))[None] for a in (prediction, t1, np.where(hole, 0, t1), mask)]
    found = generate_metrics(prediction=tensor[0], target=tensor[1], normalization_tensor=tensor[2], mask=tensor[3])
    return {name: float(found[name]) for name in METRICS}


def measure(root: Path, names: list[str], weights: Path, count: int) -> pd.DataFrame:
    """Tidy rows: subject, mask, method, and the metrics."""
    loaded = load(weights)
    scans = {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    tumours = {name: np.asarray(nib.load(next(folder.glob("*seg.nii.gz"))).dataobj) > 0 for name, folder in scans.items()}
    rows = []
    for name in names:
        rng = np.random.default_rng([SEED, *name.encode()])
        image = nib.load(next(scans[name].glob("*t1.nii.gz")))
        t1, tumour = np.asarray(image.dataobj, np.float32), tumours[name]
        shapes = [part for other, mask in tumours.items() if other != name for part in parts(mask)]
        far, done = ndimage.distance_transform_edt(~tumour) >= CLEARANCE, 0
        while done < count:
            mask = placed(shapes[int(rng.integers(len(shapes)))], t1 > 0, far, rng)
            if mask is None:
                continue
            hole = mask | tumour
            made = {way: healed(image, hole, loaded, texture=grain) for way, grain in (("f_sub", False), ("f_sub, with grain", True))} | {
                kind: filled(kind, t1, hole) for kind in ("harmonic", "biharmonic")
            }
            rows += [{"subject": name, "mask": done, "voxels": int(mask.sum()), "method": kind} | metric(p, t1, hole, mask) for kind, p in made.items()]
            done += 1
    return pd.DataFrame(rows)


def main() -> None:
    """Print a table, a row a subject and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--partition", default="validation")
    parser.add_argument("--weights")
    parser.add_argument("--masks", type=int, default=4)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    with given.split.open() as file:
        names = [row["subject"] for row in csv.DictReader(file) if row["partition"] == given.partition and (given.root / row["subject"]).is_dir()]
    rows = measure(given.root, names, find(given.weights), given.masks)
    if given.csv:
        rows.to_csv(given.csv, index=False)
    print(rows.groupby(["subject", "method"])[list(METRICS)].mean().round(4).to_string())


if __name__ == "__main__":
    main()
