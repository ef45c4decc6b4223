"""AUC, intervals over subjects, and folds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pathosyn.data.split import folds
from pathosyn.evaluate.statistics import auc, bootstrap, mean_of


@pytest.mark.parametrize("levels", [3, 10, 10**6], ids=["many ties", "some ties", "no tie"])
def test_auc_is_sklearns(levels: int) -> None:
    draw = np.random.default_rng(levels)
    for _ in range(5):
        fake = draw.random(60) < 0.4
        score = draw.integers(0, levels, 60) + fake
        assert auc(score.astype(float), fake) == pytest.approx(roc_auc_score(fake, score), abs=1e-12)


def test_auc_closed_forms() -> None:
    fake = np.array([False, False, True, True])
    assert auc(np.array([0.0, 1.0, 2.0, 3.0]), fake) == 1.0 and auc(np.array([3.0, 2.0, 1.0, 0.0]), fake) == 0.0
    assert auc(np.zeros(4), fake) == 0.5 and auc(np.array([0.0, 2.0, 1.0, 3.0]), fake) == 0.75
    assert np.isnan(auc(np.arange(4.0), np.zeros(4, bool))) and np.isnan(auc(np.arange(4.0), np.ones(4, bool)))


def test_a_single_subject_has_an_interval_of_no_width() -> None:
    values = np.array([1.0, 2.0, 6.0])
    found = bootstrap(lambda rows: float(values[rows].mean()), ["a"] * 3)
    assert (found.value, found.low, found.high, found.subjects) == (3.0, 3.0, 3.0, 1)


def test_bootstrap_draws_whole_subjects() -> None:
    seen = []
    owner = np.array(["a", "b", "a", "c", "c", "c"])

    def of(rows: np.ndarray) -> float:
        seen.append(np.bincount(rows, minlength=6))
        return 0.0

    bootstrap(of, owner.tolist(), resamples=200)
    for counts in seen:
        assert counts[0] == counts[2] and counts[3] == counts[4] == counts[5] and counts[0] + counts[1] + counts[3] == 3
    assert max(counts[3] for counts in seen) > 1, "a subject that is drawn twice counts twice"
    assert seen[-1].tolist() == [1] * 6, "the value itself is on all rows"


def test_a_resample_without_a_value_is_left_out() -> None:
    fake = np.array([True, False, False])
    found = bootstrap(lambda rows: auc(np.array([2.0, 1.0, 0.0])[rows], fake[rows]), ["a", "b", "c"])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    nothing = bootstrap(lambda rows: float("nan"), ["a", "b"])
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()
    with pytest.raises(ValueError, match="no subject"):
        bootstrap(lambda rows: 0.0, [])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """95 % nominal with 40 subjects of 3 rows; rows taken as subjects would cover far less, since they share the subject's offset."""
    draw, covered, naive = np.random.default_rng(0), 0, 0
    subjects, rows = [f"s{i}" for i in range(40) for _ in range(3)], [str(i) for i in range(120)]
    for trial in range(100):
        values = np.repeat(draw.normal(size=40), 3) + 0.3 * draw.normal(size=120)
        for names in (subjects, rows):
            found = bootstrap(lambda chosen, values=values: float(values[chosen].mean()), names, seed=trial, resamples=150)  # type: ignore[misc]
            hit = found.low <= 0 <= found.high
            covered, naive = covered + (hit and names is subjects), naive + (hit and names is rows)
    assert 88 <= covered <= 99 and naive < 85


def test_mean_of_gives_each_subject_one_voice() -> None:
    values = np.array([0.0, 0.0, 0.0, 0.0, 3.0])
    assert mean_of(values, ["a"] * 4 + ["b"]).value == 1.5 != values.mean()


def test_the_same_seed_gives_the_same_interval() -> None:
    values, subjects = np.arange(12.0), [f"s{i // 2}" for i in range(12)]
    assert mean_of(values, subjects) == mean_of(values, subjects) != mean_of(values, subjects, seed=1)
    assert str(mean_of(np.ones(3), ["a", "b", "c"])) == "1.000 [1.000, 1.000]"


def test_folds_keep_subjects_whole_and_are_of_like_size() -> None:
    draw = np.random.default_rng(3)
    subjects = [f"s{i}" for i in range(23) for _ in range(int(draw.integers(1, 12)))]
    place = folds(subjects, 5)
    for name in set(subjects):
        assert len({int(p) for p, s in zip(place, subjects, strict=True) if s == name}) == 1
    sizes = np.bincount(place, minlength=5)
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 11, "no two folds differ by more than a subject"
    assert np.array_equal(place, folds(subjects, 5)) and not np.array_equal(place, folds(subjects, 5, seed=1))
