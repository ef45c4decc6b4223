"""From the windows of sets to whole slices, once for every layout: which slices there will be, and each with all that was drawn on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import h5py
import numpy as np
import pandas as pd
from scipy import ndimage

from pathosyn.data.normalise import Normaliser
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.data.windows import Window, paste

_TOUCHING = np.ones((3, 3), bool)  # corners count, as in `windows_of`


@dataclass(frozen=True)
class Drawn:
    """What one row of a set drew. x (C, side, side) its window, or, `whole`, the slice (C, H, W), normalised; m (side, side), 1 on the drawn lesion."""

    window: Window
    x: np.ndarray
    m: np.ndarray
    whole: bool = False


def composed(plane: np.ndarray, lesion: np.ndarray, support: np.ndarray, drawn: Sequence[Drawn]) -> tuple[np.ndarray, np.ndarray]:
    """A slice with all of `drawn` on it: the image (C, H, W), and its label (H, W) bool, 1 on lesion.

    plane    (C, H, W) the scan, normalised
    lesion   (H, W) bool, the scan's own
    support  (H, W) bool, where the blend map of the scan's own lesion exceeds 0

    Taken over is what differs from the scan. Each connected part of the support belongs to the smallest drawn window that holds it whole; a window that
    cuts a part has drawn its half alone, so that part is left to its owner or, where nobody has drawn it, stays real in image and label.
    """
    image, label = plane.copy(), lesion.copy()
    parts, count = ndimage.label(support, structure=_TOUCHING)
    owner, taken = np.full(count + 1, -1), np.zeros(support.shape, bool)
    ordered = sorted(drawn, key=lambda each: each.window.side)
    for number, each in enumerate(ordered):
        cut = np.unique(parts[~_on_plane(np.ones_like(each.m), each.window, support.shape)])
        held = np.setdiff1d(np.arange(1, count + 1), cut)
        owner[held[owner[held] < 0]] = number
    for number, each in enumerate(ordered):
        own = (owner == number)[parts]
        free = (own | (parts == 0)) & ~taken
        new = each.x if each.whole else _pasted(plane, each.x, each.window)
        changed = (new != plane).any(axis=0) & free
        image[:, changed] = new[:, changed]
        made = _on_plane(each.m, each.window, support.shape) & free
        label = (label & ~own) | made
        taken |= changed | made
    return image, label


def _pasted(plane: np.ndarray, patch: np.ndarray, window: Window) -> np.ndarray:
    target = plane.copy()
    paste(target, patch, window, np.ones(patch.shape[-2:], bool))
    return target


def _on_plane(m: np.ndarray, window: Window, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: where m (side, side) exceeds 0."""
    return _pasted(np.zeros(shape, bool), m > 0, window)


class Source:
    """Slices, and what is in the file beside them; `drawn` the set that was drawn on them, or None for the scans as they are. `tag` names it in files."""

    def __init__(self, slices: Slices, drawn: SyntheticSet | None, tag: str) -> None:
        self.slices, self.drawn, self.tag = slices, drawn, tag
        self._file = h5py.File(slices.path, "r")
        self._support = lru_cache(maxsize=None)(lambda number: self._group(number)["support_index"][()])

    def _group(self, number: int) -> h5py.Group:
        return self._file["subjects"][self.slices.subjects[number]]

    def lesion(self, number: int, z: int) -> np.ndarray:
        """(H, W) bool."""
        return self._group(number)["seg"][z] > 0

    def lesion_pixels(self, number: int) -> np.ndarray:
        """(Z,) of each slice."""
        return (self._group(number)["seg"][()] > 0).sum(axis=(1, 2))

    def head_pixels(self, number: int) -> np.ndarray:
        """(Z,) of each slice."""
        return (self._group(number)["foreground"][()] > 0).sum(axis=(1, 2))

    def support(self, number: int, z: int) -> np.ndarray:
        """(H, W) bool."""
        height, width = self.shape(number)
        low, high = np.searchsorted(self._support(number), [z * height * width, (z + 1) * height * width])
        plane = np.zeros(height * width, bool)
        plane[self._support(number)[low:high] - z * height * width] = True
        return plane.reshape(height, width)

    def shape(self, number: int) -> tuple[int, int]:
        """(H, W)."""
        return self._group(number)["seg"].shape[1:]

    def spacing(self, number: int) -> tuple[float, float, float]:
        """z, y, x in mm."""
        z, y, x = (float(v) for v in self._group(number).attrs["spacing"])
        return z, y, x

    def attribute(self, number: int, name: str) -> Any:
        """As `data.store` describes them."""
        return self._group(number).attrs[name]

    def normaliser(self, number: int, contrast: str) -> Normaliser:
        """To the scan's own units and back."""
        center, scale = self.attribute(number, "normalisation")[self.slices.header.contrasts.index(contrast)]
        return Normaliser(float(center), float(scale))


