"""Everything that can be computed once a subject, computed once and stored: scans → slices.h5.

Workers read and compute, this process writes. Killed at any moment, the same command goes on from the last whole subject and ends with the same content.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pathosyn.config import CONTRASTS, Geometry
from pathosyn.data import store
from pathosyn.data import workers as processes
from pathosyn.data.inpaint import KINDS
from pathosyn.data.nifti import file_sha256
from pathosyn.data.placement import refuse_misplaced
from pathosyn.data.scene import record_of
from pathosyn.data.split import draw_split, read_split
from pathosyn.data.subjects import SubjectFiles, find_subjects, read_scan
from pathosyn.errors import Fault, InputError, refuse
from pathosyn.progress import track
from pathosyn.writing import reason, refuse_unwritable

Counts = tuple[dict[str, int], int, int]
"""What `store.counts` gives."""
SPARE = 1 << 20
"""Bytes that must stay free: HDF5's own tables."""


@dataclass(frozen=True)
class Summary:
    """What was written. `resumed` subjects had been prepared by an earlier run of the same command."""

    out: Path
    subjects: int
    resumed: int
    partitions: dict[str, int]
    slices: int
    windows: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        parts = ", ".join(f"{count} {name}" for name, count in self.partitions.items())
        again = f", {self.resumed} of them from an earlier run" if self.resumed else ""
        size = f"{self.bytes / 1e6:.0f} MB"
        return f"{self.out}: {self.subjects} subjects ({parts}{again}), {self.slices} slices, {self.windows} lesion windows, {size}, {self.seconds:.1f} s"


def prepare(
    roots: Sequence[Path],
    out: Path,
    *,
    split: Path | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    geometry: Geometry | None = None,
    inpaint: str = "harmonic",
    workers: int | None = None,
    progress: bool = True,
) -> Summary:
    """Read every subject below `roots`, write the slices file `out` (see `store`).

    split       CSV with the columns subject, partition; else a random split by `fractions` and `seed`
    inpaint     Inp(x, m) of Eq. 3, `harmonic` or `biharmonic`
    workers     reading processes; None: one a core; 0: no other process

    The work file is `out` + ".part"; it takes the name `out` when all subjects are in. A finished `out` of the same settings and sources is left as it is.
    Raises InputError with the faults of all subjects (the good ones stay in the work file), and where `out` or the work file belong to other settings.
    """
    start = time.monotonic()
    out, geometry = Path(out), geometry or Geometry()
    if inpaint not in KINDS:
        raise refuse("--inpaint", found=inpaint, expected=" or ".join(KINDS), remedy="choose one of them")
    subjects = _subjects(roots)
    partitions, how = _partitions(subjects, split, fractions, seed)
    contrasts = tuple(name for name in CONTRASTS if any(name in files.images for files in subjects))
    settings = store.settings_of(contrasts, geometry, inpaint, _version())
    part = out.with_name(out.name + ".part")
    pool: processes.Readers | None = None
    try:
        if out.exists():
            counted = _counts_of_same(out, settings, partitions, subjects)
            return _summary(out, len(subjects), len(subjects), counted, start)
        refuse_unwritable(out.absolute().parent, "--out")
        out.parent.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(part)
        _refuse_full(out, 0)
        pool, readers = processes.start(workers, len(subjects))
        with store.open_part(part) as file:
            done = _resumable(file, settings, subjects)
            todo = sorted((files for files in subjects if files.name not in done), key=lambda files: (-_bytes(files), files.name))
            work = partial(_work, contrasts=contrasts, geometry=geometry, inpaint=inpaint)
            faults: list[Fault] = []
            with track(len(subjects), "prepare", "subjects", done=len(done), show=progress) as bar:
                for files, result in processes.in_order(work, todo, pool, most=readers + processes.AHEAD):
                    if isinstance(result, list):
                        faults += result
                    else:
                        _refuse_full(out, sum(getattr(result[0], name).nbytes for name in store.ARRAYS))
                        store.write_record(file, result[0], partitions[files.name], result[1])
                    bar.advance(note=files.name)
            if faults:
                raise InputError(faults)
            store.finish(file, partitions, how)
            counted = store.counts(file)
        os.replace(part, out)
    except (OSError, RuntimeError) as error:  # h5py: either, for a write that failed
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        raise _unwritable(out, error) from error
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
    return _summary(out, len(subjects), len(done), counted, start)


def _refuse_full(out: Path, more: int) -> None:
    """HDF5 does not survive a disk that fills up under it: not even its file can be closed then. So there must be room for `more` bytes first."""
    free = shutil.disk_usage(out.parent).free
    if free < more + SPARE:
        raise _full(out, f"a full disk ({free / 1e6:.1f} MB free)")


def _refuse_foreign(part: Path) -> None:
    """Somebody else's HDF5 file of the work file's name is not written into."""
    import h5py

    with suppress(OSError), h5py.File(part, "r") as file:  # what cannot be opened is the store's to judge
        if (len(file) or len(file.attrs)) and file.attrs.get("format") != store.FORMAT:
            raise refuse(part, found="an HDF5 file of another kind", expected="no such file, or our own work file", remedy="give another --out")


def _full(out: Path, found: str) -> InputError:
    remedy = "free some space and run the same command again, it resumes"
    return refuse(out, found=found, expected="room for the slices file (about 300 kB a slice)", remedy=remedy)


