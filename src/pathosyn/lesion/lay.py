"""How a lesion's detail lies, whatever its pixels are: where it is strong, which way it runs, and whether the contrasts agree on both.

Patches of 3×3 pixels through linear filters (`texture.distance`) tell a mottle from edges by little: a network that learned from them alone draws detail as
strong as it should be, everywhere alike and in no direction. What tells them apart are local energies and the structure tensor (Förstner and Gülch 1987);
that correlations of magnitudes are what a texture is known by: Portilla and Simoncelli 2000.

Pure functions of fields, as `texture` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, one_hot

from pathosyn.lesion.texture import LEAST, box_mean
from pathosyn.types import Image, Mask

DIRECTIONS = 32
"""Along which the measures are compared, at each call anew; a half of them see one measure alone."""
LOCAL = 2
"""Radius, in pixels, of the squares over which energies and directions are means."""
FAINT = 0.02
"""Normalised units: detail weaker than this is told from none by little, and has hardly a direction."""
DEPTHS = (3, 4)
"""Widths of the outer zones of a lesion, pixels."""
STRENGTH = 0.7
COHERENCE = 0.2
AGREEMENT = 0.3
GRAIN = 0.04
BEND = 0.03
"""Units of the measures: about how far each varies over real lesions."""


def measures(x: Image) -> Image:
    """(B, C, H, W) → (B, K, H, W), K = 7 C + C(C − 1): of each contrast the logarithm of the local energy of three bands (those of `texture.bands`), and how
    much the gradients of the 3×3 and of the 7×7 mean run one way, 0 … 1; of each pair of contrasts how far they run the same way, −1 … 1, at both scales;
    of each contrast `grain` and `bend`. Each in its unit."""
    means = [x, *(box_mean(x, r) for r in (1, 3, 7))]
    found = [_log_rms(near - far) / STRENGTH for near, far in pairwise(means)]
    pairs = list(combinations(range(x.shape[1]), 2))
    for smooth in means[1:3]:
        run = _direction(smooth)
        found.append((run.square().sum(dim=1) + 1e-6).sqrt() / COHERENCE)
        if pairs:
            a, b = (list(side) for side in zip(*pairs, strict=True))
            found.append((run[:, :, a] * run[:, :, b]).sum(dim=1) / AGREEMENT)
    return torch.cat([*found, grain(x) / GRAIN, bend(x) / BEND], dim=1)


def grain(x: Image) -> Image:
    """(B, C, H, W): how far the finest detail is white, the logarithm of the local RMS of the Laplacian less that of x less its 3×3 mean. A scanner's point
    spread makes it nearly one number in all real lesions."""
    beside = [x.roll(k, dim) for dim in (2, 3) for k in (-1, 1)]
    return _log_rms(torch.stack(beside).sum(dim=0) - 4.0 * x) - _log_rms(x - box_mean(x, 1))


def bend(x: Image) -> Image:
    """(B, C, H, W): by how much pixels two apart differ more than the geometric mean of what those one and three apart do, a logarithm: how the spectrum runs
    between the finest detail and the next, where bands that are each as strong as they should be leave a dent."""
    one, two, three = (_apart(x, k) for k in (1, 2, 3))
    return two - 0.5 * (one + three)


def _apart(x: Image, lag: int) -> Image:
    """The logarithm of the local RMS of the differences between pixels `lag` apart, along both axes, to both sides."""
    steps = [(x - x.roll(lag, dim)).square() for dim in (2, 3)]
    energy = torch.stack([step + step.roll(-lag, dim) for step, dim in zip(steps, (2, 3), strict=True)]).mean(dim=0) / 2
    return 0.5 * (box_mean(energy, LOCAL) + FAINT**2 / 4).log()


def _log_rms(x: Image) -> Image:
    return 0.5 * (box_mean(x.square(), LOCAL) + FAINT**2 / 4).log()


def _direction(x: Image) -> Tensor:
    """(B, 2, C, H, W): cosine and sine of twice the angle in which the gradient of x runs around each pixel, times how much it runs one way."""
    down, across = torch.gradient(x, dim=(2, 3))
    energy = box_mean(torch.cat([down.square(), across.square(), down * across]), LOCAL)
    yy, xx, yx = energy.chunk(3)
    return torch.stack([yy - xx, 2.0 * yx], dim=1) / (yy + xx + FAINT**2 / 4)[:, None]


def distance(drawn: Image, real: Image, places: Sequence[Mask], directions: Tensor) -> Tensor:
    """Mean over `places` (each (B, 1, H, W)) and `directions` (B, DIRECTIONS, K) of W1 between the projected `measures` of `drawn` and `real` (B, C, H, W);
    per sample, then over the batch. 0 for a sample without a place of `LEAST` pixels."""
    seen = measures(torch.cat([drawn, real]).float())
    total = seen.new_zeros(())
    for b in range(len(real)):
        ours, theirs = (seen[k].flatten(1) for k in (b, b + len(real)))
        parts = []
        for where in (place[b, 0].flatten() > 0 for place in places):
            if int(where.sum()) >= LEAST:
                near, far = ((directions[b] @ side[:, where]).sort(dim=1).values for side in (ours, theirs))
                parts.append((near - far).abs().mean())
        if parts:
            total = total + torch.stack(parts).mean()
    return total / len(real)


def zones(m: Mask) -> Sequence[Mask]:
    """The lesion m (B, 1, H, W) by depth: up to `DEPTHS` pixels from the outline, up to the next, and beyond: what is right on average alone may be too strong
    along the rim and too weak within."""
    found, outer = [], m
    for step in DEPTHS:
        inner = 1.0 - max_pool2d(1.0 - outer, 2 * step + 1, stride=1, padding=step)
        found.append(outer - inner)
        outer = inner
    return (*found, outer)


def directions(contrasts: int, generator: torch.Generator) -> Tensor:
    """(DIRECTIONS, K) random unit vectors on `generator`; every second one sees one measure alone."""
    count = 7 * contrasts + contrasts * (contrasts - 1)
    w = torch.randn(DIRECTIONS, count, generator=generator)
    alone = one_hot(torch.randint(count, (DIRECTIONS,), generator=generator), count).to(w.dtype)
    return torch.where(torch.arange(DIRECTIONS)[:, None] % 2 == 0, alone, w / w.norm(dim=1, keepdim=True))
