"""The networks on a whole scan: all windows of a volume through a network in a few batches, and the noise field they share.

Arrays are NumPy float32 in slices order (Z, C, H, W) or (Z, H, W), normalised units, on the working grid.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathosyn import rng
from pathosyn.data.masks import box_of
from pathosyn.data.windows import Window, cut, paste, windows_of
from pathosyn.lesion import looks, surroundings, texture
from pathosyn.networks import bf16_pays
from pathosyn.types import LesionBatch

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn

BATCH_PIXELS = 8 * 128**2
"""Window pixels in one forward pass: fewer leave the network of coarse forms, which sees a sixteenth of them, too little to do; from twice as many on
a CPU waits for its memory (benchmarks/bench_runtime.py)."""

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """Where a lesion is taken out or drawn: x (Z, C, H, W); m and S (Z, H, W); present (C,); which windows hold all of S > 0; `healthy`: what x holds there is
    tissue and no lesion."""

    x: Field
    m: NDArray[np.bool_]
    S: Field
    present: NDArray[np.bool_]
    windows: Sequence[Window]
    healthy: bool = False

    @classmethod
    def of(  # noqa: N803 - the paper's letter
        cls, method: PathoSyn, x: Field, m: NDArray[np.bool_], S: Field, present: NDArray[np.bool_], pixel_mm: float, *, healthy: bool = False
    ) -> Target:
        """Windows by the geometry that the method was trained with."""
        return cls(x, m, S, present, windows_of(S > 0, method.config.geometry, pixel_mm), healthy)


def substrate(method: PathoSyn, target: Target, *, device: torch.device) -> Field:
    """f on D, x elsewhere, (Z, C, H, W). What x holds under D never reaches the network."""
    filled = target.x.copy()

    def run(batch: LesionBatch) -> Tensor:
        parts = method.parts(batch)
        return method.substrate(batch.x, parts.support, parts.known)

    _through(method, target, target.x, run, filled, device)
    return filled


def deviation(
    method: PathoSyn, target: Target, x_sub: Field, noise: Callable[[int], Field], *, key: Sequence[object], steps: int | None, device: torch.device
) -> Field:
    """A drawn deviation, (Z, C, H, W), exactly 0 outside D. `noise(k)` is the k-th noise field of the volume, as `noise_field` makes it; `key` says which
    of the training's appearances the lesion takes."""
    looks = _looks(method, target, key)
    drawn = np.zeros(target.x.shape, np.float32)
    fields: dict[int, Field] = {}

    def field(k: int) -> Field:
        if k not in fields:
            fields[k] = noise(k)
        return fields[k]

    def run(batch: LesionBatch, windows: Sequence[Window]) -> Tensor:
        around = torch.from_numpy(np.stack([cut(x_sub[w.z], w) for w in windows])).to(batch.x.device)

        def cut_noise(k: int) -> Tensor:
            return torch.from_numpy(np.stack([cut(field(k)[w.z], w, mode="zero") for w in windows])).to(batch.x.device)

        with _autocast(device):
            look = torch.stack([looks[w] for w in windows]).to(batch.x.device) if looks else None
            return method.draw(batch, around, cut_noise, look=look, steps=steps)

    _through(method, target, target.x, run, drawn, device, with_windows=True)
    return drawn


def grain(method: PathoSyn, target: Target, x_sub: Field, noise: Callable[[int], Field], *, device: torch.device) -> Field:
    """What f lacks of the scan's own grain (`texture.missing_grain`), (Z, C, H, W), 0 outside D; zeros where the method knows no grain."""
    made = np.zeros(target.x.shape, np.float32)
    if not method.config.method.grain:
        return made
    white = noise(0)

    def run(batch: LesionBatch, windows: Sequence[Window]) -> Tensor:
        f = torch.from_numpy(np.stack([cut(x_sub[w.z], w) for w in windows])).to(batch.x.device)
        field = torch.from_numpy(np.stack([cut(white[w.z], w, mode="zero") for w in windows])).to(batch.x.device)
        parts = method.parts(batch)
        return texture.missing_grain(f, batch.x * parts.known, parts.support, field) * parts.known

    _through(method, target, target.x, run, made, device, with_windows=True)
    return made


