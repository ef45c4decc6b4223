"""One NIfTI file in, one NIfTI file out, with every voxel that was not asked to change kept as it was stored."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from nibabel.orientations import inv_ornt_aff, io_orientation

from pathosyn.data.nifti_parse import parse
from pathosyn.errors import refuse

SUFFIXES = (".nii.gz", ".nii")
LARGEST_MM = 2500.0
"""Along one axis: more than a whole body."""
GZIP_LEVEL = 1
"""Scans are written often and read once: higher levels cost several times the time for a few per cent of the size."""


@dataclass(frozen=True)
class Volume:
    """A scan as its file stores it.

    stored  the file's own voxels: own shape (X, Y, Z) or (X, Y, Z, 1), own dtype and byte order, before slope and intercept; read-only
    header  the file's NIfTI-1 or NIfTI-2 header, unchanged, extensions included
    affine  (4, 4) voxel index of `stored` → world mm, RAS+
    slope, inter  native value = stored * slope + inter; 1 and 0 where the header asks for no scaling
    """

    path: Path
    stored: np.ndarray
    header: nib.Nifti1Header
    affine: np.ndarray
    slope: float
    inter: float

    @cached_property
    def orientation(self) -> np.ndarray:
        """(3, 2) axis and direction of each stored axis with respect to RAS+."""
        return _orientation(self.affine.tobytes())

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Shape (X, Y, Z) of the canonical array."""
        return canonical_view(self.stored, self.orientation).shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the canonical axes, mm."""
        x, y, z = np.sqrt((self.canonical_affine[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @cached_property
    def canonical_affine(self) -> np.ndarray:
        """(4, 4) voxel index of the canonical array → world mm; read-only."""
        return _canonical_affine(self.affine.tobytes(), self.stored.shape[:3])

    def canonical(self) -> np.ndarray:
        """float32 (X, Y, Z) in RAS+ order and native units. Fortran order, so that its transpose (Z, Y, X) is contiguous."""
        view = canonical_view(self.stored, self.orientation)
        if (self.slope, self.inter) == (1.0, 0.0):
            return view.astype(np.float32, order="F")
        scaled = view.astype(np.float64, order="F")
        scaled *= self.slope
        scaled += self.inter
        return scaled.astype(np.float32)

    def native(self) -> np.ndarray:
        """(X, Y, Z) as `canonical`, in the same order and units, but integers of one or two bytes without scaling stay what they are; read-only."""
        dtype = self.stored.dtype
        if dtype.kind not in "iu" or dtype.itemsize > 2 or (self.slope, self.inter) != (1.0, 0.0):
            values = self.canonical()
        else:
            values = np.asarray(canonical_view(self.stored, self.orientation), dtype.newbyteorder("="), order="F")
        values.flags.writeable = False
        return values

    def replaced(self, values: np.ndarray, where: np.ndarray) -> Volume:
        """The scan with `values` (native units) at the voxels `where`; every other stored voxel is kept bit for bit.

        `values` float and `where` bool, both canonical (X, Y, Z). Integer files get the nearest stored step, clipped to what the dtype holds.
        """
        if values.shape != self.shape or where.shape != self.shape:
            raise ValueError(f"values {values.shape} and where {where.shape} must have the scan's canonical shape {self.shape}")
        stored = self.stored.copy(order="F")
        canonical_view(stored, self.orientation)[where] = self._encode(values[where])
        stored.flags.writeable = False
        return replace(self, stored=stored)

    def _encode(self, native: np.ndarray) -> np.ndarray:
        """Native values (n,) → the nearest stored values (n,)."""
        if not np.isfinite(native).all():
            raise ValueError("cannot store NaN or infinite values")
        raw = (native.astype(np.float64) - self.inter) / self.slope
        dtype = self.stored.dtype
        if dtype.kind == "f":
            limit = float(np.finfo(dtype).max)
            return np.clip(raw, -limit, limit).astype(dtype)
        info = np.iinfo(dtype)
        highest = float(info.max)
        if int(highest) > info.max:  # 64-bit integers: the float above the largest integer would wrap round
            highest = float(np.nextafter(highest, 0))
        return np.clip(np.rint(raw), float(info.min), highest).astype(dtype)


@lru_cache(maxsize=64)
def _orientation(affine: bytes) -> np.ndarray:
    """Of (4, 4) float64; most scans of a set share one, and nibabel needs a millisecond for it."""
    orientation = np.asarray(io_orientation(np.frombuffer(affine).reshape(4, 4)))
    orientation.flags.writeable = False
    return orientation


@lru_cache(maxsize=64)
def _canonical_affine(affine: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Of (4, 4) float64 and a stored (X, Y, Z), for the same reason."""
    turned = np.asarray(np.frombuffer(affine).reshape(4, 4) @ inv_ornt_aff(_orientation(affine), shape))
    turned.flags.writeable = False
    return turned


