"""What gives drawn lesions away: AUC of the trees with each group of features alone and left out, and the features that differ most.

    python benchmarks/quality_features.py --data slices.h5 [--weights glioma] [--learn 4] [--judge 24] [--seed 0] [--threads N]

Groups are those of `pathosyn.evaluate.features`: intensity, texture, rim, and what lies between contrasts (correlations inside the lesion, of all of it and of
its Laplacian). Scored are the windows of training and validation subjects together, folds by subject: the networks have seen the training lesions, so this is
for finding faults and comparing weights, not for a claim. Then for the features whose drawn values lie farthest off: the mean of drawn less real, and drawn
over real spread, in units of the real lesions' spread; the quantiles of each correlation, real and drawn; and the features that the others of the same
contrast foretell worst in drawn lesions: what is left of one after a regression on the others, fitted on real lesions of other subjects, and the AUC of that.
A feature may be right on the average and in its spread and still not go with the others as it does in real lesions: this shows it.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import judging
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from pathosyn.data.split import folds
from pathosyn.evaluate import features, realism
from pathosyn.evaluate.statistics import auc

QUANTILES = (0.02, 0.1, 0.5, 0.9, 0.98)
MOST = 12


def part(found: realism.Pairs, group: str, *, without: bool) -> realism.Pairs:
    """The same windows with the lesion's features of one group alone, or `without` them."""
    kept = [name for name in found.table if str(name).startswith("lesion/") and (f"/{group}/" in str(name)) != without]
    return replace(found, table=found.table[kept])


def unforetold(found: realism.Pairs, names: list[str]) -> dict[str, float]:
    """Feature → AUC of what the other features of its contrast (of all, for one between contrasts) leave of it, drawn against real."""
    values, place = found.table[names].to_numpy(np.float32), folds(found.subjects.tolist(), realism.FOLDS, seed=0)
    aucs = {}
    for k, name in enumerate(names):
        others = [i for i, other in enumerate(names) if i != k and ("/between/" in name or other.split("/")[2] == name.split("/")[2])]
        left = np.full(len(values), np.nan)
        for fold in np.unique(place):
            learn = (place != fold) & ~found.fake & np.isfinite(values[:, k])
            fitted = HistGradientBoostingRegressor(max_iter=150, learning_rate=0.08, max_leaf_nodes=15, min_samples_leaf=10, random_state=0)
            fitted.fit(values[learn][:, others], values[learn, k])
            left[place == fold] = values[place == fold, k] - fitted.predict(values[place == fold][:, others])
        known = np.isfinite(left)
        aucs[name] = float(auc(left[known], found.fake[known]))
    return aucs


def main() -> None:
    """Four tables."""
    parser = judging.arguments(__doc__, learn=4, judge=24)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    loaded = judging.ready(given)
    with tempfile.TemporaryDirectory() as folder:
        sets = judging.drawn(given.data, loaded, Path(folder), learn=given.learn, judge=given.judge, seed=given.seed)
        found = realism.pairs(given.data, sets, show=False)
    found = replace(found, judged=np.ones_like(found.judged))
    print(f"all features: {realism.trees(found, 'lesion')[0]} on {len(found.fake) // 2} windows of {len(set(found.subjects))} subjects\n")
    print("group | alone | left out")
    for group in features.GROUPS:
        alone, rest = (realism.trees(part(found, group, without=without), "lesion")[0] for without in (False, True))
        print(f"{group} | {alone} | {rest}", flush=True)
    names = [str(name) for name in found.table if str(name).startswith("lesion/")]
    values = {name: found.table[name].to_numpy(float) for name in names}
    spread = {name: np.nanstd(column[~found.fake]) for name, column in values.items()}
    shift = {name: float(np.nanmean(column[found.fake] - column[~found.fake]) / max(spread[name], 1e-9)) for name, column in values.items()}
    print("\nfeature | drawn - real | spread, drawn / real")
    for name in sorted(names, key=lambda name: -abs(shift[name]))[:MOST]:
        print(f"{name.removeprefix('lesion/')} | {shift[name]:+.2f} | {np.nanstd(values[name][found.fake]) / max(spread[name], 1e-9):.2f}")
    print("\nbetween contrasts | which | " + " | ".join(f"{q:g}" for q in QUANTILES))
    for name in (name for name in names if "/between/" in name):
        for which, rows in (("real", ~found.fake), ("drawn", found.fake)):
            print(f"{name.removeprefix('lesion/between/')} | {which} | " + " | ".join(f"{q:.2f}" for q in np.nanquantile(values[name][rows], QUANTILES)))
    print("\nfeature | AUC of what the others leave of it")
    left = unforetold(found, names)
    for name in sorted(names, key=lambda name: -abs(left[name] - 0.5))[:MOST]:
        print(f"{name.removeprefix('lesion/')} | {left[name]:.2f}")


if __name__ == "__main__":
    main()
