"""Pictures to judge by eye: drawn and real lesions shuffled on numbered sheets, and the key in a file of its own, to be opened after scoring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pathosyn import figures
from pathosyn.data.matching import beside_real
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.errors import refuse
from pathosyn.evaluate.realism import Scene
from pathosyn.evaluate.statistics import Interval, auc, bootstrap

SHEET = 20
"""Lesions on one sheet."""
SIDE = 96
LARGEST = 160
"""Side of the largest window that is shown: of a larger one the middle would be lesion alone."""


def blind(data: str | Path, drawn: SyntheticSet, out: Path, *, each: int = 50, seed: int = 0, least_pixels: int = 150) -> list[Path]:
    """`each` drawn lesions and `each` real ones of other windows, shuffled, every contrast beside the others, the mask's outline on the last tile.

    Lesions of fewer than `least_pixels` are left out, where there are others. InputError where the set holds fewer than two.
    Writes sheet-00.png …, key.csv (number, drawn, subject, z) and scores.csv (number, score: to be filled in, 0 surely real … 1 surely drawn)."""
    slices = beside_real(data, drawn)
    draw = np.random.default_rng(seed)
    fitting = [(row, window) for row, window in drawn.windows() if row["replicate"] == 0 and window["m"].shape[-1] <= LARGEST]
    if len(fitting) < 2:
        expected = f"2 at the least, in windows of at most {LARGEST} pixels"
        raise refuse(drawn.folder, found=f"{len(fitting)} drawn lesions that fit a sheet", expected=expected, remedy="draw on more lesions")
    large = [(row, window) for row, window in fitting if (window["m"] > 0).sum() >= least_pixels]
    able = large if len(large) > 1 else fitting
    order = draw.permutation(len(able))
    half = min(each, len(able) // 2)
    items = [(able[i], True) for i in order[:half]] + [(able[i], False) for i in order[half : 2 * half]]
    items = [items[i] for i in draw.permutation(len(items))]
    out.mkdir(parents=True, exist_ok=True)
    sheets, key = [], []
    for start in range(0, len(items), SHEET):
        tiles, labels = [], []
        for number, ((row, window), fake) in enumerate(items[start : start + SHEET], start):
            scene = Scene.of(slices, int(row["row"]))
            x, m = (window["x_hat"], window["m"] > 0) if fake else (scene.x, scene.m)
            tiles.append(_row(x, m, scene.present))
            labels.append(f"{number:02d}")
            key.append({"number": number, "drawn": int(fake), "subject": row["subject"], "z": row["z"]})
        sheets.append(out / f"sheet-{start // SHEET:02d}.png")
        figures.mosaic(tiles, sheets[-1], columns=(*drawn.origin.contrasts, "mask"), labels=labels)
    pd.DataFrame(key).to_csv(out / "key.csv", index=False)
    if not (out / "scores.csv").exists():
        pd.DataFrame({"number": [k["number"] for k in key], "score": ""}).to_csv(out / "scores.csv", index=False)
    return sheets


def result(folder: Path) -> Interval | None:
    """The AUC of the scores that were filled in, over subjects; None where none is. InputError where they do not belong to the key."""
    key_file, score_file = folder / "key.csv", folder / "scores.csv"
    if not (key_file.is_file() and score_file.is_file()):
        return None
    key, scores = (_table(path, columns) for path, columns in ((key_file, {"number", "drawn", "subject"}), (score_file, {"number", "score"})))
    if scores["score"].isna().all():
        return None
    if key["number"].tolist() != scores["number"].tolist():
        raise refuse(
            score_file, found="other numbers than those of key.csv", expected="one row a lesion, in order", remedy="fill in the file as it was written"
        )
    values = pd.to_numeric(scores["score"], errors="coerce").to_numpy(float)
    if (wrong := np.flatnonzero(~((values >= 0) & (values <= 1)))).size:
        found = f"score '{scores['score'].iloc[wrong[0]]}' for lesion {key['number'].iloc[wrong[0]]}"
        raise refuse(score_file, found=found, expected="a number from 0, surely real, to 1, surely drawn, for each lesion", remedy="fill it in")
    drawn = key["drawn"].to_numpy() > 0
    return bootstrap(lambda rows: auc(values[rows], drawn[rows]), key["subject"].astype(str).tolist())


def _table(path: Path, columns: set[str]) -> pd.DataFrame:
    try:
        found = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise refuse(path, found=f"an unreadable table ({error})", expected="CSV", remedy="restore it, or delete the folder and begin again") from None
    if lacking := columns - set(found.columns):
        remedy = "restore it, or delete the folder and begin again"
        raise refuse(path, found=f"no column {', '.join(sorted(lacking))}", expected=f"columns {', '.join(sorted(columns))}", remedy=remedy)
    return found


def _row(x: np.ndarray, m: np.ndarray, present: np.ndarray) -> list[figures.Rgb]:
    tiles = []
    for c in range(len(x)):
        plane = _fitted(x[c]) if present[c] else np.zeros((SIDE, SIDE), np.float32)
        low, high = figures.window_limits(plane) if present[c] else (0.0, 1.0)
        tiles.append(figures.grey(plane, low, high))
    return [*tiles, figures.outline(tiles[-1], _fitted(m.astype(np.float32)) > 0)]


def _fitted(plane: np.ndarray) -> np.ndarray:
    """The middle SIDE × SIDE, or zeros around it."""
    side = plane.shape[-1]
    if side >= SIDE:
        start = (side - SIDE) // 2
        return plane[start : start + SIDE, start : start + SIDE]
    before = (SIDE - side) // 2
    return np.pad(plane, (before, SIDE - side - before))
