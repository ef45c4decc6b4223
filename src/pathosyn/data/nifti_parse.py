"""The bytes of a NIfTI file → voxels, header, affine and scaling, or one fault in words.

Files are parsed from their bytes rather than by their extension: a `.nii.gz` that is not compressed, a `.NII.GZ` and a gzip stream cut short
are each told apart, and the header travels through untouched (nibabel's usual loading repairs it on the way).
"""

from __future__ import annotations

import gzip
import io
import logging
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np

from pathosyn.data.inflate import GzipFile, InflateError
from pathosyn.errors import refuse

_SCAN = "a three-dimensional scan in one NIfTI file"
_NIFTI = "a NIfTI file (.nii or .nii.gz)"
_HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_GZIP_MOST = 1100  # deflate cannot shrink data more than 1032 times
_silent = logging.Logger("pathosyn.nifti", level=logging.CRITICAL + 1)


def parse(path: Path) -> tuple[np.ndarray, nib.Nifti1Header, np.ndarray, float, float]:
    """(stored, header, affine, slope, inter) as `nifti.Volume` describes them. InputError as `nifti.read_volume` says, but for the values of the voxels."""
    with _opened(path) as (file, length):
        header = _read_header(path, file)
        stored = _read_voxels(path, file, header, length)
    slope, inter = _scaling(path, header)
    return stored, header, _affine(path, header), slope, inter


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, int]]:
    """The file's uncompressed bytes and the greatest number there can be. Every fault of reading becomes an InputError."""
    try:
        status = _status(path)
        if stat.S_ISDIR(status.st_mode):
            raise refuse(path, found="a folder", expected=_NIFTI, remedy="give the file inside it, or move that file up and delete the folder")
        if not stat.S_ISREG(status.st_mode):
            raise refuse(path, found="something that is not a plain file", expected=_NIFTI, remedy="copy the scan to a plain file")
        if status.st_size == 0:
            raise refuse(path, found="an empty file (0 bytes)", expected=_NIFTI, remedy="copy the scan again, the copy did not finish")
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if not packed:
                yield plain, status.st_size
                return
            with GzipFile(fileobj=plain, mode="rb") as unpacked:
                yield unpacked, status.st_size * _GZIP_MOST
                while unpacked.read(1 << 16):  # the checksum stands at the end of the stream
                    pass
    except FileNotFoundError:
        found = f"a link to {os.readlink(path)}, which does not exist" if path.is_symlink() else "no such file"
        raise refuse(path, found=found, expected=_NIFTI, remedy="check the name and the folder") from None
    except EOFError:
        raise refuse(path, found="compressed data cut short", expected=_NIFTI, remedy="download or copy the file again") from None
    except (gzip.BadGzipFile, zlib.error, InflateError) as error:
        raise refuse(path, found=f"damaged compressed data ({error})", expected=_NIFTI, remedy="download or copy the file again") from None
    except PermissionError:
        raise refuse(path, found="a file you may not read", expected="read permission", remedy="change its permissions or copy it") from None
    except OSError as error:
        raise refuse(path, found=f"a file that cannot be read ({error.strerror or error})", expected=_NIFTI, remedy="check the disk and the path") from None
    except MemoryError:
        raise refuse(path, found="more voxels than fit in memory", expected=_SCAN, remedy="crop the scan, or check that its header is right") from None


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()  # follows links
    except ValueError as error:  # a name with a null character
        raise refuse(ascii(str(path)), found=str(error), expected=_NIFTI, remedy="check the name") from None


def _read_header(path: Path, file: IO[bytes] | gzip.GzipFile) -> nib.Nifti1Header:
    """The header with its extensions, not repaired."""
    start = file.read(4)
    little, big = int.from_bytes(start, "little"), int.from_bytes(start, "big")
    size = little if little in _HEADER_BYTES else big
    if len(start) < 4 or size not in _HEADER_BYTES:
        remedy = "convert it to NIfTI (from DICOM: dcm2niix), or give another file"
        raise refuse(path, found="a file that is not NIfTI inside, whatever its name", expected=_NIFTI, remedy=remedy)
    block = start + file.read(size - 4)
    magic = block[344:348] if size == 348 else block[4:8]
    if magic[:3] not in (b"n+1", b"n+2"):
        remedy = "convert it to a single .nii.gz file (nibabel: nib.save(nib.load(file), 'scan.nii.gz'))"
        raise refuse(path, found="an Analyze file, or the header half of a .hdr/.img pair", expected=_SCAN, remedy=remedy)
    try:
        kind = _HEADER_BYTES[size]
        offset = int(kind(block, check=False).get_data_offset())
        longest = 1 << 28  # extensions beyond 256 MB: a header gone wrong
        if not size + 4 <= offset <= longest:
            raise ValueError(f"voxels said to start at byte {offset}")
        whole = block + file.read(offset - size)
        if len(whole) < offset:
            raise ValueError("it ends within the header")
        return kind.from_fileobj(io.BytesIO(whole), check=False)
    except (EOFError, OSError, zlib.error, InflateError):
        raise
    except Exception as error:  # nibabel meets a broken header with many kinds of exception
        raise refuse(path, found=f"a NIfTI header that cannot be used ({error})", expected=_SCAN, remedy="export the scan again") from None


