"""Which scans and weights a command line names; shared by insert and heal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pathosyn.cli.limits import outside
from pathosyn.data.subjects import SubjectFiles, find_subjects, named_files
from pathosyn.errors import Fault, InputError, refuse

if TYPE_CHECKING:
    from pathosyn.checkpoint import Loaded
    from pathosyn.types import Backend


def many_subjects(folders: Sequence[Path], images: Sequence[str]) -> list[SubjectFiles]:
    """Subjects of the folders, or the one that --image describes. InputError: neither, both, a faulty folder, or one name twice."""
    if folders and images:
        raise refuse("--image", found="folders and --image together", expected="one or the other", remedy="leave one of them out")
    if images:
        return [named_files(images)]
    if not folders:
        raise refuse("SUBJECT_DIR", found="no scan", expected="a subject folder or --image CONTRAST=FILE", remedy="name at least one")
    faults: list[Fault] = []
    subjects: list[SubjectFiles] = []
    for folder in folders:
        try:
            subjects += find_subjects(folder)
        except InputError as error:
            faults += error.faults
    names = [files.name for files in subjects]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults += refuse(name, found="several subjects of this name", expected="each name once", remedy="rename a folder, or do them in two calls").faults
    if faults:
        raise InputError(faults)
    return subjects


def announce(weights: Path | None) -> None:
    """Shipped weights (None: the default ones) say their terms on standard error. InputError as `weights.find`."""
    from pathosyn.weights import find, shipped, terms

    if find(weights) in {each.path for each in shipped().values()}:
        print(terms(), file=sys.stderr)


def open_weights(weights: Path | None, device: str, threads: int, backend: Backend = "torch") -> tuple[Loaded, str]:
    """The method on the device that is there (a backend other than torch: on the CPU), and the device's name."""
    import torch

    from pathosyn import backends
    from pathosyn.checkpoint import load
    from pathosyn.weights import find

    use_threads(threads)
    backends.check(backend, device)
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise refuse("--device", found="cuda, but torch sees no GPU", expected="a CUDA device", remedy="use --device cpu or auto")
    where = "cuda" if cuda and device != "cpu" and backend == "torch" else "cpu"
    return load(find(weights), device=where, backend=backend), where


def use_threads(threads: int) -> None:
    """So many CPU threads; 0: as torch does by itself. InputError for a number that cannot be."""
    import torch

    if faults := outside("threads", threads):
        raise InputError(faults)
    if threads:
        torch.set_num_threads(threads)


def tell(folders: Sequence[Path], seconds: float) -> None:
    """One line a result; its warnings on standard error."""
    for folder in folders:
        sidecar = json.loads((folder / f"{folder.name}.json").read_text())
        changed = ", ".join(f"{name} {count}" for name, count in sidecar["voxels"]["changed"].items())
        print(f"{folder}: lesion {sidecar['lesion_ml']:.2f} ml; voxels changed: {changed}, outside the support: 0; {seconds / len(folders):.1f} s")
        for warning in sidecar["warnings"]:
            print(f"warning: {folder.name}: {warning}", file=sys.stderr)
