"""Scenes with other masks than the scan's own: moved, resized, or sampled; on the subject's own slices, another's, or such as have no lesion.

The slice beneath has its own lesion taken out first: by f, with the scan's own grain on it, where the weights hold an f_sub, else by Inp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch

from pathosyn import decomposition, rng
from pathosyn.checkpoint import Loaded
from pathosyn.cohort.scenes import MaskOf, Scene
from pathosyn.data.ground import Ground, Grounds
from pathosyn.data.masks import blend_map, box_of
from pathosyn.data.sampler import PriorMap, Sampled, moved, prior, resized, sample_on
from pathosyn.data.shapes import Bank, bank_of
from pathosyn.data.slices import Slices
from pathosyn.data.windows import Window, cut, paste, place, side_of
from pathosyn.errors import refuse
from pathosyn.framework.base import Framework
from pathosyn.lesion import texture
from pathosyn.types import LesionBatch

Anatomy = Literal["own", "other", "healthy"]
TRIES = 12
"""Slices on which one shape is tried before the next draw of a shape."""
SHAPES = 4


@dataclass(frozen=True)
class Wish:
    """What masks a cohort is to have. own: the scan's, moved by `shift_mm` (right, front; mm) and grown by `extent_mm`. sampled: drawn (`data.sampler`)."""

    masks: Literal["own", "sampled"] = "own"
    anatomy: Anatomy = "own"
    extent_mm: float = 0.0
    shift_mm: tuple[float, float] = (0.0, 0.0)

    @property
    def plain(self) -> bool:
        """Whether every lesion stays where and as large as it is."""
        return self.masks == "own" and not self.extent_mm and not any(self.shift_mm)


