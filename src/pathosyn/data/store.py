"""The layout of slices.h5: one group a subject, every array in slices order (Z, H, W), cropped to the head.

Root attributes: format, version, contrasts and geometry (JSON), inpaint, pathosyn (the package's version), split (JSON), complete.

/subjects/<name>, attributes
    set, partition, label_scheme
    present         (C,) bool
    normalisation   (C, 2) float64: center and scale of each contrast, NaN where it is absent
    spacing         (3,) mm along z, y, x of the arrays here (the working grid)
    origin          (3,) z, y, x of the crop within the working grid; `full_shape` is that grid's (Z, H, W)
    source          JSON: for each file its name, sha256, shape and dtype; attributes: JSON, the subject's row in subjects.csv
    checksum        CRC-32 of the datasets; written last, so a group without it was cut short
/subjects/<name>, datasets
    image           (Z, C, H, W) float16, normalised and clipped; an absent contrast is 0
    seg, foreground (Z, H, W) uint8
    support_index   (n,) int64, sorted: where S > 0, in the flattened (Z, H, W)
    support_blend   (n,) float32: S there; support_inp (n, C) float16: Inp(x, D) there
    windows         (w, 5) int32: z, y, x, side, lesion pixels
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pathosyn.config import Geometry, from_dict
from pathosyn.data.inflate import crc32, deflate
from pathosyn.data.split import PARTITIONS
from pathosyn.errors import refuse

FORMAT = "pathosyn-slices"
VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """A prepared subject, as it goes into its group."""

    name: str
    attributes: dict[str, Any]
    image: np.ndarray
    seg: np.ndarray
    foreground: np.ndarray
    support_index: np.ndarray
    support_blend: np.ndarray
    support_inp: np.ndarray
    windows: np.ndarray


ARRAYS = tuple(f.name for f in fields(Record) if f.name not in ("name", "attributes"))


def checksum(arrays: dict[str, np.ndarray]) -> int:
    """CRC-32 over the arrays of one subject in the order of `ARRAYS`."""
    value = 0
    for name in ARRAYS:
        value = crc32(np.ascontiguousarray(arrays[name]).view(np.uint8).reshape(-1).data, value)
    return value


def open_part(path: Path) -> h5py.File:
    """The work file, to read and append; InputError where another process is writing it. One that is damaged beyond opening is begun anew.

    Metadata stays in memory until `flush`: what a killed process leaves on disk is the state after the last subject, not half of the next one.
    """
    try:
        file = h5py.File(path, "a")
    except OSError as error:
        if "unable to lock" in str(error).lower():
            raise refuse(
                path, found="a work file that another process is writing", expected="one prepare at a time", remedy="wait for it, or give another --out"
            ) from error
        if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
            raise
        _log.warning("%s is damaged; the preparation begins anew", path)
        path.unlink()
        file = h5py.File(path, "a")
    policy = file.id.get_mdc_config()
    policy.evictions_enabled = False
    policy.incr_mode = policy.decr_mode = policy.flash_incr_mode = 0
    file.id.set_mdc_config(policy)
    return file


def write_settings(file: h5py.File, settings: dict[str, str]) -> None:
    """Set the root attributes of a new file; on one that has them, InputError where they differ."""
    found = {name: str(file.attrs[name]) for name in settings if name in file.attrs}
    if not found:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs.update(settings)
        file.require_group("subjects")
        return
    for name, value in settings.items():
        if found.get(name) != value:
            raise refuse(
                file.filename,
                found=f"work begun with {name} {found.get(name, 'unknown')}",
                expected=f"{name} {value}, as asked for now",
                remedy="delete this file, or give another --out",
            )


def write_record(file: h5py.File, record: Record, partition: str, digest: int) -> None:
    """Write one subject, flushed."""
    group = file["subjects"].create_group(record.name)
    _write_planes(group, "image", record.image)
    for name in ("seg", "foreground"):
        _write_planes(group, name, getattr(record, name), compression="gzip", compression_opts=1)
    for name in ("support_index", "support_blend", "support_inp", "windows"):
        group.create_dataset(name, data=getattr(record, name))
    group.attrs.update(record.attributes)
    group.attrs["partition"] = partition
    group.attrs["checksum"] = digest
    file.flush()


def _write_planes(group: h5py.Group, name: str, array: np.ndarray, **packing: Any) -> None:
    """`array` (Z, …), a chunk a slice; `packing` is that of h5py's gzip, or nothing. The chunks are made here: HDF5 would copy each, and packs slowly."""
    array = np.ascontiguousarray(array)
    planes = group.create_dataset(name, array.shape, array.dtype, chunks=(1, *array.shape[1:]), **packing)
    for z, plane in enumerate(array):
        planes.id.write_direct_chunk((z, *[0] * plane.ndim), deflate(plane.data) if packing else plane.data)


