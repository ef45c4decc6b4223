"""Diffeomorphisms of the plane: a smooth stationary velocity, its flow by scaling and squaring, and images seen through it.

A field (B, 2, H, W) holds steps along y (channel 0) and x (channel 1), in pixels of its own grid; as a displacement u it means φ(p) = p + u(p).
Everything is done in 32 bit, also under autocast: a displacement in bf16 is wrong by half a pixel at 128 pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from pathosyn.types import Float, Image

Vectors = Float[Tensor, "B 2 H W"]


def gaussian(length: int, *, sigma: float) -> Float[Tensor, "length length"]:
    """The Gaussian kernel between the pixels of a line, K_ij = exp(-(i - j)²/2σ²) / √(2π)σ: symmetric and positive definite, as the norm needs it."""
    i = torch.arange(length, dtype=torch.float32)
    return torch.exp(-0.5 * ((i[:, None] - i) / sigma) ** 2) / (math.sqrt(2.0 * math.pi) * sigma)


def velocity(momentum: Vectors, *, sigma: float) -> tuple[Vectors, Float[Tensor, "B"]]:
    """v = K ∗ momentum, K the Gaussian of σ pixels, and its squared norm in the space whose kernel K is, ⟨momentum, v⟩, as a mean over pixels (B,)."""
    with torch.autocast(momentum.device.type, enabled=False):
        momentum = momentum.float()
        down, across = (gaussian(length, sigma=sigma).to(momentum.device) for length in momentum.shape[2:])
        v = down @ momentum @ across
        return v, (momentum * v).sum(dim=1).mean(dim=(1, 2))


def warp(image: Image, u: Vectors) -> Image:
    """image ∘ φ: at each pixel p the image's value at p + u(p), linear between pixels, its edge repeated beyond. (B, C, H, W), u on the same grid."""
    with torch.autocast(image.device.type, enabled=False):
        height, width = image.shape[2:]
        y, x = torch.arange(height, device=u.device), torch.arange(width, device=u.device)
        # grid_sample counts from -1 at one outer edge of the image to 1 at the other, x first.
        across = (2.0 * (u[:, 1].float() + x) + 1.0) / width - 1.0
        down = (2.0 * (u[:, 0].float() + y[:, None]) + 1.0) / height - 1.0
        return grid_sample(image.float(), torch.stack([across, down], dim=-1), mode="bilinear", padding_mode="border", align_corners=False)


def flow(v: Vectors, *, squarings: int) -> Vectors:
    """The displacement of exp(v), to where v carries each point in unit time (Arsigny et al. 2006): v / 2ⁿ, doubled n times. exp(-v) is its inverse."""
    u = v.float() * 2.0**-squarings
    for _ in range(squarings):
        u = u + warp(u, u)
    return u


def enlarged(field: Vectors, factor: int) -> Vectors:
    """The same field on a grid `factor` times as fine, in that grid's pixels."""
    return factor * interpolate(field.float(), scale_factor=float(factor), mode="bilinear", align_corners=False) if factor > 1 else field


def jacobian(u: Vectors) -> Float[Tensor, "B h w"]:
    """det Dφ between neighbouring pixels, (B, H - 1, W - 1): above 0 where φ does not fold."""
    down, across = u[:, :, 1:, :-1] - u[:, :, :-1, :-1], u[:, :, :-1, 1:] - u[:, :, :-1, :-1]
    return (1.0 + down[:, 0]) * (1.0 + across[:, 1]) - down[:, 1] * across[:, 0]
