"""Every method of the comparison: trained on one budget, drawn with on the same windows, judged by the same trees; and what each costs.

    python benchmarks/compare_methods.py --data slices.h5 --runs DIR [--steps 900] [--only vaegan pathosyn …] [--learn 4] [--judge 20]
    python benchmarks/compare_methods.py --data slices.h5 --runs DIR --budget paper

Budget `small` is for two cores: scale `tiny`, f_sub lent by --f-sub (the shipped weights), --steps for each method that draws on windows. The methods of whole
slices get more (`longer`): a slice has several times the pixels of a window, and their diffusion was still noise after as many steps. `paper`: scale `full`,
300 epochs of the training windows for each, f_sub trained along; for a GPU. Trainings go into run folders under --runs, as `pathosyn train` makes them; the
same command goes on, and a run that is done is not trained again. `--learn` windows of each training subject and
`--judge` of each validation subject are drawn by every method and by the controls, into --runs/sets. Lower is better: AUC .5 is indistinguishable, `gap` as
in judging.py; `whole image` and `background` tell what a method does to the rest of the slice. Parameters are those that travel with the weights; seconds
are processor time of one thread, a training step of the last stage and a drawn window.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import judging
import torch

from pathosyn import rng
from pathosyn.checkpoint import Loaded, load, read_config
from pathosyn.config import Config, default, scaled
from pathosyn.data.slices import Slices
from pathosyn.data.store import read_header
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.evaluate import realism
from pathosyn.generate import generate
from pathosyn.methods import build
from pathosyn.networks import parameter_count
from pathosyn.protocol import Method
from pathosyn.train import fit
from pathosyn.training import feed
from pathosyn.types import Controls
from pathosyn.weights import find

REGIONS = ("lesion", "lesion, intensity", "lesion, texture", "lesion, rim", "whole image", "background")
CONTROLS = ("real", "copy-paste", "conventional", "gaussian")
SLICES = {"lr": 8e-4, "ema": 0.999}
"""Of the diffusions of whole slices' codes, which need many steps, each a cheap one."""


@dataclass(frozen=True)
class Row:
    """A training: the method, whose weights lend parts of it ("f_sub" or another row), what differs from the defaults, and its steps beside --steps."""

    name: str
    start: str = ""
    decisions: Mapping[str, Any] = field(default_factory=dict)
    compared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    longer: float = 1.0


ROWS = {
    "vaegan": Row("vaegan", "f_sub", longer=4 / 3),
    "pathosyn": Row("pathosyn", "vaegan"),  # f_sub alone: what it lends is the same network
    "latent": Row("pathosyn", "vaegan", {"space": "latent"}),
    "difference-gan": Row("difference-gan", "f_sub", compared={"difference": {"anchor": 4.0}}, longer=5 / 9),
    "brain-ldm": Row("brain-ldm", "autoencoder", compared={"latent": {"autoencoder_share": 0.0}}, train=SLICES, longer=40 / 3),
    "maskdiff-inpaint": Row("maskdiff-inpaint", "autoencoder", compared={"latent": {"autoencoder_share": 0.0}}, train=SLICES, longer=80 / 9),
    "meta-auto": Row("meta-auto", train={"batch_pixels": 131072}, longer=4 / 3),
}
LENDERS = {"autoencoder": Row("brain-ldm", compared={"latent": {"autoencoder_share": 1.0}}, train={"lr": 3e-4}, longer=8 / 3)}
"""What is trained for others to start from, and is no row of the table."""


