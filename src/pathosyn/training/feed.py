"""What a training is fed: the windows of its subjects, f_sub's answer beside them, varied and drawn ahead of the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pathosyn import rng
from pathosyn.augment import hidden, varied, warped
from pathosyn.config import Config, Train
from pathosyn.data.slices import Slices
from pathosyn.errors import InputError, refuse
from pathosyn.framework.base import Framework
from pathosyn.protocol import Method, Stage
from pathosyn.training.monitor import evenly

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pathosyn.types import LesionBatch

STATISTICS_WINDOWS = 1024
AHEAD = 3


def training_slices(data: Path, config: Config) -> Slices:
    """The training subjects' windows. InputError where there are none, or they were made for another method."""
    train = Slices(data, "train", contrasts=config.contrasts)
    if not len(train.windows):
        raise refuse(data, found="no lesion in any training subject", expected="at least one mask that is not empty", remedy="prepare subjects with masks")
    if train.geometry != config.geometry:
        raise refuse(data, found=f"windows made with {train.geometry}", expected=f"{config.geometry}", remedy="prepare the data anew with these settings")
    made, asked = train.header.inpaint, config.method.inpaint
    if made != asked:
        remedy = f"prepare again with --inpaint {asked}, or train with --m.inpaint {made} (with --from, the weights decide)"
        raise refuse(data, found=f"the {made} Inp target", expected=f"{asked}, as the method asks", remedy=remedy)
    return train


def validation_slices(data: Path, config: Config) -> Slices | None:
    """The validation subjects' windows, whichever of the contrasts they have, or None where there are none."""
    try:
        held_out = Slices(data, "validation", contrasts=config.contrasts, every=False)
    except InputError:
        return None  # no such subject: the training's own slices have shown that all else is well
    return held_out if len(held_out.windows) else None


def seen_by(method: Method, slices: Slices) -> Slices:
    """The windows that a method works on: those of lesions, or whole slices."""
    return slices.whole(method.whole) if method.whole else slices


@dataclass(frozen=True)
class Windows:
    """Training windows spread over the table, for statistics; may be gone through again."""

    slices: Slices
    device: torch.device

    def __iter__(self) -> Iterator[LesionBatch]:
        return (batch.to(self.device) for batch in evenly(self.slices, STATISTICS_WINDOWS))


def filled(method: Framework, slices: Slices, fabric: Fabric) -> Slices:
    """The slices with a frozen f_sub's answer for each window, made once, a share by each process."""

    def fill(batch: LesionBatch) -> np.ndarray:
        return method.fill(batch.to(fabric.device)).float().cpu().numpy()

    share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    made = slices.fills(fill, batch_pixels=method.config.train.batch_pixels, **share)
    if fabric.world_size > 1:
        shares: list[dict[int, np.ndarray]] = [{} for _ in range(fabric.world_size)]
        torch.distributed.all_gather_object(shares, made)
        made = {row: values for each in shares for row, values in each.items()}
    return slices.filled(made)


def grown(slices: Slices, settings: Train, world: int) -> str:
    """What makes a training by `world` processes another than by one: batches too small for them all. "" where there are none."""
    small = [side for side in slices.sides if slices.batch_size(side, settings.batch_pixels) < world]
    if not small:
        return ""
    side, number = max(small), slices.batch_size(max(small), settings.batch_pixels)
    made = f"a batch of windows of {side} pixels has {number} by one process and {world} by {world}, so one process would train otherwise"
    even = world + world % 2  # as batches are
    return f"{made}; --train.batch-pixels {even * side**2} makes them the same"


@dataclass(frozen=True)
class Turn:
    """One process's share of a step's batch: which samples these are, and how much of the batch, which is what their mean loss weighs: shares of processes may
    differ by one sample."""

    step: int
    batch: LesionBatch
    samples: range
    weight: float


def batches(slices: Slices, stage: Stage, settings: Train, start: int, done: int, stop: int, *, rank: int, world: int) -> Iterator[Turn]:
    """Steps `done`…`stop` of a stage that began at `start`, drawn ahead by one thread while the network computes: of each batch, which is a pure function of
    its step, the share of `rank` of `world` processes."""
    pixels = settings.batch_pixels * stage.windows

    def draw(step: int) -> Turn:
        healthy = stage.healthy((step - start) / max(1, stop - start))
        batch = slices.draw(step, seed=settings.seed, batch_pixels=pixels, healthy=healthy, rank=rank, world_size=world)
        samples = range(rank, rank + world * len(batch), world)
        streams = [rng.generator(settings.seed, "varied", step, i) for i in samples]
        batch = varied(batch, streams) if stage.varied else batch
        batch = hidden(batch, streams, stage.hide) if stage.hide else batch
        batch = warped(batch, streams) if stage.warped else batch
        return Turn(step, batch, samples, len(batch) / slices.batch_size(batch.x.shape[-1], pixels, world))

    with ThreadPoolExecutor(1) as pool:
        ahead: deque[Future[Turn]] = deque(pool.submit(draw, step) for step in range(done, min(done + AHEAD, stop)))
        for step in range(done, stop):
            turn = ahead.popleft().result()
            if step + AHEAD < stop:
                ahead.append(pool.submit(draw, step + AHEAD))
            yield turn
