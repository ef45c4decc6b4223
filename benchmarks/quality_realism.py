"""Realism of one weight file under several samplers: AUC of the trees on validation subjects, for lesion, intensity, texture and rim.

    python benchmarks/quality_realism.py --data slices.h5 --weights glioma --sampler ddim:20 ddim:50 ddim:20:1 [--learn 4] [--judge 20]

A sampler is solver:calls, or ddim:calls:eta. On each training subject `--learn` windows help the judge to learn, on each validation subject `--judge`
windows are scored; folds are by subject (pathosyn.evaluate.realism). A row a sampler; lower is better, .5 is indistinguishable.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from pathosyn.checkpoint import load
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.evaluate import realism
from pathosyn.generate import generate
from pathosyn.weights import find

REGIONS = ("lesion", "lesion, intensity", "lesion, texture", "lesion, rim")


def main() -> None:
    """Print one row a sampler."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--sampler", nargs="+", default=["ddim:20"])
    parser.add_argument("--learn", type=int, default=4)
    parser.add_argument("--judge", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    loaded = load(find(given.weights))
    config = loaded.method.config
    print("sampler | windows judged | " + " | ".join(REGIONS))
    for sampler in given.sampler:
        solver, calls, *eta = sampler.split(":")
        loaded.method.config = replace(config, method=replace(config.method, solver=solver, steps=int(calls), eta=float(eta[0]) if eta else 0.0))
        with tempfile.TemporaryDirectory() as folder:
            sets = []
            for purpose, partition, count in (("train", "train", given.learn), ("evaluate", "validation", given.judge)):
                out = Path(folder) / partition
                generate(given.data, out, loaded, purpose=purpose, partition=partition, per_subject=count, progress=False)  # type: ignore[arg-type]
                sets.append(SyntheticSet(out))
            found = realism.pairs(given.data, sets, show=False)
        figures = [str(realism.trees(found, region)[0]) for region in REGIONS]
        print(f"{sampler} | {int(found.judged.sum() // 2)} | " + " | ".join(figures), flush=True)


if __name__ == "__main__":
    main()
