"""Covariances over the channels of a field: what they share, and the linear map from one covariance to another.

Pure functions of fields (B, C, H, W) and of matrices (B, C, C).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from pathosyn.types import Image, Mask

EVEN = 0.02
"""Units of the fields: spreads below it are taken for chance."""
BEND = 0.2
"""How far `skewed` bends a field at the most, in its spreads."""
QUIET = 1e-6
"""A variance below it has no correlation."""


def pairs(channels: int) -> Sequence[tuple[int, int]]:
    """In the order in which correlations are listed."""
    return list(combinations(range(channels), 2))


def covariance(field: Image, where: Mask) -> Tensor:
    """(B, C, C) over the pixels of `where` (B, 1, H, W), about each channel's mean there."""
    size = where.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
    apart = (field - (field * where).sum(dim=(2, 3), keepdim=True) / size) * where
    return torch.einsum("bihw,bjhw->bij", apart, apart) / size[:, :, :, 0]


def correlations(field: Image, where: Mask) -> Tensor:
    """(B, C(C - 1)/2) on `where`, pair by pair; 0 where a channel is the same throughout."""
    return listed(covariance(field.float(), where))


def listed(found: Tensor) -> Tensor:
    """`correlations` of a covariance (B, C, C)."""
    spread = found.diagonal(dim1=1, dim2=2)
    made = [found[:, a, b] * (spread[:, a] * spread[:, b]).clamp(min=QUIET**2).rsqrt() for a, b in pairs(found.shape[1])]
    return torch.stack(made, dim=1) if made else found.new_zeros(len(found), 0)


def matrix(found: Tensor, channels: int) -> Tensor:
    """The correlation matrix (B, C, C) of `correlations`; what lies beyond ±1 is held there."""
    made = torch.eye(channels, device=found.device, dtype=found.dtype).repeat(len(found), 1, 1)
    for k, (a, b) in enumerate(pairs(channels)):
        made[:, a, b] = made[:, b, a] = found[:, k].clamp(-1.0, 1.0)
    return made


def transport(source: Tensor, target: Tensor) -> Tensor:
    """(B, C, C): A^-½ (A^½ B A^½)^½ A^-½, which takes covariance A to B with the least movement (Monge-Kantorovich; Pitié and Kokaram 2007). EVEN² is added
    to both: a lesion of one cell has no covariance of its own."""
    even = EVEN**2 * torch.eye(source.shape[-1], device=source.device, dtype=torch.float64)
    a, b = source.double() + even, target.double() + even
    half, back = _power(a, 0.5), _power(a, -0.5)
    return (back @ _power(half @ b @ half, 0.5) @ back).float()


def skewed(field: Image, weight: Mask, wanted: Tensor) -> Image:
    """A field (B, C, H, W) whose third central moments over `weight` (B, 1, H, W) are nearer to `wanted` (B, C): v + a (v² - s²), v being what differs from the
    mean and s its spread, with the a of one Newton step, ∂E[v³]/∂a = 3 (E[v⁴] - s⁴). Order is kept: |a| is at most `BEND` / s, and v² grows no more from
    1 / (2 BEND) spreads on. The mean stays but for that. Everywhere, not on `weight` alone; a channel that is the same throughout stays as it is."""
    size = weight.sum(dim=(2, 3), keepdim=True).clamp(min=QUIET)

    def over(values: Image) -> Tensor:
        return (values * weight).sum(dim=(2, 3), keepdim=True) / size

    mean = over(field)
    apart = field - mean
    variance = over(apart.square())
    spread = variance.clamp(min=QUIET).sqrt()
    slope = 3.0 * (over(apart**4) - variance.square())
    bend = ((wanted[:, :, None, None] - over(apart**3)) / slope.clamp(min=QUIET**2)).clamp(-BEND / spread, BEND / spread)
    limit = spread / (2.0 * BEND)
    return field + bend * (apart.clamp(-limit, limit).square() - variance)


def _power(symmetric: Tensor, exponent: float) -> Tensor:
    """Eigenvalues are held at EVEN⁴, since correlations that were drawn apart may not belong to any covariance."""
    values, vectors = torch.linalg.eigh(symmetric)
    return vectors @ (values.clamp(min=EVEN**4) ** exponent).diag_embed() @ vectors.transpose(-1, -2)
