"""Are sampled masks like real ones: sizes, outlines, places, and how often a shape finds no room.

    python benchmarks/quality_masks.py --data slices.h5 [--partition train] [--masks 600] [--seed 0] [--sheet FILE.png]

Shapes and places come from the training subjects; masks are put on slices of `--partition`, their own lesions kept off. Each mask has `--slices` random
slices of as many subjects to find room on; "first slice" is the share that finds it on the first. Real: the pieces of the masks of the training
subjects, where they lie, on slices whose brain is found. --sheet draws 40 real and 40 sampled outlines.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy import ndimage, stats
from skimage.measure import perimeter_crofton

from pathosyn.data import sampler, shapes
from pathosyn.data.ground import Ground, Grounds, dark, in_box
from pathosyn.data.sampler import Sampled
from pathosyn.data.slices import Slices
from pathosyn.figures import grey, mosaic, outline

QUANTILES = (5, 25, 50, 75, 95)
COPIES = 100
"""Sampled masks that are compared with every shape of the bank."""


class Seen(NamedTuple):
    """A mask where it lies, and the slice's density of lesions."""

    ground: Ground
    mask: np.ndarray
    likely: np.ndarray
    subject: str
    """Whose shape it is."""


def real(slices: Slices, places: sampler.PriorMap, bank: shapes.Bank, count: int, rng: np.random.Generator) -> list[Seen]:
    """Some pieces of the real masks on their slices."""
    seen = []
    grounds = Grounds(slices)
    with h5py.File(slices.path, "r") as file:
        for i in rng.choice(len(bank.shapes), min(count, len(bank.shapes)), replace=False):
            shape = bank.shapes[int(i)]
            ground = grounds.of(slices.subjects.index(shape.subject), shape.z)
            if not ground.tissue.any():  # the brain was not found; no mask is sampled there either
                continue
            labels, n = ndimage.label(file["subjects"][shape.subject]["seg"][shape.z] > 0, shapes.CONNECTED)
            piece = next(labels == k + 1 for k in range(n) if (labels == k + 1).sum() == shape.pixels)
            seen.append(Seen(ground, piece, places.over(ground.tissue, ground.height), shape.subject))
    return seen


def compactness(mask: np.ndarray) -> float:
    """Perimeter² / area, 4π for a disk."""
    return float(perimeter_crofton(np.pad(mask, 1), 4) ** 2 / mask.sum())


def solidity(mask: np.ndarray) -> float:
    """What an opening by a disk of 2 pixels leaves: 1 where nothing of the outline is thin."""
    inner = ndimage.distance_transform_edt(np.pad(mask, 1)) > 2
    return float((ndimage.distance_transform_edt(~inner) <= 2).sum() / mask.sum()) if inner.any() else 0.0


def across(seen: Seen) -> float:
    """The share of the mask beyond the middle of the brain: 0 where all of it is on one side, at most .5."""
    left = float((in_box(seen.ground.tissue)[1] < 0)[seen.mask].mean())
    return min(left, 1 - left)


def measured(seen: list[Seen]) -> dict[str, np.ndarray]:
    """Per mask: figures by name."""
    return {
        "area, pixels": np.array([s.mask.sum() for s in seen]),
        "perimeter² / area": np.array([compactness(s.mask) for s in seen]),
        "left by an opening": np.array([solidity(s.mask) for s in seen]),
        "share on fluid or bone": np.array([dark(s.ground.images, s.ground.head)[s.mask].mean() for s in seen]),
        "share off the brain": np.array([(~s.ground.tissue)[s.mask].mean() for s in seen]),
        "share of the brain": np.array([s.mask.sum() / s.ground.tissue.sum() for s in seen]),
        "smaller share on a side": np.array([across(s) for s in seen]),
        "mean log density": np.array([np.log(s.likely[s.mask].clip(min=sampler.FLOOR / 2)).mean() for s in seen]),
    }


def nearest(mask: np.ndarray, bank: shapes.Bank, other_than: str = "") -> float:
    """The largest Dice of a mask with any shape of the bank (of another subject), mirrored or not, centroids on each other."""
    best = 0.0
    side = 192
    own = centred(mask, side)
    for shape in bank.shapes:
        if shape.subject != other_than and 2 * min(shape.pixels, own.sum()) / (shape.pixels + own.sum()) > best:
            other = centred(shape.sdf < 0, side)
            best = max(best, *(2 * (own & o).sum() / (own.sum() + o.sum()) for o in (other, other[:, ::-1])))
    return float(best)


def own_shape(mask: np.ndarray, made: Sampled, bank: shapes.Bank) -> float:
    """Dice of a mask with the shape it was made from, turned and mirrored as it was, without the elastic change; centroids on each other."""
    best = 0.0
    for shape in bank.shapes:
        if (shape.subject, shape.z, shape.pixels) == (made.subject, made.z, made.pixels):
            still = np.zeros((2, *[shapes.side_for(shape.sdf)] * 2))
            turned = shapes.changed(shape.sdf, angle=np.radians(made.angle_deg), mirrored=made.mirrored, shift=still)
            a, b = centred(mask, 192), centred(turned < 0, 192)
            best = max(best, float(2 * (a & b).sum() / (a.sum() + b.sum())))
    return best


