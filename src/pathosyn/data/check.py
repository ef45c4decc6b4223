"""Look through whole collections before anything is computed from them: every fault of every subject, in one go.

A fault stops `prepare` and `insert`; a warning is something that a person should have seen.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pathosyn.config import CONTRASTS
from pathosyn.data.nifti import suffix_of
from pathosyn.data.normalise import foreground
from pathosyn.data.placement import ALL_TISSUE
from pathosyn.data.subjects import Scan, SubjectFiles, find_subject, kind_of, read_scan, subject_folders
from pathosyn.errors import Fault, InputError

if TYPE_CHECKING:
    from rich.table import Table

OUTSIDE_FAULT = 0.5
"""Share of the lesion outside the head or brain from which on mask and scan cannot belong together."""
OUTSIDE_WARNING = 0.1
UNLIKE = 10.0
"""A median intensity this many times above or below that of the collection is pointed out."""
_FEW = 4  # subjects from which on a collection has a typical intensity
_MANY = 8  # subjects from which on starting processes pays
_PLAUSIBLE_MM = (0.1, 15.0)
_OWN_NAMES = ("deviation", "substrate")  # what `insert` writes beside the contrasts


@dataclass(frozen=True)
class Row:
    """What was found in one subject.

    shape, spacing  canonical (X, Y, Z), voxels and mm; None where the scans could not be read
    labels          values in the mask after `canonical_labels`, without 0; None without a readable mask
    lesion_ml       volume of all labels together
    levels          median intensity of the foreground, contrast → native units
    """

    subject: str
    set: str
    folder: Path
    contrasts: tuple[str, ...] = ()
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    labels: tuple[int, ...] | None = None
    lesion_ml: float | None = None
    faults: tuple[Fault, ...] = ()
    warnings: tuple[Fault, ...] = ()
    levels: dict[str, float] = field(default_factory=dict)


def check(roots: Iterable[str | Path] | str | Path, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None) -> list[Row]:
    """One row a subject, in the order of the roots and of the names; then one row for each root beside whose subjects other things lie.

    `progress(done, of)` is called after each subject. InputError only where a root itself cannot be used.
    """
    given = [Path(roots)] if isinstance(roots, str | Path) else [Path(root) for root in roots]
    faults: list[Fault] = []
    folders: list[Path] = []
    beside: list[Row] = []
    for root in dict.fromkeys(given):
        try:
            found = subject_folders(root)
        except InputError as error:
            faults.extend(error.faults)
            continue
        folders.extend(found)
        if found != [root] and (strays := _beside(root, found)):
            beside.append(Row("(beside the subjects)", _name(root), root, warnings=strays))
    if faults:
        raise InputError(faults)
    folders = list({os.path.abspath(folder): folder for folder in folders}.values())  # a collection and one of its subjects: the subject once
    rows: list[Row] = []
    with _pool(workers or min(8, os.cpu_count() or 1), len(folders)) as pool:
        for row in pool.map(examine, folders):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(folders))
    return [*_with_unlike(_with_duplicates(rows)), *beside]


def _pool(workers: int, subjects: int) -> Executor:
    """Processes where forking is safe (beside torch's threads it is not) and there is enough to do; else threads."""
    if workers > 1 and subjects >= _MANY and sys.platform == "linux" and "torch" not in sys.modules:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))
    return ThreadPoolExecutor(workers)


def examine(folder: Path) -> Row:
    """One subject's row; never raises InputError."""
    row = Row(_name(folder), _name(Path(os.path.abspath(folder)).parent), folder)
    try:
        files = find_subject(folder)
    except InputError as error:
        return replace(row, faults=tuple(error.faults))
    warnings = [*_strays(files)]
    if files.seg is None:
        warnings.append(Fault(str(folder), "no mask", "a *_seg file for training and for `heal`", "add it, or use the subject as a healthy one"))
    row = replace(row, contrasts=tuple(files.images), warnings=tuple(warnings))
    try:
        scan = read_scan(files)
    except InputError as error:
        return replace(row, faults=tuple(error.faults))
    return _measured(row, scan)


