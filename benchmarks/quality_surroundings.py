"""What do a scan's healthy tissue, and what f_sub puts in a lesion's place, tell of the lesion?

    python benchmarks/quality_surroundings.py --data slices.h5 [--weights glioma] [--folds 8]

For each kind of number of a lesion's looks (`pathosyn.lesion.appearance`) the share of its variance that `surroundings.told` leaves open, each subject with
the same weight: 1 is no better than the training lesions' mean, below it something is told. On training subjects that the regressions have not seen (folds
by subject) by size of lesion, and on validation subjects; as it is done, and with one regression for all sizes, without f, and without both. Windows that
differ less from each other than chance makes a prediction err have shares above 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pathosyn.checkpoint import load
from pathosyn.data.slices import Slices
from pathosyn.lesion import looks, surroundings
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.training import feed
from pathosyn.weights import find

SMALL, MIDDLE = 80, 400
"""Pixels of lesion."""
ONE_SIZE = ((4.5, 5.5), 1e3)
"""Knots and width of the kernel that make one regression."""


@dataclass(frozen=True)
class Lesions:
    """Looks (n, K), which are known (n, K), what is around (n, N), subject and pixels (n,)."""

    looks: Tensor
    known: Tensor
    around: Tensor
    subjects: Tensor
    areas: Tensor

    def those(self, which: Tensor) -> Lesions:
        """Some of them."""
        return Lesions(*(part[which] for part in vars(self).values()))


def lesions(method: PathoSyn, data: Path, partition: str) -> Lesions:
    """Of a partition."""
    slices = feed.seen_by(method, Slices(data, partition, contrasts=method.config.contrasts))
    found = looks.measured(method, (slices.lesion([w]) for w in range(len(slices.windows))))
    return Lesions(looks.in_units(method, found), found.known, found.around, found.rows[:, 0].long(), found.rows[:, 1])


def told(method: PathoSyn, learn: Lesions, judge: Lesions) -> Tensor:
    """(n, K): what the regressions of the ones tell of the others."""
    surroundings.learn(method, learn.around, learn.looks, learn.known, learn.subjects, learn.areas)
    return surroundings.told(method, judge.around, judge.areas)


def left(some: Lesions, told_of: Tensor) -> Tensor:
    """(K,): the share of the variance that is left open."""
    weight = some.known / (some.subjects[:, None] == some.subjects).sum(dim=1, keepdim=True)
    mean = (weight * some.looks).sum(dim=0) / weight.sum(dim=0).clamp(min=1e-9)
    return (weight * (some.looks - told_of).square()).sum(dim=0) / (weight * (some.looks - mean).square()).sum(dim=0).clamp(min=1e-9)


def kinds(contrasts: int, *, rough: bool) -> dict[str, slice]:
    """Where each kind of look lies (`appearance.measure`)."""
    sizes = {"mean": contrasts, "roughness": contrasts if rough else 0, "spread": contrasts, "roughness's spread": contrasts if rough else 0}
    sizes |= {"third moment": contrasts, "edge": contrasts, "correlation": contrasts * (contrasts - 1) // 2, "shared detail": contrasts * (contrasts - 1) // 2}
    sizes["tails"] = contrasts
    found, start = {}, 0
    for kind, size in sizes.items():
        if size:
            found[kind] = slice(start, start + size)
        start += size
    return found


@contextmanager
def one_size() -> Iterator[None]:
    """One regression for all."""
    before = surroundings.KNOTS, surroundings.NEAR
    surroundings.KNOTS, surroundings.NEAR = ONE_SIZE  # type: ignore[assignment]
    yield
    surroundings.KNOTS, surroundings.NEAR = before


def report(name: str, method: PathoSyn, train: Lesions, validation: Lesions, folds: int) -> None:
    """A row: kinds of looks, by the lesions that are judged."""
    held_out = torch.zeros_like(train.looks)
    for fold in range(folds):
        judged = train.subjects % folds == fold
        held_out[judged] = told(method, train.those(~judged), train.those(judged))
    sizes = {"all": train.areas > 0, "small": train.areas < SMALL, "middle": (train.areas >= SMALL) & (train.areas < MIDDLE), "large": train.areas >= MIDDLE}
    shares = {size: left(train.those(which), held_out[which]) for size, which in sizes.items()}
    shares["validation"] = left(validation, told(method, train, validation))
    for kind, where in kinds(len(method.config.contrasts), rough=method.rough).items():
        print(f"{name} | {kind} | " + " | ".join(f"{float(share[where].mean()):.2f}" for share in shares.values()), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--folds", type=int, default=8)
    given = parser.parse_args()
    method = load(find(given.weights)).method
    contrasts = len(method.config.contrasts)
    train, validation = (lesions(method, given.data, partition) for partition in ("train", "validation"))

    def without_f(some: Lesions) -> Lesions:
        around = some.around.clone()
        around[:, -2 * contrasts :] = torch.nan
        return Lesions(some.looks, some.known, around, some.subjects, some.areas)

    def alike(some: Lesions) -> Lesions:
        return some

    counts = [int((train.areas < SMALL).sum()), int(((train.areas >= SMALL) & (train.areas < MIDDLE)).sum()), int((train.areas >= MIDDLE).sum())]
    print(f"windows: {counts[0]} small (below {SMALL} pixels), {counts[1]} middle, {counts[2]} large (from {MIDDLE}), {len(validation.looks)} validation")
    print("regressions | looks | all | small | middle | large | validation")
    for name, change in (("as they are", alike), ("without f", without_f)):
        report(name, method, change(train), change(validation), given.folds)
    one = load(find(given.weights)).method
    with one_size():
        one.look_map, one.look_left = one.look_map[:2].clone(), one.look_left[:2].clone()
        for name, change in (("one for all sizes", alike), ("one for all sizes, without f", without_f)):
            report(name, one, change(train), change(validation), given.folds)


if __name__ == "__main__":
    main()