def centred(mask: np.ndarray, side: int) -> np.ndarray:
    """The mask with its centroid in the middle of a square."""
    out = np.zeros((side, side), bool)
    y, x = np.nonzero(mask)
    y, x = (np.rint(v - v.mean()).astype(int) + side // 2 for v in (y, x))
    inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
    out[y[inside], x[inside]] = True
    return out


def tile(seen: Seen, height: int = 256, width: int = 224) -> np.ndarray:
    """The brightest contrast for lesions with the outline, padded to one size."""
    images = seen.ground.images
    picture = outline(grey(images.get("flair", next(iter(images.values()))), -2, 3), seen.mask)
    out = np.zeros((height, width, 3), np.uint8)
    h, w = min(height, picture.shape[0]), min(width, picture.shape[1])
    out[:h, :w] = picture[:h, :w]
    return out


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--partition", default="train", choices=["train", "validation"])
    parser.add_argument("--masks", type=int, default=600)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=None)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    training, slices = Slices(given.data, "train"), Slices(given.data, given.partition, every=False)
    start = time.perf_counter()
    bank = shapes.bank_of(training)
    places = sampler.prior(bank)
    print(f"{len(bank.shapes)} shapes of {len(training.subjects)} subjects in {time.perf_counter() - start:.1f} s")

    opener = Grounds(slices)
    drawn: list[Seen] = []
    made: list[Sampled] = []
    lost: list[int] = []
    first = 0
    start = time.perf_counter()
    for _ in range(given.masks):
        numbers = rng.choice(len(slices.subjects), min(given.slices, len(slices.subjects)), replace=False)
        heights = [int(rng.integers(slices.depth[n])) for n in numbers]
        grounds: list[Ground] = []

        def opened(numbers: np.ndarray = numbers, heights: list[int] = heights, grounds: list[Ground] = grounds) -> Iterator[Ground]:
            for n, z in zip(numbers, heights, strict=True):
                grounds.append(opener.of(int(n), z))
                yield grounds[-1]

        number, found = sampler.sample_on(bank, places, opened(), slices.geometry, rng)
        if number is None:
            lost.append(found.pixels)
            continue
        first += number == 0
        made.append(found)
        drawn.append(Seen(grounds[number], found.mask, places.over(grounds[number].tissue, grounds[number].height), found.subject))
    each = (time.perf_counter() - start) / given.masks
    sizes = np.array([s.mask.sum() for s in drawn]) * bank.pixel_mm**2
    ks = stats.ks_2samp(sizes, bank.areas_mm2)
    asked = stats.ks_2samp(np.concatenate([sizes, np.array(lost) * bank.pixel_mm**2]), bank.areas_mm2)
    shares = f"{100 * len(lost) / given.masks:.1f} % given up, {100 * first / given.masks:.1f} % on the first slice"
    print(f"{len(drawn)} masks, {1000 * each:.0f} ms each; {shares}")
    print(f"areas against the bank's: KS {ks.statistic:.3f} (p {ks.pvalue:.2f}); of all that were asked for {asked.statistic:.3f}")
    if lost:
        print(f"given up: median {np.median(lost):.0f} pixels")
    print(f"attempts: {np.mean([m.tries for m in made]):.2f}; displacement, pixels: {np.mean([m.elastic_px for m in made]):.2f}")
    truth = real(training, places, bank, given.masks, rng)
    print("figure | masks | mean | " + " | ".join(f"{q} %" for q in QUANTILES))
    rows = {"real": measured(truth), "sampled": measured(drawn)}
    for figure in rows["real"]:
        for name, table in rows.items():
            values = table[figure]
            print(f"{figure} | {name} | {values.mean():.4g} | " + " | ".join(f"{v:.4g}" for v in np.percentile(values, QUANTILES)))
    copies = {
        "real, with other subjects'": [nearest(s.mask, bank, s.subject) for s in truth[:COPIES]],
        "sampled": [nearest(s.mask, bank) for s in drawn[:COPIES]],
        "sampled, with its own, turned alike": [own_shape(s.mask, m, bank) for s, m in zip(drawn[:COPIES], made, strict=False)],
    }
    for name, values in copies.items():
        print(f"Dice with the nearest shape | {name} | {np.mean(values):.3f} | " + " | ".join(f"{v:.3f}" for v in np.percentile(values, QUANTILES)))
    if given.sheet:
        mosaic([[tile(s) for s in seen[i : i + 10]] for seen in (truth[:40], drawn[:40]) for i in range(0, 40, 10)], given.sheet)


if __name__ == "__main__":
    main()