@dataclass(frozen=True)
class Case:
    """A slice to be exported: of subject `number` of `source.slices`, the stored slice z; `rows` are those of the set, None for a real slice."""

    name: str
    source: Source
    number: int
    z: int
    replicate: int
    rows: pd.DataFrame | None = None
    nth: int = 0
    """Of several whole slices that were drawn on this one."""

    @property
    def subject(self) -> str:
        return self.source.slices.subjects[self.number]

    @property
    def synthetic(self) -> bool:
        return self.rows is not None

    @property
    def slice(self) -> int:
        """Number in the scan itself, from its lower end, from 0."""
        return self.z + self.source.slices.origin_of(self.number)[0]

    @property
    def donors(self) -> tuple[str, ...]:
        """Subjects whose lesions were put in."""
        return tuple(sorted(set(self.rows["donor"]) - {""})) if self.rows is not None and "donor" in self.rows else ()

    @property
    def sources(self) -> set[str]:
        """Everybody of whom something is in it: the subject, whose lesions were put in, whose masks."""
        found = {self.subject, *self.donors}
        if self.rows is not None and "mask_subject" in self.rows:
            found |= set(self.rows["mask_subject"]) - {""}
        return found

    def contrasts(self, among: Sequence[str]) -> list[str]:
        """Those that the subject has."""
        slices = self.source.slices
        return [name for name in among if slices.present[self.number][slices.contrasts.index(name)]]

    def provenance(self) -> dict[str, Any]:
        """One row of the table beside the files."""
        drawn = self.source.drawn
        row = {
            "case": self.name,
            "kind": "synthetic" if drawn else "real",
            "subject": self.subject,
            "partition": self.source.attribute(self.number, "partition"),
        }
        row |= {
            "slice": self.slice,
            "method": "",
            "mask_source": self.subject,
            "donor": "",
            "seed": "",
            "replicate": "",
            "windows": "",
            "weights": "",
            "set": "",
        }
        if drawn is None or self.rows is None:
            return row
        return row | {
            "method": drawn.origin.method,
            "mask_source": ";".join(sorted(set(self.rows["mask_subject"]))) if "mask_subject" in self.rows else ";".join(self.donors) or self.subject,
            "donor": ";".join(self.donors),
            "seed": ";".join(str(seed) for seed in sorted(set(self.rows["seed"]))),
            "replicate": self.replicate,
            "windows": ";".join(str(n) for n in self.rows["row"]),
            "weights": drawn.origin.weights,
            "set": drawn.folder.name,
        }


@dataclass(frozen=True)
class Picture:
    """image (C, H, W) float32, normalised; label (H, W) bool, 1 on lesion; head (H, W) bool."""

    image: np.ndarray
    label: np.ndarray
    head: np.ndarray


def drawn_cases(source: Source, names: dict[str, str]) -> list[Case]:
    """One for each slice and replicate of a set, by subject, slice and replicate."""
    assert source.drawn is not None
    place = {name: number for number, name in enumerate(source.slices.subjects)}
    cases: list[Case] = []
    for key, rows in source.drawn.rows.assign(plane=_planes(source.drawn.rows)).groupby(["subject", "z", "replicate", "plane"]):
        subject, z, replicate, _ = cast(tuple[str, int, int, str], key)
        case = Case("", source, place[subject], int(z), int(replicate), rows)
        name = f"{names[case.subject]}_z{case.slice:03d}_{source.tag}_r{replicate}"
        several = sum(name == other.name or other.name.startswith(f"{name}_n") for other in cases)
        cases.append(replace(case, name=f"{name}_n{several}" if several else name, nth=several))
    return cases


