"""Windows turned, of other brightness, with contrasts hidden, tilted and zoomed, for the stages that learn how lesions look: a few dozen subjects are soon
learned by heart, and known again by their contrasts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from pathosyn.types import Image, LesionBatch

GAIN = 0.25
"""Each contrast times exp(u), |u| up to this, on top of what every stage does (`Slices.draw`)."""
TILT = 20.0
"""Degrees to either side."""
ZOOM = (0.65, 1.1)
"""Factors of length between which a window is shrunk or stretched: hardly beyond 1, or large lesions would leave it."""
BEND, BEND_OVER = 3.0, 24
"""A window is bent by displacements of so many pixels' standard deviation at knots that lie so many pixels apart."""
HIDE = 0.15
"""Probability that a contrast is hidden, as if the subject had none of it."""
HIDE_SUBSTRATE = 0.3
"""The same while f_sub learns, which is to fill a lone T1 as well."""


def varied(batch: LesionBatch, streams: Sequence[torch.Generator]) -> LesionBatch:
    """`turned`, then each contrast brighter or darker, then some of them `hidden`. Each window on its own stream."""
    batch = turned(batch, streams)
    u = torch.stack([torch.rand(batch.x.shape[1], generator=stream) for stream in streams])
    return _hidden(batch, streams, HIDE, gain=((2.0 * u - 1.0) * GAIN).exp().to(batch.x.device))


def hidden(batch: LesionBatch, streams: Sequence[torch.Generator], chance: float) -> LesionBatch:
    """Each contrast 0 and not there with probability `chance`, each window on its own stream; where that would leave none, all stay."""
    return _hidden(batch, streams, chance, gain=torch.ones_like(batch.present, dtype=batch.x.dtype))


def _hidden(batch: LesionBatch, streams: Sequence[torch.Generator], chance: float, *, gain: Tensor) -> LesionBatch:
    """`hidden`, and images times `gain` (B, C) on the way."""
    u = torch.stack([torch.rand(batch.x.shape[1], generator=stream) for stream in streams]).to(batch.present.device)
    present = batch.present & (u >= chance)
    present = torch.where(present.any(dim=1, keepdim=True), present, batch.present)
    over = (gain * present)[:, :, None, None].to(batch.x.dtype)
    return replace(_images(batch, lambda image: image * over), present=present)


def _images(batch: LesionBatch, change: Callable[[Image], Image]) -> LesionBatch:
    """`change` of every image. Where f_sub's answer is the target, too (`Slices.filled`), both are one tensor, which is changed once."""
    x_ph = change(batch.x_ph)
    x_sub = x_ph if batch.x_sub is batch.x_ph else None if batch.x_sub is None else change(batch.x_sub)
    return replace(batch, x=change(batch.x), x_ph=x_ph, x_sub=x_sub)


def mirrored(batch: LesionBatch, streams: Sequence[torch.Generator]) -> LesionBatch:
    """Each window left-right mirrored half of the time, on its own stream, every field alike, where `Slices.draw` leaves windows as they are (`plain`)."""
    flips = [bool(torch.randint(2, (1,), generator=stream)) for stream in streams]

    def image(field: Image) -> Image:
        return torch.stack([one.flip(-1) if flip else one for one, flip in zip(field, flips, strict=True)])

    return _each(batch, image)


def turned(batch: LesionBatch, streams: Sequence[torch.Generator]) -> LesionBatch:
    """Each window turned by 0, 90, 180 or 270 degrees, on its own stream, every field alike: exact, nothing is interpolated. (Mirroring is `Slices.draw`'s.)"""
    turns = [int(torch.randint(4, (1,), generator=stream)) for stream in streams]

    def image(field: Image) -> Image:
        return torch.stack([one.rot90(k, (1, 2)) for one, k in zip(field, turns, strict=True)])

    return _each(batch, image)


def _each(batch: LesionBatch, image: Callable[[Image], Image]) -> LesionBatch:
    """`image` of every field of pixels."""
    return replace(_images(batch, image), m=image(batch.m), S=image(batch.S))


def rolled(field: Image, shifts: Tensor) -> Image:
    """Each sample moved by its row of `shifts` (B, 2), pixels down and to the right; what leaves on one side comes in on the other."""
    return torch.stack([one.roll((int(dy), int(dx)), dims=(1, 2)) for one, (dy, dx) in zip(field, shifts.tolist(), strict=True)])


def warped(batch: LesionBatch, streams: Sequence[torch.Generator]) -> LesionBatch:
    """Each window tilted by up to `TILT`, zoomed by `ZOOM` (uniform in its logarithm) about its centre and bent (`BEND`), on its own stream, every field alike:
    images and S linear between pixels, the mask by the nearest one. What comes in from beyond the window repeats its edge, without lesion.

    Interpolation takes fine detail away, so this is for what is learned of means over cells, and of roughness beside the scan's own."""
    u = torch.stack([torch.rand(2, generator=stream) for stream in streams])
    angle = torch.deg2rad((2.0 * u[:, 0] - 1.0) * TILT)
    low, high = (math.log(z) for z in ZOOM)
    back = (-(low + (high - low) * u[:, 1])).exp()
    cos, sin, zero = back * angle.cos(), back * angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1).to(batch.x.device)
    grid = affine_grid(theta, [len(batch), 1, *batch.x.shape[2:]], align_corners=False) + _bent(batch, streams).to(batch.x.device)

    def image(field: Image) -> Image:
        return grid_sample(field.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)

    m = grid_sample(batch.m, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    S = grid_sample(batch.S, grid, mode="bilinear", padding_mode="zeros", align_corners=False)  # noqa: N806 - the paper's letter
    return replace(_images(batch, image), m=m, S=S)


def _bent(batch: LesionBatch, streams: Sequence[torch.Generator]) -> Tensor:
    """(B, H, W, 2): smooth displacements, x before y, in the units of `affine_grid`, where a window is two wide."""
    size = batch.x.shape[2:]
    knots = [max(2, round(side / BEND_OVER)) + 1 for side in size]
    moved = torch.stack([torch.randn(2, *knots, generator=stream) for stream in streams])
    smooth = interpolate(moved, size=tuple(size), mode="bicubic", align_corners=True)
    return (smooth * BEND * 2.0).permute(0, 2, 3, 1) / torch.tensor([size[1], size[0]])
