"""Where the looks of a new lesion come from: measured on the training lesions and remembered in the weights; one of them chosen, and varied, at the draw.

What the scan's healthy tissue tells of them (`surroundings`) is taken from there, and only the rest from the training lesion.

Pure functions of a model and a batch's fields, as `appearance` is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pathosyn import decomposition
from pathosyn.lesion import appearance, coarse, moments, surroundings
from pathosyn.types import Flags, LesionBatch

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn

ROWS = 1024
"""Lesion windows that a weight file remembers the looks of, at the most."""
NEAR_LARGEST, NEAR_SLICE = 0.5, 0.1
"""Widths in log(area) of the kernels that choose a training lesion by its largest slice, and weigh that lesion's slices."""
NEAR_ONE = 0.99
"""Correlations are held within ± this before they become Fisher's z."""
FLOOR = 0.25
"""Is added to a standard deviation before its logarithm is taken, in units of its spread over the training lesions."""
FARTHEST = 3.0
"""No logarithm lies further from the usual, in units of its spread: a lesion of one cell has no standard deviation, and would outweigh all others."""
SMOOTH = 0.25
"""Bandwidth of the smoothed bootstrap, in units of the spread over the training lesions."""


def register(model: PathoSyn, contrasts: int) -> None:
    """The model's buffers for all this, still empty."""
    numbers, around = len(model.look_mean), surroundings.count(contrasts)
    shapes: dict[str, tuple[int, ...]] = {"looks": (ROWS, numbers), "looks_of": (ROWS, 2 + contrasts)}
    if attuned(model):
        shapes |= {"look_around_mean": (around,), "look_around_std": (around,), "look_map": (1 + around, numbers)}
    for name, shape in shapes.items():
        model.register_buffer(name, torch.zeros(shape))


def attuned(model: PathoSyn) -> bool:
    """Whether the scan's healthy tissue has a say in what a lesion looks like."""
    return model.config.method.attune and model.looking


def remembered(model: PathoSyn) -> bool:
    """Whether the training lesions' looks have been measured, all of them."""
    detail = model.look_std[len(model.look_std) - appearance.detail_count(model) :]
    parts = detail.split(appearance.detail_counts(model))
    return bool(model.looks_of.any()) and all(bool(part.any()) for part in parts if len(part))


def pixels(batch: LesionBatch) -> Tensor:
    """(B,): pixels of the lesion."""
    return (batch.m > 0).sum(dim=(1, 2, 3)).to(batch.x.device)


@torch.no_grad()
def remember(model: PathoSyn, batches: Iterable[LesionBatch]) -> dict[str, Any]:
    """Measure the appearance of at most `ROWS` training windows into the model's `looks`; their units, too, where they are not known yet. Where the method
    attunes, what the surroundings tell is learned, and `looks` holds what they leave open. Correlations, standard
    deviations, tails and strengths are stretched (`_stretch`)."""
    found: list[Tensor] = []
    origin: list[Tensor] = []
    around: list[Tensor] = []
    number: dict[str, int] = {}
    for batch in batches:
        parts = model.parts(batch)
        x_sub = model.substrate(batch.x, parts.support, parts.known) if batch.x_sub is None else batch.x_sub
        form, _ = coarse.form(model, model.to_scaled(decomposition.deviation(batch.x, x_sub, parts.support * parts.known)), batch, x_sub, parts)
        found.append(appearance.raw(model, form, batch, parts))
        around.append(surroundings.numbers(batch.x, parts.support, batch.present))
        subject = torch.tensor([number.setdefault(name, len(number)) for name in batch.subject], device=batch.x.device)
        origin.append(torch.cat([subject[:, None], pixels(batch)[:, None], batch.present], dim=1).float())
    raw, rows, beside = (torch.cat(part) for part in (found, origin, around))
    lesion = rows[:, 1] > 0  # a window of the end of a feather shows none
    raw, rows, beside = (part[lesion][:ROWS] for part in (raw, rows, beside))
    known = appearance.known(model, rows[:, 2:] > 0)
    learned = {}
    new = model.look_std == 0  # a training that goes on may know some of them
    if bool(new.any()):
        total = known.sum(dim=0).clamp(min=1.0)
        mean = (raw * known).sum(dim=0) / total
        std = ((raw - mean).square() * known).sum(dim=0).div(total).sqrt()
        model.look_mean.copy_(torch.where(new, mean, model.look_mean))
        model.look_std.copy_(torch.where(new, std, model.look_std))
        learned = {"look_mean": model.look_mean.tolist(), "look_std": model.look_std.tolist()}
    model.looks.zero_()
    model.looks_of.zero_()
    looks = natural(model, (raw - model.look_mean) / model.look_std.clamp(min=1e-3)) * known
    told = torch.zeros_like(looks)
    if attuned(model):
        surroundings.learn(model, beside, looks, known, rows[:, 0])
        told = surroundings.told(model, beside)
    _, _, correlations, spreads = _kinds(model)
    # Not the means: as far as they follow the scan they would leave it.
    stretch = torch.where(correlations | spreads, _stretch(looks, told, known, rows), 1.0)
    model.looks[: len(raw)] = (looks - told) * known * stretch
    model.looks_of[: len(rows)] = rows
    return learned


