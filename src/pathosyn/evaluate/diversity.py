"""Does the method draw many lesions, and its own? Spread over seeds against spread over real lesions, and the nearest training lesion.

A lesion is described by its deviation-like picture: the window less its tissue's mean beyond the rim, its bounding box brought to 24×24 pixels, all
contrasts, 0 outside the mask, and the mask itself. The distance of two lesions is the root mean square over all planes and pixels, the smaller of both
ways round.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, find_objects, zoom

from pathosyn.data.matching import beside_real
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.evaluate import features
from pathosyn.evaluate.realism import SMALLEST, Scene
from pathosyn.evaluate.statistics import mean_of
from pathosyn.progress import track

SIZE = 24
SPREAD = ("intensity/{c}/mean", "intensity/{c}/std", "texture/{c}/laplacian", "texture/{c}/coarse")


def measure(data: str | Path, name: str, drawn: SyntheticSet, *, show: bool = True) -> pd.DataFrame:
    """Tidy rows method, subject, metric, value. `drawn` needs at least two replicates for the spread; else only the distances are there.

    spread/<feature>    standard deviation over replicates of one lesion, divided by that over the real lesions of the set
    nearest, drawn      distance of a drawn lesion (replicate 0) to the nearest training lesion; `nearest, real`: of the real lesion of the same place"""
    slices = beside_real(data, drawn)
    training = Slices(data, "train", contrasts=drawn.origin.contrasts)
    bank = _bank(training)
    values: list[dict[str, object]] = []
    rows = []
    with track(len(drawn.rows), f"diversity {name}", "windows", show=show) as bar:
        for row, window in drawn.windows():
            bar.advance()
            scene = Scene.of(slices, int(row["row"]))
            m = window["m"] > 0
            if min(m.sum(), scene.m.sum()) < SMALLEST:
                continue
            key = {"subject": str(row["subject"]), "row": int(row["row"]), "replicate": int(row["replicate"])}
            there = scene.moved(slices, row)
            values.append({**key, **features.lesion(window["x_hat"], m, there.head, scene.present)})
            if not key["replicate"]:
                values.append({**key, "replicate": -1, **features.lesion(scene.x, scene.m, scene.head, scene.present)})
                for label, x, where, place in (("drawn", window["x_hat"], m, there), ("real", scene.x, scene.m, scene)):
                    distance = nearest(describe(x, where, place.head), scene.present, bank)
                    rows.append({"method": name, "subject": key["subject"], "metric": f"nearest, {label}", "value": distance})
    return pd.DataFrame(rows + _spread(pd.DataFrame(values), name, len(drawn.origin.contrasts)))


def _spread(values: pd.DataFrame, name: str, contrasts: int) -> list[dict[str, object]]:
    drawn, real = values[values["replicate"] >= 0], values[values["replicate"] < 0]
    rows: list[dict[str, object]] = []
    for feature in (key.format(c=c) for key in SPREAD for c in range(contrasts)):
        whole = float(real[feature].std())
        for (subject, _), some in drawn.groupby(["subject", "row"]):
            if len(some) > 1 and whole > 0 and np.isfinite(some[feature]).all():
                rows.append({"method": name, "subject": subject, "metric": f"spread/{feature}", "value": float(some[feature].std()) / whole})
    return rows


def describe(x: np.ndarray, m: np.ndarray, head: np.ndarray) -> np.ndarray:
    """(C + 1, SIZE, SIZE): the lesion's picture, and its mask last."""
    outward = distance_transform_edt(~m)
    beyond = (outward >= features.BEYOND[0]) & (outward <= features.BEYOND[1]) & head
    level = x[:, beyond].mean(axis=1) if beyond.any() else np.zeros(len(x))
    box = find_objects(m.astype(np.uint8))[0]
    picture = np.concatenate([(x - level[:, None, None]) * m, m[None].astype(np.float32)])[(slice(None), *box)]
    return np.stack([zoom(plane, (SIZE / plane.shape[0], SIZE / plane.shape[1]), order=1) for plane in picture]).astype(np.float32)


def nearest(picture: np.ndarray, present: np.ndarray, bank: tuple[np.ndarray, np.ndarray]) -> float:
    """Distance to the nearest of the bank that has this one's contrasts, either way round."""
    pictures, has = bank
    able = (has >= present).all(axis=1)
    if not able.any():
        return float("nan")
    channels = np.append(np.flatnonzero(present), len(present))
    gap = ((pictures[able][:, channels] - picture[channels]) ** 2).mean(axis=(1, 2, 3))
    mirrored = ((pictures[able][:, channels] - picture[channels][:, :, ::-1]) ** 2).mean(axis=(1, 2, 3))
    return float(np.sqrt(min(gap.min(), mirrored.min())))


def _bank(training: Slices) -> tuple[np.ndarray, np.ndarray]:
    pictures, present = [], []
    for row in range(len(training.windows)):
        batch = training.lesion([row])
        m = batch.m[0, 0].numpy() > 0
        if m.sum() >= SMALLEST:
            pictures.append(describe(batch.x[0].numpy(), m, training.ground(row) > 0))
            present.append(batch.present[0].numpy())
    return np.stack(pictures), np.stack(present)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row a method and metric: the mean over subjects with its interval; and drawn less real of the distances to the nearest training lesion."""
    rows = []
    for (method, metric), some in found.dropna(subset=["value"]).groupby(["method", "metric"], sort=False):
        interval = mean_of(some["value"].to_numpy(), some["subject"].tolist())
        rows.append({"method": method, "metric": metric, "value": interval.value, "low": interval.low, "high": interval.high, "subjects": interval.subjects})
    return pd.DataFrame(rows)
