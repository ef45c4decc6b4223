"""What can be measured on one lesion and its rim: the numbers that the gradient-boosted trees see, and the appearance table.

All are of one window in normalised units: x (C, H, W) float32, m (H, W) bool. A contrast that is missing gives NaN throughout.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, stats

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
BAND = 3
"""Width of the bands on both sides of the rim, pixels."""
BEYOND = (7, 14)
"""From here to there, in pixels beyond the mask, lies tissue that no method has touched: grown rim and feather end before it."""
GROUPS = ("intensity", "texture", "rim", "between")


def lesion(x: np.ndarray, m: np.ndarray, head: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """Name → value. `head` (H, W) is 1 on tissue: bands beyond the mask keep off the air. Names are group/contrast/feature."""
    box = tuple(slice(max(0, s.start - BEYOND[1]), s.stop + BEYOND[1]) for s in ndimage.find_objects(m.astype(np.uint8))[0])
    x, m, head = x[(slice(None), *box)], m[box], head[box]
    inward, outward = ndimage.distance_transform_edt(np.pad(m, 1))[1:-1, 1:-1], ndimage.distance_transform_edt(~m)
    places = {
        "inner": (inward > 0) & (inward <= BAND),
        "outer": (outward > 0) & (outward <= BAND) & head,
        "edge": ((inward > 0) & (inward <= 1)) | ((outward > 0) & (outward <= 1.5)),
        "feather": (outward > 1) & (outward <= 5) & head,
        "beyond": (outward >= BEYOND[0]) & (outward <= BEYOND[1]) & head,
    }
    found: dict[str, float] = {}
    for c in range(len(x)):
        values = _contrast(x[c], m, places) if present[c] else {}
        found |= {f"{group}/{c}/{name}": values.get((group, name), np.nan) for group, name in NAMES}
    for a in range(len(x)):
        for b in range(a + 1, len(x)):
            both = present[a] and present[b]
            found[f"between/{a}{b}/correlation"] = _correlation(x[a][m], x[b][m]) if both else np.nan
            found[f"between/{a}{b}/fine"] = _correlation(_fine(x[a])[m], _fine(x[b])[m]) if both else np.nan
    return found


def region(x: np.ndarray, where: np.ndarray, present: np.ndarray) -> dict[str, float]:
    """Intensity and texture on `where` (H, W) bool alone: of a background, or of a whole head. Names are contrast/feature."""
    found: dict[str, float] = {}
    for c in range(len(x)):
        there = bool(present[c]) and bool(where.any())
        inside = x[c][where] if there else np.empty(0)
        fine = _fine(np.where(where, x[c], 0.0)) if there else np.empty(0)
        quantiles = np.quantile(inside, QUANTILES) if there else [np.nan] * len(QUANTILES)
        found |= {f"{c}/q{q:g}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)}
        found |= {f"{c}/mean": float(inside.mean()) if there else np.nan, f"{c}/std": float(inside.std()) if there else np.nan}
        found |= {f"{c}/laplacian": _rms(fine[where]) if there else np.nan, f"{c}/kurtosis": _moment(stats.kurtosis, fine[where]) if there else np.nan}
    return found


def _contrast(x: np.ndarray, m: np.ndarray, places: dict[str, np.ndarray]) -> dict[tuple[str, str], float]:
    inside = x[m]
    gradient = np.hypot(*np.gradient(x))
    fine = _fine(x)
    found: dict[tuple[str, str], float] = {
        ("intensity", "mean"): inside.mean(),
        ("intensity", "std"): inside.std(),
        ("intensity", "skewness"): _moment(stats.skew, inside),
        ("intensity", "kurtosis"): _moment(stats.kurtosis, inside),
        ("texture", "gradient"): _rms(gradient[m]),
        ("texture", "laplacian"): _rms(fine[m]),
        ("texture", "laplacian kurtosis"): _moment(stats.kurtosis, fine[m]),
        ("texture", "coarse"): _rms((ndimage.uniform_filter(x, 3) - ndimage.uniform_filter(x, 7))[m]),
    }
    found |= {("intensity", f"q{q:g}"): value for q, value in zip(QUANTILES, np.quantile(inside, QUANTILES), strict=True)}
    for lag in (1, 2, 3):
        pairs = [(x[:, lag:], x[:, :-lag], m[:, lag:] & m[:, :-lag]), (x[lag:], x[:-lag], m[lag:] & m[:-lag])]
        found["texture", f"lag {lag}"] = float(np.mean([_correlation(a[w], b[w]) for a, b, w in pairs]))
    for name in ("inner", "outer", "feather", "beyond"):
        where = places[name]
        found["rim", f"{name} mean"] = x[where].mean() if where.any() else np.nan
        found["rim", f"{name} std"] = x[where].std() if where.any() else np.nan
        found["rim", f"{name} laplacian"] = _rms(fine[where])
    found["rim", "jump"] = found["rim", "inner mean"] - found["rim", "outer mean"]
    found["rim", "gradient"] = _rms(gradient[places["edge"]])
    found["texture", "laplacian to beyond"] = found["texture", "laplacian"] / max(found["rim", "beyond laplacian"], 1e-3)
    return found


def _fine(x: np.ndarray) -> np.ndarray:
    return ndimage.laplace(x, mode="nearest")


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else np.nan


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 4:
        return np.nan
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-9 else np.nan


def _moment(of: object, values: np.ndarray) -> float:
    return float(of(values)) if len(values) > 3 and values.std() > 1e-6 else np.nan  # type: ignore[operator]


_probe = np.random.default_rng(0).normal(size=(8, 8))
NAMES = tuple(_contrast(_probe, _probe > 0, dict.fromkeys(("inner", "outer", "edge", "feather", "beyond"), _probe < 0)))
"""(group, feature) of each contrast."""
