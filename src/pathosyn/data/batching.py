"""From windows of a slices file to a `LesionBatch`, and the table of windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathosyn.types import LesionBatch

COLUMNS = ("subject", "z", "y", "x", "side", "lesion_pixels")
ROW = np.dtype([(name, np.int32) for name in COLUMNS])
Change = tuple[bool, np.ndarray, np.ndarray]
"""Mirrored left to right? Gain and offset, one a contrast."""


@dataclass(frozen=True)
class Sample:
    """A window before it is in a batch: x and x_ph (C, side, side) float32, m and S (side, side), subject by number."""

    x: np.ndarray
    m: np.ndarray
    S: np.ndarray
    x_ph: np.ndarray
    subject: int
    z: int
    healthy: bool


def whole_slices(windows: np.ndarray, shapes: Sequence[tuple[int, int]], side: int) -> np.ndarray:
    """A table (ROW) with one row for each subject and slice of `windows`: the slice, of `shapes[subject]` pixels, centred in `side`."""
    found = []
    for subject, z in np.unique(windows[["subject", "z"]]):
        height, width = shapes[int(subject)]
        pixels = windows["lesion_pixels"][(windows["subject"] == subject) & (windows["z"] == z)].sum()
        found.append((subject, z, (height - side) // 2, (width - side) // 2, side, pixels))
    return np.array(found, ROW)


def with_largest(batch: LesionBatch, pixels: Sequence[int]) -> LesionBatch:
    """The batch with what is known of each subject's largest window."""
    import torch

    return replace(batch, largest=torch.tensor(pixels, dtype=torch.float32))


def collated(samples: Sequence[Sample], changes: Sequence[Change] | None, *, names: Sequence[str], present: np.ndarray, filled: bool) -> LesionBatch:
    """Samples of one side as tensors, each changed as `changes` say; a contrast that is absent stays 0. `present` (subjects, C); `filled`: x_ph is f_sub's."""
    import torch

    from pathosyn.types import LesionBatch

    count, contrasts, side = len(samples), present.shape[1], samples[0].m.shape[-1]
    x, target = torch.empty(2, count, contrasts, side, side)
    m, blend = torch.empty(2, count, 1, side, side)
    for i, sample in enumerate(samples):
        mirrored, gain, offset = changes[i] if changes is not None else (False, np.ones(contrasts), np.zeros(contrasts))
        order = slice(None, None, -1 if mirrored else 1)
        gain, offset = gain.astype(np.float32)[:, None, None], (offset * present[sample.subject]).astype(np.float32)[:, None, None]
        for image, slot in ((sample.x, x[i].numpy()), (sample.x_ph, target[i].numpy())):
            np.multiply(image[..., order], gain, out=slot)
            slot += offset
        m[i].numpy()[0], blend[i].numpy()[0] = sample.m[:, order], sample.S[:, order]
    numbers = [sample.subject for sample in samples]
    return LesionBatch(
        x=x,
        m=m,
        S=blend,
        x_ph=target,
        present=torch.from_numpy(present[numbers]),
        healthy=torch.tensor([sample.healthy for sample in samples]),
        subject=[names[n] for n in numbers],
        z=[sample.z for sample in samples],
        x_sub=target if filled else None,
    )
