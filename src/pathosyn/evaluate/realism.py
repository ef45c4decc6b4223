"""Can a judge tell drawn lesions from real ones? AUC of gradient-boosted trees and of a CNN, folds by subject, intervals over subjects.

Real and drawn windows come in pairs: the same subject, slice and contrasts. 0.5 is indistinguishable. A set made with purpose `train` only helps the
judge to learn; figures are taken on the subjects of sets made with purpose `evaluate`, each scored by a judge that has seen neither the subject's real
nor its drawn windows. The stronger judge counts, and a judge is believed only if it sees through `blurred` and `gaussian` (AUC ≥ .9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pathosyn.data.matching import beside_real
from pathosyn.data.slices import Slices
from pathosyn.data.split import folds
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.data.windows import Window, cut, paste
from pathosyn.errors import refuse
from pathosyn.evaluate import cnn, features
from pathosyn.evaluate.statistics import Interval, auc, bootstrap
from pathosyn.progress import track

FOLDS = 5
SEEDS = 3
SMALLEST = 24
"""Lesion pixels that a window must have, in the real and in the drawn mask: below it half of the features do not exist."""


@dataclass(frozen=True)
class Pairs:
    """Real (label 0) and drawn (label 1) windows as rows: features, subject, whether the row's subject is judged, and its label."""

    table: pd.DataFrame
    subjects: np.ndarray
    judged: np.ndarray
    fake: np.ndarray
    views: cnn.Views | None = None
    """What the CNN sees; `pairs(…, views=True)` makes it."""


def pairs(data: str | Path, sets: Sequence[SyntheticSet], *, views: bool = False, show: bool = True) -> Pairs:
    """Features of every drawn window and of the real window that it stands for. InputError where a set was drawn on other data."""
    rows: list[dict[str, float]] = []
    subjects: list[str] = []
    judged: list[bool] = []
    fake: list[bool] = []
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for each in sets:
        slices = beside_real(data, each)
        with track(len(each.rows), f"measure {each.origin.method}", "windows", show=show) as bar:
            for row, drawn in each.windows():
                scene = Scene.of(slices, int(row["row"]))
                bar.advance()
                if min(scene.m.sum(), (drawn["m"] > 0).sum()) < SMALLEST:
                    continue
                there = scene.moved(slices, row)
                for place, x, m, label in ((scene, scene.x, scene.m, False), (there, drawn["x_hat"], drawn["m"] > 0, True)):
                    support = drawn["S"] > 0 if place is there else scene.S > 0
                    rows.append(measured(place, x, m, support, drawn.get("plane") if label else None))
                    subjects.append(str(row["subject"]))
                    judged.append(each.origin.purpose == "evaluate")
                    fake.append(label)
                    if views:
                        known = scene.present[:, None, None]
                        # Judged is the support, not the mask: nothing is drawn beyond it.
                        where = drawn["S"] > 0 if label else scene.S > 0
                        seen.append((cnn.centred(x * known).astype(np.float16), cnn.centred(where[None]), scene.present))
    if len(set(subjects)) < 2:
        raise refuse("--synthetic", found=f"{len(set(subjects))} subjects with a lesion to judge", expected="at least 2", remedy="draw on more subjects")
    shown = cnn.Views(*(np.stack(part) for part in zip(*seen, strict=True))) if seen else None
    return Pairs(pd.DataFrame(rows), np.array(subjects), np.array(judged), np.array(fake), shown)


