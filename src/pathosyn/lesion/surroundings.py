"""What a scan's healthy tissue tells of the lesions in it: how bright FLAIR makes them, how much they vary, depends on scanner and protocol.

A ridge regression from numbers of the tissue around a lesion to the lesion's own (`appearance.measure`), fitted on the training windows; what it leaves open
is taken from a training lesion (`looks.drawn`).
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
PENALTY = 9.6
"""Of the ridge, in units of the numbers' variance, divided by the number of subjects: five subjects tell little of how looks follow from surroundings."""
LEAST = 100
"""Pixels of tissue that a window must show."""


def count(contrasts: int) -> int:
    """N, the length of the numbers."""
    return (3 + len(QUANTILES)) * contrasts + contrasts * (contrasts - 1) // 2


def numbers(x: Image, support: Mask, present: Flags) -> Tensor:
    """(B, N): mean and spread of tissue (`texture.own_detail`) by contrast, the logarithm of its grain's spread, and `QUANTILES` of all that is seen, one after
    the other, each for all contrasts; per pair of contrasts their correlation in tissue.

    Nothing of x (B, C, H, W) on the support is used; NaN for a contrast that is missing, or little seen."""
    known, visible = present.to(x.device)[:, :, None, None], 1.0 - support.float()
    x = torch.where(known & (visible > 0), x.float(), 0.0)
    detail, tissue = texture.own_detail(x, visible)
    size = tissue.sum(dim=(2, 3)).clamp(min=1.0)
    mean = (x * tissue).sum(dim=(2, 3)) / size
    apart = (x - mean[:, :, None, None]) * tissue
    std = (apart.square().sum(dim=(2, 3)) / size).sqrt()
    grain = ((detail.square().sum(dim=(2, 3)) / size).sqrt() + 0.02).log()
    seen = torch.where(visible > 0, x, torch.nan).flatten(2)
    quantiles = torch.nanquantile(seen, torch.tensor(QUANTILES, device=x.device), dim=2).movedim(0, 1).flatten(1)
    pairs = list(combinations(range(x.shape[1]), 2))
    shared = [(apart[:, a] * apart[:, b]).sum(dim=(1, 2)) / size[:, 0] / (std[:, a] * std[:, b]).clamp(min=1e-6) for a, b in pairs]
    found = torch.cat([mean, std, grain, quantiles, *(each[:, None] for each in shared)], dim=1)
    there = known[:, :, 0, 0]
    usable = torch.cat([there.repeat(1, 3 + len(QUANTILES)), *(there[:, a : a + 1] & there[:, b : b + 1] for a, b in pairs)], dim=1)
    return torch.where(usable & (size >= LEAST), found, torch.nan)


def learn(model: PathoSyn, around: Tensor, looks: Tensor, known: Tensor, subjects: Tensor) -> None:
    """Fit `told` on n windows: `around` (n, N), `looks` (n, K) in their units, `known` (n, K) 1 where a look is known, `subjects` (n,). Each subject weighs
    the same."""
    usable = around.isfinite()
    kept = usable.sum(dim=0).clamp(min=1)
    model.look_around_mean.copy_(around.nan_to_num(0.0).sum(dim=0) / kept)
    apart = torch.where(usable, around - model.look_around_mean, 0.0)
    model.look_around_std.copy_((apart.square().sum(dim=0) / kept).sqrt())
    rows = _rows(model, around).double()
    _, where, many = subjects.unique(return_inverse=True, return_counts=True)
    weight = 1.0 / many[where].double()
    penalty = PENALTY / len(many) * torch.eye(rows.shape[1], dtype=torch.float64, device=rows.device)
    penalty[0, 0] = 1e-9  # the mean is not shrunk
    for k in range(looks.shape[1]):
        w = weight * known[:, k]
        w = w / w.sum().clamp(min=1e-9)
        model.look_map[:, k] = torch.linalg.solve((rows * w[:, None]).T @ rows + penalty, (rows * w[:, None]).T @ looks[:, k].double()).float()


def told(model: PathoSyn, around: Tensor) -> Tensor:
    """(n, K): what `around` (n, N) says of the looks, in their units; 0, the usual, where nothing has been learned."""
    return _rows(model, around) @ model.look_map.to(around.device)


def _rows(model: PathoSyn, around: Tensor) -> Tensor:
    """(n, 1 + N): 1, and the numbers in units of their spread, held within three of it; a number that is not known counts as usual."""
    mean, std = model.look_around_mean.to(around.device), model.look_around_std.to(around.device)
    values = ((around - mean) / std.clamp(min=1e-3)).clamp(-3.0, 3.0).nan_to_num(0.0)
    return torch.cat([torch.ones_like(values[:, :1]), values], dim=1)
