"""Steps of a drawn form gathered in borders, as around a cyst or a core, where noise spreads them evenly.

A network that has seen a few dozen subjects draws large lesions mottled: their cells differ as much as a real lesion's, but everywhere alike. Smoothing that
keeps borders (the bilateral filter: Tomasi and Manduchi 1998) makes regions of the mottle. How much the cells differ altogether is put right afterwards, by
`appearance.held`; the texture within a region is the last call's.

Pure functions of fields (B, C, h, w) of cells, or of pixels (`borders`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import unfold

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
_KERNEL = (0.7, 1.0, 0.7, 1.0, 1.0, 1.0, 0.7, 1.0, 0.7)


def gathered(form: Image, share: Mask, present: Flags, *, rounds: int = ROUNDS) -> Image:
    """The form's means smoothed within their regions: `rounds` times each cell of the lesion becomes the mean of the 3×3 around it, weighted by how alike they
    are in the contrasts that are there, all of them together, so that they share their borders, and in how much lesion they hold, so that the rim is even
    along itself. Roughness stays as it was drawn: smoothed, and spread again by `held`, it piles up at the rim.

    form      (B, C or 2C, h, w): the contrasts' means come first
    share     (B, 1, h, w): how much of each cell is lesion; cells under `TOUCHED` neither count nor move
    present   (B, C): the contrasts that are there"""
    touched = (share >= TOUCHED).to(form.dtype)
    there = present.to(form.device, form.dtype)[:, :, None, None, None]
    contrasts = there.shape[1]
    unit = rms_step(form[:, :contrasts], (share >= LESION).to(form.dtype)).clamp(min=1e-3)[:, :, None, None, None]
    kernel = _around(touched) * torch.tensor(_KERNEL, device=form.device, dtype=form.dtype).view(1, 1, 9, 1, 1)
    kernel = kernel * torch.exp(-0.5 * ((_around(share) - share[:, :, None]) / ALIKE).square())
    means, rough = form[:, :contrasts], form[:, contrasts:]
    for _ in range(rounds):
        near = _around(means)
        apart = (((near - means[:, :, None]) / unit).square() * there).sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1.0)
        weight = kernel * torch.exp(-0.5 * apart / WIDTH**2)
        # A cell of the lesion is its own neighbour, so the weights of none add up to 0.
        means = torch.where(touched > 0, (weight * near).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6), means)
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


def _around(field: Image) -> Tensor:
    """(B, C, 9, h, w): the 3×3 around each cell, row by row; 0 beyond the field."""
    count, channels, height, width = field.shape
    return unfold(field, 3, padding=1).view(count, channels, 9, height, width)
