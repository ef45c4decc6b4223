"""The network that draws forms in one call, beside the one that taught it: whether the trees mind.

    pathosyn train --data slices.h5 --from glioma --run runs/student --train.distil-share 1 --train.structure-share 0 …
    python benchmarks/quality_distilled.py --data slices.h5 --weights runs/student/weights.safetensors [--learn 4] [--judge 24] [--seeds 0 1 2]

Windows are drawn as in quality_realism.py: by the first network in as many calls as the weights have; by the first network in one call, which it was never
taught; and by the second in one call. Rows of a seed start from the same noise, and their last call's is the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import judging

from pathosyn.evaluate import realism


def main() -> None:
    """A row a way to draw and seed."""
    parser = judging.arguments(__doc__, learn=4, judge=24)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    given = parser.parse_args()
    loaded = judging.ready(given)
    if not loaded.method.one_call:
        parser.error(f"{loaded.path} holds no network that draws in one call; expected weights of a training with --train.distil-share")
    print("draw | seed | gap | windows judged | " + " | ".join(judging.REGIONS), flush=True)
    several = loaded.config.method.steps
    for name, steps in ((f"{several} calls", several), ("one call, untaught", 1), ("one call, distilled", None)):
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as folder:
                sets = judging.drawn(given.data, loaded, Path(folder), learn=given.learn, judge=given.judge, seed=seed, steps=steps)
                found = realism.pairs(given.data, sets, show=False)
            print(f"{name} | {seed} | {judging.gap(found):.3f} | {judging.row(found)}", flush=True)


if __name__ == "__main__":
    main()
