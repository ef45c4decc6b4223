"""Components by runs against scipy's, voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathosyn.data.normalise import _cleaned
from pathosyn.data.runs import components, runs_of

SHAPE = (7, 19, 23)


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.2) for _ in range(6)]
    return [field > np.quantile(field, share) for field, share in zip(smooth, (0.1, 0.3, 0.4, 0.5, 0.6, 0.9), strict=True)] + [np.ones(SHAPE, bool)]


@pytest.mark.parametrize("mask", masks())
def test_the_voxels_of_the_runs_are_the_mask(mask: np.ndarray) -> None:
    again = np.zeros_like(mask)
    again.reshape(-1)[runs_of(mask).voxels()] = True
    assert np.array_equal(again, mask)
    across = np.zeros_like(mask)
    across.reshape(-1)[runs_of(mask.transpose(0, 2, 1)).voxels(transposed=True)] = True
    assert np.array_equal(across, mask)
    assert not runs_of(np.zeros(SHAPE, bool)).start.size


@pytest.mark.parametrize("rows, planes", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("mask", masks())
def test_components_are_those_of_scipy(mask: np.ndarray, rows: bool, planes: bool) -> None:
    structure = ndimage.generate_binary_structure(3, 1)
    structure[[0, 2]] &= planes
    structure[:, [0, 2]] &= rows
    theirs, count = ndimage.label(mask, structure)
    runs = runs_of(mask)
    labels, number = components(runs, rows=rows, planes=planes)
    assert number == count
    z, y, low, _ = runs.places
    pairs = set(zip(labels.tolist(), theirs[z, y, low].tolist(), strict=True))
    assert len(pairs) == count  # one to one


def cleaned_by_voxels(raw: np.ndarray) -> np.ndarray:
    """What `_cleaned` is said to do, written plainly."""
    labels, _ = ndimage.label(raw)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept = (sizes >= 0.02 * sizes.max())[labels]
    box = ndimage.find_objects(kept.astype(np.uint8))[0]
    filled = kept[box].copy()
    for axis in range(3):
        for plane, before in zip(np.moveaxis(filled, axis, 0), np.moveaxis(kept[box], axis, 0), strict=True):
            plane |= ndimage.binary_fill_holes(before)
    kept[box] = filled
    return kept


@pytest.mark.parametrize("mask", masks())
def test_specks_go_and_holes_are_filled_as_voxel_by_voxel(mask: np.ndarray) -> None:
    expected = cleaned_by_voxels(mask)
    assert np.array_equal(_cleaned(mask), expected)
    assert mask.all() or not np.array_equal(expected, mask)
