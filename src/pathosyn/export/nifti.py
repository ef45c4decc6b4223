"""A slice as NIfTI in the scan's own units: what nnU-Net and BIDS get."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from pathosyn.data.nifti import Volume, write_volume
from pathosyn.export.slices import Case
from pathosyn.scan.output import NOTE

FINE = 10.0
"""Steps of an integer scan in one normalised unit from which on rounding to whole steps is finer than the scan's own noise."""
BYTES = 0.9
"""About what a packed pixel takes."""


def native(case: Case, contrast: str, plane: np.ndarray) -> np.ndarray:
    """(H, W) normalised → the units of the scan's file: int16 where that file holds whole numbers that fit, else float32.

    What was 0 there is 0 again (half precision would leave a rest of it): tools take 0 for outside the brain. Drawn and real pixels are rounded alike.
    """
    unit = case.source.normaliser(case.number, contrast)
    values = unit.invert(plane)
    values[plane == np.float16(unit.apply(np.zeros(1))[0])] = 0
    stored = np.dtype(json.loads(case.source.attribute(case.number, "source"))[contrast]["dtype"])
    if stored.kind not in "iu" or unit.scale < FINE or np.abs(values).max() > np.iinfo(np.int16).max:
        return values
    return np.rint(values).astype(np.int16)


def affine_of(case: Case) -> np.ndarray:
    """(4, 4) index of a slice (X, Y, 1) → mm along right, anterior, superior. The scanner's own zero is not in a slices file: 0 is the scan's first voxel."""
    steps = np.array(case.source.spacing(case.number)[::-1])
    start = np.array(case.source.slices.origin_of(case.number)[::-1]) + (0, 0, case.z)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = steps * start
    return affine


def save(path: Path, plane: np.ndarray, case: Case, *, flat: bool) -> None:
    """Write (H, W), anterior and right ascending. `flat`: as a 2-D file; else as a volume of one slice."""
    affine = affine_of(case)
    stored = np.asarray(plane.T, order="F")
    stored = stored if flat else stored[..., None]
    header = nib.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header.set_sform(affine, code="aligned")
    header.set_qform(affine, code="aligned")
    header.set_zooms(np.diag(affine)[: stored.ndim])
    header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"], header["magic"] = 1, 0, b"n+1"
    write_volume(Volume(path, stored, header, affine, 1.0, 0.0), path, note=NOTE if case.synthetic else "")
