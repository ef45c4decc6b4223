"""How drawn lesions' detail lies beside real ones': where it is strong, which way it runs, whether the contrasts agree on it.

    python benchmarks/quality_lay.py --data slices.h5 [--weights glioma] [--learn 4] [--judge 24] [--seed 0] [--threads N]

For each of the measures of `pathosyn.lesion.lay`, on the pixels of a lesion that lie four pixels and more from its outline, where no judge sees the rim's rise:
the mean over a window (`grain` and `bend` tell of the spectrum); of local energies also how far they spread within it, and how they go with the depth at which
a pixel lies (a correlation). Printed are mean and spread over the windows, real and drawn, the difference in units of the real spread, and the AUC of the
number alone (.5: it tells nothing). Windows of training and validation subjects together, as in quality_features.py: for finding faults and comparing weights,
not for a claim.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import judging
import numpy as np
import torch
from scipy import ndimage

from pathosyn.data.matching import beside_real
from pathosyn.evaluate.realism import Scene
from pathosyn.evaluate.statistics import auc
from pathosyn.lesion import lay

INSIDE = 3
"""Pixels from the outline that do not count."""
LEAST = 120
"""Pixels that must be left of a lesion."""
BANDS = ("finest detail", "3×3 less 7×7", "7×7 less 15×15")


def numbers(x: np.ndarray, m: np.ndarray, present: np.ndarray, contrasts: tuple[str, ...]) -> dict[str, float]:
    """Name → value, of one window: x (C, H, W), m (H, W) bool. Nothing for a lesion that is too small."""
    depth = ndimage.distance_transform_edt(np.pad(m, 1))[1:-1, 1:-1]
    inside = depth > INSIDE
    if inside.sum() < LEAST:
        return {}
    found: dict[str, float] = {}
    seen, count = lay.measures(torch.from_numpy(x)[None].float())[0].numpy()[:, inside], len(contrasts)
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    for c in (c for c in range(count) if present[c]):
        for band, name in enumerate(BANDS):
            energy = seen[band * count + c] * lay.STRENGTH
            found |= {f"{contrasts[c]}, {name}: log RMS": energy.mean(), f"{contrasts[c]}, {name}: its spread": energy.std()}
            found[f"{contrasts[c]}, {name}: with depth"] = np.corrcoef(energy, depth[inside])[0, 1]
        for k, (name, unit) in enumerate((("grain", lay.GRAIN), ("bend", lay.BEND))):
            found[f"{contrasts[c]}, {name}"] = (seen[len(seen) - (2 - k) * count + c] * unit).mean()
        for k, scale in enumerate((3, 7)):
            at = len(BANDS) * count + k * (count + len(pairs))
            found[f"{contrasts[c]}, coherence, {scale}×{scale}"] = (seen[at + c] * lay.COHERENCE).mean()
            for p, (a, b) in enumerate(pairs):
                if a == c and present[b]:
                    found[f"{contrasts[a]} and {contrasts[b]} agree, {scale}×{scale}"] = (seen[at + count + p] * lay.AGREEMENT).mean()
    return found


def windows(data: Path, sets: list[judging.SyntheticSet]) -> Iterator[tuple[Scene, dict[str, np.ndarray]]]:
    """Each real window, and what was drawn in it."""
    for each in sets:
        slices = beside_real(data, each)
        for row, drawn in each.windows():
            yield Scene.of(slices, int(row["row"])), drawn


def main() -> None:
    """A row a number."""
    parser = judging.arguments(__doc__, learn=4, judge=24)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    loaded = judging.ready(given)
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        sets = judging.drawn(given.data, loaded, Path(folder), learn=given.learn, judge=given.judge, seed=given.seed)
        for scene, drawn in windows(given.data, sets):
            sides = [numbers(x, m, scene.present, loaded.any_method.config.contrasts) for x, m in ((scene.x, scene.m), (drawn["x_hat"], drawn["m"] > 0))]
            if all(sides):
                found.append((sides[0], sides[1]))
    print(f"{len(found)} windows\nnumber | real | drawn | difference | AUC")
    for name in dict.fromkeys(name for real, _ in found for name in real):
        real, drawn = (np.array([pair[k][name] for pair in found if name in pair[0]]) for k in (0, 1))
        known = np.isfinite(real) & np.isfinite(drawn)
        real, drawn = real[known], drawn[known]
        alone = auc(np.concatenate([real, drawn]), np.repeat([False, True], len(real)))
        apart = (drawn.mean() - real.mean()) / max(float(real.std()), 1e-9)
        print(f"{name} | {real.mean():.2f} ± {real.std():.2f} | {drawn.mean():.2f} ± {drawn.std():.2f} | {apart:+.2f} | {alone:.2f}")


if __name__ == "__main__":
    main()
