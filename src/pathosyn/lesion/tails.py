"""How sparse a lesion's fine detail is, few edges in quiet tissue or grain all over, and detail made as sparse as is asked.

Pure functions of fields, as `texture` is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pathosyn.lesion import moments
from pathosyn.lesion.texture import LEAST, box_mean
from pathosyn.types import Image, Mask

UNIFORM = 1.8
"""Kurtosis of uniform noise; hardly any detail has less."""
POWERS = (-0.7, 1.5)
"""Detail is made stronger by no lower and no higher power of how strong it is around a pixel: beyond, a few places are all that is left of it."""
AROUND = 1
"""Radius of the square over which it is measured, pixels."""
FAINTEST = 1e-3
"""As a share of the lesion's: weaker detail than that counts as so strong."""
HALVINGS = 10
"""Of that interval, until the power is known to a thousandth."""


def sparseness(detail: Image, where: Mask) -> Tensor:
    """(B, C): the logarithm of the kurtosis of `detail` (B, C, H, W) on `where` (B, 1, H, W) beside that of uniform noise: log(3 / 1.8) = .51 for normal noise,
    more where few pixels hold most of it. Not below 0, and 0 without detail."""
    return _log_kurtosis(detail, where).clamp(min=0.0)


def sparser(detail: Image, where: Mask, wanted: Tensor) -> Image:
    """`detail` (B, C, H, W) on `where` (B, 1, H, W), times the power of its RMS over 3×3 pixels with which its `sparseness` there is what is `wanted` (B, C) or
    nearest to it; as strong as before. Found by halving within `POWERS`: sparseness grows with the power. A field whose `wanted` is NaN stays as it is, and so
    does one of fewer than `LEAST` pixels; and off `where` all does.

    Pixels raised one by one become specks, which no scanner shows; so edges and strands become stronger and what lies between them quieter, as they are."""
    around = box_mean(detail.square(), AROUND).sqrt()
    (pixels, there), (near, _) = _gathered(detail, where), _gathered(around, where)  # a window has several times as many
    size = there.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
    strength = ((pixels.square() * there).sum(dim=(2, 3), keepdim=True) / size).sqrt()
    unit = strength.clamp(min=moments.QUIET)
    near = (near / unit).clamp(min=FAINTEST).log()
    low, high = (torch.full_like(wanted, bound) for bound in POWERS)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        less = _log_kurtosis(pixels * (near * middle[:, :, None, None]).exp(), there) < wanted
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    power = (low + high)[:, :, None, None] / 2
    now = (((pixels * (near * power).exp()).square() * there).sum(dim=(2, 3), keepdim=True) / size).sqrt()
    told = (wanted.isfinite() & (where.sum(dim=(2, 3)) >= LEAST))[:, :, None, None] & (strength > moments.QUIET) & (where > 0)
    made = detail * (around / unit).clamp(min=FAINTEST) ** power * strength / now.clamp(min=moments.QUIET)
    return torch.where(told, made, detail)


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
