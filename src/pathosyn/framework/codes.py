"""An encoder and a decoder of spatial codes, and a critic of patches: fully convolutional, so that they take windows of any side.

Neither way ends with a norm, and what passes the blocks by is never normalised: a group norm over the whole window would make a bright and a faint lesion look
alike. What they are used for: `coding` and `methods/vaegan.py`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from pathosyn.networks import GROUPS, fine_detail
from pathosyn.types import Float, Image, Mask

Code = Float[Tensor, "B K h w"]
"""K numbers a cell of a grid that is coarser than the image."""


class Block(nn.Module):
    """norm, SiLU, 3×3, twice, plus what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(GROUPS, width) for _ in range(2))
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))


class Encoder(nn.Module):
    """(B, before, H, W) → (B, after, H/n, W/n), n = 2^(levels - 1); `widths` one a level, from full resolution down, multiples of 8. H, W multiples of n."""

    def __init__(self, before: int, after: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList([Block(width) for width in widths])
        self.down = nn.ModuleList([nn.Conv2d(above, below, 3, stride=2, padding=1) for above, below in pairwise(widths)])
        self.last = nn.Conv2d(widths[-1], after, 3, padding=1)
        _keep_variance(self.first, *self.down, self.last)

    def forward(self, x: Image) -> Code:
        x = self.blocks[0](self.first(x))
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            x = block(down(x))
        return self.last(x)


class Decoder(nn.Module):
    """The way back: (B, code, H/n, W/n) and a condition (B, K, H, W) → (B, after, H, W). The condition is shown at every level, averaged to its
    resolution. `widths` as the encoder's. The last layer starts at 0.

    Linear between cells on the way up: of steps at their borders a critic makes stripes, the cheapest roughness that there is."""

    def __init__(self, code: int, condition: int, after: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        coming = [code, *widths[:0:-1]]
        self.join = nn.ModuleList([nn.Conv2d(before + condition, width, 3, padding=1) for before, width in zip(coming, widths[::-1], strict=True)])
        self.blocks = nn.ModuleList([Block(width) for width in widths[::-1]])
        self.last = nn.Conv2d(widths[0], after, 3, padding=1)
        _keep_variance(*self.join)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, code: Code, condition: Image) -> Image:
        x = code
        for level, (join, block) in enumerate(zip(self.join, self.blocks, strict=True)):
            if level:
                x = interpolate(x, scale_factor=2.0, mode="bilinear")
            x = block(join(torch.cat([x, avg_pool2d(condition, condition.shape[2] // x.shape[2])], dim=1)))
        return self.last(x)


def _keep_variance(*layers: nn.Module) -> None:
    """Linear layers on the way past the blocks begin with a gain of 1. torch's own beginning has 1/√3: through ten of them nothing is left of a code, and
    D_r learns to do without."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")  # type: ignore[arg-type]


class PatchGan(nn.Module):
    """A score for each patch of 36 pixels, on a grid of 4 (PatchGAN: Isola et al. 2017; theirs see 70 of 256). As `networks.Critic` it is shown the
    window's fine detail, which it would find late, and the mask, the blend map and which contrasts are there. H, W multiples of 4."""

    def __init__(self, contrasts: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        first, second, third = widths
        self.net = nn.Sequential(
            nn.Conv2d(3 * contrasts + 2, first, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.GroupNorm(GROUPS, second),
            nn.LeakyReLU(0.2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.GroupNorm(GROUPS, third),
            nn.LeakyReLU(0.2),
            nn.Conv2d(third, 1, 3, padding=1),
        )

    def forward(self, x: Image, m: Mask, S: Mask, flags: Image) -> Image:  # noqa: N803 - the paper's letter
        """x and flags (B, C, H, W), m and S (B, 1, H, W) → (B, 1, H/4, W/4)."""
        return self.net(torch.cat([x, fine_detail(x)[0], m, S, flags], dim=1)).float()
