"""What a cohort is drawn on: windows of prepared scans with the masks that the lesions are to have."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

from pathosyn.data.slices import Slices
from pathosyn.data.windows import Window, cut

if TYPE_CHECKING:
    from pathosyn.types import LesionBatch

BATCH_PIXELS = 131072
"""Window pixels that are drawn at once. Fixed: another number would round differently."""
SIDES = 32
"""Whole slices are padded to a multiple of it."""


@dataclass(frozen=True)
class MaskOf:
    """Where a mask is from: how it came here, and whose it is."""

    how: str
    subject: str
    z: int


@dataclass(frozen=True)
class Scene:
    """Windows of one side. `rows`: the lesion window of the slices file that each stands for, -1 for none; `numbers`: subjects; `planes`: the whole slice
    (C, H, W) under a window where it is not the file's own."""

    batch: LesionBatch
    windows: Sequence[Window]
    rows: Sequence[int]
    numbers: Sequence[int]
    masks: Sequence[MaskOf]
    planes: Sequence[np.ndarray | None] = field(default_factory=list)

    def plane(self, slices: Slices, b: int) -> np.ndarray:
        """The whole slice under window `b`, (C, H, W) float32, a copy."""
        own = self.planes[b] if self.planes else None
        return own.copy() if own is not None else slices.plane(self.numbers[b], self.windows[b].z)[0]


def own(slices: Slices, members: Sequence[int]) -> Scene:
    """Lesion windows as they are, with their own masks."""
    table, batch = slices.windows[list(members)], slices.lesion(members)
    windows = [Window(int(row["z"]), int(row["y"]), int(row["x"]), int(row["side"])) for row in table]
    masks = [MaskOf("own", subject, z) for subject, z in zip(batch.subject, batch.z, strict=True)]
    return Scene(batch, windows, list(members), [int(n) for n in table["subject"]], masks)


class Wholes:
    """The whole slices of `slices`, each centred in `side` pixels square (0: as few as hold the largest); looked up once, for all scenes."""

    def __init__(self, slices: Slices, side: int = 0) -> None:
        self.side = side or whole_side(slices)
        self.slices, self.wholes = slices, slices.whole(self.side)
        self.rows = {(int(row["subject"]), int(row["z"])): i for i, row in enumerate(self.wholes.windows)}

    def of(self, scene: Scene) -> tuple[LesionBatch, list[Window]]:
        """Under a scene's windows: with all the lesions that the slice has where it is the file's own, else with the scene's mask alone; and where they lie."""
        if any(plane is not None for plane in scene.planes):
            return self._handed(scene)
        rows = [self.rows[number, window.z] for number, window in zip(scene.numbers, scene.windows, strict=True)]
        table = self.wholes.windows[rows]
        return self.wholes.lesion(rows), [Window(int(row["z"]), int(row["y"]), int(row["x"]), self.side) for row in table]

    def _handed(self, scene: Scene) -> tuple[LesionBatch, list[Window]]:
        from pathosyn.types import LesionBatch

        places, images, marks = [], [], []
        for b, window in enumerate(scene.windows):
            plane = scene.plane(self.slices, b)
            place = Window(window.z, (plane.shape[1] - self.side) // 2, (plane.shape[2] - self.side) // 2, self.side)
            within = Window(window.z, place.y - window.y, place.x - window.x, self.side)
            marks.append([cut(field[b, 0].numpy(), within, mode="zero") for field in (scene.batch.m, scene.batch.S)])
            images.append(cut(plane, place))
            places.append(place)
        x, both = torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(marks).astype(np.float32))
        old = scene.batch
        return LesionBatch(x, both[:, :1], both[:, 1:], x, old.present, old.healthy, old.subject, old.z), places


def whole_side(slices: Slices) -> int:
    """The least multiple of `SIDES` that holds each subject's slices."""
    largest = max(max(slices.plane(number, 0)[1].shape) for number in range(len(slices.subjects)))
    return -(-largest // SIDES) * SIDES


def chosen(slices: Slices, per_subject: int) -> np.ndarray:
    """Row numbers of `slices.windows`: all, or at most `per_subject` of each subject, evenly spread over its table."""
    owner = slices.windows["subject"]
    picked = []
    for subject in np.unique(owner):
        mine = np.flatnonzero(owner == subject)
        keep = min(per_subject or len(mine), len(mine))
        # the middle of each of `keep` equal stretches: the ends are where a lesion begins, a few pixels large
        picked.append(mine[((np.arange(keep) + 0.5) * len(mine) / keep).astype(int)])
    return np.concatenate(picked) if picked else np.empty(0, int)


def in_batches(slices: Slices, rows: np.ndarray, pixels: int = 0) -> Iterator[list[int]]:
    """The rows by side, in lists of at most `pixels` (0: BATCH_PIXELS) window pixels."""
    sides = slices.windows["side"][rows]
    for side in np.unique(sides):
        members = rows[sides == side].tolist()
        size = max(1, (pixels or BATCH_PIXELS) // int(side) ** 2)
        yield from (members[start : start + size] for start in range(0, len(members), size))


def labels(slices: Slices) -> dict[str, str]:
    """What the data says of each subject beside its scans (grade …), as JSON; "" where it says nothing."""
    with h5py.File(slices.path, "r") as file:
        found = {name: str(file["subjects"][name].attrs.get("attributes", "{}")) for name in slices.subjects}
    return {name: text if json.loads(text) else "" for name, text in found.items()}
