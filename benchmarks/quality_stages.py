"""Which stage gives a drawn lesion away: AUC of the trees where parts of the coarse form are the real lesion's own.

    python benchmarks/quality_stages.py --data slices.h5 --weights glioma [--learn 4] [--judge 20] [--threads N]

drawn            the form is drawn: what `insert` does
not held         the same, not moved to the appearance that was asked for, where the weights have one
own looks        drawn, asked for with the real lesion's own appearance
drawn means      the cells' means are drawn, their roughness is the real lesion's
drawn roughness  the other way round
real form        both are real: what is left is the last call's doing

On validation subjects, folds by subject, as benchmarks/quality_realism.py. A row a variant; lower is better, .5 is indistinguishable.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import judging
import numpy as np
import torch
from judging import Seen

from pathosyn import decomposition
from pathosyn.checkpoint import Loaded
from pathosyn.cohort.drawing import stopped_at_fluid
from pathosyn.cohort.scenes import chosen, in_batches
from pathosyn.data.slices import Slices
from pathosyn.evaluate import realism
from pathosyn.lesion import appearance
from pathosyn.types import LesionBatch

SMALLEST = 150
"""Pixels that a lesion must have for `compared`: a smaller one has hardly a pair of pixels far apart."""


class Compared(NamedTuple):
    """A row of `compared`: partition, subjects, variant and contrast in words, and the ratios."""

    of: str
    ratio: list[Any]


@torch.inference_mode()
def variants(loaded: Loaded, batch: LesionBatch) -> dict[str, np.ndarray]:
    """Composed windows (B, C, H, W) by variant."""
    method, contrasts = loaded.method, len(loaded.config.contrasts)
    parts, f, noise, real = judging.with_real_form(method, batch)
    look = method.look(batch, 0)
    own = appearance.measure(method, real, batch, parts) if method.looking else None
    drawn = method.draw_form(batch, f, noise, look=look)
    forms = {
        "drawn": (drawn, look),
        "drawn means": (torch.cat([drawn[:, :contrasts], real[:, contrasts:]], 1), look),
        "drawn roughness": (torch.cat([real[:, :contrasts], drawn[:, contrasts:]], 1), look),
        "real form": (real, own),
    }
    if method.looking:
        forms["own looks"] = (method.draw_form(batch, f, noise, look=own), own)
        config = method.config
        method.config = replace(config, method=replace(config.method, hold=False))
        forms["not held"] = (method.draw_form(batch, f, noise, look=look), look)
        method.config = config
    made = {}
    for name, (form, asked) in forms.items():
        r = method.last_call(batch, f, form, lambda k: noise(5000 + k), look=asked)
        x_hat = decomposition.heal(batch.x, f, parts.S) + parts.S * r
        made[name] = (stopped_at_fluid(loaded.method, batch, x_hat.float(), batch.m) * parts.known).numpy()
    return made


def rows(loaded: Loaded, data: Path, partition: str, count: int) -> Iterator[Seen]:
    """The real window and each variant of it."""
    slices = Slices(data, partition, contrasts=loaded.config.contrasts, every=False)
    for members in in_batches(slices, chosen(slices, count)):
        batch = slices.lesion(members)
        made = variants(loaded, batch)
        for b, row in enumerate(members):
            scene = realism.Scene.of(slices, row)
            if scene.m.sum() < realism.SMALLEST:
                continue
            for name, x in {"real": scene.x, **{name: windows[b] for name, windows in made.items()}}.items():
                yield Seen(batch.subject[b], name, realism.measured(scene, x, scene.m, scene.S > 0), partition == "validation")


def compared(given: argparse.Namespace, loaded: Loaded, names: Sequence[str], measured: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Iterator[Compared]:
    """For each partition, variant of `names` and contrast: what `measured` finds in a window x (C, H, W) with lesion m (H, W), an array that begins with C;
    drawn / real, a geometric mean over subjects of means over their windows. Lesions under `SMALLEST` pixels are left out."""
    for partition, count in (("train", given.learn), ("validation", given.judge)):
        slices = Slices(given.data, partition, contrasts=loaded.config.contrasts, every=False)
        gaps: dict[str, dict[str, list[np.ndarray]]] = {name: defaultdict(list) for name in names}
        for members in in_batches(slices, chosen(slices, count)):
            batch = slices.lesion(members)
            made = variants(loaded, batch)
            for b, subject in enumerate(batch.subject):
                m, missing = batch.m[b, 0].numpy(), ~batch.present[b].numpy()
                if (m > 0).sum() < SMALLEST:
                    continue
                real = measured(batch.x[b].numpy(), m)
                for name in names:
                    with np.errstate(divide="ignore", invalid="ignore"):
                        gap = np.log(measured(made[name][b], m) / real)
                    gap[missing] = np.nan
                    gaps[name][subject].append(gap)
        for name, subjects in gaps.items():
            means = torch.stack([torch.from_numpy(np.stack(windows)).nanmean(dim=0) for windows in subjects.values()]).nanmean(dim=0).exp()
            for contrast, ratio in zip(loaded.config.contrasts, means.tolist(), strict=True):
                yield Compared(f"{partition} | {len(subjects)} | {name} | {contrast}", ratio)


def main() -> None:
    """Print one row a variant."""
    given = judging.arguments(__doc__, learn=4, judge=20).parse_args()
    loaded = judging.ready(given)
    found = [*rows(loaded, given.data, "train", given.learn), *rows(loaded, given.data, "validation", given.judge)]
    print("variant | windows judged | " + " | ".join(judging.REGIONS))
    for name in judging.names(found):
        print(f"{name} | {judging.row(judging.pairs(found, name))}", flush=True)


if __name__ == "__main__":
    main()
