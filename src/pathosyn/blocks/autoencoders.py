"""An autoencoder of images, residual blocks beside a linear way from blocks of pixels to the code and back, and the critic that judges patches of
what it gives back.

The linear way needs no training: the principal components of the blocks, and least squares back. The residual blocks start at 0 and learn what it leaves;
left to find it, they were 5 dB behind principal components alone after a thousand slices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, interpolate, pad, pixel_shuffle, pixel_unshuffle, silu, unfold

from pathosyn.types import Image

GROUPS = 8
UNSHUFFLED = 2
"""The first resolution is half of the image's, four pixels a place: layers at the image's own would cost as much as all others together."""
LOG_VARIANCE = (-20.0, 10.0)
RIDGE = 1e-6
"""Of the least squares, beside the codes' own variance: a contrast that nobody has leaves codes without any."""
FIRST_LOG_VARIANCE = -8.0
"""Of a code whose channels have unit spread: too little noise to cost what the linear way gives."""


class Blocks(nn.Module):
    """Blocks of `size` × `size` pixels as `code` numbers of unit spread, by the principal components of images: buffers, which no step moves; 0 at first."""

    kernels: Tensor
    spread: Tensor
    middle: Tensor

    def __init__(self, contrasts: int, code: int, size: int) -> None:
        super().__init__()
        self.register_buffer("kernels", torch.zeros(code, contrasts, size, size))
        self.register_buffer("spread", torch.ones(code))
        self.register_buffer("middle", torch.zeros(contrasts))

    @torch.no_grad()
    def measure(self, images: Image) -> None:
        """From images (B, C, H, W), about each contrast's mean."""
        code, contrasts, size, _ = self.kernels.shape
        self.middle.copy_(images.mean((0, 2, 3)))
        blocks = pixel_unshuffle(images - self.middle[:, None, None], size).permute(0, 2, 3, 1).reshape(-1, contrasts * size**2)
        directions, spread = principal(blocks, code)
        self.kernels.copy_(directions.reshape(self.kernels.shape))
        self.spread.copy_(spread)

    def code_of(self, x: Image) -> Tensor:
        """(B, C, H, W) → (B, code, H/size, W/size)."""
        return conv2d(x - self.middle[:, None, None], self.kernels / self.spread[:, None, None, None], stride=self.kernels.shape[-1]).float()


class Neighbours(nn.Module):
    """The way back from `Blocks`: each block of pixels from its own code and the eight around it, by least squares (buffers, 0 at first). From its own code
    alone, which is where principal components end, blocks show."""

    kernels: Tensor
    middle: Tensor

    def __init__(self, contrasts: int, code: int, size: int) -> None:
        super().__init__()
        self.register_buffer("kernels", torch.zeros(code, contrasts, 3 * size, 3 * size))
        self.register_buffer("middle", torch.zeros(contrasts))

    @torch.no_grad()
    def measure(self, images: Image, blocks: Blocks) -> None:
        """From the images (B, C, H, W) of which `blocks` is known."""
        code, contrasts, size = self.kernels.shape[0], self.kernels.shape[1], self.kernels.shape[-1] // 3
        self.middle.copy_(blocks.middle)
        inner = torch.zeros(9 * code, 9 * code, dtype=torch.float64, device=images.device)
        outer = inner.new_zeros(9 * code, contrasts * size**2)
        for some in images.split(8):
            around = unfold(pad(blocks.code_of(some), (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).flatten(0, 1).double()
            wanted = pixel_unshuffle(some - self.middle[:, None, None], size).permute(0, 2, 3, 1).flatten(0, 2).double()
            inner, outer = inner + around.T @ around, outer + around.T @ wanted
        solved = torch.linalg.solve(inner + RIDGE * inner.trace() / len(inner) * torch.eye(len(inner), dtype=inner.dtype, device=inner.device), outer)
        # A code's right neighbour lies in its kernel's left third: a transposed convolution writes where a convolution reads.
        thirds = solved.view(code, 3, 3, contrasts, size, size).flip(1, 2)
        self.kernels.copy_(thirds.permute(0, 3, 1, 4, 2, 5).reshape(self.kernels.shape))

    def image_of(self, code: Tensor) -> Image:
        """(B, code, h, w) → (B, C, h · size, w · size)."""
        size = self.kernels.shape[-1] // 3
        around = pad(code, (1, 1, 1, 1), mode="replicate")
        return conv_transpose2d(around, self.kernels, stride=size, padding=2 * size).float() + self.middle[:, None, None]


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
        last = _from_zero(nn.Conv2d(widths[-1], 2 * code, 3, padding=1))
        assert last.bias is not None
        nn.init.constant_(last.bias[code:], FIRST_LOG_VARIANCE)
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU(), last)
        self.linear = Blocks(contrasts, code, factor(widths))

    def forward(self, x: Image, flags: Image) -> tuple[Tensor, Tensor]:
        """`flags` (B, C, 1, 1): 1 for contrasts that are there, and x is 0 in the others."""
        places = pixel_unshuffle(x, UNSHUFFLED)
        seen = torch.cat([places, flags.expand(-1, -1, *places.shape[2:])], dim=1)
        mean, log_variance = self.last(self.levels(self.first(seen))).float().chunk(2, dim=1)
        return mean + self.linear.code_of(x), log_variance.clamp(*LOG_VARIANCE)


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
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), _from_zero(nn.Conv2d(widths[0], contrasts * UNSHUFFLED**2, 3, padding=1)))
        self.linear = Neighbours(contrasts, code, factor(widths))

    def forward(self, code: Tensor) -> Image:
        return pixel_shuffle(self.last(self.levels(code)), UNSHUFFLED).float() + self.linear.image_of(code)


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


def principal(blocks: Tensor, code: int) -> tuple[Tensor, Tensor]:
    """Of blocks (n, K): the `code` directions in which they vary most, (code, K), rows of length 1, and the spread along each, (code,)."""
    values, directions = torch.linalg.eigh(blocks.T.double() @ blocks.double() / len(blocks))
    return directions.flip(1)[:, :code].T, values.flip(0)[:code].clamp(min=1e-12).sqrt()


def _from_zero(layer: nn.Conv2d) -> nn.Conv2d:
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def factor(widths: Sequence[int]) -> int:
    """By how much a code's grid is coarser than the image's."""
    return UNSHUFFLED * 2 ** (len(widths) - 1)
