"""Steps of a drawn form gathered in borders, as around a cyst or a core, where noise spreads them evenly.

A network that has seen a few dozen subjects draws large lesions mottled: their cells differ as much as a real lesion's, but everywhere alike. Smoothing that
keeps borders (the bilateral filter: Tomasi and Manduchi 1998) makes regions of the mottle. How much the cells differ altogether is put right afterwards, by
`appearance.held`; the texture within a region is the last call's.

Pure functions of fields (B, C, h, w) of cells, or of pixels (`borders`).
"""

from __future__ import annotations

from types import EllipsisType

import torch
from torch import Tensor

from pathosyn.types import Flags, Image, Mask

LESION = 0.5
"""Share of a cell that must be lesion for its steps to count in the unit of the filter."""
TOUCHED = 0.02
"""And for it to move."""
ALIKE = 0.15
"""Width of the kernel over that share: a cell at the rim holds what lies around the lesion, too, and is compared with cells that hold as much of it."""
WIDTH = 0.7
"""Of the filter's kernel over values, in root-mean-square steps between neighbouring cells."""
ROUNDS = 3
_BESIDE = ((0, 1, 1.0), (1, 0, 1.0), (1, 1, 0.7), (1, -1, 0.7))
"""Down, across and the weight of each pair of neighbours, once: how alike two cells are is the same both ways."""


def gathered(form: Image, share: Mask, present: Flags, *, rounds: int = ROUNDS) -> Image:
    """The form's means smoothed within their regions: `rounds` times each cell of the lesion becomes the mean of the 3×3 around it, weighted by how alike they
    are in the contrasts that are there, all of them together, so that they share their borders, and in how much lesion they hold, so that the rim is even
    along itself. Roughness stays as it was drawn: smoothed, and spread again by `held`, it piles up at the rim.

    form      (B, C or 2C, h, w): the contrasts' means come first
    share     (B, 1, h, w): how much of each cell is lesion; cells under `TOUCHED` neither count nor move
    present   (B, C): the contrasts that are there"""
    touched = (share >= TOUCHED).to(form.dtype)
    there = present.to(form.device, form.dtype)[:, :, None, None]
    contrasts = there.shape[1]
    means, rough = form[:, :contrasts], form[:, contrasts:]
    unit = rms_step(means, (share >= LESION).to(form.dtype)).clamp(min=1e-3)[:, :, None, None]
    # So scaled, the squares of a difference add up to their mean over the contrasts that are there, in the unit of the kernel.
    scale = there / (unit * WIDTH * there.sum(dim=1, keepdim=True).clamp(min=1.0).sqrt())
    pairs = []
    for down, across, near in _BESIDE:
        p, q = _ends(down, across, *form.shape[2:])
        pairs.append((p, q, near * touched[p] * touched[q] * torch.exp(-0.5 * ((share[p] - share[q]) / ALIKE).square())))
    for _ in range(rounds):
        scaled = means * scale
        total, weight = means * touched, touched.clone()  # a cell of the lesion is its own neighbour, so the weights of none add up to 0
        for p, q, kernel in pairs:
            alike = kernel * torch.exp(-0.5 * (scaled[p] - scaled[q]).square().sum(dim=1, keepdim=True))
            total[p] += alike * means[q]
            total[q] += alike * means[p]
            weight[p] += alike
            weight[q] += alike
        means = torch.where(touched > 0, total / weight.clamp(min=1e-6), means)
    return torch.cat([means, rough], dim=1)


def rms_step(form: Image, inside: Mask) -> Tensor:
    """(B, C): root mean square of the difference between neighbouring cells that are both `inside`; 0 where there are no two."""
    square, pairs = form.new_zeros(form.shape[:2]), form.new_zeros(form.shape[0], 1)
    for dim in (2, 3):
        n = form.shape[dim] - 1
        both = inside.narrow(dim, 1, n) * inside.narrow(dim, 0, n)
        square = square + ((form.narrow(dim, 1, n) - form.narrow(dim, 0, n)).square() * both).sum(dim=(2, 3))
        pairs = pairs + both.sum(dim=(2, 3))
    return (square / pairs.clamp(min=1.0)).sqrt()


Places = tuple[EllipsisType, slice, slice]


def _ends(down: int, across: int, height: int, width: int) -> tuple[Places, Places]:
    """The places of all pairs of cells that lie `down` rows and `across` columns apart."""
    left, right = max(0, -across), max(0, across)
    return (..., slice(0, height - down), slice(left, width - right)), (..., slice(down, height), slice(right, width - left))