def _planes(rows: pd.DataFrame) -> pd.Series:
    """Each row's whole drawn slice; "" where there is none: older sets have no such column."""
    return rows["plane"] if "plane" in rows else pd.Series("", index=rows.index)


def real_cases(source: Source, names: dict[str, str], *, lesions: int, healthy: int) -> list[Case]:
    """Of each subject its slices with lesion (at most `lesions`, 0: all), and `healthy` slices without any but with half as much head as its largest."""
    cases = []
    for number, subject in enumerate(source.slices.subjects):
        pixels, head = source.lesion_pixels(number), source.head_pixels(number)
        ill, well = np.flatnonzero(pixels), np.flatnonzero((pixels == 0) & (head >= head.max() / 2))
        for z in sorted([*_spread(ill, lesions or len(ill)), *_spread(well, healthy)]):
            case = Case("", source, number, z, 0)
            cases.append(replace(case, name=f"{names[subject]}_z{case.slice:03d}_{source.tag}"))
    return cases


def _spread(choices: np.ndarray, count: int) -> list[int]:
    """At most `count`, evenly spread."""
    keep = min(count, len(choices))
    return choices[((np.arange(keep) + 0.5) * len(choices) / max(keep, 1)).astype(int)].tolist()


def pictures(source: Source, cases: Sequence[Case], contrasts: Sequence[str]) -> Iterator[tuple[Case, Picture]]:
    """Each case of this source with its picture, channels as asked for. A set's windows are read once, in its order."""
    if source.drawn is None:
        for case in cases:
            yield case, _picture(case, [], contrasts)
        return
    wanted = {(case.subject, case.z, case.replicate, str(case.rows["plane"].iloc[0])): case for case in cases if case.rows is not None}
    waiting: dict[tuple[str, int, int, str], list[Drawn]] = {}
    healed = source.drawn.origin.method == "substrate"
    for row, arrays in source.drawn.windows():
        key = str(row["subject"]), int(row["z"]), int(row["replicate"]), str(row.get("plane", ""))
        if key not in wanted:
            continue
        window = Window(int(row["z"]), int(row["y"]), int(row["x"]), int(row["side"]))
        m, whole = np.zeros_like(arrays["m"]) if healed else arrays["m"], arrays.get("plane")
        waiting.setdefault(key, []).append(Drawn(window, arrays["x_hat"] if whole is None else whole, m, whole is not None))
        case = wanted[key]
        if case.rows is not None and len(waiting[key]) == len(case.rows):
            yield case, _picture(case, waiting.pop(key), contrasts)


def _picture(case: Case, drawn: Sequence[Drawn], contrasts: Sequence[str]) -> Picture:
    source = case.source
    plane, head = source.slices.plane(case.number, case.z)
    if drawn and drawn[0].whole:
        image, label = drawn[0].x, _label(case, drawn, head.shape)
    else:
        image, label = composed(plane, source.lesion(case.number, case.z), source.support(case.number, case.z), drawn)
    image = np.maximum(image, plane.min(axis=(1, 2), keepdims=True))  # a scan has a least value, 0 in most, and a drawn pixel none below it
    return Picture(image[[source.slices.contrasts.index(name) for name in contrasts]], label, head)


def _label(case: Case, drawn: Sequence[Drawn], shape: tuple[int, ...]) -> np.ndarray:
    """Of a slice that was drawn whole: with the scan's own masks all its lesions were drawn, with others these alone."""
    if case.rows is not None and (case.rows["mask"] == "own").all():
        return case.source.lesion(case.number, case.z)
    return np.any([_on_plane(each.m, each.window, shape) for each in drawn], axis=0)


def file_names(subjects: Iterable[str], keep: str = "_-", instead: str = "-") -> dict[str, str]:
    """Subject → a name of letters, digits and `keep`, different for each also where a disk takes no note of capitals."""
    found: dict[str, str] = {}
    used: set[str] = set()
    for subject in sorted(subjects):
        plain = re.sub(f"[^A-Za-z0-9{re.escape(keep)}]", instead, subject) or "subject"
        name, number = plain, 2
        while name.casefold() in used:
            name, number = f"{plain}{keep[-1:]}{number}", number + 1
        used.add(name.casefold())
        found[subject] = name
    return found
