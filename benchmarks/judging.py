"""What the benchmarks that ask the trees share: their arguments, and a row of AUCs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pathosyn import decomposition, rng
from pathosyn.checkpoint import Loaded, load
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.evaluate import realism
from pathosyn.framework.base import Parts
from pathosyn.generate import generate
from pathosyn.lesion import coarse
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Image, LesionBatch
from pathosyn.weights import find

REGIONS = ("lesion", "lesion, intensity", "lesion, texture", "lesion, rim")


class Seen(NamedTuple):
    """One window as the trees see it: `name` is "real", or what was drawn."""

    subject: str
    name: str
    features: dict[str, float]
    judged: bool


def arguments(doc: str | None, *, learn: int, judge: int, weights: bool = True) -> argparse.ArgumentParser:
    """--data, --weights where there are some, --learn, --judge and --threads."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    if weights:
        parser.add_argument("--weights", default=None)
    parser.add_argument("--learn", type=int, default=learn)
    parser.add_argument("--judge", type=int, default=judge)
    parser.add_argument("--threads", type=int, default=0)
    return parser


def ready(given: argparse.Namespace) -> Loaded:
    """The weights that are asked for, on as many threads."""
    if given.threads:
        torch.set_num_threads(given.threads)
    return load(find(given.weights))


def with_real_form(method: PathoSyn, batch: LesionBatch) -> tuple[Parts, Image, Callable[[int], Image], Image]:
    """What a form is drawn from, outside `synthesize`: the parts, f, the k-th noise field (seed 0, the same each time it is asked for); and the real form."""
    parts, f = method.parts(batch), method.fill(batch)
    streams = [rng.generator(0, s, z) for s, z in zip(batch.subject, batch.z, strict=True)]
    fields: dict[int, Image] = {}

    def noise(k: int) -> Image:
        return fields.setdefault(k, rng.normal(streams, tuple(batch.x.shape[1:])))

    r0 = method.to_scaled(decomposition.deviation(batch.x, f, parts.support * parts.known))
    return parts, f, noise, coarse.form(method, r0, batch, f, parts)[0]


def drawn(data: Path, loaded: Loaded, folder: Path, *, learn: int, judge: int, seed: int = 0, steps: int | None = None) -> list[SyntheticSet]:
    """What the trees learn from and are judged on: a set on `learn` windows of each training subject, one on `judge` of each validation subject. `steps` as in
    `generate`."""
    sets = []
    for purpose, partition, count in (("train", "train", learn), ("evaluate", "validation", judge)):
        out = folder / partition
        generate(data, out, loaded, purpose=purpose, partition=partition, per_subject=count, seed=seed, steps=steps, progress=False)  # type: ignore[arg-type]
        sets.append(SyntheticSet(out))
    return sets


def names(found: Sequence[Seen]) -> list[str]:
    """What was drawn, in order."""
    return [name for name in dict.fromkeys(row.name for row in found) if name != "real"]


def pairs(found: Sequence[Seen], name: str) -> realism.Pairs:
    """The real windows and those of `name`."""
    some = [row for row in found if row.name in ("real", name)]
    return realism.Pairs(
        pd.DataFrame([row.features for row in some]),
        np.array([row.subject for row in some]),
        np.array([row.judged for row in some]),
        np.array([row.name == name for row in some]),
    )


def row(found: realism.Pairs) -> str:
    """Windows judged, then the AUC in each of `REGIONS`."""
    return " | ".join([str(int(found.judged.sum() // 2)), *(str(realism.trees(found, region)[0]) for region in REGIONS)])


def gap(found: realism.Pairs) -> float:
    """How far drawn lesions lie from the real ones they stand for: the mean over the trees' lesion features of |drawn - real|, in units of the real lesions'
    spread, the difference being the mean over the judged subjects. Where every judge tells all of them (AUC near 1) this one still has a scale. It holds the
    chance of these subjects and this seed, so it is not 0 for a method that is right on the average: compare it with that of another seed."""
    names = [name for name in found.table if str(name).startswith(realism.REGIONS["lesion"])]
    values, fake = found.table[names].to_numpy(float)[found.judged], found.fake[found.judged]
    subjects = found.subjects[found.judged][fake]
    spread = np.nanstd(values[~fake], axis=0)
    apart = (values[fake] - values[~fake])[:, spread > 0] / spread[spread > 0]  # real and drawn windows are listed in turn
    members = [apart[subjects == one] for one in np.unique(subjects)]
    per = np.stack([np.nansum(each, axis=0) / np.isfinite(each).sum(axis=0).clip(1) for each in members])
    known = np.stack([np.isfinite(each).any(axis=0) for each in members])
    return float(np.abs((per * known).sum(axis=0) / known.sum(axis=0).clip(1))[known.any(axis=0)].mean())
