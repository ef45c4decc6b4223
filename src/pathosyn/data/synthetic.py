"""SyntheticSet: what a generative method wrote, and all that an evaluation reads of it.

    DIR/set.json      format, version, contrasts, data (fingerprint of the slices file), method, purpose, partition, weights, seed
    DIR/rows.csv      one row a drawn window: where it lies, what it was drawn from and with
    DIR/windows.h5    /<side>/x_hat, x_sub (n, C, side, side) float16, m, S (n, side, side); a row's `place` is its index there

Windows are in normalised units on the working grid, rounded to float16 as the scans of the slices file are: a classifier must not win by the rounding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from pathosyn.errors import refuse

FORMAT = "pathosyn-synthetic"
VERSION = 1
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


class Writer:
    """Collects windows beside the final place, which they get when the context ends; nothing is left where its body fails. `folder` must not exist, or be
    an older set, which is replaced."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.folder, self.origin = folder, origin
        self.part = folder.with_name(f".{folder.name}.part")
        self.rows: list[dict[str, Any]] = []

    def __enter__(self) -> Writer:
        if self.folder.exists() and not (self.folder / "set.json").is_file() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            found = "a folder with other files in it" if self.folder.is_dir() else "a file"
            raise refuse(self.folder, found=found, expected="a new folder, or an older set to replace", remedy="give another --out")
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True)
        self.file = h5py.File(self.part / "windows.h5", "w")
        return self

    def add(self, arrays: dict[str, np.ndarray], rows: list[dict[str, Any]]) -> None:
        """`arrays`: FIELDS, each (n, …); `rows`: n descriptions."""
        side = arrays["m"].shape[-1]
        group = self.file.require_group(str(side))
        start = len(group["m"]) if "m" in group else 0
        for name in FIELDS:
            values = arrays[name].astype(np.float16)
            if name not in group:
                group.create_dataset(name, data=values, maxshape=(None, *values.shape[1:]), chunks=(1, *values.shape[1:]), compression="lzf")
                continue
            group[name].resize(start + len(values), axis=0)
            group[name][start:] = values
        self.rows += [{**row, "side": side, "place": start + i} for i, row in enumerate(rows)]

    def __exit__(self, kind: object, *_: object) -> None:
        self.file.close()
        if kind is not None:
            shutil.rmtree(self.part, ignore_errors=True)
            return
        pd.DataFrame(self.rows).to_csv(self.part / "rows.csv", index=False)
        (self.part / "set.json").write_text(json.dumps({"format": FORMAT, "version": VERSION, **asdict(self.origin)}, indent=1))
        shutil.rmtree(self.folder, ignore_errors=True)
        self.part.rename(self.folder)


class SyntheticSet:
    """A finished set. `rows` is rows.csv; `origin` is set.json. InputError for a folder that is none."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        remedy = "make it with: pathosyn generate --data slices.h5 --method NAME --out DIR"
        try:
            about = json.loads((self.folder / "set.json").read_text())
            if (about.pop("format", None), about.pop("version", None)) != (FORMAT, VERSION):
                raise refuse(self.folder, found="a set of another kind or version", expected=f"{FORMAT} {VERSION}", remedy=remedy)
            self.origin = Origin(**{**about, "contrasts": tuple(about["contrasts"])})
            # A subject may be called NA.
            self.rows = pd.read_csv(self.folder / "rows.csv", dtype={"subject": str, "donor": str}, keep_default_na=False)
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise refuse(self.folder, found="no synthetic set", expected="a folder that `pathosyn generate` wrote", remedy=remedy) from error

    def windows(self) -> Iterator[tuple[pd.Series, dict[str, np.ndarray]]]:
        """Each row with its arrays, float32: x_hat, x_sub (C, side, side), m, S (side, side); in the order of `rows`."""
        with h5py.File(self.folder / "windows.h5", "r") as file:
            for _, row in self.rows.iterrows():
                group = file[str(row["side"])]
                yield row, {name: group[name][int(row["place"])].astype(np.float32) for name in FIELDS}
