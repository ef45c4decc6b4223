"""Windows turned, of other brightness and with contrasts hidden, for the stage that learns structure: a few dozen subjects are soon learned by heart, and
known again by their contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from pathosyn.types import Image, LesionBatch

GAIN = 0.25
"""Each contrast times exp(u), |u| up to this, on top of what every stage does (`Slices.draw`)."""
HIDE = 0.15
"""Probability that a contrast is hidden, as if the subject had none of it."""


def varied(batch: LesionBatch, streams: Sequence[torch.Generator]) -> LesionBatch:
    """`turned`, then each contrast brighter or darker, then some of them hidden; one at the least stays. Each window on its own stream."""
    batch = turned(batch, streams)
    contrasts = batch.x.shape[1]
    u = torch.stack([torch.rand(2, contrasts, generator=stream) for stream in streams])
    present = batch.present & (u[:, 1] >= HIDE)
    present = torch.where(present.any(dim=1, keepdim=True), present, batch.present)
    factor = (((2.0 * u[:, 0] - 1.0) * GAIN).exp() * present)[:, :, None, None]
    x_sub = None if batch.x_sub is None else batch.x_sub * factor
    return replace(batch, x=batch.x * factor, x_ph=batch.x_ph * factor, x_sub=x_sub, present=present)


def turned(batch: LesionBatch, streams: Sequence[torch.Generator]) -> LesionBatch:
    """Each window turned by 0, 90, 180 or 270 degrees, on its own stream, every field alike: exact, nothing is interpolated. (Mirroring is `Slices.draw`'s.)"""
    turns = [int(torch.randint(4, (1,), generator=stream)) for stream in streams]

    def image(field: Image) -> Image:
        return torch.stack([one.rot90(k, (1, 2)) for one, k in zip(field, turns, strict=True)])

    x_sub = None if batch.x_sub is None else image(batch.x_sub)
    return replace(batch, x=image(batch.x), x_ph=image(batch.x_ph), x_sub=x_sub, m=image(batch.m), S=image(batch.S))