class Placer:
    """Makes scenes of rows of `slices`; shapes come from the training subjects."""

    def __init__(self, wish: Wish, slices: Slices, training: Slices | None, heal: Callable[[LesionBatch], torch.Tensor]) -> None:
        self.wish, self.slices, self.heal = wish, slices, heal
        self.grounds = Grounds(slices)
        self.bank: Bank | None = bank_of(training) if training is not None else None
        self.prior: PriorMap | None = prior(self.bank) if self.bank else None
        lesions = {(int(row["subject"]), int(row["z"])) for row in slices.windows}
        self.well = [(n, z) for n, depth in enumerate(slices.depth) for z in range(depth) if (n, z) not in lesions]
        if wish.anatomy == "healthy" and not self.well:
            raise refuse(slices.path, found="no slice without a lesion", expected="some, for --anatomy healthy", remedy="give --anatomy own or other")

    def scenes(self, members: Sequence[int], seed: int) -> list[Scene]:
        """Of each row one window, a scene for each side. A row whose mask finds no place has none."""
        made = [scene for row in members if (scene := self._one(row, seed)) is not None]
        return [joined([one for one in made if one.windows[0].side == side]) for side in sorted({one.windows[0].side for one in made})]

    def _one(self, row: int, seed: int) -> Scene | None:
        table = self.slices.windows[row]
        number, z = int(table["subject"]), int(table["z"])
        if self.wish.masks == "own":
            mask = self._changed(row, number, z)
            return None if mask is None else self._scene(number, z, mask, row, MaskOf(self._how(), self.slices.subjects[number], z))
        placed = self._sampled(row, number, z, seed)
        if placed is None:
            return None
        number, z, found = placed
        return self._scene(number, z, found.mask, -1 if self.wish.anatomy == "healthy" else row, MaskOf("sampled", found.subject, found.z))

    def _how(self) -> str:
        return " and ".join(word for word, on in (("moved", any(self.wish.shift_mm)), ("resized", bool(self.wish.extent_mm))) if on)

    def _changed(self, row: int, number: int, z: int) -> np.ndarray | None:
        """The mask of one row, moved and resized as asked; None where it leaves the head or nothing of it is left."""
        table, spacing = self.slices.windows[row], (self.slices.geometry.grid_mm,) * 2
        plane, head = self.slices.plane(number, z)
        mask = np.zeros(plane.shape[1:], bool)
        window = Window(z, int(table["y"]), int(table["x"]), int(table["side"]))
        patch = self.slices.lesion([row]).m[0, 0].numpy() > 0
        paste(mask, patch, window, patch)
        right, front = self.wish.shift_mm
        changed = moved(mask, (-front, right), spacing, head | mask) if any(self.wish.shift_mm) else mask
        if changed is not None and self.wish.extent_mm:
            changed = resized(changed, self.wish.extent_mm, spacing, head)
        return changed if changed is not None and changed.any() else None

    def _sampled(self, row: int, number: int, z: int, seed: int) -> tuple[int, int, Sampled] | None:
        """Slice and mask for one row, keyed by (seed, subject, z, row): the same shape is tried on several slices before another is drawn. None where
        nothing found a place."""
        assert self.bank is not None and self.prior is not None
        draw = np.random.default_rng(rng.seed_of(seed, self.slices.subjects[number], z, row, "mask"))
        for _ in range(SHAPES):
            tried: list[tuple[int, int]] = []
            which, found = sample_on(self.bank, self.prior, self._grounds(number, z, draw, tried), self.slices.geometry, draw)
            if which is not None:
                return *tried[which], cast(Sampled, found)
        return None

    def _grounds(self, number: int, z: int, draw: np.random.Generator, tried: list[tuple[int, int]]) -> Iterator[Ground]:
        """The slices to try; which they are is noted in `tried`."""
        for n, level in self._slices_for(number, z, draw):
            tried.append((n, level))
            yield self.grounds.of(n, level)

    def _slices_for(self, number: int, z: int, draw: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Slices to try, the nearest wish first: own - this one, then others of the subject; other - of other subjects; healthy - such without a lesion."""
        if self.wish.anatomy == "own":
            yield number, z
        for _ in range(TRIES):
            if self.wish.anatomy == "healthy":
                yield self.well[int(draw.integers(len(self.well)))]
                continue
            n = number if self.wish.anatomy == "own" else int(draw.integers(len(self.slices.subjects)))
            level = int(draw.integers(self.slices.depth[n]))
            if self.wish.anatomy == "other" and n == number and len(self.slices.subjects) > 1:
                continue
            yield n, level

    def _scene(self, number: int, z: int, mask: np.ndarray, row: int, origin: MaskOf) -> Scene:
        slices, geometry = self.slices, self.slices.geometry
        plane = self._healed(number, z)
        _, head = slices.plane(number, z)
        blend = blend_map(mask, (geometry.grid_mm,) * 2, geometry) * (head | mask)
        box = box_of(blend > 0)
        assert box is not None
        oy, ox = slices.origin_of(number)[1:]
        limits = (box[0].start + oy, box[0].stop + oy, box[1].start + ox, box[1].stop + ox)
        side = side_of(limits, geometry, geometry.grid_mm)
        y, x = place(limits, side, slices.full[number])
        window = Window(z, y - oy, x - ox, side)
        m, S = (torch.from_numpy(cut(f.astype(np.float32), window, mode="zero"))[None, None] for f in (mask, blend))  # noqa: N806 - the paper's letter
        scan = torch.from_numpy(cut(plane, window))[None]
        present = torch.from_numpy(slices.present[number : number + 1])
        batch = LesionBatch(scan, m, S, scan, present, torch.ones(1, dtype=torch.bool), [slices.subjects[number]], [z])
        return Scene(batch, [window], [row], [number], [origin], [plane])

    def _healed(self, number: int, z: int) -> np.ndarray:
        """The whole slice (C, H, W) without its own lesions."""
        plane, _ = self.slices.plane(number, z)
        table = self.slices.windows
        for row in np.flatnonzero((table["subject"] == number) & (table["z"] == z)):
            window = Window(z, int(table["y"][row]), int(table["x"][row]), int(table["side"][row]))
            batch = self.slices.lesion([int(row)])
            paste(plane, self.heal(batch)[0].numpy(), window, batch.S[0, 0].numpy() > 0)
        return plane


def joined(some: Sequence[Scene]) -> Scene:
    """Scenes of one window each, all of one side, as one."""
    batches = [scene.batch for scene in some]
    x, m, S = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "m", "S"))  # noqa: N806
    present, healthy = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("present", "healthy"))
    batch = LesionBatch(x, m, S, x, present, healthy, [b.subject[0] for b in batches], [b.z[0] for b in batches])
    windows, rows, numbers, masks, planes = zip(*((s.windows[0], s.rows[0], s.numbers[0], s.masks[0], s.planes[0]) for s in some), strict=True)
    return Scene(batch, windows, rows, numbers, masks, planes)


def healer(loaded: Loaded) -> Callable[[LesionBatch], torch.Tensor]:
    """(B, C, H, W) → the same windows without their lesion; the grain on it is keyed by (subject, z)."""
    method = loaded.any_method

    def by_inp(batch: LesionBatch) -> torch.Tensor:
        return decomposition.heal(batch.x, batch.x_ph, batch.S)

    @torch.inference_mode()
    def by_network(batch: LesionBatch) -> torch.Tensor:
        assert isinstance(method, Framework)
        device = next(method.parameters()).device
        f, parts = method.fill(batch.to(device)).float().cpu(), method.parts(batch)
        white = rng.normal([rng.generator("heal", s, z) for s, z in zip(batch.subject, batch.z, strict=True)], tuple(batch.x.shape[1:]))
        grain = texture.missing_grain(f, batch.x * parts.known, parts.support, white) * parts.known
        return decomposition.heal(batch.x, f + grain, batch.S)

    return by_network if isinstance(method, Framework) else by_inp
