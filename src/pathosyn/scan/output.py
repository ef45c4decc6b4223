"""What `insert` and `heal` leave behind: a subject folder with scans, mask, maps, a preview and a sidecar that says how it came about."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pathosyn import figures
from pathosyn.data.nifti import Volume, file_sha256, suffix_of, write_map, write_volume
from pathosyn.errors import InputError, refuse
from pathosyn.runfolder import package_version, write_json
from pathosyn.scan.job import Field, Job, Mask
from pathosyn.writing import cannot_write, new_folders, remove_empty

NOTE = "synthetic: lesion drawn or removed by pathosyn; not for diagnosis"


@dataclass(frozen=True)
class Result:
    """images in the files' own dtype; mask, where_changed and maps canonical (X, Y, Z)."""

    images: dict[str, Volume]
    mask: Mask
    may_change: Mask
    deviation: dict[str, Field]
    substrate: dict[str, Field]


def record(verb: str, job: Job, request: dict[str, Any]) -> dict[str, Any]:
    """What was asked of which files with which weights: two equal records mean the same result."""
    weights, config = job.loaded, job.loaded.config
    return {
        "verb": verb,
        "subject": job.scan.name,
        "request": {**request, "lesion": job.lesions.source},
        "sources": {name: {"file": str(v.path), "sha256": file_sha256(v.path)} for name, v in job.scan.volumes.items()},
        "weights": {"file": weights.path.name, "sha256": weights.sha256, "method": config.name, "composition": config.method.composition},
    }


def is_done(folder: Path, asked: dict[str, Any]) -> bool:
    """True if `folder` holds this very result already. InputError if it holds something else: nothing is overwritten."""
    if not folder.exists():
        return False
    sidecar = folder / f"{folder.name}.json"
    try:
        before = json.loads(sidecar.read_text())
        files = list(before.get("files", {}).values())
    except (OSError, ValueError, AttributeError):
        raise refuse(folder, found="a folder or file that pathosyn did not write", expected="a new folder", remedy="give another --out") from None
    if {key: before.get(key) for key in asked} != json.loads(json.dumps(asked)):
        raise refuse(folder, found="an earlier result of other settings, files or weights", expected="a new folder", remedy="give another --out, or delete it")
    if gone := [name for name in files if not (folder / name).is_file()]:
        raise refuse(folder, found=f"an earlier result without its {gone[0]}", expected="all of its files", remedy="delete this folder, it is made anew")
    return True


def write_result(folder: Path, job: Job, result: Result, asked: dict[str, Any]) -> None:
    """Write everything beside, then rename: the folder is whole or not there. RuntimeError if a voxel outside the support changed."""
    part = folder.with_name(f".{folder.name}.part")
    made = new_folders(folder.parent)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _write_files(part, folder.name, job, result, asked)
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, OSError):
            raise cannot_write(folder, "--out", error) from error
        if isinstance(error, InputError):  # of a file within the folder that is no more
            raise InputError([replace(fault, where=str(folder)) for fault in error.faults]) from error
        raise


def _write_files(part: Path, name: str, job: Job, result: Result, asked: dict[str, Any]) -> None:
    reference = job.scan.reference
    suffix = suffix_of(reference.path)
    changed: dict[str, int] = {}
    files: dict[str, str] = {}
    for contrast, image in result.images.items():
        source = job.scan.volumes[contrast]
        differs = image.canonical() != source.canonical()
        if (differs & ~result.may_change).any():
            raise RuntimeError(f"{contrast}: a voxel outside the support changed")
        changed[contrast] = int(differs.sum())
        files[contrast] = f"{name}_{contrast}{suffix_of(source.path)}"
        write_volume(image, part / files[contrast], note=NOTE)
    files["seg"] = f"{name}_seg{suffix}"
    write_map(result.mask.astype(np.uint8), reference, part / files["seg"], note=NOTE)
    for kind, maps in (("deviation", result.deviation), ("substrate", result.substrate)):
        for contrast, values in maps.items():
            write_map(values, reference, part / f"{name}_{contrast}_{kind}{suffix}", note=NOTE)
    _preview(part / f"{name}.png", job, result)
    voxel_ml = float(np.prod(job.scan.spacing)) / 1000
    write_json(
        part / f"{name}.json",
        {
            **asked,
            "synthetic": True,
            "use": "research only, not for diagnosis",
            "files": files,
            "lesion_ml": round(float(result.mask.sum()) * voxel_ml, 4),
            "own_lesion_taken_out": bool(job.lesions.old.any()),
            "backend": job.loaded.backend,  # not in `asked`: another one is no other result, it differs by rounding
            "voxels": {"support": int(result.may_change.sum()), "changed": changed, "changed_outside_support": 0},
            "weights_provenance": {"subjects": job.loaded.provenance.subjects, "pathosyn": job.loaded.provenance.pathosyn},
            "warnings": job.warnings,
            "pathosyn": package_version(),
        },
    )


def _preview(path: Path, job: Job, result: Result) -> None:
    """Each contrast before (with the mask's outline), after, and the difference, in the slice where the support is largest."""
    z = int(np.argmax(result.may_change.sum(axis=(0, 1))))
    mask = (result.mask if result.mask.any() else job.lesions.old)[..., z].T
    rows, labels = [], []
    for contrast, image in result.images.items():
        before, after = (v.canonical()[..., z].T for v in (job.scan.volumes[contrast], image))
        low, high = figures.window_limits(before)
        shown = figures.grey(before, low, high)
        rows.append([figures.outline(shown, mask), shown, figures.grey(after, low, high), figures.signed(after - before, (high - low) / 2)])
        labels.append(contrast)
    figures.mosaic(rows, path, columns=("before, mask", "before", "after", "after - before"), labels=labels)
