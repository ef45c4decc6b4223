"""An autoencoder of images from residual blocks, and the critic that judges patches of what it gives back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, silu

from pathosyn.types import Image

GROUPS = 8
UNSHUFFLED = 2
"""The first resolution is half of the image's, four pixels a place: layers at the image's own would cost as much as all others together."""
LOG_VARIANCE = (-20.0, 10.0)


class ResidualBlock(nn.Module):
    """norm, SiLU, 3×3; norm, SiLU, 3×3 (from 0); plus what came in."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, before), nn.GroupNorm(GROUPS, after)
        self.conv1, self.conv2 = (nn.Conv2d(width, after, 3, padding=1) for width in (before, after))
        nn.init.zeros_(self.conv2.weight)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))


class SliceEncoder(nn.Module):
    """x (B, C, H, W) and which contrasts are there → mean and log-variance of its code, both (B, code, H/f, W/f) with f = 2^`levels`; H, W multiples of f."""

    def __init__(self, contrasts: int, code: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(contrasts * UNSHUFFLED**2 + contrasts, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                layers.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            layers += [ResidualBlock(width, width) for _ in range(blocks)]
        self.levels = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 2 * code, 3, padding=1))

    def forward(self, x: Image, flags: Image) -> tuple[Tensor, Tensor]:
        """`flags` (B, C, 1, 1): 1 for contrasts that are there, and x is 0 in the others."""
        places = pixel_unshuffle(x, UNSHUFFLED)
        seen = torch.cat([places, flags.expand(-1, -1, *places.shape[2:])], dim=1)
        mean, log_variance = self.last(self.levels(self.first(seen))).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)


class SliceDecoder(nn.Module):
    """A code (B, code, h, w) → (B, C, h f, w f), as `SliceEncoder` makes it smaller."""

    def __init__(self, contrasts: int, code: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(code, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            layers += [ResidualBlock(widths[level], widths[level]) for _ in range(blocks)]
            if level:
                layers += [Twice(), nn.Conv2d(widths[level], widths[level - 1], 3, padding=1)]
        self.levels = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], contrasts * UNSHUFFLED**2, 3, padding=1))

    def forward(self, code: Tensor) -> Image:
        return pixel_shuffle(self.last(self.levels(code)), UNSHUFFLED).float()


class Twice(nn.Module):
    """Each pixel four times."""

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, scale_factor=2.0, mode="nearest")


class PatchCritic(nn.Module):
    """Tells given images from real ones: a score for every place of a grid of 1/8, each of which sees 38 × 38 pixels. x and flags as `SliceEncoder`."""

    def __init__(self, contrasts: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((2 * contrasts, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(GROUPS, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Image, flags: Image) -> Tensor:
        """(B, 1, H/8, W/8)."""
        return self.layers(torch.cat([x, flags.expand_as(x)], dim=1)).float()


def factor(widths: Sequence[int]) -> int:
    """By how much a code's grid is coarser than the image's."""
    return UNSHUFFLED * 2 ** (len(widths) - 1)
