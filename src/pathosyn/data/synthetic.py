"""SyntheticSet: what a generative method wrote, and all that an evaluation or an export reads of it.

    DIR/set.json      format, version, and what its rows have in common (`Origin`)
    DIR/rows.csv      one row a drawn window: where it lies, what it was drawn from and with
    DIR/windows.h5    /<side>/x_hat, x_sub (n, C, side, side) float16, m, S (n, side, side); a row's `place` is its index there
                      /planes/<key> (C, H, W) float16: the whole drawn slice, where more than the window differs from the scan; a row's `plane` is its key

Windows are in normalised units on the working grid, rounded to float16 as the scans of the slices file are: a classifier must not win by the rounding.

While a set is made its batches lie in .DIR.part, a file each, written by whichever process drew them; the finished set is made of them in their order, so
that neither the number of processes nor an interruption shows in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pathosyn.errors import refuse
from pathosyn.writing import beside

FORMAT = "pathosyn-synthetic"
VERSION = 2
READ = (1, VERSION)
"""Sets of version 1 have no planes and fewer columns."""
PACKED = {"compression": "gzip", "compression_opts": 1, "track_times": False}
"""Not lzf, whose output depends on what its memory happened to hold: the same set would have other bytes."""
FIELDS = ("x_hat", "x_sub", "m", "S")


@dataclass(frozen=True)
class Origin:
    """What the rows of a set have in common. `partition` names the subjects whose scans and masks were used."""

    contrasts: tuple[str, ...]
    data: str
    method: str
    purpose: str
    partition: str
    weights: str
    seed: int


@dataclass(frozen=True)
class Group:
    """Windows of one side. `arrays`: FIELDS, each (n, …); `rows`: n descriptions; `planes`: key → (C, H, W)."""

    arrays: Mapping[str, np.ndarray]
    rows: Sequence[Mapping[str, Any]]
    planes: Mapping[str, np.ndarray] = field(default_factory=dict)


class Writer:
    """Batches beside the final place, until `finish` makes the set of them. `folder` must not exist, or be an older set, which is replaced.

    One process opens (`open`), any number add, one finishes. What an earlier call with the same `asked` left is gone on with."""

    def __init__(self, folder: Path, origin: Origin, asked: Mapping[str, Any] | None = None) -> None:
        self.folder, self.origin = folder, origin
        self.asked = json.dumps({"version": VERSION, **asdict(origin), **(asked or {})}, sort_keys=True, default=str)
        self.part = folder.with_name(f".{folder.name}.part")

    def check(self) -> None:
        """InputError for a folder with other things in it."""
        if self.folder.exists() and not (self.folder / "set.json").is_file() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            found = "a folder with other files in it" if self.folder.is_dir() else "a file"
            raise refuse(self.folder, found=found, expected="a new folder, or an older set to replace", remedy="give another --out")

    def open(self) -> int:
        """Make the place ready; returns how many batches are there already. InputError as `check`."""
        self.check()
        asked = self.part / "asked.json"
        if not asked.is_file() or asked.read_text() != self.asked:
            shutil.rmtree(self.part, ignore_errors=True)
            self.part.mkdir(parents=True)
            with beside(asked) as file:
                file.write(self.asked.encode())
        return len(list(self.part.glob("batch-*.npz")))

    def has(self, number: int) -> bool:
        """Whether this batch is there already."""
        return self._batch(number).is_file()

    def add(self, number: int, *groups: Group) -> None:
        """Batch `number`: windows of one side each."""
        packed: dict[str, np.ndarray] = {}
        for i, group in enumerate(groups):
            packed |= {f"{i} {name}": group.arrays[name].astype(np.float16) for name in FIELDS}
            packed |= {f"plane {key}": plane.astype(np.float16) for key, plane in group.planes.items()}
            packed[f"{i} rows"] = np.array(json.dumps([dict(row) for row in group.rows]))
        with beside(self._batch(number)) as file:
            np.savez(file, groups=np.array(len(groups)), **packed)  # type: ignore[arg-type]

    def finish(self, batches: int) -> Path:
        """The set of batches 0 … `batches` - 1; what was beside it goes. Returns the folder."""
        made = self.part / "set"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        table: list[dict[str, Any]] = []
        placed: dict[int, int] = {}
        with h5py.File(made / "windows.h5", "w") as file:
            self._make_room(file, batches)
            for number in range(batches):
                with np.load(self._batch(number)) as batch:
                    for i in range(int(batch["groups"])):
                        side = batch[f"{i} m"].shape[-1]
                        found = _filled(file, batch, i, placed.get(side, 0))
                        placed[side] = placed.get(side, 0) + len(found)
                        table += found
                    _planes(file, batch)
        columns = pd.DataFrame(table) if table else pd.DataFrame(columns=["row", "subject", "z", "y", "x", "replicate", "side", "place"])
        columns.to_csv(made / "rows.csv", index=False)
        (made / "set.json").write_text(json.dumps({"format": FORMAT, "version": VERSION, **asdict(self.origin)}, indent=1))
        shutil.rmtree(self.folder, ignore_errors=True)
        made.rename(self.folder)
        shutil.rmtree(self.part)
        return self.folder

    def _make_room(self, file: h5py.File, batches: int) -> None:
        """Datasets of their final length."""
        shapes: dict[int, tuple[int, int]] = {}
        for number in range(batches):
            with np.load(self._batch(number)) as batch:
                for i in range(int(batch["groups"])):
                    count, contrasts, side = batch[f"{i} x_hat"].shape[:3]
                    shapes[side] = shapes.get(side, (0, 0))[0] + count, contrasts
        for side, (count, contrasts) in shapes.items():
            for name in FIELDS:
                one = (contrasts, side, side) if name.startswith("x_") else (side, side)
                file.require_group(str(side)).create_dataset(name, (count, *one), np.float16, chunks=(1, *one), **PACKED)

    def abandon(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.part, ignore_errors=True)

    def _batch(self, number: int) -> Path:
        return self.part / f"batch-{number:07d}.npz"


def _filled(file: h5py.File, batch: Any, i: int, start: int) -> list[dict[str, Any]]:
    """Group `i` of a batch in the file's arrays, from `start` on; its rows with their places."""
    side = batch[f"{i} m"].shape[-1]
    for name in FIELDS:
        values = batch[f"{i} {name}"]
        file[str(side)][name][start : start + len(values)] = values
    return [{**row, "side": side, "place": start + k} for k, row in enumerate(json.loads(str(batch[f"{i} rows"])))]


