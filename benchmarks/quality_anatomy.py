"""How much of a scan's own anatomy goes on inside a lesion: real ones, and ones drawn where there was none.

    python benchmarks/quality_anatomy.py --data slices.h5 [--weights glioma] [--learn 2] [--judge 12] [--shares 0 0.5 1 1.5] [--seed 0] [--threads N]
                                         [--picture OUT.png --shown TCGA_… …]

Nobody knows what a real lesion grew into. But tissue runs on: what lies beyond the rim tells something of what lies within. For each window the brightness at
points of the outline `IN` pixels inside is compared with that `OUT` pixels outside, beyond the feather, along the outline's normal: Spearman's rank correlation
over the outline, averaged over a subject's windows and then over subjects (± standard error). Real lesions of training and validation subjects; shapes laid on
slices without a lesion (`generate --masks sampled --anatomy healthy`), as the tissue is there, and with a lesion drawn with each of `--shares` (`anatomy`).
`--picture` shows, of each TCGA validation subject that is named, the largest shape laid on it: T1 and FLAIR before, and drawn with each share.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import judging
import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from scipy.stats import spearmanr

from pathosyn import figures
from pathosyn.checkpoint import Loaded
from pathosyn.cohort.placing import Wish
from pathosyn.cohort.scenes import chosen
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.data.windows import Window, cut
from pathosyn.generate import generate

IN, OUT = (3, 5, 8), (6, 9)
LEAST_LESION, LEAST_POINTS = 150, 30
"""Pixels of a lesion, and points of its outline, that are worth a correlation."""
SHOWN = 96
"""Pixels a side of a picture's tile."""


class Seen(NamedTuple):
    """x (C, H, W), m and head (H, W) bool, present (C,): a window in which there is a lesion, or might be."""

    subject: str
    x: np.ndarray
    m: np.ndarray
    head: np.ndarray
    present: np.ndarray


def across(seen: Seen) -> dict[tuple[int, int, int], float]:
    """(contrast, pixels inside, pixels outside) → the correlation."""
    signed = np.where(seen.m, 0.5 - distance_transform_edt(seen.m), distance_transform_edt(~seen.m) - 0.5)
    normal = np.stack(np.gradient(gaussian_filter(signed, 2)))
    normal /= np.linalg.norm(normal, axis=0) + 1e-6
    outline = np.stack(np.nonzero(seen.m & (signed > -1.1)))
    along = normal[:, outline[0], outline[1]]
    found: dict[tuple[int, int, int], float] = {}
    for inward, outward in product(IN, OUT):
        within, beyond = outline - inward * along, outline + outward * along
        # Where the outline is bent the normal may lead back to it, or into the air.
        good = (_at(signed, within) < 1.5 - inward) & (_at(signed, beyond) > outward - 1.5) & (_at(seen.head.astype(float), beyond, order=0) > 0)
        for c in np.flatnonzero(seen.present):
            smooth = gaussian_filter(seen.x[c].astype(float), 0.7)
            pair = np.stack([_at(smooth, within)[good], _at(smooth, beyond)[good]])
            pair = pair[:, np.isfinite(pair).all(axis=0)]
            if pair.shape[1] >= LEAST_POINTS and pair.std(axis=1).min() > 1e-3:
                found[int(c), inward, outward] = float(spearmanr(pair[0], pair[1]).statistic)
    return found


def _at(field: np.ndarray, points: np.ndarray, *, order: int = 1) -> np.ndarray:
    return map_coordinates(field, points, order=order, mode="constant", cval=np.nan)


def real(slices: Slices, per_subject: int) -> Iterator[Seen]:
    """Lesion windows, evenly spread."""
    for row in chosen(slices, per_subject):
        batch, number = slices.lesion([int(row)]), int(slices.windows[row]["subject"])
        yield Seen(slices.subjects[number], batch.x[0].numpy(), batch.m[0, 0].numpy() > 0, slices.ground(int(row)) > 0, slices.present[number])


def placed(slices: Slices, drawn: SyntheticSet, *, empty: bool) -> Iterator[Seen]:
    """The windows of a set, or (`empty`) the tissue that was there before."""
    for row, window in drawn.windows():
        number, place = slices.subjects.index(str(row["subject"])), Window(*(int(row[name]) for name in ("z", "y", "x", "side")))
        plane, head = slices.plane(number, place.z)
        x = cut(plane, place) if empty else window["x_hat"]
        yield Seen(slices.subjects[number], x, window["m"] > 0, cut(head, place, mode="zero") > 0, slices.present[number])