def finished(file: h5py.File) -> dict[str, dict[str, Any]]:
    """Subjects of a work file that were written whole and read back unchanged: name → their `source`."""
    done = {}
    for name in file["subjects"]:
        try:
            group = file["subjects"][name]
            arrays = {key: group[key][()] for key in ARRAYS}
            if checksum(arrays) == int(group.attrs["checksum"]):
                done[name] = json.loads(group.attrs["source"])
        except (KeyError, OSError, RuntimeError, ValueError):  # cut short, or unreadable
            continue
    return done


@dataclass(frozen=True)
class Header:
    """The root attributes of a slices file."""

    contrasts: tuple[str, ...]
    geometry: Geometry
    inpaint: str
    split: dict[str, Any]
    pathosyn: str


def settings_of(contrasts: tuple[str, ...], geometry: Geometry, inpaint: str, version: str) -> dict[str, str]:
    """What must be equal for two runs to be the same work."""
    return {"contrasts": json.dumps(contrasts), "geometry": json.dumps(asdict(geometry), sort_keys=True), "inpaint": inpaint, "pathosyn": version}


def read_header(path: Path) -> Header:
    """The root attributes of a finished slices file; InputError for anything else."""
    remedy = "make it with: pathosyn prepare DIR --out slices.h5"
    wanted = "a slices file of pathosyn"
    path = Path(path)
    if not path.is_file():
        part = path.with_name(path.name + ".part")
        if part.exists():
            raise refuse(
                path, found=f"only {part.name}, of a preparation that has not ended", expected=wanted, remedy="run the same prepare command again, it resumes"
            )
        raise refuse(path, found="a folder" if path.is_dir() else "no such file", expected=wanted, remedy=remedy)
    try:
        with h5py.File(path, "r") as file:
            attributes = dict(file.attrs)
    except OSError as error:
        raise refuse(path, found=f"no readable HDF5 file ({error})", expected=wanted, remedy=remedy) from error
    if attributes.get("format") != FORMAT:
        raise refuse(path, found="an HDF5 file of another kind", expected=wanted, remedy=remedy)
    again = "prepare the data again with this version of pathosyn"
    if attributes.get("version") != VERSION:
        raise refuse(path, found=f"layout version {attributes.get('version')}", expected=f"version {VERSION}", remedy=again)
    if not attributes.get("complete"):
        raise refuse(path, found="a preparation that has not ended", expected=wanted, remedy="run the same prepare command again, it resumes")
    try:
        geometry = from_dict(Geometry, json.loads(attributes["geometry"]))
        return Header(tuple(json.loads(attributes["contrasts"])), geometry, attributes["inpaint"], json.loads(attributes["split"]), attributes["pathosyn"])
    except (KeyError, TypeError, ValueError) as error:
        raise refuse(path, found=f"settings that this version does not know ({error})", expected=wanted, remedy=again) from error


def finish(file: h5py.File, partitions: dict[str, str], how: dict[str, Any]) -> None:
    """Set every subject's partition (a resumed work file may hold those of an older split) and how the split came about, and mark the file as finished."""
    file.attrs["split"] = json.dumps(how, sort_keys=True)
    for name, value in partitions.items():
        attributes = file["subjects"][name].attrs
        if attributes["partition"] != value:
            attributes["partition"] = value
    file.attrs["complete"] = True


def counts(file: h5py.File) -> tuple[dict[str, int], int, int]:
    """Subjects in each partition, and the numbers of slices and of lesion windows."""
    partitions = dict.fromkeys(PARTITIONS, 0)
    slices = windows = 0
    for group in file["subjects"].values():
        partitions[str(group.attrs["partition"])] += 1
        slices += group["image"].shape[0]
        windows += group["windows"].shape[0]
    return {name: count for name, count in partitions.items() if count}, slices, windows