def _planes(file: h5py.File, batch: Any) -> None:
    for name in batch.files:
        key = name.removeprefix("plane ")
        if key != name and key not in file.require_group("planes"):
            file["planes"].create_dataset(key, data=batch[name], chunks=batch[name].shape, **PACKED)


class SyntheticSet:
    """A finished set. `rows` is rows.csv; `origin` is set.json. InputError for a folder that is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        remedy = "make it with: pathosyn generate --data slices.h5 --method NAME --out DIR"
        try:
            about = json.loads((self.folder / "set.json").read_text())
            if (about.pop("format", None)) != FORMAT or about.pop("version", None) not in READ:
                raise refuse(self.folder, found="a set of another kind or version", expected=f"{FORMAT} {VERSION}", remedy=remedy)
            self.origin = Origin(**{**about, "contrasts": tuple(about["contrasts"])})
            # A subject may be called NA.
            words = dict.fromkeys(("subject", "donor", "plane", "mask_subject", "labels"), str)
            self.rows = pd.read_csv(self.folder / "rows.csv", dtype=words, keep_default_na=False)
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise refuse(self.folder, found="no synthetic set", expected="a folder that `pathosyn generate` wrote", remedy=remedy) from error

    def windows(self) -> Iterator[tuple[pd.Series, dict[str, np.ndarray]]]:
        """Each row with its arrays, float32: x_hat, x_sub (C, side, side), m, S (side, side), and `plane` (C, H, W) where there is one; in the order of
        `rows`."""
        with h5py.File(self.folder / "windows.h5", "r") as file:
            for _, row in self.rows.iterrows():
                group = file[str(row["side"])]
                found = {name: group[name][int(row["place"])].astype(np.float32) for name in FIELDS}
                if row.get("plane", ""):
                    found["plane"] = file["planes"][str(row["plane"])][()].astype(np.float32)
                yield row, found
