"""What the numbers in a mask mean: every scheme that is met in the wild, brought to one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pathosyn.errors import refuse

_LABELS_ASKED = "0 and 1 (plain mask), 0, 1, 2 and 4 (BraTS to 2021) or 0, 1, 2 and 3 (BraTS 2023)"
_INTEGER_TOLERANCE = 1e-3


def _whole(values: np.ndarray, path: str | Path) -> np.ndarray:
    """float32 whole numbers; InputError for fractions."""
    values = np.asarray(values, dtype=np.float32)
    whole = np.rint(values)
    fractions = values[np.abs(values - whole) > _INTEGER_TOLERANCE]
    if fractions.size:
        found = f"fractions in the mask ({fractions.size:,} voxels, for example {fractions[0]:.3g})"
        remedy = "threshold it, or resample the mask with nearest neighbour"
        raise refuse(path, found=found, expected=f"whole labels: {_LABELS_ASKED}", remedy=remedy)
    return whole


def _present(whole: np.ndarray) -> set[float]:
    """The values that occur."""
    low, high = whole.min(), whole.max()
    if low >= 0 and high <= 4:
        return {float(label) for label in range(int(high) + 1) if (whole == label).any()}
    if low >= 0 and high <= 255:
        return {float(label) for label in np.flatnonzero(np.bincount(whole.astype(np.uint8).ravel(order="K")))}
    return {float(value) for value in np.unique(whole)}


def canonical_labels(values: np.ndarray, path: str | Path) -> tuple[np.ndarray, str]:
    """Native mask values, any shape → uint8 labels of that shape, and "brats" (1 NCR, 2 ED, 3 ET) or "binary" (1).

    {1, 2, 4} and {1, 2, 3} and their parts are BraTS; only 1, only 255 and an empty mask are binary. InputError for anything else.
    """
    values = np.asarray(values)
    whole = values if values.dtype.kind in "iu" else _whole(values, path)
    present = _present(whole)
    marks = present - {0.0}
    if marks <= {1.0} or marks == {255.0}:
        return (whole > 0).astype(np.uint8), "binary"
    if marks <= {1.0, 2.0, 3.0} or marks <= {1.0, 2.0, 4.0}:
        labels = whole.astype(np.uint8)
        labels[labels == 4] = 3
        return labels, "brats"
    listed = ", ".join(f"{value:g}" for value in sorted(present)[:12]) + (", …" if len(present) > 12 else "")
    remedy = "relabel the mask, or binarise it if its labels mean something else"
    if marks <= {1.0, 2.0, 3.0, 4.0}:
        remedy = "give enhancing tumour one label, 3 or 4 (in BraTS 2024, 4 is the resection cavity: set it to 0)"
    raise refuse(path, found=f"the labels {listed}", expected=_LABELS_ASKED, remedy=remedy)
