"""The second judge of realism: a convolutional network on windows, trained from scratch in each fold.

It is given the window's fine detail beside the window, as a reader's eye is given a sharp screen: without it a few hundred steps see nothing, and a
judge that sees nothing flatters everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pathosyn.networks import bf16_pays, fine_detail

SIDE = 64
"""Windows are cut or padded to this many pixels around their centre, so that they batch."""
BATCH = 16
STEPS = 300
RATE = 1e-3


@dataclass(frozen=True)
class Views:
    """What the network sees: x (N, C, SIDE, SIDE) with a missing contrast at 0, where (N, 1, SIDE, SIDE) the pixels that are judged, present (N, C)."""

    x: np.ndarray
    where: np.ndarray
    present: np.ndarray


def centred(plane: np.ndarray) -> np.ndarray:
    """(…, side, side) → (…, SIDE, SIDE): the middle, or zeros around."""
    side = plane.shape[-1]
    if side >= SIDE:
        start = (side - SIDE) // 2
        return plane[..., start : start + SIDE, start : start + SIDE]
    before = (SIDE - side) // 2
    pad = (before, SIDE - side - before)
    return np.pad(plane, [(0, 0)] * (plane.ndim - 2) + [pad, pad])


def score(views: Views, fake: np.ndarray, learn: np.ndarray, judge: np.ndarray, *, seed: int, steps: int = STEPS) -> np.ndarray:
    """Train on the rows `learn`, return logits (higher: drawn) of the rows `judge`, a mean over the window and its mirror image."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    network = _Judge(views.x.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    rows = np.flatnonzero(learn)
    for _ in range(steps):
        some = draw.choice(rows, BATCH)
        x, where, flags = _tensors(views, some)
        if draw.random() < 0.5:
            x, where = x.flip(-1), where.flip(-1)
        gain = torch.from_numpy(draw.uniform(0.9, 1.1, (len(some), x.shape[1], 1, 1)).astype(np.float32))
        loss = binary_cross_entropy_with_logits(_run(network, x * gain, where, flags), torch.from_numpy(fake[some].astype(np.float32)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    network.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(judged := np.flatnonzero(judge)), BATCH):
            x, where, flags = _tensors(views, judged[start : start + BATCH])
            found.append((_run(network, x, where, flags) + _run(network, x.flip(-1), where.flip(-1), flags)) / 2)
    return torch.cat(found).numpy()


class _Judge(nn.Module):
    """Four residual stages; mean and spread of the features on the judged pixels decide."""

    def __init__(self, contrasts: int, widths: tuple[int, ...] = (24, 48, 64, 96)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(5 * contrasts + 1, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(_Stage(a, b) for a, b in pairwise(widths))
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * sum(widths), 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, where: Tensor, flags: Tensor) -> Tensor:
        maps = self.stem(torch.cat([x, *fine_detail(x), flags, where], dim=1))
        found = [_pooled(maps, where)]
        for stage in self.stages:
            maps, where = stage(maps), nn.functional.max_pool2d(where, 2)
            found.append(_pooled(maps, where))
        return self.head(torch.cat(found, dim=1))[:, 0]


class _Stage(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.GroupNorm(8, before), nn.ReLU(), nn.Conv2d(before, after, 4, stride=2, padding=1))
        self.more = nn.Sequential(nn.GroupNorm(8, after), nn.ReLU(), nn.Conv2d(after, after, 3, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.down(maps)
        return maps + self.more(maps)


def _pooled(maps: Tensor, where: Tensor) -> Tensor:
    maps = maps.float()
    mass = where.sum(dim=(2, 3)).clamp(min=1e-6)
    mean = (maps * where).sum(dim=(2, 3)) / mass
    spread = (((maps - mean[:, :, None, None]) ** 2 * where).sum(dim=(2, 3)) / mass + 1e-6).sqrt()
    return torch.cat([mean, spread], dim=1)


def _tensors(views: Views, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    x, where, present = (torch.from_numpy(np.ascontiguousarray(a[rows], dtype=np.float32)) for a in (views.x, views.where, views.present))
    return x, where, present[:, :, None, None].expand_as(x)


def _run(network: _Judge, x: Tensor, where: Tensor, flags: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays("cpu")):
        return network(x, where, flags).float()