def _looks(method: PathoSyn, target: Target, key: Sequence[object]) -> dict[Window, Tensor]:
    """What the lesion looks like in each window: one lesion's looks in all of them. Empty where the method does not ask."""
    if not (method.looking and target.windows):
        return {}
    areas = torch.tensor([int((cut(target.m[w.z], w, mode="zero") > 0).sum()) for w in target.windows])
    found = looks.drawn(method, areas, torch.from_numpy(target.present), _around(method, target), rng.generator(*key, "appearance"))
    return {} if found is None else dict(zip(target.windows, found, strict=True))


def _around(method: PathoSyn, target: Target) -> Tensor | None:
    """What surrounds the lesion, (N,): the mean over its windows, so that all of them are told the same."""
    if not looks.attuned(method):
        return None
    found = []
    for window in target.windows:
        batch = _batch(target, target.x, [window])
        found.append(surroundings.numbers(batch.x, method.parts(batch).support, batch.present))
    return torch.cat(found).nanmean(dim=0)


def noise_field(target: Target, spacing_z: float, correlation_mm: float, *key: object) -> Callable[[int], Field]:
    """k ↦ unit noise over the support's bounding box (0 elsewhere), keyed by (*key, k) and the box alone, so that no batch or window changes it.

    Correlated along z by a Gaussian of `correlation_mm` (white in-plane), variance 1 in every voxel: neighbouring slices of one lesion then
    start from similar noise, and a deterministic solver keeps them similar (DESIGN §3, 16)."""
    box = box_of(target.S > 0)
    sigma = correlation_mm / spacing_z
    radius = math.ceil(3 * sigma) if sigma > 0.3 else 0
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2) if radius else np.ones(1)
    kernel = (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)

    def make(k: int) -> Field:
        # not zeros_like, which writes the zeros: memory of a whole volume that nothing reads is then never touched
        field = np.zeros(target.x.shape, np.float32)
        if box is None:
            return field
        depth, height, width = (s.stop - s.start for s in box)
        white = torch.randn((depth + 2 * radius, target.x.shape[1], height, width), generator=rng.generator(*key, k)).numpy()
        blended = sum(weight * white[i : i + depth] for i, weight in enumerate(kernel))
        field[box[0], :, box[1], box[2]] = blended
        return field

    return make


def _through(
    method: PathoSyn,
    target: Target,
    x: Field,
    run: Callable[..., Tensor],
    out: Field,
    device: torch.device,
    *,
    with_windows: bool = False,
) -> None:
    """Cut the windows, a side at a time, run them in batches and paste the results into `out` on the support."""
    by_side: dict[int, list[Window]] = defaultdict(list)
    for window in target.windows:
        by_side[window.side].append(window)
    for side, windows in sorted(by_side.items()):
        size = max(1, BATCH_PIXELS // side**2)
        for start in range(0, len(windows), size):
            some = windows[start : start + size]
            batch = _batch(target, x, some).to(device)
            with torch.inference_mode():
                result = (run(batch, some) if with_windows else run(batch)).float().cpu().numpy()
            for window, patch in zip(some, result, strict=True):
                paste(out[window.z], patch, window, cut(target.S[window.z], window, mode="zero") > 0)


def _batch(target: Target, x: Field, windows: Sequence[Window]) -> LesionBatch:
    image = torch.from_numpy(np.stack([cut(x[w.z], w) for w in windows]))
    mask = torch.from_numpy(np.stack([cut(target.m[w.z], w, mode="zero")[None] for w in windows])).float()
    blend = torch.from_numpy(np.stack([cut(target.S[w.z], w, mode="zero")[None] for w in windows]))
    return LesionBatch(
        x=image.contiguous(memory_format=torch.channels_last),
        m=mask,
        S=blend,
        x_ph=image,
        present=torch.from_numpy(np.repeat(target.present[None], len(windows), axis=0)),
        healthy=torch.full((len(windows),), target.healthy),
        subject=[""] * len(windows),
        z=[w.z for w in windows],
    )


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    """bf16 for the many calls of eps_theta where the processor has it; f_sub, whose output is seen as it is, stays at 32 bit."""
    if bf16_pays(device.type):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
