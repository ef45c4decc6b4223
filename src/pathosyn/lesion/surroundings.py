"""What a scan's healthy tissue tells of the lesions in it: how bright FLAIR makes them, how much they vary, depends on scanner and protocol, and on the tissue
that they lie in.

Ridge regressions from numbers of the tissue around a lesion, and of what f_sub puts in its place, to the lesion's own numbers (`appearance.measure`), one for
each of a few sizes (local regression: Cleveland and Devlin 1988), fitted on the training windows; what they leave open is taken from a training lesion
(`looks.drawn`). A lesion of a few pixels is what lies there and a little more, a large one is not.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pathosyn.lesion import texture
from pathosyn.types import Flags, Image, Mask

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn

QUANTILES = (0.1, 0.5, 0.9, 0.97)
KNOTS = (2.5, 3.5, 4.5, 5.5, 6.5, 7.5)
"""log(pixels of lesion) of the regressions: 12 to 1,808 pixels. Between them what is told is interpolated, beyond them it is that of the last."""
NEAR = 0.5
"""Width, in log(pixels), of the kernel that says how much a training window counts in one of them."""
PENALTY = 9.6
"""Of the ridge, in units of the numbers' variance, divided by the number of subjects: five subjects tell little of how looks follow from surroundings."""
FOLDS = 8
LEFT = 0.02
"""The least spread of what is left open, in the looks' units: where all lesions are alike there is nothing to divide by."""
LEAST = 100
"""Pixels of tissue that a window must show."""


def count(contrasts: int) -> int:
    """N, the length of the numbers."""
    return (5 + len(QUANTILES)) * contrasts + contrasts * (contrasts - 1) // 2


def register(model: PathoSyn, contrasts: int, looks: int) -> None:
    """The model's buffers for all this, still empty."""
    around = count(contrasts)
    model.register_buffer("look_around_mean", torch.zeros(around))
    model.register_buffer("look_around_std", torch.zeros(around))
    model.register_buffer("look_map", torch.zeros(len(KNOTS), 1 + around, looks))
    model.register_buffer("look_left", torch.ones(len(KNOTS), looks))


def numbers(x: Image, f: Image, m: Mask, support: Mask, present: Flags) -> Tensor:
    """(B, N): mean and spread of tissue (`texture.own_detail`) by contrast, the logarithm of its grain's spread, and `QUANTILES` of all that is seen, one after
    the other, each for all contrasts; per pair of contrasts their correlation in tissue; and mean and spread of f over the lesion by contrast.

    x, f      (B, C, H, W): the scan, of which nothing is used on the support, and what f_sub puts there
    m         (B, 1, H, W): above 0 on the lesion
    support   (B, 1, H, W)
    present   (B, C): NaN for a contrast that is missing, and for all that is read off x where little of it is seen"""
    known, visible = present.to(x.device)[:, :, None, None], 1.0 - support.float()
    x = torch.where(known & (visible > 0), x.float(), 0.0)
    detail, tissue = texture.own_detail(x, visible)
    size = tissue.sum(dim=(2, 3))
    mean, std, apart = _spread(x, tissue)
    grain = ((detail.square().sum(dim=(2, 3)) / size.clamp(min=1.0)).sqrt() + 0.02).log()
    seen = torch.where(visible > 0, x, torch.nan).flatten(2)
    quantiles = torch.nanquantile(seen, torch.tensor(QUANTILES, device=x.device), dim=2).movedim(0, 1).flatten(1)
    pairs = list(combinations(range(x.shape[1]), 2))
    shared = [(apart[:, a] * apart[:, b]).sum(dim=(1, 2)) / size[:, 0].clamp(min=1.0) / (std[:, a] * std[:, b]).clamp(min=1e-6) for a, b in pairs]
    found = torch.cat([mean, std, grain, quantiles, *(each[:, None] for each in shared)], dim=1)
    there = known[:, :, 0, 0]
    usable = torch.cat([there.repeat(1, 3 + len(QUANTILES)), *(there[:, a : a + 1] & there[:, b : b + 1] for a, b in pairs)], dim=1)
    beneath = torch.cat(_spread(torch.where(known, f.float(), 0.0), (m > 0).float())[:2], dim=1)
    lies = there & (m > 0).any(dim=(1, 2, 3))[:, None]
    return torch.cat([torch.where(usable & (size >= LEAST), found, torch.nan), torch.where(lies.repeat(1, 2), beneath, torch.nan)], dim=1)


def _spread(x: Image, where: Mask) -> tuple[Tensor, Tensor, Image]:
    """Mean and standard deviation of x (B, C, H, W) over `where` (B, 1, H, W), (B, C) each, and x less its mean there, 0 elsewhere."""
    size = where.sum(dim=(2, 3)).clamp(min=1.0)
    mean = (x * where).sum(dim=(2, 3)) / size
    apart = (x - mean[:, :, None, None]) * where
    return mean, (apart.square().sum(dim=(2, 3)) / size).sqrt(), apart