@dataclass(frozen=True)
class Scene:
    """A real window with what lies around it. x (C, side, side); m, head (side, side) bool; plane (C, H, W) the whole slice."""

    x: np.ndarray
    m: np.ndarray
    S: np.ndarray
    head: np.ndarray
    present: np.ndarray
    plane: np.ndarray
    plane_head: np.ndarray
    window: Window

    @classmethod
    def of(cls, slices: Slices, row: int) -> Scene:
        """Row `row` of `slices.windows`."""
        batch = slices.lesion([row])
        number, z, y, x, side, _ = (int(v) for v in slices.windows[row])
        plane, head = slices.plane(number, z)
        m, blend = batch.m[0, 0].numpy() > 0, batch.S[0, 0].numpy()
        return cls(batch.x[0].numpy(), m, blend, slices.ground(row) > 0, slices.present[number], plane, head, Window(z, y, x, side))

    def moved(self, slices: Slices, row: pd.Series) -> Scene:
        """The same slice through the window of a drawn lesion, which may lie elsewhere; its own where it does not."""
        window = Window(int(row["z"]), int(row["y"]), int(row["x"]), int(row["side"]))
        if window == self.window:
            return self
        number = slices.subjects.index(str(row["subject"]))
        plane, head = slices.plane(number, window.z)
        nothing = np.zeros((window.side, window.side), np.float32)
        ground = cut(head, window, mode="zero")
        return Scene(cut(plane, window), nothing > 0, nothing, ground, self.present, plane, head, window)


def measured(scene: Scene, x: np.ndarray, m: np.ndarray, support: np.ndarray, plane: np.ndarray | None = None) -> dict[str, float]:
    """Features of lesion and rim, of the background (the window without the support), and of the whole slice's head: of `plane` (C, H, W) where the whole
    slice was drawn, else of the scan with the window in it."""
    found = {f"lesion/{name}": value for name, value in features.lesion(x, m, scene.head, scene.present).items()}
    outside = scene.head & ~support & ~(scene.S > 0)
    found |= {f"background/{name}": value for name, value in features.region(x, outside, scene.present).items()}
    whole = scene.plane.copy() if plane is None else plane
    if plane is None:
        paste(whole, x, scene.window, np.ones(m.shape, bool))
    return found | {f"whole/{name}": value for name, value in features.region(whole, scene.plane_head, scene.present).items()}


REGIONS: Mapping[str, str] = {
    "lesion": "lesion/",
    "lesion, intensity": "lesion/intensity/",
    "lesion, texture": "lesion/texture/",
    "lesion, rim": "lesion/rim/",
    "whole image": "whole/",
    "background": "background/",
}
"""Region → the features that its judge sees."""


def trees(found: Pairs, region: str, *, seed: int = 0) -> tuple[Interval, np.ndarray]:
    """AUC of gradient-boosted trees on one of `REGIONS` on the judged rows, and every row's score out of fold, a mean over `SEEDS` fits."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    values = found.table[[name for name in found.table if str(name).startswith(REGIONS[region])]].to_numpy(np.float32)
    place = folds(found.subjects.tolist(), min(FOLDS, len(set(found.subjects))), seed=seed)
    score = np.zeros(len(values))
    for fold in np.unique(place[found.judged]):
        for k in range(SEEDS):
            judge: Any = HistGradientBoostingClassifier(
                max_iter=200, learning_rate=0.06, max_leaf_nodes=15, min_samples_leaf=8, l2_regularization=1.0, max_features=0.3, random_state=seed + k
            )
            judge.fit(values[place != fold], found.fake[place != fold])
            score[place == fold] += judge.predict_proba(values[place == fold])[:, 1] / SEEDS
    return judge_auc(score, found), score


CNN_REGIONS = ("lesion",)
"""The others take a training each, too, and on the background, where both windows are the same, there is nothing to see: `network` can be asked for them."""
CNN_FOLDS = 3


def network(found: Pairs, region: str, *, seed: int = 0, steps: int = cnn.STEPS) -> tuple[Interval, np.ndarray]:
    """As `trees`, by the CNN, on "lesion", "whole image" or "background": pooled over the support, over the whole window, or with the support blanked."""
    assert found.views is not None
    where = found.views.where
    views = found.views
    if region != "lesion":
        views = cnn.Views(views.x if region == "whole image" else views.x * ~where, np.ones_like(where) if region == "whole image" else ~where, views.present)
    place = folds(found.subjects.tolist(), min(CNN_FOLDS, len(set(found.subjects))), seed=seed)
    score = np.zeros(len(found.fake))
    for fold in np.unique(place[found.judged]):
        score[place == fold] = cnn.score(views, found.fake, place != fold, place == fold, seed=seed + int(fold), steps=steps)
    score = score.round(6)  # windows that are alike are scored alike, wherever they lie in a batch
    return judge_auc(score, found), score


def measure(data: str | Path, sets: Mapping[str, Sequence[SyntheticSet]], *, judges: Sequence[str] = ("trees", "cnn"), show: bool = True) -> pd.DataFrame:
    """A row a method, judge and region: auc, low, high, subjects, windows. `real` beside `real`, which every table needs, is made here: half of the
    first method's real windows pass as drawn. Where a set is of copy-pasted lesions, `beside`, `beside_low` and `beside_high` are the AUC less that set's
    over the `beside_subjects` that both have, the same ones in each resample; judges and draws are taken as they are: other seeds may differ more."""
    rows: list[dict[str, Any]] = []
    scores: list[Scores] = []
    for name, some in sets.items():
        found = pairs(data, some, views="cnn" in judges, show=show)
        new = [(name, found)] if rows else [(name, found), ("real vs real", real_halves(found))]
        for label, each in new:
            for row, score in _judged(label, each, judges, show=show):
                rows.append(row)
                scores.append(Scores(score, each))
    pasted = next((name for name, some in sets.items() if any(each.origin.method == "copy-paste" for each in some)), None)
    control = {(row["judge"], row["region"]): theirs for row, theirs in zip(rows, scores, strict=True) if row["method"] == pasted}
    for row, mine in zip(rows, scores, strict=True):
        if (other := control.get((row["judge"], row["region"]))) is not None and row["method"] not in (pasted, "real vs real"):
            gap = difference(mine, other)
            row |= {"beside": gap.value, "beside_low": gap.low, "beside_high": gap.high, "beside_subjects": gap.subjects}
    return pd.DataFrame(rows)


class Scores(NamedTuple):
    """A judge's score of every row, and the rows."""

    score: np.ndarray
    found: Pairs


