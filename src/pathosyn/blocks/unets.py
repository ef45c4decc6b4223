"""The two U-Nets, in torch alone: importing MONAI for them costs a start-up more time than drawing a small lesion.

`SubstrateUNet` is MONAI's `BasicUNet` and `DiffusionUNet` its `DiffusionModelUNet`, as far as this package configures them, layer by layer and name by name:
weights of one load into the other and give the same output (tests/oracles/test_unets_oracles.py). What they are for: `networks`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

SLOPE = 0.1
"""Of the leaky rectifier."""
LONGEST = 10_000
"""Period of the slowest wave of the time embedding, in noise levels."""


class Convolution(nn.Module):
    """3×3 (or 1×1), padded to the same size; with `groups` followed by a group norm and a leaky rectifier."""

    def __init__(self, before: int, after: int, *, kernel: int = 3, stride: int = 1, groups: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2)
        self.adn = nn.ModuleDict({"N": nn.GroupNorm(groups, after), "A": nn.LeakyReLU(SLOPE, inplace=True)}) if groups else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.adn is None else self.adn["A"](self.adn["N"](x))


class TwoConvolutions(nn.Sequential):
    """Two in a row."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.conv_0 = Convolution(before, after, groups=groups)
        self.conv_1 = Convolution(after, after, groups=groups)


class Down(nn.Module):
    """Half the resolution, then two convolutions."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.max_pooling = nn.MaxPool2d(2)
        self.convs = TwoConvolutions(before, after, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(self.max_pooling(x))


class UpAndJoin(nn.Module):
    """Twice the resolution by a transposed convolution, joined with what came down on that level, then two convolutions."""

    def __init__(self, before: int, skipped: int, after: int, groups: int, *, halves: bool) -> None:
        super().__init__()
        between = before // 2 if halves else before
        self.upsample = nn.ModuleDict({"deconv": nn.ConvTranspose2d(before, between, 2, stride=2)})
        self.convs = TwoConvolutions(skipped + between, after, groups)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.convs(torch.cat([skipped, self.upsample["deconv"](x)], dim=1))


class SubstrateUNet(nn.Module):
    """(B, in, H, W) → (B, out, H, W): a stem, four down-samplings and back, skips; H and W multiples of 16. `widths` are the stem's and the four stages'."""

    def __init__(self, before: int, after: int, widths: Sequence[int], groups: int) -> None:
        super().__init__()
        stem, *deeper = widths
        self.conv_0 = TwoConvolutions(before, stem, groups)
        for level, (above, below) in enumerate(zip(widths, deeper, strict=False), start=1):
            self.add_module(f"down_{level}", Down(above, below, groups))
        for level in range(len(deeper), 0, -1):
            self.add_module(f"upcat_{level}", UpAndJoin(widths[level], widths[level - 1], widths[level - 1], groups, halves=level > 1))
        self.final_conv = nn.Conv2d(stem, after, 1)
        self.depth = len(deeper)

    def forward(self, x: Tensor) -> Tensor:
        """x is (B, in, H, W)."""
        levels = [self.conv_0(x)]
        for level in range(1, self.depth + 1):
            levels.append(self.get_submodule(f"down_{level}")(levels[-1]))
        x = levels.pop()
        for level in range(self.depth, 0, -1):
            x = self.get_submodule(f"upcat_{level}")(x, levels.pop())
        return self.final_conv(x)


class Residual(nn.Module):
    """norm, SiLU, 3×3, plus the time's vector; norm, SiLU, 3×3 (from 0); plus what came in."""

    def __init__(self, before: int, after: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, before, eps=1e-6)
        self.conv1 = Convolution(before, after)
        self.time_emb_proj = nn.Linear(time, after)
        self.norm2 = nn.GroupNorm(groups, after, eps=1e-6)
        self.conv2 = _from_zero(Convolution(after, after))
        self.skip_connection = Convolution(before, after, kernel=1) if before != after else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = h + self.time_emb_proj(silu(time))[:, :, None, None]
        return self.skip_connection(x) + self.conv2(silu(self.norm2(h)))


class SelfAttention(nn.Module):
    """Each pixel looks at all pixels of its image, with `heads` heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(width, width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        """x is (B, pixels, width)."""
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.to_q, self.to_k, self.to_v))
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """norm, self-attention, plus what came in."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.attn = SelfAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm(x).flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Level(nn.Module):
    """One resolution: a residual block for each of `inputs` widths, followed by attention where there are `heads`."""

    def __init__(self, inputs: Sequence[int], width: int, time: int, groups: int, heads: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, heads, groups) for _ in inputs] if heads else [])
        self.resnets = nn.ModuleList([Residual(before, width, time, groups) for before in inputs])

    def block(self, number: int, x: Tensor, time: Tensor) -> Tensor:
        """One residual block, with its attention."""
        x = self.resnets[number](x, time)
        return self.attentions[number](x) if len(self.attentions) else x