def _stretch(looks: Tensor, told: Tensor, known: Tensor, rows: Tensor) -> Tensor:
    """(K,): the factor with which what is left open, drawn apart from what is told, makes looks as varied as the training lesions' (n, K) are; 1 where nothing
    is left open.

    Var(told) + factor² Var(left) = Var(looks), each subject with the same weight. Told and left go together over the training lesions, as after every
    shrunk regression, and apart at the draw; and the mean over a lesion's slices varies less than they do: without it a fifth of the spread was lost."""
    left = (looks - told) * known
    same = rows[:, :1] == rows[None, :, 0]
    near = torch.where(same, -0.5 * ((rows[:, 1:2].log() - rows[None, :, 1].log()) / NEAR_SLICE) ** 2, -torch.inf).softmax(dim=1)
    weight = known / same.sum(dim=1, keepdim=True)

    def variance(values: Tensor) -> Tensor:
        total = weight.sum(dim=0).clamp(min=1e-9)
        mean = (weight * values).sum(dim=0) / total
        return (weight * (values - mean).square()).sum(dim=0) / total

    smooth = SMOOTH**2 * left.var(dim=0, correction=0)
    drawn = (variance(near @ left) + smooth) / (1.0 + SMOOTH**2)
    wanted = (variance(looks) - variance(told)).clamp(min=0.0)
    return torch.where(drawn > 1e-9, (wanted / drawn.clamp(min=1e-9)).sqrt(), 1.0)


def natural(model: PathoSyn, look: Tensor) -> Tensor:
    """Looks (n, K) as they are averaged and varied, 0 and of unit slope at the mean: correlations as Fisher's z, standard deviations and how sparse detail is
    as logarithms. Left as they are, a mean loses what is near 1, or many times the usual, and a draw goes beyond what can be. Unchanged where the method says
    so."""
    mean, std, correlations, spreads = _kinds(model)
    there = look * std + mean
    z = (there.clamp(-NEAR_ONE, NEAR_ONE).atanh() - mean.atanh()) * (1.0 - mean.square())
    floor = FLOOR * std
    log = ((there.clamp(min=0.0) + floor) / (mean + floor)).log() * (mean + floor)
    return torch.where(correlations, z / std, torch.where(spreads, (log / std).clamp(-FARTHEST, FARTHEST), look))


def plain(model: PathoSyn, look: Tensor) -> Tensor:
    """The inverse of `natural`, (n, K)."""
    mean, std, correlations, spreads = _kinds(model)
    correlation = (mean.atanh() + look * std / (1.0 - mean.square())).tanh()
    floor = FLOOR * std
    spread = ((look.clamp(-FARTHEST, FARTHEST) * std / (mean + floor)).exp() * (mean + floor) - floor).clamp(min=0.0)
    return torch.where(correlations, (correlation - mean) / std, torch.where(spreads, (spread - mean) / std, look))


def _kinds(model: PathoSyn) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and spread of the looks, (K,), and which of them are correlations and which go as standard deviations do, as far as the method changes
    these. A mean is held where its kind can be."""
    contrasts, method = len(model.config.contrasts), model.config.method
    each = (2 if model.rough else 1) * contrasts
    number = torch.arange(len(model.look_mean), device=model.look_mean.device)
    first = appearance.count(contrasts, rough=model.rough) - len(moments.pairs(contrasts))
    positive = number >= len(number) - appearance.tails_count(model) - appearance.borders_count(model)  # not below 0 either
    correlations = (number >= first) & ~positive & method.fisher_z
    spreads = ((number >= each) & (number < 2 * each) | positive) & method.log_spreads
    mean = torch.where(correlations, model.look_mean.clamp(-NEAR_ONE, NEAR_ONE), torch.where(spreads, model.look_mean.clamp(min=0.0), model.look_mean))
    return mean, model.look_std.clamp(min=1e-3), correlations, spreads


def drawn(model: PathoSyn, areas: Tensor, present: Flags, around: Tensor | None, stream: torch.Generator) -> Tensor | None:
    """(n, K): the appearance of a new lesion in its n windows with `areas` (n,) pixels of lesion each, `present` (C,), in a scan with the surroundings
    `around` (N,), where the method asks for them; None where no appearance is known.

    One training lesion that has the contrasts is chosen, the likelier the nearer its largest slice is in area; each window takes the mean over that lesion's
    slices, weighed by how near they are in area; and the whole is moved a little, the same for all windows (a smoothed bootstrap: Silverman and Young 1987)."""
    looks, of = model.looks.cpu(), model.looks_of.cpu()
    looks, of = looks[of[:, 1] > 0], of[of[:, 1] > 0]
    if not len(of):
        return None
    there = present.cpu().float()
    lacking = (there - of[:, 2:]).clamp(min=0).sum(dim=1)
    looks, of = looks[lacking == lacking.min()], of[lacking == lacking.min()]
    areas, log_area = areas.cpu().float().clamp(min=1.0).log(), of[:, 1].log()
    subjects, place = of[:, 0].unique(return_inverse=True)
    largest = torch.zeros(len(subjects)).scatter_reduce(0, place, log_area, "amax", include_self=False)
    # A Gumbel variate for each subject of the training: windows of one scan that are drawn apart then mostly take the same.
    gumbel = -(-torch.rand(int(of[:, 0].max()) + 1, generator=stream, dtype=torch.float64).clamp(min=1e-12).log()).log()
    score = -0.5 * ((areas.max() - largest) / NEAR_LARGEST) ** 2 + gumbel[subjects.long()]
    mine = of[:, 0] == subjects[score.argmax()]
    weight = (-0.5 * ((areas[:, None] - log_area[mine][None]) / NEAR_SLICE) ** 2).softmax(dim=1)
    moved = (weight @ looks[mine] + SMOOTH * looks.std(dim=0, correction=0) * torch.randn(looks.shape[1], generator=stream)) / (1.0 + SMOOTH**2) ** 0.5
    if attuned(model) and around is not None:
        moved = moved + surroundings.told(model, around[None].to(model.looks.device)).cpu()
    return plain(model, moved.to(model.looks.device)) * appearance.known(model, present[None]).to(model.looks.device)