def _unwritable(out: Path, error: OSError | RuntimeError) -> InputError:
    """HDF5 tells the reason only within its message."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return _full(out, "a full disk")
    expected, remedy = "a writable output file", "give another --out, or delete the damaged file"
    return refuse(out, found=f"a place that cannot be written ({reason(error)})", expected=expected, remedy=remedy)


def _subjects(roots: Sequence[Path]) -> list[SubjectFiles]:
    """All subjects, sorted by name; InputError with every fault of every root, and for a name that stands in two roots."""
    found: list[SubjectFiles] = []
    faults: list[Fault] = []
    for root in roots:
        try:
            found += find_subjects(Path(root))
        except InputError as error:
            faults += error.faults
    for name, count in Counter(files.name for files in found).items():
        if count > 1:
            places = " and ".join(str(files.folder) for files in found if files.name == name)
            faults.append(Fault(name, f"{count} subjects of this name ({places})", "one subject a name", "rename a folder or leave one out"))
    if not roots:
        faults.append(Fault("DIR", "no folder", "one folder of subjects or more", "give the folder that holds your subjects"))
    if faults:
        raise InputError(faults)
    return sorted(found, key=lambda files: files.name)


def _partitions(subjects: Sequence[SubjectFiles], split: Path | None, fractions: Sequence[float], seed: int) -> tuple[dict[str, str], dict[str, Any]]:
    """The partition of every subject, and how it came about."""
    if split is None:
        return draw_split([files.name for files in subjects], fractions, seed), {"fractions": list(fractions), "seed": seed}
    partitions = read_split(split, [(files.set, files.name) for files in subjects])
    return partitions, {"file": Path(split).name, "sha256": file_sha256(split)}


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pathosyn")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def _bytes(files: SubjectFiles) -> int:
    return sum(path.stat().st_size for path in _paths(files).values())


def _paths(files: SubjectFiles) -> dict[str, Path]:
    return {**files.images, **({"seg": files.seg} if files.seg else {})}


def _unchanged(files: SubjectFiles, source: dict[str, Any]) -> bool:
    """Whether a stored subject came from exactly these files."""
    paths = _paths(files)
    return paths.keys() == source.keys() and all(source[key]["sha256"] == file_sha256(path) for key, path in paths.items())


def _counts_of_same(out: Path, settings: dict[str, str], partitions: dict[str, str], subjects: Sequence[SubjectFiles]) -> Counts:
    """What `out` holds, where it is the finished result of this very work; InputError where it is something else."""
    import h5py

    remedy = "delete it, or give another --out"
    try:
        store.read_header(out)
    except InputError as error:
        raise InputError([replace(fault, expected="no file of this name", remedy=remedy) for fault in error.faults]) from None
    with h5py.File(out, "r") as file:
        differing = [name for name, value in settings.items() if file.attrs.get(name) != value]
        if differing:
            raise refuse(out, found=f"a finished file with other settings ({', '.join(differing)})", expected="no file of this name", remedy=remedy)
        stored = {name: json.loads(group.attrs["source"]) for name, group in file["subjects"].items()}
        split = {name: group.attrs["partition"] for name, group in file["subjects"].items()}
        counted = store.counts(file)
    if stored.keys() != {files.name for files in subjects} or not all(_unchanged(files, stored[files.name]) for files in subjects):
        raise refuse(out, found="a finished file of other subjects or scans", expected="no file of this name", remedy=remedy)
    if split != partitions:
        raise refuse(out, found="a finished file with another split", expected="no file of this name", remedy=remedy)
    return counted


def _resumable(file: Any, settings: dict[str, str], subjects: Sequence[SubjectFiles]) -> set[str]:
    """Names of the subjects that the work file holds whole and whose files have not changed; everything else is taken out of it."""
    store.write_settings(file, settings)
    by_name = {files.name: files for files in subjects}
    stored = store.finished(file)
    done = {name for name, source in stored.items() if name in by_name and _unchanged(by_name[name], source)}
    for name in list(file["subjects"]):
        if name not in done:
            del file["subjects"][name]
    return done


Result = tuple[store.Record, int] | list[Fault]


def _work(files: SubjectFiles, *, contrasts: Sequence[str], geometry: Geometry, inpaint: str) -> Result:
    """One subject, from files to arrays; its faults are returned, so that one bad subject does not stop the others."""
    try:
        scan = read_scan(files, threads=1)  # there is a process for each core already
        try:
            record = record_of(scan, contrasts, geometry, inpaint)
        except ValueError as error:
            raise refuse(
                files.folder or files.name, found=str(error), expected="a scan of a head with contrast in it", remedy="look at the images of this subject"
            ) from error
        refuse_misplaced(record.seg > 0, record.foreground.view(bool), files.seg)
    except InputError as error:
        return list(error.faults)
    volumes = {**scan.volumes, **({"seg": scan.seg} if scan.seg is not None else {})}
    source = {
        key: {"name": path.name, "sha256": file_sha256(path), "shape": [int(n) for n in volumes[key].stored.shape], "dtype": str(volumes[key].stored.dtype)}
        for key, path in _paths(files).items()
    }
    record.attributes.update(source=json.dumps(source), attributes=json.dumps(_row(files)))
    return record, store.checksum({name: getattr(record, name) for name in store.ARRAYS})


def _row(files: SubjectFiles) -> dict[str, str]:
    """The subject's row in a subjects.csv beside the subject folders: site, grade and the like; empty without one."""
    table = files.folder.parent / "subjects.csv" if files.folder else None
    if table is None or not table.is_file():
        return {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            return next((row for row in csv.DictReader(lines) if row.get("subject") == files.name), {})
    except (OSError, ValueError, csv.Error) as error:
        expected, remedy = "a CSV in UTF-8 with a column subject", "export it again, or rename it"
        raise refuse(table, found=f"no readable table ({error})", expected=expected, remedy=remedy) from error


def _summary(out: Path, subjects: int, resumed: int, counted: Counts, start: float) -> Summary:
    return Summary(out, subjects, resumed, *counted, out.stat().st_size, time.monotonic() - start)
