"""Realism of one weight file drawn in several ways: AUC of the trees on validation subjects, for lesion, intensity, texture and rim.

    python benchmarks/quality_realism.py --data slices.h5 --weights glioma --draw steps=20 steps=50 solver=ddim,eta=1,steps=20 --seeds 0 1 2

A way to draw is a comma-separated list of fields of `pathosyn.config.Method`, of those that may be chosen after the training (`reuse.FREE`); what is not
named is as the weights have it; without --draw all of it is. On each training subject `--learn` windows help the judge to learn, on each validation subject
`--judge` windows are scored; folds are by subject (pathosyn.evaluate.realism). A row a way and a seed of the draws, then the mean over the seeds: one seed is
luck, to about ± .05. Lower is better: AUC .5 is indistinguishable, and `gap` is `judging.gap`. `--in-sample` scores the training subjects' windows too: seven
times the subjects, whose lesions the networks have seen; good for comparing two ways to draw, not for a claim.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import judging
import numpy as np

from pathosyn.evaluate import realism
from pathosyn.reuse import chosen


def main() -> None:
    """Print one row a way to draw."""
    parser = judging.arguments(__doc__, learn=4, judge=20)
    parser.add_argument("--draw", nargs="+", default=[""])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--in-sample", action="store_true")
    given = parser.parse_args()
    loaded = judging.ready(given)
    config = loaded.method.config
    print("draw | seed | gap | windows judged | " + " | ".join(judging.REGIONS))
    for draw in given.draw:
        name = draw or "as shipped"
        loaded.method.config = replace(config, method=chosen(config.method, draw) if draw else config.method)
        figures = []
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as folder:
                sets = judging.drawn(given.data, loaded, Path(folder), learn=given.learn, judge=given.judge, seed=seed)
                found = realism.pairs(given.data, sets, show=False)
            if given.in_sample:
                found = replace(found, judged=np.ones_like(found.judged))
            gap, told = judging.gap(found), [realism.trees(found, region)[0] for region in judging.REGIONS]
            figures.append([gap, *(interval.value for interval in told)])
            print(" | ".join([name, str(seed), f"{gap:.3f}", str(int(found.judged.sum() // 2)), *map(str, told)]), flush=True)
        if len(figures) > 1:
            gap, *rest = np.mean(figures, axis=0)
            print(f"{name} | mean of {len(figures)} | {gap:.3f} | | " + " | ".join(f"{value:.3f}" for value in rest), flush=True)


if __name__ == "__main__":
    main()