def canonical_view(stored: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """(X, Y, Z) view in RAS+ order of a stored array; no copy, so that writing to it writes to the stored voxels."""
    view = stored.reshape(stored.shape[:3], order="F")
    for axis, (_, direction) in enumerate(orientation):
        if direction < 0:
            view = np.flip(view, axis=axis)
    return view.transpose(np.argsort(orientation[:, 0]))


def suffix_of(path: Path) -> str:
    """ ".nii.gz", ".nii" or "" (no NIfTI name), whatever the case of the letters."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def read_volume(path: str | Path) -> Volume:
    """Read one scan or mask.

    InputError where there is no such file, it is not NIfTI, is cut short or damaged, is not one 3-D array of real numbers, has no usable affine,
    or holds NaN or infinite values. A 4th axis of length 1 is kept. Neither slope 0 nor slope NaN scales (the NIfTI standard).
    """
    path = Path(path)
    stored, header, affine, slope, inter = parse(path)
    volume = Volume(path, stored, header, affine, slope, inter)
    _refuse_other_units(volume)
    _refuse_unusable_values(volume)
    return volume


def _refuse_other_units(volume: Volume) -> None:
    """A header in µm or m: on a grid of 1 mm such a scan would be a point, or larger than memory."""
    sides = [n * step for n, step in zip(volume.shape, volume.spacing, strict=True)]
    if max(sides) > LARGEST_MM:
        found, expected = " x ".join(f"{side:.4g}" for side in sides) + " mm of scan", f"at most {LARGEST_MM:g} mm a side"
        raise refuse(volume.path, found=found, expected=expected, remedy="check the unit of the header's voxel sizes: distances are taken to be in mm")


def _refuse_unusable_values(volume: Volume) -> None:
    """NaN, infinity, and values that overflow in native units."""
    low, high = float(volume.stored.min()), float(volume.stored.max())  # NaN anywhere makes both NaN
    if not np.isfinite([low, high]).all():
        bad = int((~np.isfinite(volume.stored)).sum())
        remedy = "replace them, for example by 0 (numpy: np.nan_to_num)"
        raise refuse(volume.path, found=f"{bad:,} voxels that are NaN or infinite", expected="finite intensities", remedy=remedy)
    native = [abs(value * volume.slope + volume.inter) for value in (low, high)]
    if not max(native) <= float(np.finfo(np.float32).max):
        raise refuse(volume.path, found=f"intensities up to {max(native):.3g}", expected="values below 3.4e38", remedy="rescale the scan")


def write_volume(volume: Volume, path: str | Path, *, note: str = "") -> None:
    """Write `volume` under the name `path` (.nii or .nii.gz); same bytes on every run.

    The header keeps every field, slope, intercept, dtype and 4th axis included; `note` is added as a header extension (code 6, comment),
    which moves only the offset of the voxels. The file appears whole or not at all. InputError where it cannot be written.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not suffix:
        raise refuse(path, found="a name of another kind", expected="an output name that ends in .nii or .nii.gz", remedy="change the name")
    header = volume.header.copy()
    if note:
        header.extensions.append(Nifti1Extension("comment", note.encode("utf-8")))
    start = header.single_vox_offset + header.extensions.get_sizeondisk()
    header["vox_offset"] = max(start, int(header["vox_offset"]))
    head = io.BytesIO()
    header.write_to(head)
    body = head.getvalue().ljust(int(header["vox_offset"]), b"\0")
    with _placed(path) as plain:
        if suffix == ".nii":
            plain.write(body)
            plain.write(volume.stored.tobytes(order="F"))
            return
        with gzip.GzipFile(filename="", fileobj=plain, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as packed:
            packed.write(body)
            packed.write(volume.stored.tobytes(order="F"))


def write_map(canonical: np.ndarray, like: Volume, path: str | Path, *, note: str = "") -> None:
    """Write a map (X, Y, Z) in RAS+ order on the grid and in the orientation of `like`: bool and uint8 as uint8, anything else as float32, unscaled."""
    if canonical.shape != like.shape:
        raise ValueError(f"map {canonical.shape} must have the scan's canonical shape {like.shape}")
    dtype = np.dtype(np.uint8 if canonical.dtype in (np.bool_, np.uint8) else np.float32).newbyteorder(like.header.endianness)
    header = like.header.copy()
    header.extensions.clear()
    header.set_data_dtype(dtype)
    for field, value in (("scl_slope", 1), ("scl_inter", 0), ("cal_min", 0), ("cal_max", 0), ("vox_offset", 0)):
        header[field] = value
    stored = np.empty(like.stored.shape, dtype=dtype, order="F")
    canonical_view(stored, like.orientation)[...] = canonical
    write_volume(Volume(Path(path), stored, header, like.affine, 1.0, 0.0), path, note=note)


@contextmanager
def _placed(path: Path) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its name once it is written whole."""
    part = path.with_name(f".pathosyn-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
                yield file
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        full = reason.startswith(("no space", "disk quota"))
        remedy = "free some space or choose another output folder" if full else "choose a folder that exists and that you may write to"
        raise refuse(path, found=f"a place that cannot be written ({reason})", expected="a writable output file", remedy=remedy) from error


def file_sha256(path: str | Path) -> str:
    """SHA-256 of the file as it lies on disk (compressed, if it is), hexadecimal. InputError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        found = f"a file that cannot be read ({error.strerror})"
        raise refuse(path, found=found, expected="a readable file", remedy="check the name and its permissions") from None
