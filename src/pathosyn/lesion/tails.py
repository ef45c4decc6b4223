"""How sparse a lesion's fine detail is, few edges in quiet tissue or grain all over, and detail made as sparse as is asked.

Pure functions of fields, as `texture` is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pathosyn.lesion import moments
from pathosyn.lesion.texture import LEAST
from pathosyn.types import Image, Mask

UNIFORM = 1.8
"""Kurtosis of uniform noise; hardly any detail has less."""
POWERS = (0.5, 2.0)
"""Detail is raised to no lower and no higher power to make it less or more sparse: beyond, single pixels are all that is left of it."""
HALVINGS = 10
"""Of that interval, until the power is known to a thousandth."""


def sparseness(detail: Image, where: Mask) -> Tensor:
    """(B, C): the logarithm of the kurtosis of `detail` (B, C, H, W) on `where` (B, 1, H, W) beside that of uniform noise: log(3 / 1.8) = .51 for normal noise,
    more where few pixels hold most of it. Not below 0, and 0 without detail."""
    return _log_kurtosis(detail, where).clamp(min=0.0)


def sparser(detail: Image, where: Mask, wanted: Tensor) -> Image:
    """`detail` (B, C, H, W) on `where` (B, 1, H, W) raised to the power, sign by sign, with which its `sparseness` there is what is `wanted` (B, C) or nearest
    to it; as strong as before. Found by halving within `POWERS`: the sparseness of detail, whose mean is about 0, grows with the power. A field whose
    `wanted` is NaN stays as it is, and so does one of fewer than `LEAST` pixels; and off `where` all does."""
    pixels, there = _gathered(detail, where)  # a window has several times as many
    size = there.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
    strength = ((pixels.square() * there).sum(dim=(2, 3), keepdim=True) / size).sqrt()
    unit = strength.clamp(min=moments.QUIET)
    low, high = (torch.full_like(wanted, bound) for bound in POWERS)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        less = _log_kurtosis(_raised(pixels / unit, middle), there) < wanted
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    power = (low + high) / 2
    now = ((_raised(pixels / unit, power).square() * there).sum(dim=(2, 3), keepdim=True) / size).sqrt()
    told = (wanted.isfinite() & (where.sum(dim=(2, 3)) >= LEAST))[:, :, None, None] & (strength > moments.QUIET) & (where > 0)
    return torch.where(told, _raised(detail / unit, power) * strength / now.clamp(min=moments.QUIET), detail)


def _log_kurtosis(detail: Image, where: Mask) -> Tensor:
    """`sparseness` below 0, too."""
    size = where.sum(dim=(2, 3)).clamp(min=1.0)
    apart = (detail - ((detail * where).sum(dim=(2, 3)) / size)[:, :, None, None]) * where
    variance = apart.square().sum(dim=(2, 3)) / size
    fourth = (apart**4).sum(dim=(2, 3)) / size
    return torch.where(variance > moments.QUIET, fourth / variance.clamp(min=moments.QUIET).square() / UNIFORM, 1.0).log()


def _gathered(x: Image, where: Mask) -> tuple[Image, Mask]:
    """The pixels of `where` alone, as one row a sample, (B, C, 1, n), and which of them there are: (B, 1, 1, n), 0 behind those of a smaller sample."""
    index = [each.flatten().nonzero().flatten() for each in where]
    there = pad_sequence([torch.ones_like(each) for each in index], batch_first=True).to(x.dtype)
    rows = pad_sequence(index, batch_first=True)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, rows)[:, :, None], there[:, None, None]


def _raised(x: Image, power: Tensor) -> Image:
    return x.sign() * x.abs().clamp(min=1e-12) ** power[:, :, None, None]