def _measured(row: Row, scan: Scan) -> Row:
    """The row with all that depends on voxels."""
    images = {name: volume.canonical() for name, volume in scan.volumes.items()}
    head = foreground(list(images.values()))
    levels = {name: float(np.median(image[head][::7])) for name, image in images.items()}  # a seventh is enough to tell units apart
    warnings = [*row.warnings, *_spacing_warnings(row.folder, scan), *_copies(row.folder, images)]
    row = replace(row, shape=scan.shape, spacing=scan.spacing, levels=levels)
    if scan.labels is None or scan.seg is None:
        return replace(row, warnings=tuple(warnings))
    lesion = scan.labels > 0
    voxels = int(lesion.sum())
    counts = np.bincount(scan.labels.ravel(order="K"), minlength=4)
    row = replace(row, labels=tuple(int(label) for label in np.flatnonzero(counts) if label), lesion_ml=voxels * float(np.prod(scan.spacing)) / 1000)
    faults: list[Fault] = []
    where = str(scan.seg.path)
    if not voxels:
        warnings.append(Fault(where, "an empty mask", "a lesion", "draw it, or leave the file out if the subject is healthy"))
    elif (outside := 1 - float(head[lesion].mean())) > OUTSIDE_WARNING:
        remedy = "check that mask and scan belong together and are not flipped against each other"
        fault = Fault(where, f"{outside:.0%} of the lesion outside the head", "a lesion in tissue", remedy)
        (faults if outside > OUTSIDE_FAULT else warnings).append(fault)
    elif (covered := float(lesion[head].mean())) > ALL_TISSUE:
        found, expected = f"a mask that covers {covered:.0%} of the head", "healthy tissue around the lesion"
        faults.append(Fault(where, found, expected, "give the lesion's mask, not the brain's"))
    return replace(row, faults=tuple(faults), warnings=tuple(warnings))


def _spacing_warnings(folder: Path, scan: Scan) -> list[Fault]:
    """Slices are axial here: the thick direction must be z."""
    x, y, z = scan.spacing
    said = f"voxels of {x:.3g} x {y:.3g} x {z:.3g} mm"
    low, high = _PLAUSIBLE_MM
    if min(scan.spacing) < low or max(scan.spacing) > high:
        return [Fault(str(folder), said, f"between {low:g} and {high:g} mm", "check the unit of the header's voxel sizes: distances are taken to be in mm")]
    if max(x, y) > 1.5 * z:
        thick = "sagittal" if x >= y else "coronal"
        remedy = "expect coarse results; an axial or isotropic acquisition works better"
        return [Fault(str(folder), f"{said}, as of {thick} slices", "thin voxels within axial slices", remedy)]
    return []


def _copies(folder: Path, images: dict[str, np.ndarray]) -> list[Fault]:
    """A missing contrast is a missing file: a copy of another under its name teaches a network that the two are the same."""
    pairs = [(a, b) for a, b in combinations(images, 2) if np.array_equal(images[a], images[b])]
    return [Fault(str(folder), f"the same voxels in {a} and {b}", "contrasts that differ", "delete the one that is a copy") for a, b in pairs]


def _strays(files: SubjectFiles) -> list[Fault]:
    """NIfTI files without a meaning, and files of two names, in a subject's folder."""
    folder = files.folder
    if folder is None:
        return []
    unknown = [path.name for path in _visible(folder) if suffix_of(path) and kind_of(path) is None and not _own(path)]
    faults: list[Fault] = []
    if unknown:
        remedy = "rename them after their contrast, or move them away"
        faults.append(Fault(str(folder), f"files that are not used ({_listed(unknown)})", "contrasts and seg", remedy))
    named = [*files.images.values(), *([files.seg] if files.seg else [])]
    prefixes = {_prefix(path) for path in named}
    if len(prefixes) > 1:
        remedy = "check that all of them show the same patient and session"
        faults.append(Fault(str(folder), f"files of several names ({_listed(sorted(prefixes))})", "one patient a folder", remedy))
    return faults


