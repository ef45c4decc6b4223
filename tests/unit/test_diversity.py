"""The nearest training lesion, and the spread over replicates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pathosyn.evaluate import diversity
from pathosyn.evaluate.diversity import describe, nearest

SIDE = 64
Y, X = np.indices((SIDE, SIDE))
HEAD = np.ones((SIDE, SIDE), bool)
BOTH = np.ones(2, bool)


def lesion(seed: int, centre: tuple[int, int] = (31, 32)) -> tuple[np.ndarray, np.ndarray]:
    """A lopsided mask and two contrasts of noise."""
    m = ((Y - centre[0]) ** 2 + (X - centre[1]) ** 2 <= 64) & ~((X - centre[1] <= -4) & (Y - centre[0] <= 0))
    return np.random.default_rng(seed).normal(size=(2, SIDE, SIDE)).astype(np.float32), m


def bank(*seeds: int, present: list[list[bool]] | None = None) -> tuple[np.ndarray, np.ndarray]:
    pictures = np.stack([describe(*lesion(seed), HEAD) for seed in seeds])
    return pictures, np.array(present) if present else np.ones((len(seeds), 2), bool)


def test_a_bank_that_holds_the_lesion_is_at_no_distance() -> None:
    x, m = lesion(1)
    assert nearest(describe(x, m, HEAD), BOTH, bank(0, 1, 2)) == 0.0
    assert nearest(describe(x, m, HEAD), BOTH, bank(0, 2)) > 0.3


def test_a_mirrored_copy_is_a_copy() -> None:
    x, m = lesion(1)
    assert nearest(describe(x[:, :, ::-1], m[:, ::-1], HEAD), BOTH, bank(0, 1)) == pytest.approx(0.0, abs=1e-6)
    assert nearest(describe(x[:, ::-1], m[::-1], HEAD), BOTH, bank(0, 1)) > 0.3, "upside down is another lesion"


def test_a_copy_elsewhere_and_on_another_level_is_a_copy() -> None:
    x, m = lesion(1)
    moved, mask = np.roll(x, (5, -7), axis=(1, 2)), np.roll(m, (5, -7), axis=(0, 1))
    assert nearest(describe(moved + 3.0, mask, HEAD), BOTH, bank(0, 1)) == pytest.approx(0.0, abs=1e-4)


def test_distance_closed_form() -> None:
    """Off by 2 in one of two contrasts: the root of the mean over three planes, mask last."""
    x, m = lesion(1)
    picture = describe(x, m, HEAD)
    other = picture.copy()
    other[0] += 2.0
    assert nearest(other, BOTH, (picture[None], np.ones((1, 2), bool))) == pytest.approx((4 / 3) ** 0.5, rel=1e-5)


def test_only_lesions_with_its_contrasts_are_compared() -> None:
    x, m = lesion(1)
    picture = describe(x, m, HEAD)
    partial = bank(1, 2, present=[[True, False], [True, True]])
    assert nearest(picture, BOTH, partial) > 0.3, "the copy lacks a contrast"
    assert nearest(picture, np.array([True, False]), partial) == 0.0
    assert np.isnan(nearest(picture, BOTH, bank(1, present=[[True, False]])))


def test_spread_is_that_of_the_replicates_over_that_of_the_lesions() -> None:
    names = [key.format(c=0) for key in diversity.SPREAD]
    real = [{"subject": f"s{i}", "row": i, "replicate": -1, **dict.fromkeys(names, float(2 * i))} for i in range(4)]
    drawn = [{"subject": "s0", "row": 0, "replicate": k, **dict.fromkeys(names, 7.0 + k)} for k in range(3)]
    single = [{"subject": "s1", "row": 1, "replicate": 0, **dict.fromkeys(names, 1.0)}]
    found = diversity._spread(pd.DataFrame(real + drawn + single), "ours", 1)
    assert {row["metric"] for row in found} == {f"spread/{name}" for name in names} and {row["subject"] for row in found} == {"s0"}
    assert all(row["value"] == pytest.approx(1.0 / np.std([0, 2, 4, 6], ddof=1)) for row in found)


def test_table_weighs_subjects_equally_and_drops_what_is_missing() -> None:
    rows = [("a", 1.0), ("a", 1.0), ("a", 1.0), ("b", 3.0), ("b", np.nan)]
    found = pd.DataFrame([{"method": "ours", "subject": s, "metric": "nearest, drawn", "value": v} for s, v in rows])
    (row,) = diversity.table(found).to_dict("records")
    assert (row["value"], row["low"], row["high"], row["subjects"]) == (2.0, 1.0, 3.0, 2)
