"""Intervals. The subject is the unit everywhere: slices of one scan are not independent (FIELD 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval over subjects."""

    value: float
    low: float
    high: float
    subjects: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(of: Callable[[np.ndarray], float], subjects: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """`of(rows)` on all rows, and its 2.5 and 97.5 percentiles over resamples of whole subjects (a subject drawn twice counts twice).

    A resample on which `of` is NaN is left out. ValueError without subjects."""
    names, number = np.unique(np.asarray(subjects), return_inverse=True)
    if not len(names):
        raise ValueError("no subject")
    rows = [np.flatnonzero(number == i) for i in range(len(names))]
    rng = np.random.default_rng(seed)
    values = [of(np.concatenate([rows[i] for i in rng.integers(len(names), size=len(names))])) for _ in range(resamples)]
    finite = np.array([v for v in values if np.isfinite(v)])
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Interval(of(np.arange(len(number))), float(low), float(high), len(names))


def mean_of(values: np.ndarray, subjects: Sequence[str], *, seed: int = 0) -> Interval:
    """The mean over subjects of each subject's mean."""
    names, number = np.unique(np.asarray(subjects), return_inverse=True)
    per = np.array([values[number == i].mean() for i in range(len(names))])
    return bootstrap(lambda rows: float(per[rows].mean()), names.tolist(), seed=seed)


def auc(score: np.ndarray, fake: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a fake scores higher than a real one, ties counted half (Mann-Whitney). NaN with one class."""
    from scipy.stats import rankdata

    fake = np.asarray(fake, bool)
    positive, negative = int(fake.sum()), int((~fake).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[fake].sum() - positive * (positive + 1) / 2) / (positive * negative))
