"""What a run shows of itself: loss terms on validation windows, how well f_sub fills healthy holes, and previews."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pathosyn import figures, rng
from pathosyn.cohort.drawing import stopped_at_fluid
from pathosyn.decomposition import heal
from pathosyn.framework.base import Framework
from pathosyn.losses import psnr_inside
from pathosyn.types import Controls, LesionBatch, Synthesis

if TYPE_CHECKING:
    from pathosyn.data.slices import Slices
    from pathosyn.protocol import Method

WINDOWS = 48
CHUNK = 65536 * 2


class Running:
    """Means of what was logged since the last `take`."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, terms: dict[str, float]) -> None:
        """One step's terms."""
        for name, value in terms.items():
            self.values[name].append(value)

    def take(self) -> dict[str, float]:
        """The means, and a fresh start."""
        means = {name: sum(values) / len(values) for name, values in self.values.items()}
        self.values.clear()
        return means


def evenly(slices: Slices, limit: int, *, batch_pixels: int = CHUNK) -> Iterator[LesionBatch]:
    """At most `limit` lesion windows spread evenly over the table, in batches of one side."""
    table = slices.windows
    rows = np.unique(np.linspace(0, len(table) - 1, min(limit, len(table))).round().astype(int)) if len(table) else np.empty(0, int)
    by_side: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_side[int(table["side"][row])].append(int(row))
    for side, members in sorted(by_side.items()):
        size = max(1, batch_pixels // side**2)
        for start in range(0, len(members), size):
            yield slices.lesion(members[start : start + size])


def holes(slices: Slices, count: int, *, batch_pixels: int = CHUNK) -> Iterator[LesionBatch]:
    """`count` healthy holes, the same ones at each call, in batches of one side with the sides in proportion to the lesions'."""
    total = sum(slices.sides.values())
    made = 0
    for side, windows in sorted(slices.sides.items()):
        share = max(1, round(count * windows / total))
        size = max(1, batch_pixels // side**2)
        for start in range(0, share, size):
            keys = [np.random.default_rng([made + i]) for i in range(min(size, share - start))]
            made += len(keys)
            yield slices.healthy(keys, side)


@torch.no_grad()
def validate(method: Method, slices: Slices, *, player: str, device: torch.device) -> dict[str, float]:
    """Mean loss terms on lesion windows with fixed noise; where there is an f_sub, PSNR inside healthy holes of it and
    of Inp (`psnr_inp`), side by side."""
    from pathosyn.data.inpaint import inpaint

    terms: dict[str, list[float]] = defaultdict(list)
    for batch in evenly(slices, WINDOWS):
        streams = [rng.generator("validation", s, z) for s, z in zip(batch.subject, batch.z, strict=True)]
        for name, value in method.losses(batch.to(device), player=player, rng=streams).items():
            terms[name] += [float(value)] * len(batch)
    if not isinstance(method, Framework):
        return {name: float(np.mean(values)) for name, values in terms.items()}
    for batch in holes(slices, WINDOWS // 2):
        batch = batch.to(device)
        known = batch.present[:, :, None, None].to(batch.x.dtype)
        inside = batch.D * known
        terms["psnr_sub"] += psnr_inside(method.substrate(batch.x, batch.D, known), batch.x, inside)
        filled = [inpaint(method.config.method.inpaint, x.cpu().numpy(), d[0].cpu().numpy() > 0) for x, d in zip(batch.x, batch.D, strict=True)]
        terms["psnr_inp"] += psnr_inside(torch.from_numpy(np.stack(filled)).to(device), batch.x, inside)
    return {name: float(np.mean(values)) for name, values in terms.items()}


@torch.no_grad()
def preview(method: Method, slices: Slices, path: Path, *, device: torch.device, windows: int = 6, steps: int | None = None) -> None:
    """PNG: for a few lesion windows and each contrast, the scan, the healed scan (of a method of whole slices: its substrate), two draws and the difference
    of the first to the scan."""
    rows: list[list[figures.Rgb]] = []
    labels: list[str] = []
    for batch in _middling(slices, windows):
        draws = [_drawn(method, batch, seed, steps, device) for seed in (0, 1)]
        healed = draws[0].x_sub if method.whole else stopped_at_fluid(method, batch, heal(batch.x, draws[0].x_sub, batch.S), batch.m)
        for b in range(len(batch)):
            mask = batch.m[b, 0].numpy() > 0
            for c, contrast in enumerate(method.config.contrasts):
                if not bool(batch.present[b, c]):
                    continue
                x, h, d0, d1 = (v[b, c].numpy() for v in (batch.x, healed, draws[0].x_hat, draws[1].x_hat))
                low, high = figures.window_limits(x)
                shown = [figures.grey(v, low, high) for v in (x, h, d0, d1)]
                rows.append([figures.outline(shown[0], mask), *shown, figures.signed(d0 - x, high - low)])
                labels.append(f"{batch.subject[b][:18]} z{batch.z[b]} {contrast}")
    if rows:
        side = max(row[0].shape[0] for row in rows)
        rows = [[_pad(tile, side) for tile in row] for row in rows]
        figures.mosaic(rows, path, columns=("scan, mask", "scan", "healed", "draw 1", "draw 2", "draw 1 - scan"), labels=labels)


def _drawn(method: Method, batch: LesionBatch, seed: int, steps: int | None, device: torch.device) -> Synthesis:
    """As `generate` would write it."""
    made = method.synthesize(batch.to(device), controls=Controls(seed=seed), steps=steps)
    made = replace(made, x_hat=made.x_hat.float().cpu(), x_sub=made.x_sub.float().cpu())
    return made if method.whole else replace(made, x_hat=stopped_at_fluid(method, batch, made.x_hat, made.m.cpu()))


def _middling(slices: Slices, windows: int) -> Iterator[LesionBatch]:
    """Middle-sized lesions tell most: skip the smallest and the largest quarter by lesion pixels."""
    order = np.argsort(slices.windows["lesion_pixels"], kind="stable")
    middle = order[len(order) // 4 : max(len(order) // 4 + 1, 3 * len(order) // 4)]
    for row in sorted(np.unique(middle[np.linspace(0, len(middle) - 1, min(windows, len(middle))).round().astype(int)])) if len(middle) else []:
        yield slices.lesion([int(row)])


def _pad(tile: figures.Rgb, side: int) -> figures.Rgb:
    missing = side - tile.shape[0]
    return np.pad(tile, ((0, missing), (0, missing), (0, 0)), constant_values=255)
