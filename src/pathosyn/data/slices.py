"""The training side of slices.h5: windows of one side length as a `LesionBatch`, drawn as a pure function of (seed, step)."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from pathosyn.data import holes
from pathosyn.data.batching import COLUMNS, ROW, Change, Sample, collated, whole_slices, with_largest
from pathosyn.data.mapped import Mapped, mapped
from pathosyn.data.store import Header, read_header
from pathosyn.data.windows import Window, cut
from pathosyn.errors import refuse

if TYPE_CHECKING:
    from pathosyn.types import LesionBatch

_SLICES = 8  # slices that are tried for one outline


class Slices:
    """Lesion windows and healthy holes of one or more partitions of a slices file.

    contrasts  the channels, in this order (all of the file's, unless fewer are asked for)
    subjects   names; `present` (subjects, C) says which contrasts each has
    windows    one row a lesion window: subject (its place in `subjects`), z, y, x, side, lesion_pixels
    sides      side → number of windows
    full       (H, W) of each subject's working grid, before the crop to the head; depth: its slices

    May be pickled and used in forked workers: files are opened by the process that reads.
    """

    def __init__(self, path: str | Path, partition: str | Sequence[str], *, contrasts: Sequence[str] | None = None, every: bool = True) -> None:
        """InputError where the file is not a finished slices file, the partition is empty, or (`every`) a contrast is absent from all of it."""
        self.path = Path(path)
        self.header: Header = read_header(self.path)
        self.partitions = (partition,) if isinstance(partition, str) else tuple(partition)
        self.contrasts = tuple(contrasts) if contrasts is not None else self.header.contrasts
        self.geometry = self.header.geometry
        self._read_tables(every)
        self._opened: tuple[int, Any] = (0, None)
        self._fills: dict[int, np.ndarray] | None = None
        self._plain = False

    def _read_tables(self, every: bool) -> None:
        unknown = [name for name in self.contrasts if name not in self.header.contrasts]
        if unknown:
            raise refuse(
                self.path,
                found=f"no {', '.join(unknown)}",
                expected=f"contrasts out of {', '.join(self.header.contrasts)}",
                remedy="ask for fewer, or prepare data that has them",
            )
        self._channels = [self.header.contrasts.index(name) for name in self.contrasts]
        self._all_channels = self.contrasts == self.header.contrasts
        self.subjects: list[str] = []
        self.full: list[tuple[int, int]] = []
        self._origin: list[tuple[int, int, int]] = []
        self.depth: list[int] = []
        rows, present = [], []
        held: dict[str, int] = {}
        with h5py.File(self.path, "r") as file:
            for name, group in file["subjects"].items():
                attributes = group.attrs
                held[attributes["partition"]] = held.get(attributes["partition"], 0) + 1
                if attributes["partition"] not in self.partitions:
                    continue
                table = group["windows"][()]
                mine = np.empty(len(table), ROW)
                mine["subject"] = len(self.subjects)
                for column, key in enumerate(COLUMNS[1:]):
                    mine[key] = table[:, column]
                rows.append(mine)
                self.subjects.append(name)
                present.append(attributes["present"][self._channels])
                self.full.append((int(attributes["full_shape"][1]), int(attributes["full_shape"][2])))
                self._origin.append(tuple(int(n) for n in attributes["origin"]))  # type: ignore[arg-type]
                self.depth.append(group["image"].shape[0])
        if not self.subjects:
            there = ", ".join(f"{count} {name}" for name, count in held.items()) or "none"
            raise refuse(
                self.path,
                found=f"no subject in {' or '.join(self.partitions)} (there are: {there})",
                expected="at least one",
                remedy="prepare the data with another split",
            )
        self.present = np.array(present, bool)
        if absent := [name for channel, name in enumerate(self.contrasts) if every and not self.present[:, channel].any()]:
            raise refuse(
                self.path,
                found=f"no subject of {' or '.join(self.partitions)} with {', '.join(absent)}",
                expected="each contrast in some subject",
                remedy="ask for fewer contrasts",
            )
        self._list(np.concatenate(rows))
        self._slice_ends = np.cumsum(self.depth)
        self._frames = [(origin[1:], full) for origin, full in zip(self._origin, self.full, strict=True)]

    def _list(self, windows: np.ndarray) -> None:
        self.windows = windows
        self.sides = {int(side): int(count) for side, count in zip(*np.unique(windows["side"], return_counts=True), strict=True)}
        self._rows = {side: np.flatnonzero(windows["side"] == side) for side in self.sides}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": (0, None)}

    def _subject(self, number: int) -> Mapped:
        if self._opened[0] != os.getpid():
            file = h5py.File(self.path, "r")
            whole = np.memmap(self.path, np.uint8, mode="r")
            self._opened = os.getpid(), lru_cache(maxsize=None)(lambda n: mapped(file["subjects"][self.subjects[n]], whole))
        return self._opened[1](number)

    def _image(self, number: int, window: Window) -> np.ndarray:
        """(C, side, side) float32."""
        patch = cut(self._subject(number).planes[window.z], window)
        return (patch if self._all_channels else patch[self._channels]).astype(np.float32)

    def _marks(self, row: int) -> tuple[int, Window, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of one row of `windows`: the subject, the window, m and S (side, side), and the support's rows, columns and places in the stored arrays."""
        number, z, y, x, side, _ = (int(v) for v in self.windows[row])
        subject, window = self._subject(number), Window(z, y, x, side)
        m = (cut(subject.seg[z], window, mode="zero") > 0).astype(np.float32)
        rows, columns, where = subject.support(z)
        rows, columns = rows - y, columns - x
        inside = np.flatnonzero((rows >= 0) & (rows < side) & (columns >= 0) & (columns < side))
        rows, columns = rows[inside], columns[inside]
        blend = np.zeros((side, side), np.float32)
        blend[rows, columns] = subject.blend[where][inside]
        return number, window, m, blend, (rows, columns, inside + where.start)

    def _lesion(self, row: int) -> Sample:
        number, window, m, blend, (rows, columns, where) = self._marks(row)
        image = self._image(number, window)
        target = image.copy()
        if self._fills is not None:
            target[:, rows, columns] = self._fills[row]
        else:
            filled = self._subject(number).inp[where]
            target[:, rows, columns] = (filled if self._all_channels else filled[:, self._channels]).T
        return Sample(image, m, blend, target, number, window.z, False)

    def lesion(self, indices: Sequence[int]) -> LesionBatch:
        """The lesion windows with these row numbers of `windows`, all of one side. ValueError if their sides differ."""
        if len(set(self.windows["side"][np.asarray(indices)].tolist())) != 1:
            raise ValueError("a batch has windows of one side length")
        batch = self._collated([self._lesion(int(row)) for row in indices])
        subjects, pixels = self.windows["subject"], self.windows["lesion_pixels"]
        return with_largest(batch, [pixels[subjects == subjects[row]].max() for row in indices])

    def fills(self, fill: Callable[[LesionBatch], Any], *, batch_pixels: int, rank: int = 0, world_size: int = 1) -> dict[int, np.ndarray]:
        """`fill(batch)` (B, C, side, side) of each window, on its support: by row (C, pixels) float16. Of `world_size` processes, the batches of `rank`."""
        batches = [
            rows[start : start + size].tolist()
            for side, rows in self._rows.items()
            for size in [self.batch_size(side, batch_pixels)]
            for start in range(0, len(rows), size)
        ]
        made: dict[int, np.ndarray] = {}
        for some in batches[rank::world_size]:
            for row, answer in zip(some, fill(self.lesion(some)), strict=True):
                ys, xs, _ = self._marks(row)[4]
                made[row] = answer[:, ys, xs].astype(np.float16)
        return made

    def filled(self, made: dict[int, np.ndarray]) -> Slices:
        """The same windows with what `fills` made, of all processes together: as `x_sub`, and in place of Inp in `x_ph`."""
        copied = copy.copy(self)
        copied._fills = made
        return copied

    def plain(self) -> Slices:
        """The same windows, which `draw` gives as they are."""
        copied = copy.copy(self)
        copied._plain = True
        return copied

    def whole(self, side: int) -> Slices:
        """The same subjects with one window a slice that has a lesion: all of the slice, centred in `side` pixels square, and so are
        the slices of its holes. InputError for a larger head."""
        shapes = [self._subject(n).planes[0].shape[-2:] for n in range(len(self.subjects))]
        largest = max((max(shape) for shape in shapes), default=0)
        if largest > side:
            remedy = f"give a multiple of 32 of at least {largest}"
            raise refuse(self.path, found=f"slices of {largest} pixels", expected=f"at most {side}, the method's side", remedy=remedy)
        copied = copy.copy(self)
        copied._list(whole_slices(self.windows, shapes, side))
        copied._frames = [((0, 0), shape) for shape in shapes]  # a hole's slice is centred as a lesion's is
        return copied

    def plane(self, number: int, z: int) -> tuple[np.ndarray, np.ndarray]:
        """A whole slice of subject `number`: (C, H, W) float32, and the head (H, W) bool."""
        subject = self._subject(number)
        plane = np.asarray(subject.planes[z])
        return (plane if self._all_channels else plane[self._channels]).astype(np.float32), subject.head[z].view(bool)

    def origin_of(self, number: int) -> tuple[int, int, int]:
        """z, y, x of the stored arrays of subject `number` within its working grid."""
        return self._origin[number]

    def ground(self, row: int) -> np.ndarray:
        """1 on the head (foreground) in one row's window, (side, side) uint8."""
        number, z, y, x, side, _ = (int(v) for v in self.windows[row])
        return cut(self._subject(number).head[z], Window(z, y, x, side), mode="zero")

    def healthy(self, keys: Sequence[np.random.Generator], side: int) -> LesionBatch:
        """Holes over healthy tissue, one a generator: the outline of a random lesion window of this side, turned and mirrored,
        at a random place of a random slice.

        A hole keeps off the slice's own lesion and lies on the head with `holes.ON_HEAD` of its pixels; places are tried first where lesions lie on other
        heads, and such whose window shows no lesion.
        """
        return self._collated([self._hole(rng, side) for rng in keys])

    def _hole(self, rng: np.random.Generator, side: int) -> Sample:
        choices = self._rows[side]
        for attempt in range(16):
            source, window, m, blend, _ = self._marks(int(choices[rng.integers(choices.size)]))
            centre = holes.centre_of(window, blend, self._subject(source).planes[0].shape[-2:])
            # Heads on which lesions of this size find no room get the same outline, smaller.
            m, blend = holes.outline(rng, m, blend, step=1 if attempt < 4 else 2 ** (attempt // 2 - 1))
            for _ in range(_SLICES):
                flat = int(rng.integers(self._slice_ends[-1]))
                number = int(np.searchsorted(self._slice_ends, flat, side="right"))
                z = flat - (int(self._slice_ends[number - 1]) if number else 0)
                head, own = self.head_and_own(number, z)
                origin, full = self._frames[number]
                found = holes.spot(rng, blend > 0, head, own, centre=centre, side=side, origin=origin, full=full, lonely=attempt < 2)
                if found is not None:
                    return self._covered(number, Window(z, *found[:2], side), found[2:], m, blend)
        raise refuse(
            self.path, found="no place for a hole over healthy tissue", expected="some head around the lesions", remedy="add subjects, or slices without lesion"
        )

    def head_and_own(self, number: int, z: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Of a whole slice of subject `number`: foreground, and support of the slice's own lesion or None, (H, W) bool."""
        subject = self._subject(number)
        head = subject.head[z].view(bool)
        rows, columns, _ = subject.support(z)
        if not rows.size:
            return head, None
        own = np.zeros(head.shape, bool)
        own[rows, columns] = True
        return head, own

    def _covered(self, number: int, window: Window, corner: tuple[int, int], m: np.ndarray, blend: np.ndarray) -> Sample:
        image = self._image(number, window)
        mask, soft = np.zeros((2, window.side, window.side), np.float32)
        under = slice(corner[0], corner[0] + m.shape[0]), slice(corner[1], corner[1] + m.shape[1])
        mask[under], soft[under] = m, blend
        return Sample(image, mask, soft, image, number, window.z, True)

    def _collated(self, samples: Sequence[Sample], changes: Sequence[Change] | None = None) -> LesionBatch:
        return collated(samples, changes, names=self.subjects, present=self.present, filled=self._fills is not None)

    def batch_size(self, side: int, batch_pixels: int, world_size: int = 1) -> int:
        """Windows a step: about as many as `batch_pixels` holds, one a process at the least. An even number where it is two or more: of seven, one of two
        processes has four, and the other waits."""
        held = batch_pixels / side**2
        return max(world_size, 1 if held < 1.5 else 2 * round(held / 2))

    def draw(self, step: int, *, seed: int, batch_pixels: int, healthy: float, rank: int = 0, world_size: int = 1) -> LesionBatch:
        """The batch of a training step, the same for the same arguments in whatever process and order: of `world_size` processes, the share of `rank`, which
        is every `world_size`-th sample.

        A side is chosen so that every window is as likely as every other, then windows uniformly; each sample is a healthy hole with probability `healthy`.
        Unless `plain`, left-right mirrored half of the time and per contrast x · U(.9, 1.1) + U(-.1, .1). InputError where there is no lesion window.
        """
        if not self.sides:
            raise refuse(
                self.path,
                found=f"no lesion window in {' or '.join(self.partitions)}",
                expected="subjects with a lesion mask",
                remedy="prepare data that has masks",
            )
        rng = np.random.default_rng([seed, step])
        sides = list(self.sides)
        sizes = np.array([self.batch_size(side, batch_pixels, world_size) for side in sides])
        weight = np.array(list(self.sides.values())) / sizes
        choice = int(rng.choice(len(sides), p=weight / weight.sum()))
        side, size = sides[choice], int(sizes[choice])
        rows = rng.choice(self._rows[side], size)
        drawn = rng.random(size) < healthy
        samples, changes = [], []
        for i in range(rank, size, world_size):
            own = np.random.default_rng([seed, step, i])
            changes.append((bool(own.integers(2)), own.uniform(0.9, 1.1, len(self.contrasts)), own.uniform(-0.1, 0.1, len(self.contrasts))))
            samples.append(self._hole(own, side) if drawn[i] else self._lesion(int(rows[i])))
        return self._collated(samples, None if self._plain else changes)
