"""The two networks, f_sub and eps_theta (paper III-D a); and the critic of the adversarial stage. Their U-Nets: `unets`.

f_sub is symmetric, with four down-sampling stages and skips. eps_theta has residual blocks with group norm and the sinusoidal time embedding in each,
and self-attention at its lowest resolution (16×16 for a window of 128 with four levels). Its blocks are not a Wide-ResNet to the letter: they have
no dropout and take their width from the list of widths, not from one widening factor.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from pathosyn.blocks.unets import DiffusionUNet, SubstrateUNet
from pathosyn.lesion.texture import box_mean
from pathosyn.types import Image, Mask

GROUPS = 8


def substrate_unet(contrasts: int, widths: tuple[int, ...]) -> nn.Module:
    """(B, 2C + 1, H, W) → (B, C, H, W). H and W are multiples of 16; `widths` are the stem's and the four stages', multiples of 8."""
    _check_widths("networks.sub", widths, length=5)
    # Group norm: instance norm would erase the absolute intensity that an inpainter must carry into the hole.
    return SubstrateUNet(2 * contrasts + 1, contrasts, widths, GROUPS)


def smooth_fill(x: Image, visible: Mask, *, sweeps: int = 4) -> Image:
    """x (B, C, H, W) where `visible` is 1, a near-harmonic filling from its surroundings where it is 0; nothing of x under a 0 is used.

    A pyramid: each level averages what it can see, and on the way up a level's holes take the coarser level's values and are relaxed by `sweeps`
    3×3 averages (Jacobi steps on the Laplace equation). A few pooling passes, against a sparse solve for `data.inpaint.harmonic`."""
    seen = torch.where(visible > 0, x, torch.zeros((), dtype=x.dtype, device=x.device))
    if min(x.shape[2:]) > 1 and bool((visible == 0).any()):
        weight = avg_pool2d(visible, 2, ceil_mode=True)
        coarse = avg_pool2d(seen, 2, ceil_mode=True) / weight.clamp(min=1e-6)
        coarse = smooth_fill(coarse, (weight > 0).to(x.dtype), sweeps=sweeps)
        seen = torch.where(visible > 0, seen, interpolate(coarse, size=x.shape[2:], mode="bilinear"))
        for _ in range(sweeps):
            seen = torch.where(visible > 0, seen, box_mean(seen, 1))
    return seen


class SubstrateNetwork(nn.Module):
    """f_sub. `fill`: the U-Net corrects `smooth_fill`, starting from it; otherwise (the paper) it starts from zeros under the hole."""

    def __init__(self, contrasts: int, widths: tuple[int, ...], *, fill: bool) -> None:
        super().__init__()
        self.fill = fill
        self.net = substrate_unet(contrasts, widths)
        if fill:
            for parameter in self.net.get_submodule("final_conv").parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Image, visible: Mask, flags: Image) -> Image:
        """x (B, C, H, W), `visible` (B, 1, H, W) 1 outside the hole, `flags` (B, C, H, W) 1 for contrasts that are there; returns (B, C, H, W)."""
        start = smooth_fill(x, visible) if self.fill else torch.where(visible > 0, x, torch.zeros((), dtype=x.dtype, device=x.device))
        out = self.net(torch.cat([start, visible, flags], dim=1)).float()
        return start + out if self.fill else out


class DeviationNetwork(nn.Module):
    """eps_theta(r_t, condition, t): the network output in the chosen parametrisation, (B, C, H, W). H, W multiples of 2^(levels-1)."""

    def __init__(self, contrasts: int, condition: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        _check_widths("networks.eps", widths)
        self.net = DiffusionUNet(contrasts + condition, contrasts, widths, blocks, widths[-1] // math.gcd(32, widths[-1]), GROUPS)

    def forward(self, r_t: Image, condition: Image, t: Tensor) -> Image:
        """t is (B,), 1…T."""
        return self.net(torch.cat([r_t, condition], dim=1), t)


class Critic(nn.Module):
    """Tells composed windows from real ones: a score for every 4×4 patch, and one for the whole lesion from its features' mean and spread.

    It is shown the window's fine detail beside the window (`fine_detail`): left to find it, it learns far more slowly. It sees 20 pixels around
    each patch: texture, sharpness and rim, beside the scan's own tissue. H, W multiples of 4."""

    def __init__(self, contrasts: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        _check_widths("networks.critic", widths, length=3)
        first, second, third = widths
        self.features = nn.Sequential(
            nn.Conv2d(5 * contrasts + contrasts * (contrasts - 1) // 2 + 2, first, 3, padding=1),
            nn.LeakyReLU(0.2),
            *_critic_block(first, second, kernel=4, stride=2),
            *_critic_block(second, third, kernel=4, stride=2),
            *_critic_block(third, third, kernel=3, stride=1),
        )
        self.patch = nn.Conv2d(third, 1, 1)
        self.whole = nn.Linear(2 * third, 1)

    def forward(self, x: Image, m: Mask, S: Mask, flags: Image) -> tuple[Tensor, Tensor]:  # noqa: N803 - the paper's letter
        """x and flags (B, C, H, W), m and S (B, 1, H, W) → scores of the patches on the support (n,), and of the windows (B,)."""
        fine, size, middle = fine_detail(x)
        # Grain that two contrasts share is anatomy: its sign is in the products, which convolutions find late.
        shared = [fine[:, a : a + 1] * fine[:, b : b + 1] for a, b in combinations(range(x.shape[1]), 2)]
        maps = self.features(torch.cat([x, fine, size, middle, *shared, m, S, flags], dim=1)).float()
        inside = avg_pool2d((S > 0).to(maps.dtype), 4)
        mass = inside.sum(dim=(2, 3)).clamp(min=1e-6)
        mean = (maps * inside).sum(dim=(2, 3)) / mass
        spread = (((maps - mean[:, :, None, None]) ** 2 * inside).sum(dim=(2, 3)) / mass + 1e-6).sqrt()
        return self.patch(maps)[inside >= 0.5], self.whole(torch.cat([mean, spread], dim=1))[:, 0]


def fine_detail(x: Image) -> tuple[Image, Image, Image]:
    """x less its 3×3 mean, times 4; the absolute value of that; the 3×3 mean less the 7×7 mean, times 2. The factors bring them near x's own spread."""
    near, far = (box_mean(x, r) for r in (1, 3))
    fine = 4.0 * (x - near)
    return fine, fine.abs(), 2.0 * (near - far)


def _critic_block(before: int, after: int, *, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, kernel, stride=stride, padding=1), nn.GroupNorm(GROUPS, after), nn.LeakyReLU(0.2)


def _check_widths(name: str, widths: tuple[int, ...], *, length: int | None = None) -> None:
    if length is not None and len(widths) != length:
        raise ValueError(f"{name} needs {length} widths, got {widths}")
    if any(width % GROUPS for width in widths):
        raise ValueError(f"{name}: every width must be a multiple of {GROUPS}, got {widths}")


def parameter_count(module: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in module.parameters())


def bf16_pays(device: str) -> bool:
    """True where the device ("cpu" or "cuda") has bf16 in hardware; elsewhere it is emulated and slower than 32 bit."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    # torch has no public question for it; a version without this one is taken to say no.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