def show(name: str, windows: list[Seen], contrasts: tuple[str, ...]) -> None:
    """One line of the table."""
    by: dict[tuple[int, int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    large = [seen for seen in windows if seen.m.sum() >= LEAST_LESION]
    for seen in large:
        for key, value in across(seen).items():
            by[key][seen.subject].append(value)
    cells = []
    for c, inward, outward in product(range(len(contrasts)), IN, OUT):
        means = np.array([np.mean(values) for values in by[c, inward, outward].values()])
        cells.append(f"{means.mean():.2f} ± {means.std() / np.sqrt(len(means)):.2f}" if len(means) else "-")
    print(f"{name} | {len(large)} of {len({seen.subject for seen in large})} | " + " | ".join(cells), flush=True)


def sets(data: Path, loaded: Loaded, folder: Path, wanted: dict[str, int], *, share: float, seed: int) -> dict[str, SyntheticSet]:
    """A set a partition, drawn with `share`."""
    method, made = loaded.method, {}
    method.config = replace(method.config, method=replace(method.config.method, anatomy=share))
    wish = Wish(masks="sampled", anatomy="healthy")
    for partition, count in wanted.items():
        purpose = "train" if partition == "train" else "evaluate"
        out = folder / f"{share:g} {partition}"
        generate(data, out, loaded, purpose=purpose, partition=partition, per_subject=count, seed=seed, wish=wish, progress=False)  # type: ignore[arg-type]
        made[partition] = SyntheticSet(out)
    return made


def picture(out: Path, names: list[str], slices: Slices, drawn: dict[float, SyntheticSet], contrasts: tuple[str, ...]) -> None:
    """A row a subject and contrast: the scan with the shape outlined, the scan, a column a share."""
    columns = {"scan": [*placed(slices, next(iter(drawn.values())), empty=True)]} | {
        f"{share:g}": [*placed(slices, each, empty=False)] for share, each in drawn.items()
    }
    rows, labels = [], []
    for name in names:
        mine = [i for i, seen in enumerate(columns["scan"]) if seen.subject == name]
        best = max(mine, key=lambda i: columns["scan"][i].m.sum())
        m = columns["scan"][best].m
        box = tuple(slice(max(0, int(at.mean()) - SHOWN // 2), int(at.mean()) + SHOWN // 2) for at in np.nonzero(m))
        for contrast in ("t1", "flair"):
            planes = [_square(seen[best].x[contrasts.index(contrast)][box].astype(np.float32)) for seen in columns.values()]
            low, high = figures.window_limits(planes[0])
            tiles = [figures.grey(plane, low, high) for plane in planes]
            rows.append([figures.outline(tiles[0], _square(m[box].astype(np.float32)) > 0), *tiles])
            labels.append(f"{name[5:12]} {contrast}")
    figures.mosaic(rows, out, columns=("mask", *columns), labels=labels)


def _square(plane: np.ndarray) -> np.ndarray:
    """SHOWN × SHOWN pixels, the edge repeated where there are fewer."""
    return np.pad(plane, [(0, SHOWN - n) for n in plane.shape], mode="edge")


def main() -> None:
    """A row for real lesions, for the tissue itself, and for each share."""
    parser = judging.arguments(__doc__, learn=2, judge=12)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.0, 0.5, 1.0, 1.5])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--shown", nargs="+", default=[])
    given = parser.parse_args()
    if any(not name.startswith("TCGA") for name in given.shown):
        parser.error("only TCGA subjects may be shown")
    loaded = judging.ready(given)
    contrasts, wanted = loaded.config.contrasts, {"train": given.learn, "validation": given.judge}
    slices = {partition: Slices(given.data, partition, contrasts=contrasts, every=False) for partition in wanted}
    print("lesions | windows | " + " | ".join(f"{name} {inward} in, {outward} out" for name, inward, outward in product(contrasts, IN, OUT)))
    show("real", [seen for partition, count in wanted.items() for seen in real(slices[partition], count)], contrasts)
    pictured: dict[float, SyntheticSet] = {}
    with tempfile.TemporaryDirectory() as folder:
        for share in given.shares:
            drawn = sets(given.data, loaded, Path(folder), wanted, share=share, seed=given.seed)
            if share == given.shares[0]:
                show("the tissue itself", [seen for name, each in drawn.items() for seen in placed(slices[name], each, empty=True)], contrasts)
            show(f"drawn, {share:g}", [seen for name, each in drawn.items() for seen in placed(slices[name], each, empty=False)], contrasts)
            pictured[share] = drawn["validation"]
        if given.picture:
            picture(given.picture, given.shown, slices["validation"], pictured, contrasts)


if __name__ == "__main__":
    main()
