"""The weights that come with the package: by name, offline, checked, under terms of their own.

index.json     name → file, version, sha256, what it is; `default` names the ones that load unless told otherwise
LICENSE.txt    the terms, which are those of the data that the weights were trained on
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from pathosyn.errors import refuse


@dataclass(frozen=True)
class Shipped:
    """One entry of index.json."""

    name: str
    file: str
    version: str
    sha256: str
    what: str

    @property
    def path(self) -> Path:
        """The file beside this module."""
        return _FOLDER / self.file


_FOLDER = Path(str(files(__name__)))


@cache
def shipped() -> dict[str, Shipped]:
    """All that come with this version, by name, the default first; none where the package was built without them."""
    index = _FOLDER / "index.json"
    if not index.is_file():
        return {}
    return {row["name"]: Shipped(**row) for row in json.loads(index.read_text())}


def find(weights: str | Path | None = None) -> Path:
    """A name, a file, or None for the default → the file. InputError for a name that is none and no file either, and for a damaged file of ours.

    A file in the working folder goes before a name: what a user made is meant."""
    from pathosyn.data.nifti import file_sha256

    there = shipped()
    name = str(weights) if weights is not None else next(iter(there), "")
    if name not in there or (weights is not None and Path(weights).is_file()):
        if weights is None:
            raise refuse("--weights", found="a package without weights", expected="a weight file", remedy="give one that `pathosyn train` wrote")
        if Path(weights).suffix or Path(weights).exists():
            return Path(weights)
        remedy = "give one of these names, or the weights.safetensors that `pathosyn train` wrote"
        raise refuse("--weights", found=f"'{name}'", expected=f"a file, or one of {', '.join(there) or 'no names'}", remedy=remedy)
    found = there[name]
    if not found.path.is_file() or file_sha256(found.path) != found.sha256:
        raise refuse(found.path, found="a file that is not the one we shipped", expected=f"sha256 {found.sha256[:12]}…", remedy="install pathosyn again")
    return found.path


def terms() -> str:
    """One line on what the shipped weights may be used for; empty without weights."""
    licence = _FOLDER / "LICENSE.txt"
    return licence.read_text().split("\n\n", 1)[0].replace("\n", " ") if shipped() and licence.is_file() else ""
