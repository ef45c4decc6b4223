"""How much neighbouring pixels differ inside drawn lesions, beside real ones: by distance, contrast, and stage that drew them.

    python benchmarks/quality_texture.py --data slices.h5 [--weights glioma] [--learn 4] [--judge 24] [--threads N]

Drawn / real, the root mean square of the difference between pixels of the lesion that lie so many pixels apart (rows and columns), a geometric mean over the
subjects: below 1 the drawn lesion is too smooth at that scale. Variants as in quality_stages.py. `--learn` windows of each training subject, `--judge` of each
validation subject, partition by partition; the training lesions have been seen by the networks, but there are seven times as many subjects.
"""

from __future__ import annotations

import judging
import numpy as np
import quality_stages

LAGS = (1, 2, 3, 4, 6, 8, 12, 16)
VARIANTS = ("drawn", "drawn means", "drawn roughness", "real form")
PAIRS = 30


def differences(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """RMS difference of pixels of `m` (H, W) at each of `LAGS` in x (C, H, W): (C, lags); NaN with fewer than `PAIRS` pairs."""
    found = np.full((len(x), len(LAGS)), np.nan)
    for i, lag in enumerate(LAGS):
        squares, pairs = np.zeros(len(x)), 0
        for image, mask in ((x, m > 0), (x.swapaxes(1, 2), m.T > 0)):
            both = mask[lag:] & mask[:-lag]
            squares += np.square(image[:, lag:] - image[:, :-lag])[:, both].sum(axis=1)
            pairs += int(both.sum())
        if pairs >= PAIRS:
            found[:, i] = np.sqrt(squares / pairs)
    return found


def main() -> None:
    """A row a partition, variant and contrast."""
    given = judging.arguments(__doc__, learn=4, judge=24).parse_args()
    loaded = judging.ready(given)
    print("partition | subjects | variant | contrast | " + " | ".join(f"{lag} px" for lag in LAGS))
    for row in quality_stages.compared(given, loaded, VARIANTS, differences):
        print(f"{row.of} | " + " | ".join(f"{value:.2f}" for value in row.ratio), flush=True)


if __name__ == "__main__":
    main()
