"""Realism of one weight file drawn in several ways: AUC of the trees on validation subjects, for lesion, intensity, texture and rim.

    python benchmarks/quality_realism.py --data slices.h5 --weights glioma --draw steps=20 steps=50 solver=ddim,eta=1,steps=20 hold=False

A way to draw is a comma-separated list of fields of `pathosyn.config.Method`, of those that may be chosen after the training (`config.FREE`); what is not
named is as the weights have it, `steps=20` for instance. On each training subject `--learn` windows help the judge to learn, on each validation subject
`--judge` windows are scored; folds are by subject (pathosyn.evaluate.realism). A row each; lower is better, .5 is indistinguishable.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import judging

from pathosyn.config import chosen
from pathosyn.evaluate import realism


def main() -> None:
    """Print one row a way to draw."""
    parser = judging.arguments(__doc__, learn=4, judge=20)
    parser.add_argument("--draw", nargs="+", default=["steps=20"])
    given = parser.parse_args()
    loaded = judging.ready(given)
    config = loaded.method.config
    print("draw | windows judged | " + " | ".join(judging.REGIONS))
    for draw in given.draw:
        loaded.method.config = replace(config, method=chosen(config.method, draw))
        with tempfile.TemporaryDirectory() as folder:
            sets = judging.drawn(given.data, loaded, Path(folder), learn=given.learn, judge=given.judge)
            found = realism.pairs(given.data, sets, show=False)
        print(f"{draw} | {judging.row(found)}", flush=True)


if __name__ == "__main__":
    main()
