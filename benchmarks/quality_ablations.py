"""What each decision of the method is worth: the default, and the default with one thing changed, trained from scratch with the same budget and judged alike.

    python benchmarks/quality_ablations.py --data slices.h5 --runs DIR [--steps 1500] [--only default pixels …] [--also biharmonic=other.h5 …]

Every row is trained by `fit()` into a run folder of its own under --runs (the same command resumes, and a row that is done is not trained again), at scale
`tiny`, for the same number of optimiser steps on the same number of window pixels a step; then `--learn` windows of each training subject and `--judge` of
each validation subject are drawn, and the trees are asked, as in quality_realism.py. A row needs its data: the rows of `--also NAME=FILE` are skipped
without it (`biharmonic`: prepared with --inpaint biharmonic; `feather-…`, `margin-…`: with that --geometry). Lower is better: AUC .5 is indistinguishable,
and `gap` (judging.gap) has a scale where AUC has none; how much of either is chance, the row "another seed" says.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import judging
import torch

from pathosyn.checkpoint import load
from pathosyn.config import Config, Method, Train, Weights, default, paper, scaled
from pathosyn.data.store import read_header
from pathosyn.evaluate import realism
from pathosyn.train import fit


@dataclass(frozen=True)
class Change:
    """One row: fields of the method (over `default`) and of the training that differ, and the data that it needs."""

    method: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""


ALL_PIXELS = {"coarse": 1, "steps": 20, "roughness": False, "appearance": False, "hold": False, "gather": False, "patches": 0.0}
EPS = {"prediction": "eps", "coarse_prediction": "eps", "zero_terminal_snr": False}
CHANGES: dict[str, Change] = {
    "default": Change(),
    "another seed": Change(train={"seed": 1}),
    "predicts eps": Change(EPS),
    "predicts v": Change({"prediction": "v", "coarse_prediction": "v"}),
    "predicts r0": Change({"prediction": "r0", "coarse_prediction": "r0"}),
    "forms v": Change({"coarse_prediction": "v"}),
    "forms r0": Change({"coarse_prediction": "r0"}),
    "no zero terminal SNR": Change({"zero_terminal_snr": False}),
    "times uniform": Change({"times": "uniform"}),
    "residual not scaled": Change({"scale_residual": False}),
    "Eq. 5, delta 3": Change({"tanh_delta": 3.0}),
    "diffusion on pixels": Change(ALL_PIXELS, {"structure_share": 0.0, "sharpen_share": 0.0}),
    "cells hold r0": Change({"cells": "deviation"}),
    "no roughness": Change({"roughness": False}),
    "no appearance": Change({"appearance": False, "hold": False}),
    "appearance not held": Change({"hold": False}),
    "not attuned": Change({"attune": False}),
    "correlations as they are": Change({"fisher_z": False}),
    "not gathered": Change({"gather": False}),
    "rim not stopped at fluid": Change({"stop_at_fluid": False}),
    "no grain": Change({"grain": False}),
    "context outside": Change({"context": "outside"}),
    "real forms alone": Change({"drawn_forms": 0.0}),
    "shared detail not asked": Change({"shared_grain": False, "shared": 0.0}),
    "lay not asked": Change({"lay": 0.0}),
    "tails not asked": Change({"tails": False}),
    "third moments not held": Change({"skew": False}),
    "roughness of cells": Change({"rough_of": "cells"}),
    "roughness of cells, tails not asked": Change({"rough_of": "cells", "tails": False}),
    "last call by Eqs. 9, 13": Change({"patches": 0.0}, {"sharpen_share": 0.0}),
    "critic for patches": Change({"patches": 0.0, "adversary": 0.1}),
    "critic and patches": Change({"adversary": 0.1}),
    "last call at t = 20": Change({"level": 20}),
    "last call at t = 250": Change({"level": 250}),
    "no pat, ring, syn": Change({"weights": Weights(pat=0.0, ring=0.0, dev=0.0, syn=0.0)}),
    "pat, ring, syn times 10": Change({"weights": Weights(pat=1.0, ring=1.0, syn=1.0)}),
    "f_sub from zeros": Change({"fill": False}),
    "joint, on pixels": Change({**ALL_PIXELS, "joint": True, "warmup": 0.1}),
    "feather 1 mm": Change(data="feather-1"),
    "feather 6 mm": Change(data="feather-6"),
    "margin 5 mm": Change(data="margin-5"),
    "margin 20 mm": Change(data="margin-20"),
    "paper": Change({"paper": True}, data="biharmonic"),
}


def config_of(change: Change, data: Path, contrasts: tuple[str, ...], steps: int, batch_pixels: int) -> Config:
    """The config of a row."""
    networks, train = scaled("tiny")
    budget = {"steps": steps, "batch_pixels": batch_pixels, "validate_every": steps, "checkpoint_every": max(1, steps // 5)}
    given = dict(change.method)
    method: Method = paper() if given.pop("paper", False) else default()
    return Config(contrasts, read_header(data).geometry, replace(method, **given), networks, Train(**{**vars(train), **budget, **change.train}))


def main() -> None:
    """Train and judge row by row, printing each when it is known."""
    parser = judging.arguments(__doc__, learn=4, judge=20, weights=False)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-pixels", type=int, default=32768)
    parser.add_argument("--contrasts", nargs="+", default=["t1", "t1ce", "flair"])
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    parser.add_argument("--also", nargs="+", default=[], metavar="NAME=FILE")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    files = {"": given.data, **{name: Path(path) for name, _, path in (text.partition("=") for text in given.also)}}
    print("change | training, s | gap | windows judged | " + " | ".join(judging.REGIONS), flush=True)
    for name in given.only:
        change = CHANGES[name]
        if change.data not in files:
            print(f"{name} | skipped: no --also {change.data}=FILE", flush=True)
            continue
        data, run = files[change.data], given.runs / name.replace(" ", "-").replace(",", "").replace(".", "").replace("=", "")
        begun = time.perf_counter()
        weights = fit(data, run, config_of(change, data, tuple(given.contrasts), given.steps, given.batch_pixels), device="cpu", progress=False)
        spent = time.perf_counter() - begun
        with tempfile.TemporaryDirectory() as folder:
            sets = judging.drawn(data, load(weights), Path(folder), learn=given.learn, judge=given.judge)
            found = realism.pairs(data, sets, show=False)
            print(f"{name} | {spent:.0f} | {judging.gap(found):.3f} | {judging.row(found)}", flush=True)


if __name__ == "__main__":
    main()
