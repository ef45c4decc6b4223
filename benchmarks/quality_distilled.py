"""A distilled sampler: the network of forms taught to draw in one call what it draws in several, and whether the trees mind.

    python benchmarks/quality_distilled.py --data slices.h5 --out student.safetensors [--weights glioma] [--steps 1000] [--learn 4] [--judge 24] [--seeds 0 1 2]

Teacher and student begin as the network of the weights. A step draws training windows as the stage `structure` does (`training/feed.py`), lets the teacher
draw a form from noise by the weights' own solver and calls, told the looks of the window's lesion, and has the student put out that form in one call from
the same noise (Luhman and Luhman 2021); the loss is the mean squared difference over the cells of the support. AdamW, cosine, running average, as everywhere.
Every hundred steps the loss is printed, beside that of the teacher's own one call (`untaught`). An --out that is there is not trained again. Then windows are
drawn as in quality_realism.py by the teacher as it ships, by the teacher in one call, and by the student in one call, and the trees are asked. Rows of a seed
start from the same noise.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import judging
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pathosyn import decomposition, rng
from pathosyn.checkpoint import Loaded, load, save_weights
from pathosyn.evaluate import realism
from pathosyn.lesion import appearance, coarse
from pathosyn.losses import masked_mean
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.optim import averaging, learning_rate
from pathosyn.training import feed
from pathosyn.types import LesionBatch

LOG_EVERY = 100


def apart(student: PathoSyn, teacher: PathoSyn, batch: LesionBatch, streams: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
    """Mean squared differences from the teacher's form, in units of the form, of the student's one call and of the teacher's own."""
    parts = teacher.parts(batch)
    x_sub = teacher.given(batch, parts, learns=False)
    with torch.no_grad():
        real, there = coarse.form(teacher, teacher.to_scaled(decomposition.deviation(batch.x, x_sub, parts.support * parts.known)), batch, x_sub, parts)
        look = appearance.taught(appearance.measure(teacher, real, batch, parts), streams) if teacher.looking else None
        seen, noise = teacher.condition_form(batch, x_sub, parts, look), rng.normal(streams, tuple(real.shape[1:]))
        wanted = teacher.sample_form(seen, parts, lambda _: noise)
    counts = there * parts.known.repeat(1, real.shape[1] // batch.x.shape[1], 1, 1)

    def once(model: PathoSyn) -> Tensor:
        return masked_mean((model.sample_form(seen, parts, lambda _: noise, steps=1) - wanted).square(), counts)

    with torch.no_grad():
        untaught = once(teacher)
    return once(student), untaught


def taught(loaded: Loaded, given: argparse.Namespace) -> None:
    """Write the student to --out."""
    teacher = loaded.method
    student = copy.deepcopy(teacher).requires_grad_(False)
    assert student.coarse is not None
    student.coarse.requires_grad_(True)
    settings = replace(teacher.config.train, steps=given.steps, batch_pixels=given.batch_pixels, lr=given.lr, lr_warmup=50, seed=given.seed, ema=0.99)
    slices = feed.filled(teacher, feed.training_slices(given.data, teacher.config), Fabric(accelerator="cpu", devices=1))
    stage = next(stage for stage in teacher.stages if stage.name == "structure")
    optimizer = torch.optim.AdamW(student.coarse.parameters(), lr=given.lr, weight_decay=settings.weight_decay, fused=True)
    average, sums = AveragedModel(student.coarse, multi_avg_fn=averaging(settings.ema)), []
    print("step | one call of the student | untaught", flush=True)
    begun = time.perf_counter()
    for turn in feed.batches(slices, stage, settings, 0, 0, given.steps, rank=0, world=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(turn.step, given.steps, settings)
        loss, untaught = apart(student, teacher, turn.batch, [rng.generator(given.seed, "distil", turn.step, i) for i in turn.samples])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.coarse.parameters(), settings.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(student.coarse)
        sums.append((loss.item(), untaught.item()))
        if len(sums) == LOG_EVERY:
            print(turn.step + 1, *(f"{value:.4f}" for value in np.mean(sums, axis=0)), sep=" | ", flush=True)
            sums.clear()
    print(f"{given.steps} steps: {time.perf_counter() - begun:.0f} s", flush=True)
    student.coarse.load_state_dict(average.module.state_dict())
    student.config = replace(student.config, method=replace(student.config.method, steps=1))
    save_weights(given.out, student, replace(loaded.provenance, steps=loaded.provenance.steps + given.steps, parent=loaded.sha256))


def main() -> None:
    """Train unless it is done, then a row a way to draw and seed."""
    parser = judging.arguments(__doc__, learn=4, judge=24)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-pixels", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the draws")
    given = parser.parse_args()
    loaded = judging.ready(given)
    if not given.out.is_file():
        taught(loaded, given)
    once = load(loaded.path)
    once.method.config = replace(once.config, method=replace(once.config.method, steps=1))
    print("draw | seed | gap | windows judged | " + " | ".join(judging.REGIONS), flush=True)
    for name, weights in ((f"as shipped, {loaded.config.method.steps} calls", loaded), ("one call", once), ("distilled, one call", load(given.out))):
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as folder:
                found = realism.pairs(given.data, judging.drawn(given.data, weights, Path(folder), learn=given.learn, judge=given.judge, seed=seed), show=False)
            print(f"{name} | {seed} | {judging.gap(found):.3f} | {judging.row(found)}", flush=True)


if __name__ == "__main__":
    main()