def difference(one: Scores, other: Scores) -> Interval:
    """AUC of `one` less that of `other`, with the interval over the judged subjects that both have: each resample takes the same subjects for both. NaN
    where they have none in common."""
    names = sorted(set(one.found.subjects[one.found.judged]) & set(other.found.subjects[other.found.judged]))
    if not names:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    rows = [[np.flatnonzero(each.found.subjects == name) for name in names] for each in (one, other)]

    def gap(picked: np.ndarray) -> float:
        mine, theirs = (np.concatenate([some[i] for i in picked]) for some in rows)
        return auc(one.score[mine], one.found.fake[mine]) - auc(other.score[theirs], other.found.fake[theirs])

    return bootstrap(gap, names)


def _judged(name: str, found: Pairs, judges: Sequence[str], *, show: bool) -> list[tuple[dict[str, Any], np.ndarray]]:
    jobs = [("trees", region) for region in REGIONS] * ("trees" in judges) + [("cnn", region) for region in CNN_REGIONS] * ("cnn" in judges)
    rows = []
    with track(len(jobs), f"judge {name}", "fits", show=show) as bar:
        for judge, region in jobs:
            interval, score = trees(found, region) if judge == "trees" else network(found, region)
            bar.advance(note=f"{judge}, {region}: {interval}")
            row = {"method": name, "judge": judge, "region": region, "auc": interval.value, "low": interval.low, "high": interval.high}
            rows.append((row | {"subjects": interval.subjects, "windows": int(found.judged.sum() // 2)}, score))
    return rows


def real_halves(found: Pairs, *, seed: int = 0) -> Pairs:
    """The real windows alone, each called drawn or real by a coin."""
    keep = ~found.fake
    views = found.views and cnn.Views(found.views.x[keep], found.views.where[keep], found.views.present[keep])
    coin = np.random.default_rng(seed).random(int(keep.sum())) < 0.5
    return Pairs(found.table[keep].reset_index(drop=True), found.subjects[keep], found.judged[keep], coin, views)


def judge_auc(score: np.ndarray, found: Pairs) -> Interval:
    """AUC on the judged rows with its interval over subjects. Scores are ranked within no fold: a judge is one and the same function of its features."""
    keep = found.judged
    score, fake, subjects = score[keep], found.fake[keep], found.subjects[keep]
    return bootstrap(lambda rows: auc(score[rows], fake[rows]), list(subjects))
