"""Conventional augmentation: real slices changed by MONAI's transforms, with parameters that are drawn here (`compared.Conventional`).

geometry    flips; rotation, zoom, shear and elastic displacement in one resampling, the same for image, mask and blend map
intensity   bias field, gamma, contrast, noise, each with probability `chance`

MONAI is an extra, `pathosyn[monai]`, imported when it is needed: it takes seconds.
"""

from __future__ import annotations

from importlib.util import find_spec
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pathosyn import rng
from pathosyn.compared import Conventional
from pathosyn.errors import refuse
from pathosyn.types import Image, LesionBatch, Mask, Soft

SEEDS = 2**32
"""MONAI's random states take seeds below this."""
DEGREE = 3
"""Of the bias field's polynomial."""


def check() -> None:
    """InputError where MONAI is not installed."""
    if find_spec("monai") is None:
        remedy = "run pip install 'pathosyn[monai]', or choose another --method"
        raise refuse("--method", found="conventional without monai, not installed here", expected="the package monai", remedy=remedy)


def augmented(batch: LesionBatch, *, seed: int, settings: Conventional | None = None) -> tuple[Image, Mask, Soft]:
    """(x, m, S) of `batch`, changed; windows of any side, whole slices too. x and S are bilinear, m is the nearest pixel's and stays 0 or 1; what comes in
    from beyond the window repeats its edge. A missing contrast stays 0.

    Keyed by (seed, subject, z): a window is changed in the same way in any batch, and all windows of a slice alike. InputError without MONAI."""
    check()
    settings = settings or Conventional()
    changed = [_changed(batch, i, seed, settings) for i in range(len(batch))]
    x, m, S = (torch.stack(fields) for fields in zip(*changed, strict=True))  # noqa: N806 - the paper's letter
    return x, m, S


def _changed(batch: LesionBatch, i: int, seed: int, settings: Conventional) -> tuple[Tensor, Tensor, Tensor]:
    draws = np.random.default_rng(rng.seed_of(seed, batch.subject[i], batch.z[i], "conventional"))
    x, m, S = _moved(batch.x[i], batch.m[i], batch.S[i], draws, settings)  # noqa: N806
    return _shaded(x, draws, settings) * batch.present[i, :, None, None], m, S


def _moved(x: Tensor, m: Tensor, S: Tensor, draws: np.random.Generator, settings: Conventional) -> tuple[Tensor, Tensor, Tensor]:  # noqa: N803
    """Image, mask and blend map of one window under one change of place."""
    from monai.transforms import AffineGrid, Resample
    from monai.transforms.utils import create_grid

    axes = [axis for axis, chance in enumerate(settings.flips, start=1) if draws.random() < chance]
    x, m, S = (field.flip(axes) for field in (x, m, S))  # noqa: N806
    angle, *shears, zoom, elastic = draws.uniform(-1.0, 1.0, 5)
    if not (settings.rotation or settings.zoom or settings.shear or settings.elastic):
        return x, m, S  # through the resampling it would come back with rounding errors
    # MONAI's elastic transforms bend the grid by a pixel where they are asked for nothing (1.6), so its control points are moved here.
    size = tuple(x.shape[1:])
    points = draws.standard_normal((1, 2, *(ceil(n / settings.elastic_spacing) + 1 for n in size))) * settings.elastic * abs(elastic)
    grid = torch.as_tensor(create_grid(size, backend="torch")).float()
    grid[:2] += interpolate(torch.from_numpy(points).float(), size=size, mode="bicubic", align_corners=True)[0]
    back = float(np.exp(-settings.zoom * zoom))  # of the grid; lengths change by the inverse
    shears = [float(settings.shear * shear) for shear in shears]
    affine: Any = AffineGrid([float(np.deg2rad(settings.rotation) * angle)], shears, scale_params=[back, back])
    grid = affine(grid=grid)[0]

    def warped(field: Tensor, mode: str) -> Tensor:
        return _plain(Resample(mode=mode, padding_mode="border")(field, grid))

    soft = warped(torch.cat([x, S]), "bilinear")
    return soft[:-1], warped(m, "nearest"), soft[-1:]


def _shaded(x: Tensor, draws: np.random.Generator, settings: Conventional) -> Tensor:
    """One window with other intensities, contrast by contrast."""
    from monai.transforms import AdjustContrast, RandBiasField, RandGaussianNoise, ScaleIntensityFixedMean

    chances, amounts = draws.random((4, len(x))), draws.uniform(-1.0, 1.0, (4, len(x)))
    states = draws.integers(SEEDS, size=len(x) + 1)
    field: Any = RandBiasField(DEGREE, coeff_range=(-settings.bias, settings.bias), prob=1.0).set_random_state(int(states[-1]))
    shading = _plain(field(torch.ones_like(x[:1])))
    made = []
    for c, one in enumerate(x.split(1)):
        shaded, brighter, stronger, noisy = chances[:, c] < settings.chance
        if shaded and settings.bias:
            air = one.min()  # a field multiplies the signal, and normalised units have their 0 elsewhere
            one = (one - air) * shading + air
        if brighter and settings.gamma:
            one = AdjustContrast(float(np.exp(settings.gamma * amounts[1, c])), retain_stats=True)(one)
        if stronger and settings.contrast:
            one = ScaleIntensityFixedMean(factor=settings.contrast * amounts[2, c])(one)
        if noisy and settings.noise:
            noise: Any = RandGaussianNoise(prob=1.0, std=settings.noise * abs(amounts[3, c]), sample_std=False)
            one = noise.set_random_state(int(states[c]))(one)
        made.append(_plain(one))
    return torch.cat(made)


def _plain(made: Any) -> Tensor:
    """MONAI's tensors carry a history."""
    return torch.as_tensor(made).as_subclass(Tensor)