def _read_voxels(path: Path, file: IO[bytes] | gzip.GzipFile, header: Any, length: int) -> np.ndarray:
    """The voxels as stored, read-only."""
    sizes = [int(n) for n in np.asarray(header["dim"])]
    rank = sizes[0]
    if not 1 <= rank <= 7:
        raise refuse(path, found=f"a header that claims {rank} axes", expected=_SCAN, remedy="export the scan again")
    shape = tuple(sizes[1 : rank + 1])
    said = " x ".join(map(str, shape))
    if rank < 3:
        raise refuse(path, found=f"a single image of {said} pixels", expected=_SCAN, remedy="stack the slices into one volume")
    if min(shape) < 1:
        raise refuse(path, found=f"a scan without voxels ({said})", expected=_SCAN, remedy="export the scan again")
    if any(n != 1 for n in shape[3:]):
        remedy = "save the one volume you want on its own (nibabel: image.slicer[..., 0])"
        raise refuse(path, found=f"{rank} axes ({said}), as of a time series", expected=_SCAN, remedy=remedy)
    try:
        dtype = header.get_data_dtype()
    except Exception:  # a type code that nibabel does not know
        found = f"voxels of unknown type (code {int(header['datatype'])})"
        raise refuse(path, found=found, expected="integers or floats", remedy="export the scan again") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        kind, remedy = f"voxels whose type is not a number that can be read here (code {int(header['datatype'])})", "save it as float32"
        if dtype.kind == "c":
            kind, remedy = "complex numbers", "save the magnitude image"
        elif dtype.names:
            kind, remedy = "colours (RGB)", "save the grey-scale image"
        raise refuse(path, found=kind, expected="one real number a voxel", remedy=remedy)
    count = int(np.prod(shape, dtype=object))
    wanted = count * dtype.itemsize
    buffer = file.read(wanted) if wanted <= length else b""
    if len(buffer) < wanted:
        found = f"fewer voxels than its header says ({said}): the file is cut short"
        raise refuse(path, found=found, expected=f"{wanted:,} bytes of voxels", remedy="download or copy the file again")
    return np.frombuffer(buffer, dtype=dtype, count=count).reshape(shape, order="F")


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    """Slope and intercept; (1, 0) where the header asks for none."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(inter):
        raise refuse(path, found=f"intensity scaling with intercept {inter}", expected="a finite scl_inter", remedy="set scl_inter to 0 if no offset is meant")
    return slope, inter


@lru_cache(maxsize=64)
def _best_affine(block: bytes, endianness: str) -> np.ndarray:
    """Of a header's bytes: the scans of a subject often share them, and nibabel's checks need a millisecond."""
    mended = _HEADER_BYTES[len(block)](block, endianness, check=False)
    mended.check_fix(logger=_silent, error_level=1000)  # negative voxel sizes and the like, on a copy
    return np.asarray(mended.get_best_affine(), dtype=np.float64)


def _affine(path: Path, header: Any) -> np.ndarray:
    """sform, else qform, else the voxel sizes alone, as nibabel decides."""
    expected = "voxel sizes and directions that span three dimensions"
    remedy = "export the scan again, or set its sform or qform (nibabel: image.set_sform)"
    try:
        affine = _best_affine(header.binaryblock, header.endianness).copy()
    except Exception as error:
        raise refuse(path, found=f"an orientation that cannot be computed ({error})", expected=expected, remedy=remedy) from None
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    flat = not np.isfinite(affine).all() or lengths.min() < 1e-6 or abs(np.linalg.det(affine[:3, :3] / np.maximum(lengths, 1e-12))) < 1e-3
    if flat:
        rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3])
        raise refuse(path, found=f"an affine without an inverse ({rows})", expected=expected, remedy=remedy)
    return affine
