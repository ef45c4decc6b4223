"""Do drawn lesions look like real ones, number by number? In-lesion statistics, texture, contrast to noise of small lesions, and the rim.

Every figure is the drawn lesions' beside the real ones' on the same subjects, slices and masks (a control may bring a mask of its own).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from skimage.feature import graycomatrix, graycoprops

from pathosyn.data.matching import beside_real
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.evaluate import features
from pathosyn.evaluate.realism import SMALLEST, Scene
from pathosyn.evaluate.statistics import bootstrap
from pathosyn.progress import track

LEVELS = 16
SMALL_PX = (2.0, 5.0)
"""Radius of the disc of equal area, pixels: the lesions whose contrast to noise is looked at."""
FROM_FEATURES = {
    "mean": "intensity/{c}/mean",
    "std": "intensity/{c}/std",
    "skewness": "intensity/{c}/skewness",
    "kurtosis": "intensity/{c}/kurtosis",
    "laplacian": "texture/{c}/laplacian",
    "lag 1": "texture/{c}/lag 1",
    "rim gradient": "rim/{c}/gradient",
    "rim jump": "rim/{c}/jump",
}


def measure(data: str | Path, name: str, drawn: SyntheticSet, *, show: bool = True) -> pd.DataFrame:
    """Tidy rows: method, subject, z, replicate, contrast, metric, real, drawn. A missing contrast has no row."""
    slices = beside_real(data, drawn)
    rows = []
    with track(len(drawn.rows), f"measure {name}", "windows", show=show) as bar:
        for row, window in drawn.windows():
            bar.advance()
            scene = Scene.of(slices, int(row["row"]))
            both = ((scene.x, scene.m, scene), (window["x_hat"], window["m"] > 0, scene.moved(slices, row)))
            found = [_of(x, m, there, drawn.origin.contrasts) for x, m, there in both]
            key = {"method": name, "subject": str(row["subject"]), "z": int(row["z"]), "replicate": int(row["replicate"])}
            rows += [
                {**key, "contrast": contrast, "metric": metric, "real": value, "drawn": found[1].get((contrast, metric), np.nan)}
                for (contrast, metric), value in found[0].items()
            ]
    return pd.DataFrame(rows)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row a method, contrast and metric: the means over subjects, and drawn minus real in units of the real lesions' spread with its interval."""
    rows = []
    clean = found[np.isfinite(found["real"]) & np.isfinite(found["drawn"])]
    for (method, contrast, metric), some in clean.groupby(["method", "contrast", "metric"], sort=False):
        per = some.groupby("subject")[["real", "drawn"]].mean()
        spread = float(some["real"].std(ddof=0)) or 1.0
        gap = ((per["drawn"] - per["real"]) / spread).to_numpy()
        interval = bootstrap(lambda r, gap=gap: float(gap[r].mean()), list(per.index))  # type: ignore[misc]
        real, drawn = float(per["real"].mean()), float(per["drawn"].mean())
        rows.append(
            {
                "method": method,
                "contrast": contrast,
                "metric": metric,
                "real": real,
                "drawn": drawn,
                "ratio": drawn / real if abs(real) > 1e-9 else np.nan,
                "gap": interval.value,
                "gap_low": interval.low,
                "gap_high": interval.high,
                "subjects": interval.subjects,
            }
        )
    return pd.DataFrame(rows)


def _of(x: np.ndarray, m: np.ndarray, scene: Scene, contrasts: tuple[str, ...]) -> dict[tuple[str, str], float]:
    if not m.any():
        return {}
    found: dict[tuple[str, str], float] = {}
    values = features.lesion(x, m, scene.head, scene.present) if m.sum() >= SMALLEST else {}
    for c, contrast in enumerate(contrasts):
        if not scene.present[c]:
            continue
        found |= {(contrast, metric): values[key.format(c=c)] for metric, key in FROM_FEATURES.items() if values}
        if values:
            found |= {(contrast, f"GLCM {name}"): value for name, value in glcm(x[c], m, scene.x[c][scene.head]).items()}
        if SMALL_PX[0] <= np.sqrt(m.sum() / np.pi) <= SMALL_PX[1]:
            found[contrast, "small lesions, contrast to noise"] = contrast_to_noise(x[c], m, scene)
    for a, first in enumerate(contrasts):
        for b in range(a + 1, len(contrasts)):
            if values and scene.present[a] and scene.present[b]:
                found[f"{first}-{contrasts[b]}", "correlation"] = values[f"between/{a}{b}/correlation"]
    return found


def glcm(x: np.ndarray, m: np.ndarray, tissue: np.ndarray) -> dict[str, float]:
    """Contrast and homogeneity of the co-occurrence of neighbours inside m (distance 1, four directions), in `LEVELS` equal bins between the 1st and
    99th percentile of this scan's tissue: a bin width fixed beforehand would put a normalised image into one bin."""
    low, high = np.quantile(tissue, [0.01, 0.99])
    # Level 0 is "not in the lesion" and is taken out of the matrix.
    levels = np.where(m, 1 + np.clip((x - low) / max(high - low, 1e-6) * LEVELS, 0, LEVELS - 1).astype(int), 0).astype(np.uint8)
    matrix = graycomatrix(levels, [1], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], levels=LEVELS + 1, symmetric=True)[1:, 1:].astype(float)
    return {name: float(graycoprops(matrix, name).mean()) for name in ("contrast", "homogeneity")}


def contrast_to_noise(x: np.ndarray, m: np.ndarray, scene: Scene) -> float:
    """|mean inside - mean beyond| / standard deviation beyond, beyond being the band of `features.BEYOND` on tissue; NaN where there is none."""
    from scipy.ndimage import distance_transform_edt

    outward = distance_transform_edt(~m)
    beyond = (outward >= features.BEYOND[0]) & (outward <= features.BEYOND[1]) & scene.head & ~(scene.S > 0)
    noise = float(x[beyond].std()) if beyond.sum() > 8 else 0.0
    return abs(float(x[m].mean()) - float(x[beyond].mean())) / noise if noise > 1e-6 else np.nan
