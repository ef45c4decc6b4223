"""From folders and file names to a subject's scans on one grid, with labels of one meaning. Everything is refused here or nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathosyn.config import CONTRASTS
from pathosyn.data.labels import canonical_labels
from pathosyn.data.nifti import Volume, read_volume, suffix_of
from pathosyn.errors import Fault, InputError, refuse

ALIASES = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
"""BraTS 2023 names of the contrasts."""

_NAME = re.compile(r"(?:(.*)[_-])?(t1|t1ce|t2|flair|seg|t1n|t1c|t2w|t2f)", re.IGNORECASE | re.DOTALL)
_NAMES_ASKED = "files named like *_t1, *_t1ce, *_t2, *_flair, *_seg (BraTS 2020) or *-t1n, *-t1c, *-t2w, *-t2f, *-seg (BraTS 2023), .nii or .nii.gz"
_GRID_TOLERANCE = 1e-2  # voxels, at the corner of the grid that is farthest off


@dataclass(frozen=True)
class SubjectFiles:
    """Where a subject's scans lie: `images` contrast → file, in the order of config.CONTRASTS; `set` is the name of the collection."""

    name: str
    set: str
    images: dict[str, Path]
    seg: Path | None
    folder: Path | None


@dataclass(frozen=True)
class Scan:
    """A subject's contrasts, read and found to lie on one grid.

    labels  canonical (X, Y, Z) uint8: 0 background, 1 NCR, 2 ED, 3 ET ("brats") or 0 and 1 ("binary"); None without a mask ("none")
    seg     the mask's own file
    """

    name: str
    set: str
    volumes: dict[str, Volume]
    labels: np.ndarray | None
    label_scheme: str
    seg: Volume | None

    @property
    def reference(self) -> Volume:
        """The first contrast in the order of config.CONTRASTS."""
        return next(iter(self.volumes.values()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Canonical (X, Y, Z)."""
        return self.reference.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Canonical, mm."""
        return self.reference.spacing

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) canonical voxel index → world mm."""
        return self.reference.canonical_affine


def kind_of(path: Path) -> str | None:
    """The contrast, or "seg", that a file's name stands for; None if it is not such a name. Hidden files have none (macOS leaves "._x_t1.nii.gz")."""
    suffix = suffix_of(path)
    if not suffix or path.name.startswith("."):
        return None
    match = _NAME.fullmatch(path.name[: -len(suffix)])
    if match is None:
        return None
    kind = match[2].lower()
    return ALIASES.get(kind, kind)


def find_subject(folder: str | Path) -> SubjectFiles:
    """The scans in one subject's folder. InputError where it is no folder, holds no scan by name, or two files for one contrast."""
    folder = Path(folder)
    found: dict[str, list[Path]] = {kind: [] for kind in (*CONTRASTS, "seg")}
    others: list[Path] = []
    for path in _entries(folder):
        kind = kind_of(path)
        if kind is not None:
            found[kind].append(path)
        elif suffix_of(path) and not path.name.startswith("."):
            others.append(path)
    faults: list[Fault] = []
    for kind, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            remedy = "keep one of them, and give each subject its own folder"
            faults.append(Fault(str(folder), f"{len(paths)} files for {kind} ({names})", "one file a contrast", remedy))
    if faults:
        raise InputError(faults)
    images = {kind: found[kind][0] for kind in CONTRASTS if found[kind]}
    if not images:
        raise _no_scan(folder, others, mask_only=bool(found["seg"]))
    absolute = Path(os.path.abspath(folder))  # "." has a name too; links keep theirs
    return SubjectFiles(absolute.name, absolute.parent.name, images, next(iter(found["seg"]), None), folder)


def _no_scan(folder: Path, others: list[Path], *, mask_only: bool) -> InputError:
    if mask_only:
        return refuse(folder, found="a mask but no scan", expected=_NAMES_ASKED, remedy="add at least one contrast")
    expected = _NAMES_ASKED
    if others:
        names = ", ".join(path.name for path in others[:4]) + (", …" if len(others) > 4 else "")
        remedy = "rename the files, or name them one by one: --image flair=FILE"
        return refuse(folder, found=f"no file name that says its contrast ({names})", expected=expected, remedy=remedy)
    below = [path for path in _entries(folder) if path.is_dir() and not path.name.startswith(".")]
    if below:
        found = f"folders but no scan ({below[0].name}{', …' if len(below) > 1 else ''})"
        return refuse(folder, found=found, expected=expected, remedy="give the folder that holds the scans, or the one just above it")
    return refuse(folder, found="no scan", expected=expected, remedy="give the folder that holds the scans")


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name."""
    try:
        folder.name.encode()  # it is the subject's name, in files and in seeds
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except FileNotFoundError:
        raise refuse(folder, found="no such folder", expected="a folder", remedy="check the name") from None
    except NotADirectoryError:
        raise refuse(folder, found="a file", expected="a folder with one file a contrast", remedy="give its folder, or use --image flair=FILE") from None
    except OSError as error:
        found = f"a folder that cannot be read ({error.strerror})"
        raise refuse(folder, found=found, expected="a folder you may read", remedy="change its permissions") from None
    except ValueError as error:  # a name with a null character, or in another encoding
        raise refuse(ascii(str(folder)), found=str(error), expected="a folder's name in UTF-8", remedy="check the name, or rename it") from None


def subject_folders(root: str | Path) -> list[Path]:
    """The folders under `root` that hold NIfTI files, sorted; `root` alone if it holds named scans itself. Hidden folders and those without NIfTI
    files are passed over. InputError where `root` is no folder or nothing is left.
    """
    root = Path(root)
    entries = _entries(root)
    if any(kind_of(path) for path in entries):
        return [root]
    folders = [path for path in entries if not path.name.startswith(".") and path.is_dir() and not suffix_of(path)]
    subjects = [path for path in folders if _may_hold_scans(path)]
    if not subjects:
        raise _no_scan(root, [path for path in entries if suffix_of(path) and not path.name.startswith(".")], mask_only=False)
    return subjects


def _may_hold_scans(folder: Path) -> bool:
    try:
        return any(suffix_of(path) and not path.name.startswith(".") for path in _entries(folder))
    except InputError:  # not readable: `find_subject` says so with the other faults
        return True


def find_subjects(root: str | Path) -> list[SubjectFiles]:
    """Every subject under `root`, a subject's folder or a folder of such folders; in the order of their names. InputError with the faults of all of them."""
    faults: list[Fault] = []
    subjects: list[SubjectFiles] = []
    for folder in subject_folders(root):
        try:
            subjects.append(find_subject(folder))
        except InputError as error:
            faults.extend(error.faults)
    if faults:
        raise InputError(faults)
    return subjects


def named_files(images: Sequence[str], mask: str | Path | None = None) -> SubjectFiles:
    """Files named one by one, "flair=FILE" or "t2f=FILE"; the subject is called after the first file. InputError with every fault."""
    faults: list[Fault] = []
    given: dict[str, Path] = {}
    known = ", ".join(CONTRASTS)
    for argument in images:
        name, equals, file = argument.partition("=")
        contrast = ALIASES.get(name.strip().lower(), name.strip().lower())
        where = f"--image {argument}"
        if not equals:
            faults.append(Fault(where, "no “=”", "CONTRAST=FILE", f"write the contrast before the file: --image flair={argument}"))
        elif contrast not in CONTRASTS:
            remedy = f"give it as --mask {file}" if contrast in ("seg", "mask") else "name the nearest contrast, or leave the file out"
            faults.append(Fault(where, f"contrast “{name}”", f"one of {known}", remedy))
        elif not file.strip():
            faults.append(Fault(where, "no file after “=”", "CONTRAST=FILE", "give the path of the scan"))
        elif contrast in given:
            faults.append(Fault(where, f"{contrast} a second time ({given[contrast]} before)", "one file a contrast", "leave one of them out"))
        else:
            given[contrast] = Path(os.path.expanduser(file))
    if not images:
        faults.append(Fault("--image", "nothing", "at least one CONTRAST=FILE", f"give a scan; contrasts are {known}"))
    if faults:
        raise InputError(faults)
    ordered = {contrast: given[contrast] for contrast in CONTRASTS if contrast in given}
    first = next(iter(ordered.values()))
    stem = first.name[: len(first.name) - len(suffix_of(first))]
    named = _NAME.fullmatch(stem)
    return SubjectFiles((named[1] if named else None) or stem, "", ordered, None if mask is None else Path(os.path.expanduser(mask)), None)


def read_scan(files: SubjectFiles, *, mask: str | Path | None = None, threads: int = 2) -> Scan:
    """Read and check a subject, by so many `threads`; `mask` stands in for the subject's own segmentation.

    InputError with every fault at once: a file that `read_volume` refuses, a constant image, contrasts or mask on another grid than the first
    contrast (shape, or corners more than 0.01 voxel apart), a mask whose labels have no meaning here.
    """
    paths: dict[str, Path] = dict(files.images)
    seg_path = Path(mask) if mask is not None else files.seg
    if seg_path is not None:
        paths["seg"] = seg_path
    faults: list[Fault] = []
    volumes: dict[str, Volume] = {}
    for kind, outcome in zip(paths, _attempts([*paths.values()], threads), strict=True):
        if isinstance(outcome, InputError):
            faults.extend(outcome.faults)
        else:
            volumes[kind] = outcome
    seg = volumes.pop("seg", None)
    for volume in volumes.values():
        if (low := volume.stored.min()) == volume.stored.max():
            value = float(low) * volume.slope + volume.inter
            faults.append(Fault(str(volume.path), f"the same value {value:g} in every voxel", "a scan", "export it again, or leave this contrast out"))
    first = next(iter(volumes.values()), None)
    if first is not None:
        others = [*volumes.values()][1:] + ([seg] if seg is not None else [])
        faults.extend(fault for other in others if (fault := grid_fault(first, other)) is not None)
    labels, scheme = None, "none"
    if seg is not None:
        try:
            labels, scheme = canonical_labels(seg.native(), seg.path)
        except InputError as error:
            faults.extend(error.faults)
    if faults:
        raise InputError(faults)
    return Scan(files.name, files.set, {name: volumes[name] for name in CONTRASTS if name in volumes}, labels, scheme, seg)


def _attempts(paths: Sequence[Path], threads: int) -> list[Volume | InputError]:
    if threads == 1:
        return [_attempt(path) for path in paths]
    with ThreadPoolExecutor(max_workers=threads) as pool:  # decompression runs outside the interpreter's lock
        return [*pool.map(_attempt, paths)]


def _attempt(path: Path) -> Volume | InputError:
    try:
        return read_volume(path)
    except InputError as error:
        return error


def grid_fault(reference: Volume, other: Volume) -> Fault | None:
    """Shapes and affines are compared after both are turned to RAS+: files may store one grid in different orders."""
    remedy = f"resample it onto {reference.path.name} (nibabel.processing.resample_from_to; nearest neighbour for a mask)"
    if reference.shape != other.shape:
        sizes = [" x ".join(map(str, volume.shape)) for volume in (other, reference)]
        return Fault(str(other.path), f"a grid of {sizes[0]} voxels", f"{sizes[1]} as in {reference.path.name}", remedy)
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.array(reference.shape) - 1
    seen = corners @ (np.linalg.inv(reference.canonical_affine) @ other.canonical_affine).T
    apart = float(np.abs(seen - corners).max())
    if apart <= _GRID_TOLERANCE:
        return None
    millimetres = float(np.sqrt((((corners @ other.canonical_affine.T) - (corners @ reference.canonical_affine.T))[:, :3] ** 2).sum(axis=1)).max())
    return Fault(str(other.path), f"a grid that lies up to {millimetres:.3g} mm ({apart:.2g} voxels) off", f"the grid of {reference.path.name}", remedy)