def trained(name: str, given: argparse.Namespace) -> Path:
    """The weights of a row, and of what it starts from, trained now unless they are there."""
    row, run = {**ROWS, **LENDERS}[name], given.runs / name
    weights = run / "weights.safetensors"
    networks, train = scaled("tiny" if given.budget == "small" else "full")
    slices, small = Slices(given.data, "train", contrasts=given.contrasts), given.budget == "small"
    one = given.steps if small else 300 * int(sum(side**2 * count for side, count in slices.sides.items())) // train.batch_pixels
    steps = round(one * row.longer) if small else one
    if weights.is_file() and load(weights).provenance.steps >= steps:
        return weights
    own = not row.start or (row.start == "f_sub" and given.budget == "paper")  # which trains f_sub along
    start = None if own else find(given.f_sub) if row.start == "f_sub" else trained(row.start, given)
    share = {}
    if start is not None and row.start != "autoencoder":
        networks, share = replace(networks, sub=read_config(start).networks.sub), {"substrate_share": 0.0}
    often = {"validate_every": max(1, one // 3), "checkpoint_every": max(1, min(one // 9, 2000))}
    train = replace(train, steps=steps, **{**share, **often, **(row.train if small else {})})
    compared = Config().compared
    compared = replace(compared, **{name: replace(getattr(compared, name), **dict(values)) for name, values in row.compared.items()})
    method = replace(default(), **row.decisions)
    config = Config(tuple(given.contrasts), read_header(given.data).geometry, method, networks, train, row.name, compared)
    return fit(given.data, run, config, start_from=start, device="auto")


def drawn(name: str, method: str, loaded: Loaded, given: argparse.Namespace) -> Sequence[SyntheticSet]:
    """A set to learn from and one to be judged, made now unless they are there."""
    sets = []
    for purpose, partition, count in (("train", "train", given.learn), ("evaluate", "validation", given.judge)):
        folder = given.runs / "sets" / f"{name}-{partition}-{count}"
        if not (folder / "set.json").is_file():
            generate(given.data, folder, loaded, method=method, purpose=purpose, partition=partition, per_subject=count)  # type: ignore[arg-type]
        sets.append(SyntheticSet(folder))
    return sets


def cost(method: Method, given: argparse.Namespace) -> str:
    """Millions of parameters, seconds a training step of the last stage, seconds a drawn window; medians of three, processor time. Of fresh weights, which
    have their critic still: what they say costs no less."""
    slices = feed.seen_by(method, Slices(given.data, "train", contrasts=given.contrasts))
    stage = method.stages[-1]
    batch = slices.draw(0, seed=0, batch_pixels=method.config.train.batch_pixels * stage.windows, healthy=stage.healthy(1.0))
    streams = [rng.generator("cost", i) for i in range(len(batch))]
    spent: dict[str, list[float]] = {"step": [], "draw": []}
    for _ in range(3):
        begun = time.process_time()
        for player in stage.players:
            method.requires_grad_(False)
            for module in method.modules_of(player):
                module.requires_grad_(True)
            method.losses(batch, player=player, rng=streams)["loss"].backward()
        spent["step"].append(time.process_time() - begun)
        method.requires_grad_(False)
        one = slices.lesion([len(slices.windows) // 2])
        begun = time.process_time()
        with torch.inference_mode():
            method.synthesize(one, controls=Controls())
        spent["draw"].append(time.process_time() - begun)
    step, draw = (sorted(values)[1] for values in spent.values())
    shipped = parameter_count(method) - (parameter_count(method.critic) if method.critic else 0)
    return f"{shipped / 1e6:.2f} | {step:.2f} | {draw:.3f}"


def main() -> None:
    """Train, draw and judge row by row, printing each when it is known."""
    parser = judging.arguments(__doc__, learn=4, judge=20, weights=False)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--budget", choices=("small", "paper"), default="small")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--f-sub", default=None)
    parser.add_argument("--contrasts", nargs="+", default=["t1", "t1ce", "flair"])
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *CONTROLS], default=[*ROWS, *CONTROLS])
    given = parser.parse_args()
    torch.set_num_threads(given.threads or 1)
    print("method | million parameters | s a training step | s a window | gap | windows judged | " + " | ".join(REGIONS), flush=True)
    for name in given.only:
        control = name in CONTROLS
        loaded = load(find(given.f_sub)) if control else load(trained(name, given))
        costs = "- | - | -" if control else cost(build(loaded.config), given)
        found = realism.pairs(given.data, drawn(name, name if control else loaded.config.name, loaded, given), show=False)
        judged = " | ".join(str(realism.trees(found, region)[0]) for region in REGIONS)
        print(f"{name} | {costs} | {judging.gap(found):.3f} | {int(found.judged.sum() // 2)} | {judged}", flush=True)


if __name__ == "__main__":
    main()
