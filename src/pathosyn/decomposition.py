"""A diseased image is a substrate plus a deviation: Eqs. 1, 4, 5, 11, 14 and the composition of `default` (docs/method.md).

Everything here is arithmetic on arrays of equal shape (singleton channels broadcast), so it serves tensors in training and NumPy arrays
on whole volumes alike. Only `smooth`, a convolution, and the change of scale need torch.
"""

from __future__ import annotations

import math
from typing import Literal

from pathosyn.types import Field, Image, Mask, Soft


def coarsen(field: Image, support: Mask, size: int) -> tuple[Image, Mask]:
    """(B, C, H, W) averaged over the pixels of the support in each `size` × `size` cell, and which cells hold any; 0 in the others. H, W multiples of
    `size`."""
    from torch.nn.functional import avg_pool2d

    weight = avg_pool2d(support, size)
    there = (weight > 0).to(field.dtype)
    return avg_pool2d(field * support, size) / weight.clamp(min=1e-6) * there, there


def refine(coarse: Image, there: Mask, support: Mask, size: int) -> Image:
    """The way back from `coarsen`: bilinear between the centres of the cells that hold any, 0 outside the support."""
    from torch.nn.functional import avg_pool2d, interpolate

    # Cells without support take their neighbours' mean, so that the interpolation does not fall off towards the rim.
    weight = avg_pool2d(there, 3, stride=1, padding=1)
    around = avg_pool2d(coarse * there, 3, stride=1, padding=1) / weight.clamp(min=1e-6)
    filled = coarse * there + around * (1.0 - there)
    return interpolate(filled, scale_factor=float(size), mode="bilinear", align_corners=False) * support


def roughness(field: Image, coarse: Image, there: Mask, support: Mask, size: int) -> Image:
    """(B, C, H/size, W/size): RMS over each cell's pixels on the support of what `refine` does not bring back of `field`; 0 where the cell holds none."""
    from torch.nn.functional import avg_pool2d

    lost = (field - refine(coarse, there, support, size)) * support
    # A square root has no slope at 0, where a smooth cell lies.
    return (avg_pool2d(lost.square(), size) / avg_pool2d(support, size).clamp(min=1e-6) + 1e-12).sqrt() * there


def add(x_sub: Field, r: Field) -> Field:
    """Eq. 1: x = x_sub + r."""
    return x_sub + r


def deviation(x: Field, x_sub: Field, support: Field) -> Field:
    """Eq. 4: r_0 = (x - x_sub) ⊙ support; `support` is m in `paper`, D in `default`."""
    return (x - x_sub) * support


def saturate(r: Field, *, delta: float) -> Field:
    """Eq. 5: δ tanh(r/δ), element-wise, δ > 0 in the units of r. |result| ≤ δ."""
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    return delta * _tanh(r / delta)


def unsaturate(r: Field, *, delta: float) -> Field:
    """The inverse of Eq. 5, δ atanh(r/δ), with |r| held at (1 - 1e-6) δ, where atanh is still finite."""
    if delta <= 0:
        raise ValueError(f"delta must be positive, got {delta}")
    bound = 1.0 - 1e-6
    u = (r / delta).clip(-bound, bound)
    return 0.5 * delta * _log((1.0 + u) / (1.0 - u))


def smooth(m: Mask, *, sigma: float) -> Soft:
    """The printed S: a Gaussian of σ pixels cut at 4σ and normalised, applied to the mask, which is taken as 0 beyond the image."""
    import torch
    from torch.nn.functional import conv2d

    radius = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=m.dtype, device=m.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    # A blend map in bf16 has steps of 1/256, which are seen.
    with torch.autocast(m.device.type, enabled=False):
        rows = conv2d(m, kernel.view(1, 1, -1, 1), padding=(radius, 0))
        return conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius)).clip(0.0, 1.0)


def feather(distance: Field, *, grow_mm: float, feather_mm: float) -> Field:
    """S of `default` as a profile of the distance to the lesion, mm: 1 up to `grow_mm`, then the cubic smoothstep down to exactly 0
    at `grow_mm + feather_mm`. Both ends have slope 0, so neither edge of the band is a seam. `feather_mm` 0 is a hard edge."""
    if feather_mm <= 0:
        return (distance <= grow_mm) * 1.0
    u = ((grow_mm + feather_mm - distance) / feather_mm).clip(0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def ring(G: Field) -> Field:  # noqa: N803 - the paper's letter
    """Eq. 11: w_ring = 4 S (1 - S), 1 where S = ½ and 0 inside and outside. `default` passes G_σ∗m, since its own S is 1 on the rim."""
    return 4.0 * G * (1.0 - G)


def heal(x: Field, x_sub: Field, S: Field) -> Field:  # noqa: N803
    """x_h = x + S ⊙ (x_sub - x): the scan with the lesion under S taken out (DESIGN §3)."""
    return (1.0 - S) * x + S * x_sub  # not x + S (x_sub - x): where S is 1 nothing of x may stay, not even its rounding


def recompose(
    x: Field,
    x_sub: Field,
    r: Field,
    S: Field,  # noqa: N803
    *,
    severity: float = 1.0,
    kind: Literal["preserve", "paper"] = "preserve",
) -> Field:
    """The seam: put the deviation into the image.

    preserve: x̂ = x + s S ⊙ (x_sub + r - x), with x the scan without lesion. s = 0 gives x, s = 1 with the true r gives the diseased
    image on all of S = 1, and where S = 0 nothing changes.
    paper, Eq. 14: x̂ = x_sub + s S ⊙ r. The background is x_sub.
    """
    if severity < 0:
        raise ValueError(f"severity must be at least 0, got {severity}")
    if kind == "paper":
        return x_sub + severity * S * r
    return x + severity * S * (x_sub + r - x)


def _tanh(values: Field) -> Field:
    import numpy as np

    return np.tanh(values) if isinstance(values, np.ndarray) else values.tanh()


def _log(values: Field) -> Field:
    import numpy as np

    return np.log(values) if isinstance(values, np.ndarray) else values.log()