class DownLevel(Level):
    """Then half the resolution, but for the last."""

    def __init__(self, inputs: Sequence[int], width: int, time: int, groups: int, heads: int, *, last: bool) -> None:
        super().__init__(inputs, width, time, groups, heads)
        self.downsampler = None if last else nn.ModuleDict({"op": Convolution(width, width, stride=2)})

    def forward(self, x: Tensor, time: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What goes on, and what the way up will join, in order."""
        passed = []
        for number in range(len(self.resnets)):
            x = self.block(number, x, time)
            passed.append(x)
        if self.downsampler is not None:
            x = self.downsampler["op"](x)
            passed.append(x)
        return x, passed


class UpLevel(Level):
    """Then twice the resolution, but for the last."""

    def __init__(self, inputs: Sequence[int], width: int, time: int, groups: int, heads: int, *, last: bool) -> None:
        super().__init__(inputs, width, time, groups, heads)
        self.upsampler = None if last else Upsample(width)

    def forward(self, x: Tensor, joined: list[Tensor], time: Tensor) -> Tensor:
        """Takes what it joins off the end of `joined`."""
        for number in range(len(self.resnets)):
            x = self.block(number, torch.cat([x, joined.pop()], dim=1), time)
        return x if self.upsampler is None else self.upsampler(x)


class Upsample(nn.Module):
    """Each pixel four times, then 3×3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.postconv = Convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.postconv(interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    """residual, attention, residual at the lowest resolution."""

    def __init__(self, width: int, time: int, groups: int, heads: int) -> None:
        super().__init__()
        self.resnet_1, self.resnet_2 = (Residual(width, width, time, groups) for _ in range(2))
        self.attention = Attention(width, heads, groups)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.resnet_2(self.attention(self.resnet_1(x, time)), time)


class DiffusionUNet(nn.Module):
    """(B, in, H, W) and t (B,) → (B, out, H, W); `widths` one a resolution, `blocks` residual blocks in each on the way down and one more on the way up,
    attention at the lowest with `heads` heads. H and W are multiples of 2^(levels - 1). The last layer starts at 0."""

    def __init__(self, before: int, after: int, widths: Sequence[int], blocks: int, heads: int, groups: int) -> None:
        super().__init__()
        time, last = 4 * widths[0], len(widths) - 1
        self.conv_in = Convolution(before, widths[0])
        self.time_embed = nn.Sequential(nn.Linear(widths[0], time), nn.SiLU(), nn.Linear(time, time))
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        skipped = [widths[0]]
        for level, width in enumerate(widths):
            inputs = [skipped[-1], *[width] * (blocks - 1)]
            self.down_blocks.append(DownLevel(inputs, width, time, groups, heads if level == last else 0, last=level == last))
            skipped += [width] * (blocks + (level < last))
        self.middle_block = Middle(widths[-1], time, groups, heads)
        coming = widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            inputs = [(coming if block == 0 else width) + skipped.pop() for block in range(blocks + 1)]
            self.up_blocks.append(UpLevel(inputs, width, time, groups, heads if level == last else 0, last=level == 0))
            coming = width
        self.out = nn.Sequential(nn.GroupNorm(groups, widths[0], eps=1e-6), nn.SiLU(), _from_zero(Convolution(widths[0], after)))
        self.first = widths[0]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x is (B, in, H, W), t (B,) noise levels."""
        time = self.time_embed(waves(t, self.first).to(x.dtype))
        x = self.conv_in(x)
        passed = [x]
        for level in self.down_blocks:
            x, more = level(x, time)
            passed += more
        x = self.middle_block(x, time)
        for level in self.up_blocks:
            x = level(x, passed, time)
        return self.out(x)


def waves(t: Tensor, width: int) -> Tensor:
    """(B, width): cosines, then sines, of t at periods from 2π to 2π · `LONGEST` (Ho et al. 2020); `width` is even."""
    half = width // 2
    angles = t[:, None].float() * torch.exp(torch.arange(half, device=t.device) * (-math.log(LONGEST) / half))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _from_zero(convolution: Convolution) -> Convolution:
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution
