"""Are drawn coarse forms laid out as real ones are: how alike are cells beside each other, and is the rim as rough beside the inside?

    python benchmarks/quality_forms.py --data slices.h5 [--weights glioma] [--learn 4] [--threads N]

A row a contrast and kind (its cells' means, their roughness) of: the real lesions; forms drawn for the same lesions, told and held to the real looks, with
and without gathering. Columns: correlation between cells inside the lesion that lie 1, 2 and 3 apart; how far the cells vary
there; the rim's mean less that of the inside; the largest. In the form's units, means over windows of training subjects with at least `CELLS` cells inside.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import judging
import numpy as np
import torch

from pathosyn.checkpoint import Loaded
from pathosyn.cohort.scenes import chosen, in_batches
from pathosyn.data.slices import Slices
from pathosyn.lesion import appearance, coarse
from pathosyn.types import Image, LesionBatch

CELLS = 16
"""Cells inside a lesion that it must have to be counted."""
INSIDE, RIM = 0.95, 0.5
"""Share of a cell that is lesion: above the one it lies inside, between the two at the rim."""
LAGS = (1, 2, 3)


@torch.inference_mode()
def forms(loaded: Loaded, batch: LesionBatch) -> tuple[dict[str, Image], Image]:
    """Forms (B, 2C, h, w) by name, and the share of each cell that is lesion."""
    method, config = loaded.method, loaded.config
    parts, f, noise, real = judging.with_real_form(method, batch)
    made, look = {"real": real}, appearance.measure(method, real, batch, parts)
    for name, gather in (("gathered", True), ("not gathered", False)):
        method.config = replace(config, method=replace(config.method, gather=gather))
        made[name] = method.draw_form(batch, f, noise, look=look)
    method.config = config
    return made, coarse.lesion_share(method, batch, parts)


def layout(cells: np.ndarray, share: np.ndarray) -> list[float]:
    """The columns for one channel (h, w)."""
    inside, rim = share >= INSIDE, (share >= RIM) & (share < INSIDE)
    apart = np.where(inside, cells - cells[inside].mean(), 0.0)
    variance = float((apart[inside] ** 2).mean()) + 1e-9
    alike = []
    for lag in LAGS:
        products = []
        for one, other, both in (
            (apart[lag:], apart[:-lag], inside[lag:] & inside[:-lag]),
            (apart[:, lag:], apart[:, :-lag], inside[:, lag:] & inside[:, :-lag]),
        ):
            products.append((one * other)[both])
        pairs = np.concatenate(products)
        alike.append(float(pairs.mean()) / variance if pairs.size else np.nan)
    edge = float(cells[rim].mean() - cells[inside].mean()) if rim.any() else np.nan
    return [*alike, variance**0.5, edge, float(cells[share >= RIM].max())]


def main() -> None:
    """A row a contrast, a kind and a form."""
    given = judging.arguments(__doc__, learn=4, judge=0).parse_args()
    loaded = judging.ready(given)
    slices = Slices(given.data, "train", contrasts=loaded.config.contrasts, every=False)
    found: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    windows = 0
    for members in in_batches(slices, chosen(slices, given.learn)):
        batch = slices.lesion(members)
        made, shares = forms(loaded, batch)
        for b in range(len(batch)):
            share = shares[b, 0].numpy()
            if (share >= INSIDE).sum() < CELLS:
                continue
            windows += 1
            for c, contrast in enumerate(loaded.config.contrasts):
                if batch.present[b, c]:
                    for name, form in made.items():
                        found[contrast, name].append(layout(form[b, c].numpy(), share))
                        if loaded.method.rough:
                            found[f"{contrast}'s roughness", name].append(layout(form[b, c + len(loaded.config.contrasts)].numpy(), share))
    print(f"{windows} windows\nof | form | " + " | ".join(f"alike, {lag}" for lag in LAGS) + " | spread inside | rim less inside | largest")
    for (of, name), rows in sorted(found.items(), key=lambda item: item[0][0]):
        print(f"{of} | {name} | " + " | ".join(f"{value:.2f}" for value in np.nanmean(np.array(rows), axis=0)))


if __name__ == "__main__":
    main()