def _beside(root: Path, subjects: Sequence[Path]) -> tuple[Fault, ...]:
    """NIfTI files and folders in a collection that belong to no subject."""
    known = set(subjects)
    files = [path.name for path in _visible(root) if suffix_of(path) and path not in known]
    folders = [path.name for path in _visible(root) if path.is_dir() and path not in known and not suffix_of(path)]
    faults: list[Fault] = []
    if files:
        faults.append(Fault(str(root), f"scans outside any subject's folder ({_listed(files)})", "one folder a subject", "move them into folders, or away"))
    if folders:
        remedy = "if they hold subjects of their own, give them as further folders; otherwise nothing is to be done"
        faults.append(Fault(str(root), f"folders without NIfTI files ({_listed(folders)})", "one folder a subject", remedy))
    return tuple(faults)


def _with_duplicates(rows: Sequence[Row]) -> list[Row]:
    """A subject's name is its identity: in the split, in the prepared file, in every table."""
    places: dict[str, list[Path]] = defaultdict(list)
    for row in rows:
        places[row.subject].append(row.folder)
    result = []
    for row in rows:
        others = [str(folder) for folder in places[row.subject] if folder != row.folder]
        if others:
            remedy = "rename one of the folders, or leave one of the collections out"
            fault = Fault(str(row.folder), f"the subject's name again in {_listed(others)}", "a name of its own for each subject", remedy)
            row = replace(row, faults=(*row.faults, fault))
        result.append(row)
    return result


def _with_unlike(rows: Sequence[Row]) -> list[Row]:
    """Intensities in other units than the rest of the collection's."""
    typical: dict[tuple[str, str], float] = {}
    for name in CONTRASTS:
        for collection in {row.set for row in rows}:
            levels = [row.levels[name] for row in rows if row.set == collection and name in row.levels]
            if len(levels) >= _FEW:
                typical[collection, name] = float(np.median(levels))
    result = []
    for row in rows:
        usual = {name: typical.get((row.set, name), 0.0) for name in row.levels}
        unlike = [name for name, level in row.levels.items() if level > 0 and usual[name] > 0 and not 1 / UNLIKE <= level / usual[name] <= UNLIKE]
        if unlike:
            found = "median intensities of " + ", ".join(f"{row.levels[name]:.4g} in {name}" for name in unlike)
            expected = "about " + ", ".join(f"{usual[name]:.4g}" for name in unlike) + f" as in the rest of {row.set}"
            remedy = "look at the scan; if it is sound, nothing is to be done (each scan is normalised by itself)"
            row = replace(row, warnings=(*row.warnings, Fault(str(row.folder), found, expected, remedy)))
        result.append(row)
    return result


def table(rows: Sequence[Row]) -> Table:
    """The rows as one table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    result = Table("subject", "contrasts", "voxels", "mm", "labels", "lesion ml", "state")
    for row in rows:
        if row.shape is None and not row.faults:  # not a subject: its warnings stand below the table
            continue
        shape = " x ".join(map(str, row.shape)) if row.shape else "-"
        spacing = " x ".join(f"{value:.3g}" for value in row.spacing) if row.spacing else "-"
        labels = "-" if row.labels is None else " ".join(map(str, row.labels)) or "none"
        volume = "-" if row.lesion_ml is None else f"{row.lesion_ml:.1f}"
        state = Text("good", style="green")
        if row.warnings:
            state = Text(_count(len(row.warnings), "warning"), style="yellow")
        if row.faults:
            state = Text(_count(len(row.faults), "fault"), style="red")
        # Text and not str: a name in square brackets is a name, not markup.
        result.add_row(Text(" ".join(row.subject.split())), " ".join(row.contrasts) or "-", shape, spacing, labels, volume, state)
    return result


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 else "")


def _visible(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def _own(path: Path) -> bool:
    stem = path.name[: -len(suffix_of(path))].lower()
    return stem.endswith(_OWN_NAMES)


def _prefix(path: Path) -> str:
    stem = path.name[: -len(suffix_of(path))]
    cut = max(stem.rfind("_"), stem.rfind("-"))
    return stem[:cut] if cut > 0 else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _name(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name
