"""Files that are whole or not there, and the question before hours of work: can the result be written where it is to go?"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pathosyn.errors import InputError, refuse


@contextmanager
def beside(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` once it is written whole (`durable`: and is on the disk); nothing is left where that fails."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def refuse_unwritable(folder: str | Path, flag: str) -> None:
    """InputError unless `folder` is one that can be written in, or can be made. Nothing is left there; `flag` is what the user is to give anew."""
    folder = Path(os.path.abspath(folder))
    remedy, expected = f"give another {flag}", "a folder that can be written, or made"
    try:
        there = _nearest(folder)
        if not there.is_dir():
            what = "a file" if there == folder else f"{there} is a file"
            raise refuse(folder, found=f"a place that cannot be written ({what})", expected=expected, remedy=remedy)
        os.rmdir(tempfile.mkdtemp(prefix=".pathosyn-", dir=there))  # permissions alone tell too little: read-only disks, /proc, the superuser
    except (OSError, ValueError) as error:
        raise refuse(folder, found=f"a place that cannot be written ({reason(error)})", expected=expected, remedy=remedy) from error


def _nearest(path: Path) -> Path:
    """`path` itself, or the nearest of its parents that exists. OSError or ValueError for a name that the file system does not take."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return _nearest(path.parent)
    return path


def cannot_write(folder: Path, flag: str, error: OSError) -> InputError:
    """What to say where writing failed half-way."""
    expected, remedy = "a folder with room that may be written", f"free some space, or give another {flag}"
    return refuse(folder, found=f"a place that cannot be written ({reason(error)})", expected=expected, remedy=remedy)


def reason(error: BaseException) -> str:
    """The operating system's words, without the path and the number."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def new_folders(folder: Path) -> list[Path]:
    """What `folder.mkdir(parents=True)` would make, innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of `folders` (innermost first) that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
