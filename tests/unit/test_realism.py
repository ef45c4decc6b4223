"""The judges: blind where there is nothing to see, not where there is, and never shown what they are asked about."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from pathosyn.evaluate import cnn, features, realism
from pathosyn.evaluate.realism import Pairs

SIDE = 48
Y, X = np.indices((SIDE, SIDE))
DISC = (Y - 23) ** 2 + (X - 24) ** 2 <= 8**2
SUPPORT = (Y - 23) ** 2 + (X - 24) ** 2 <= 11**2
PRESENT = np.ones(1, bool)
FEW = [pytest.param("trees", id="trees"), pytest.param("cnn", id="cnn")]


def windows(subjects: int = 10, each: int = 3) -> np.ndarray:
    """Noise with a soft correlation of its own, a brighter lesion, a gain for each subject: (n, 1, SIDE, SIDE)."""
    draw = np.random.default_rng(4)
    made = []
    for _ in range(subjects):
        gain = draw.uniform(0.7, 1.4)
        made += [gain * ndimage.gaussian_filter(draw.normal(size=(SIDE, SIDE)), draw.uniform(0.2, 0.4)) + DISC for _ in range(each)]
    return np.stack(made)[:, None].astype(np.float32)


def paired(real: np.ndarray, drawn: np.ndarray, *, each: int = 3) -> Pairs:
    """Rows in turn real, drawn, as `pairs` makes them."""
    head = np.ones((SIDE, SIDE), bool)
    rows, views = [], []
    for a, b in zip(real, drawn, strict=True):
        for x in (a, b):
            lesion = {f"lesion/{k}": v for k, v in features.lesion(x, DISC, head, PRESENT).items()}
            beyond = {f"background/{k}": v for k, v in features.region(x, ~SUPPORT, PRESENT).items()}
            rows.append({**lesion, **beyond, **{f"whole/{k}": v for k, v in features.region(x, head, PRESENT).items()}})
            views.append(cnn.centred(x))
    count = len(rows)
    where = np.broadcast_to(cnn.centred(SUPPORT[None]), (count, 1, cnn.SIDE, cnn.SIDE))
    shown = cnn.Views(np.stack(views), where, np.ones((count, 1), bool))
    subjects = np.array([f"s{i // (2 * each)}" for i in range(count)])
    return Pairs(pd.DataFrame(rows), subjects, np.ones(count, bool), np.arange(count) % 2 == 1, shown)


@pytest.fixture(autouse=True)
def _one_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "SEEDS", 1)


@pytest.fixture(scope="module")
def twins() -> Pairs:
    return paired(windows(), windows())


@pytest.fixture(scope="module")
def softened() -> Pairs:
    """The control `blurred` on the support."""
    real = windows()
    soft = ndimage.gaussian_filter(real, (0, 0, 0.8, 0.8), mode="nearest")
    return paired(real, np.where(SUPPORT, soft, real))


def judged(judge: str, found: Pairs, region: str, steps: int = 1) -> tuple[float, float, float]:
    interval, _ = realism.trees(found, region) if judge == "trees" else realism.network(found, region, steps=steps)
    return interval.value, interval.low, interval.high


@pytest.mark.parametrize("region", realism.REGIONS)
def test_trees_cannot_tell_twins(region: str, twins: Pairs) -> None:
    assert judged("trees", twins, region) == (0.5, 0.5, 0.5)


def test_the_network_cannot_tell_twins(twins: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "FOLDS", 2)
    assert judged("cnn", twins, "lesion") == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("region", ["lesion", "lesion, texture"])
def test_trees_see_through_a_blur(region: str, softened: Pairs) -> None:
    value, low, _ = judged("trees", softened, region)
    assert value > 0.9 and low > 0.8


@pytest.mark.parametrize("judge", FEW)
def test_the_background_of_a_blurred_lesion_is_a_coin(judge: str, softened: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realism, "FOLDS", 2)
    assert judged(judge, softened, "background") == (0.5, 0.5, 0.5)


@pytest.mark.slow
def test_the_network_learns_what_it_is_shown(softened: Pairs) -> None:
    """A hundred steps a fold suffice for a lesion that is blurred this much."""
    assert judged("cnn", softened, "lesion", steps=100)[0] > 0.9


@pytest.mark.parametrize("judge", FEW)
def test_a_judge_never_learns_from_the_subjects_it_judges(judge: str, softened: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    seen: list[tuple[set[str], set[str]]] = []
    if judge == "trees":
        row_of = {values.tobytes(): i for i, values in enumerate(_values(softened))}
        fit, predict = HistGradientBoostingClassifier.fit, HistGradientBoostingClassifier.predict_proba

        def owners(values: np.ndarray) -> set[str]:
            return {str(softened.subjects[row_of[row.tobytes()]]) for row in values}

        monkeypatch.setattr(HistGradientBoostingClassifier, "fit", lambda self, x, y: (seen.append((owners(x), set())), fit(self, x, y))[1])
        monkeypatch.setattr(HistGradientBoostingClassifier, "predict_proba", lambda self, x: (seen[-1][1].update(owners(x)), predict(self, x))[1])
    else:

        def score(views: cnn.Views, fake: np.ndarray, learn: np.ndarray, judge: np.ndarray, **_: object) -> np.ndarray:
            seen.append((set(softened.subjects[learn].tolist()), set(softened.subjects[judge].tolist())))
            return np.zeros(int(judge.sum()))

        monkeypatch.setattr(cnn, "score", score)
    judged(judge, softened, "lesion")
    everyone = set(softened.subjects.tolist())
    folds = realism.FOLDS if judge == "trees" else realism.CNN_FOLDS
    assert len(seen) == folds and all(learned and asked and not learned & asked and learned | asked == everyone for learned, asked in seen)
    assert set().union(*(asked for _, asked in seen)) == everyone


def _values(found: Pairs) -> np.ndarray:
    return found.table[[name for name in found.table if str(name).startswith("lesion/")]].to_numpy(np.float32)


def test_rows_that_only_help_are_not_counted(softened: Pairs) -> None:
    """Half of the subjects come from a set made to train with."""
    helping = np.isin(softened.subjects, [f"s{i}" for i in range(5)])
    interval, _ = realism.trees(replace(softened, judged=~helping), "lesion, texture")
    assert interval.subjects == 5 and interval.value > 0.8
    score = np.where(helping, -softened.fake.astype(float), softened.fake.astype(float))
    assert realism.judge_auc(score, replace(softened, judged=~helping)).value == 1.0


def test_judge_auc_is_that_of_the_scores(softened: Pairs) -> None:
    fake = softened.fake.astype(float)
    assert [realism.judge_auc(sign * fake, softened).value for sign in (1, -1, 0)] == [1.0, 0.0, 0.5]


def test_a_difference_is_taken_over_the_same_subjects_for_both(softened: Pairs) -> None:
    """Two methods of which one is told in every subject but s0, the other in none: 1 - ½ on the whole, less where a resample takes s0 often."""
    fake = softened.fake.astype(float)
    told = np.where(softened.subjects == "s0", 0.0, fake)
    one, other = realism.Scores(told, softened), realism.Scores(np.zeros(len(fake)), softened)
    found = realism.difference(one, other)
    assert found.value == pytest.approx(realism.judge_auc(told, softened).value - 0.5) and found.subjects == 10
    assert found.low < found.value < found.high == pytest.approx(0.5)
    back = realism.difference(other, one)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))
    same = realism.difference(one, one)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0), "what varies between subjects varies for both alike"


def test_a_difference_is_over_judged_subjects_that_both_have(softened: Pairs) -> None:
    few = replace(softened, judged=np.isin(softened.subjects, ["s1", "s2", "s3"]))
    fake = softened.fake.astype(float)
    found = realism.difference(realism.Scores(fake, few), realism.Scores(-fake, softened))
    assert (found.value, found.subjects) == (1.0, 3)
    nobody = realism.difference(realism.Scores(fake, few), realism.Scores(fake, replace(softened, judged=softened.subjects == "s9")))
    assert np.isnan(nobody.value) and nobody.subjects == 0


def test_real_halves_are_real_windows_only(softened: Pairs) -> None:
    halves = realism.real_halves(softened)
    assert len(halves.fake) == len(halves.table) == int((~softened.fake).sum()) and 0.2 < halves.fake.mean() < 0.8
    assert np.array_equal(halves.table.to_numpy(), softened.table[~softened.fake].to_numpy(), equal_nan=True)
    assert halves.views is not None and softened.views is not None and np.array_equal(halves.views.x, softened.views.x[~softened.fake])
    assert judged("trees", halves, "lesion")[1] < 0.5 < judged("trees", halves, "lesion")[2]


def test_every_judge_and_region_has_its_row(softened: Pairs) -> None:
    rows = [row for row, _ in realism._judged("ours", softened, ("trees",), show=False)]
    assert [row["region"] for row in rows] == list(realism.REGIONS) and {row["judge"] for row in rows} == {"trees"}
    assert all(row["windows"] == 30 and row["subjects"] == 10 and row["low"] <= row["auc"] <= row["high"] for row in rows)


@pytest.mark.parametrize("side", [32, 64, 96, 128])
def test_centred_cuts_or_pads_around_the_middle(side: int) -> None:
    plane = np.arange(side * side, dtype=float).reshape(1, side, side) + 1
    found = cnn.centred(plane)
    assert found.shape == (1, cnn.SIDE, cnn.SIDE)
    start = abs(cnn.SIDE - side) // 2
    if side <= cnn.SIDE:
        assert np.array_equal(found[:, start : start + side, start : start + side], plane) and found.sum() == plane.sum()
    else:
        assert np.array_equal(found, plane[:, start : start + cnn.SIDE, start : start + cnn.SIDE])


def test_blanked_and_whole_views_are_what_they_say(softened: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, cnn.Views] = {}

    def score(views: cnn.Views, fake: np.ndarray, learn: np.ndarray, judge: np.ndarray, **_: object) -> np.ndarray:
        seen[region] = views
        return np.zeros(int(judge.sum()))

    monkeypatch.setattr(cnn, "score", score)
    for region in ("lesion", "whole image", "background"):
        realism.network(softened, region)
    assert softened.views is not None
    where = np.asarray(softened.views.where)
    assert np.array_equal(seen["lesion"].where, where) and np.array_equal(seen["lesion"].x, softened.views.x)
    assert seen["whole image"].where.all() and np.array_equal(seen["whole image"].x, softened.views.x)
    assert np.array_equal(seen["background"].where, ~where) and not seen["background"].x[np.broadcast_to(where, seen["background"].x.shape)].any()
