"""The README's picture: real lesions of TCGA-LGG validation subjects, taken out and drawn anew by shipped weights.

    python tools/readme_picture.py --data slices.h5 --weights glioma --subjects TCGA_DU_A5TT_19980318 … --out docs/images/glioma.png

Each subject's slice with the largest lesion whose window is at most 128 px. No BraTS subject may be shown (its terms).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pathosyn import figures
from pathosyn.checkpoint import load
from pathosyn.cohort.drawing import stopped_at_fluid
from pathosyn.data.slices import Slices
from pathosyn.decomposition import heal
from pathosyn.types import Controls
from pathosyn.weights import find

SIDE = 96


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--subjects", nargs="+", required=True)
    parser.add_argument("--contrasts", nargs="+", default=["t1", "flair"])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if any(not name.startswith("TCGA") for name in given.subjects):
        parser.error("only TCGA subjects may be shown")
    loaded = load(find(given.weights))
    slices = Slices(given.data, ("validation",), contrasts=loaded.config.contrasts, every=False)
    rows, labels = [], []
    for name in given.subjects:
        table = slices.windows
        mine = np.flatnonzero((table["subject"] == slices.subjects.index(name)) & (table["side"] <= 128))
        batch = slices.lesion([int(mine[table["lesion_pixels"][mine].argmax()])])
        draws = [loaded.method.synthesize(batch, controls=Controls(seed=seed)) for seed in (0, 1, 2)]
        healed = stopped_at_fluid(loaded.method, batch, heal(batch.x, draws[0].x_sub, batch.S), batch.m)
        for contrast in given.contrasts:
            c = loaded.config.contrasts.index(contrast)
            planes = [_middle(v[0, c].float()) for v in (batch.x, healed, *(stopped_at_fluid(loaded.method, batch, d.x_hat.float(), batch.m) for d in draws))]
            low, high = figures.window_limits(planes[0])
            tiles = [figures.grey(plane, low, high) for plane in planes]
            rows.append([figures.outline(tiles[0], _middle(batch.m[0, 0]) > 0), *tiles])
            labels.append(f"{name[5:12]} {contrast}")
    figures.mosaic(rows, given.out, columns=("mask", "scan", "taken out", "drawn, seed 0", "seed 1", "seed 2"), labels=labels)


def _middle(plane: torch.Tensor) -> np.ndarray:
    """The middle SIDE × SIDE pixels, the edge repeated where there are fewer."""
    values = plane.numpy()
    missing = max(0, SIDE - values.shape[0])
    values = np.pad(values, (missing // 2, missing - missing // 2), mode="edge")
    start = (values.shape[0] - SIDE) // 2
    return values[start : start + SIDE, start : start + SIDE]


if __name__ == "__main__":
    main()
