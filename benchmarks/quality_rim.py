"""Is the finest detail of drawn lesions as strong as that of real ones, and as even, at their outline as inside? Dots along a rim show here.

    python benchmarks/quality_rim.py --data slices.h5 [--weights glioma] [--learn 4] [--judge 24] [--threads N]

The finest detail is x less its 3×3 mean. By depth (pixels to the outline, negative beyond it), contrast and stage that drew the lesion (as in
quality_stages.py): its RMS, drawn / real, and its largest, the 98th percentile of its size, drawn / real. Geometric means over subjects of means over their
windows; `--learn` windows of each training subject, `--judge` of each validation subject, partition by partition.
"""

from __future__ import annotations

import judging
import numpy as np
import quality_stages
import torch
from scipy.ndimage import distance_transform_edt

from pathosyn.lesion import texture

DEPTHS = ((-3, 0), (0, 2), (2, 4), (4, 99))
VARIANTS = ("drawn", "real form")
PIXELS = 20
"""That a band must have."""


def depth(m: np.ndarray) -> np.ndarray:
    """(H, W): pixels from the lesion's outline to each pixel's centre, positive inside."""
    return np.where(m > 0, distance_transform_edt(m > 0) - 0.5, 0.5 - distance_transform_edt(m == 0))


def bands(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """(C, depths, 2): RMS and 98th percentile of the size of the finest detail of x (C, H, W) in each band; NaN where it is too small."""
    window = torch.from_numpy(x)[None]
    detail = (window - texture.box_mean(window, 1))[0].abs().numpy()
    found, away = np.full((len(x), len(DEPTHS), 2), np.nan), depth(m)
    for k, (low, high) in enumerate(DEPTHS):
        where = (away >= low) & (away < high)
        if where.sum() >= PIXELS:
            values = detail[:, where]
            found[:, k] = np.stack([np.sqrt(np.square(values).mean(axis=1)), np.quantile(values, 0.98, axis=1)], axis=1)
    return found


def main() -> None:
    """A row a partition, variant and contrast."""
    given = judging.arguments(__doc__, learn=4, judge=24).parse_args()
    loaded = judging.ready(given)
    print("partition | subjects | variant | contrast | " + " | ".join(f"{low} to {high} px: RMS, largest" for low, high in DEPTHS))
    for row in quality_stages.compared(given, loaded, VARIANTS, bands):
        print(f"{row.of} | " + " | ".join(f"{rms:.2f}, {largest:.2f}" for rms, largest in row.ratio), flush=True)


if __name__ == "__main__":
    main()