def learn(model: PathoSyn, around: Tensor, looks: Tensor, known: Tensor, subjects: Tensor, areas: Tensor) -> Tensor:
    """Fit `told` and `left` on n windows: `around` (n, N), `looks` (n, K) in their units, `known` (n, K) 1 where a look is known, `subjects` (n,), `areas` (n,)
    pixels of lesion. At each size a subject weighs as much as its window nearest to it, whatever the number of its windows.

    Returns (n, K) what is told of each window by regressions that have not seen its subject: what those leave open is as large as in a new scan."""
    usable = around.isfinite()
    kept = usable.sum(dim=0).clamp(min=1)
    model.look_around_mean.copy_(around.nan_to_num(0.0).sum(dim=0) / kept)
    apart = torch.where(usable, around - model.look_around_mean, 0.0)
    model.look_around_std.copy_((apart.square().sum(dim=0) / kept).sqrt())
    rows, weights = _rows(model, around).double(), _weights(subjects, areas)
    unseen, (_, place) = torch.zeros_like(looks), subjects.unique(return_inverse=True)
    folds = min(FOLDS, int(place.max()) + 1)
    for fold in range(folds if folds > 1 else 0):
        held_out = place % folds == fold
        model.look_map.copy_(_fitted(rows, looks, known * ~held_out[:, None], weights))
        unseen[held_out] = told(model, around[held_out], areas[held_out])
    model.look_map.copy_(_fitted(rows, looks, known, weights))
    apart = (looks - unseen).double().square() * known
    model.look_left.copy_(((weights @ apart) / (weights @ known.double()).clamp(min=1e-30)).sqrt().clamp(min=LEFT))
    return unseen


def _fitted(rows: Tensor, looks: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """(knots, 1 + N, K): ridge regressions from rows (n, 1 + N), of the windows whose looks are `known` (n, K)."""
    penalty = PENALTY * torch.eye(rows.shape[1], dtype=torch.float64, device=rows.device)
    penalty[0, 0] = 1e-9  # the mean is not shrunk
    made = looks.new_zeros(len(weights), rows.shape[1], looks.shape[1])
    for knot, weight in enumerate(weights):
        for k in range(looks.shape[1]):
            w = weight * known[:, k]
            gram = (rows * (w / w.sum().clamp(min=1e-30))[:, None]).T
            # What few subjects of such a size tell is held for chance.
            made[knot, :, k] = torch.linalg.solve(gram @ rows + penalty / weight.sum().clamp(min=1.0), gram @ looks[:, k].double()).float()
    return made


def _weights(subjects: Tensor, areas: Tensor) -> Tensor:
    """(knots, n): how much a window counts at each size."""
    near = (-0.5 * ((areas.double().clamp(min=1.0).log() - areas.new_tensor(KNOTS).double()[:, None]) / NEAR) ** 2).exp().clamp(min=1e-30)
    same = (subjects[:, None] == subjects[None]).double()
    nearest = torch.stack([(same * row).amax(dim=1) for row in near])
    return near * nearest / (near @ same)


def told(model: PathoSyn, around: Tensor, areas: Tensor) -> Tensor:
    """(n, K): what `around` (n, N) says of the looks of lesions of `areas` (n,) pixels, in their units; 0, the usual, where nothing has been learned."""
    return torch.einsum("nq,nr,qrk->nk", _between(areas.to(around.device)), _rows(model, around), model.look_map.to(around.device))


def left(model: PathoSyn, areas: Tensor) -> Tensor:
    """(n, K): the spread of what is left open, in the looks' units: tiny lesions differ less from each other than large ones in some looks, more in others."""
    return _between(areas) @ model.look_left.to(areas.device)


def _between(areas: Tensor) -> Tensor:
    """(n, knots): how much of each regression a lesion of `areas` (n,) pixels takes."""
    place = (areas.float().clamp(min=1.0).log() - KNOTS[0]) / (KNOTS[1] - KNOTS[0])
    return (1.0 - (place.clamp(0.0, len(KNOTS) - 1.0)[:, None] - torch.arange(len(KNOTS), device=areas.device)).abs()).clamp(min=0.0)


def _rows(model: PathoSyn, around: Tensor) -> Tensor:
    """(n, 1 + N): 1, and the numbers in units of their spread, held within three of it; a number that is not known counts as usual."""
    mean, std = model.look_around_mean.to(around.device), model.look_around_std.to(around.device)
    values = ((around - mean) / std.clamp(min=1e-3)).clamp(-3.0, 3.0).nan_to_num(0.0)
    return torch.cat([torch.ones_like(values[:, :1]), values], dim=1)


def widened(tensors: dict[str, Tensor], contrasts: int) -> dict[str, Tensor]:
    """Tensors of weights that knew one regression and one spread for all sizes, and nothing of f, in today's shapes: the same is told."""
    if "look_map" not in tensors or tensors["look_map"].ndim == 3:
        return tensors
    more = 2 * contrasts
    one = torch.nn.functional.pad(tensors["look_map"], (0, 0, 0, more))
    wider = {name: torch.nn.functional.pad(tensors[name], (0, more)) for name in ("look_around_mean", "look_around_std")}
    return tensors | wider | {"look_map": one.expand(len(KNOTS), -1, -1).contiguous(), "look_left": torch.ones(len(KNOTS), one.shape[1])}
