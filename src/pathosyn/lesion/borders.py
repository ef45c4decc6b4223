"""What lies between a lesion's cells and its finest detail: how strong it is, and gathered in borders, as sulci, strands and the edges of cysts are.

A network that learned from patches draws it as strong as in real lesions, but as a mottle, everywhere alike.

Pure functions of fields, as `texture` is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from pathosyn.lesion.gathering import gathered
from pathosyn.lesion.moments import QUIET
from pathosyn.lesion.texture import LEAST, box_mean
from pathosyn.types import Flags, Image, Mask

FROM_RIM = 3
"""Pixels from the outline inwards that do not count: as far the 7×7 mean sees the rise of the lesion itself."""
SMOOTHED = 2
"""Times that pixels become the mean of their like neighbours (`gathering.gathered`)."""
FACTORS = (0.5, 3.0)
"""The band is made no weaker and no stronger than so many times what it is."""
ROUNDS = 3
"""Of making it so: what is added has a mean over 3×3 pixels of its own, and beside the rim all stays, so that once is not enough."""


def middle(x: Image) -> Image:
    """x (B, C, H, W) in the band below the finest: its 3×3 mean less its 7×7 mean."""
    return box_mean(x, 1) - box_mean(x, 3)


def strength(x: Image, m: Mask) -> Tensor:
    """(B, C): RMS of `middle` on the lesion m (B, 1, H, W), `FROM_RIM` pixels and more from its outline; on all of it where that leaves fewer than `LEAST`;
    0 without a lesion."""
    return _rms(middle(x), _inside(m))


def bordered(x: Image, m: Mask, present: Flags) -> Image:
    """x (B, C, H, W) whose 3×3 mean is smoothed within its regions on the lesion m, all contrasts `present` (B, C) together, so that they share their borders.
    What is left of the band is weaker. A lesion of fewer than `LEAST` pixels stays as it is, and so does all off the lesion."""
    smooth = box_mean(x, 1)
    large = (m.sum(dim=(1, 2, 3)) >= LEAST)[:, None, None, None]
    return torch.where(large, x + (gathered(smooth, m, present, rounds=SMOOTHED) - smooth), x)


def strengthened(x: Image, m: Mask, wanted: Tensor) -> Image:
    """x (B, C, H, W) whose `strength` on the lesion m is what is `wanted` (B, C), or as near as `FACTORS` allow. A sample of which anything wanted is NaN stays
    as it is, and so does one of fewer than `LEAST` pixels; and all does off the lesion and at its outline."""
    soft = box_mean(1.0 - max_pool2d(1.0 - m, 3, stride=1, padding=1), 1) * m
    made, inside, band = x, _inside(m), middle(x)
    now = _rms(band, inside)
    asked = wanted.clamp(FACTORS[0] * now, FACTORS[1] * now)
    for _ in range(ROUNDS):
        made = made + (asked / _rms(band, inside).clamp(min=QUIET) - 1.0)[:, :, None, None] * band * soft
        band = middle(made)
    told = wanted.isfinite().all(dim=1) & (m.sum(dim=(1, 2, 3)) >= LEAST)
    return torch.where(told[:, None, None, None], made, x)


def _inside(m: Mask) -> Mask:
    """Where the strength is measured."""
    inner = 1.0 - max_pool2d(1.0 - m, 2 * FROM_RIM + 1, stride=1, padding=FROM_RIM)
    return torch.where(inner.sum(dim=(2, 3), keepdim=True) >= LEAST, inner, m)


def _rms(band: Image, where: Mask) -> Tensor:
    return ((band.square() * where).sum(dim=(2, 3)) / where.sum(dim=(2, 3)).clamp(min=1.0)).sqrt()
