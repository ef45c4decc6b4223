"""Distances, blend map and mask edits against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pathosyn.config import Geometry
from pathosyn.data import masks
from pathosyn.errors import InputError

GEOMETRY = Geometry()


def blobs(seed: int, shape: tuple[int, ...] = (14, 40, 44)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.normal(size=shape), 3) > 0.06


@pytest.mark.parametrize("spacing", [(1, 1, 1), (5, 1, 1), (0.9, 0.5, 1.3)])
@pytest.mark.parametrize("limit", [4.5, 9.0, 40.0])
def test_limited_distance_is_the_exact_transform(spacing: tuple[float, ...], limit: float) -> None:
    mask = blobs(0)
    exact = ndimage.distance_transform_edt(~mask, sampling=spacing)
    np.testing.assert_allclose(masks.distance_mm(mask, spacing, limit=limit), np.minimum(exact, limit), rtol=1e-6)


def test_distance_without_limit_and_of_nothing() -> None:
    mask = np.zeros((1, 5, 5), bool)
    assert np.isinf(masks.distance_mm(mask, (1, 1, 1))).all()
    assert (masks.distance_mm(mask, (1, 1, 1), limit=3) == 3).all()
    mask[0, 0, 0] = True
    assert masks.distance_mm(mask, (1, 3, 4))[0, 1, 1] == 5


@pytest.mark.parametrize("radius", [1, 2, 3, 12])
def test_blend_is_one_on_the_lesion_however_small(radius: int) -> None:
    y, x = np.mgrid[:64, :64] - 32
    mask = (y**2 + x**2 <= radius**2)[None]
    blend = masks.blend_map(mask, (1, 1, 1), GEOMETRY)
    distance = ndimage.distance_transform_edt(~mask[0])
    assert (blend[0][distance <= GEOMETRY.grow_mm] == 1).all()
    end = GEOMETRY.grow_mm + GEOMETRY.feather_mm
    assert (blend[0][distance >= end] == 0).all()
    assert ((blend[0] > 0) == (distance < end)).all()


def test_blend_falls_by_the_smoothstep() -> None:
    mask = np.zeros((1, 1, 40), bool)
    mask[0, 0, 0] = True
    blend = masks.blend_map(mask, (1, 1, 0.5), GEOMETRY)[0, 0]
    middle = GEOMETRY.grow_mm + GEOMETRY.feather_mm / 2
    assert blend[round(middle / 0.5)] == pytest.approx(0.5)
    quarter = GEOMETRY.grow_mm + GEOMETRY.feather_mm / 3
    assert blend[round(quarter / 0.5)] == pytest.approx(1 - 3 / 9 + 2 / 27)
    assert (np.diff(blend) <= 0).all()


def test_blend_is_in_mm_across_thick_slices() -> None:
    mask = np.zeros((5, 21, 21), bool)
    mask[2, 10, 10] = True
    thick = masks.blend_map(mask, (5, 1, 1), GEOMETRY)
    thin = masks.blend_map(mask, (1, 1, 1), GEOMETRY)
    assert not thick[[1, 3]].any()
    assert thin[[1, 3], 10, 10].min() == 1


def test_blend_without_feather_and_of_nothing() -> None:
    mask = np.zeros((1, 9, 9), bool)
    hard = Geometry(grow_mm=1, feather_mm=0)
    assert not masks.blend_map(mask, (1, 1, 1), hard).any()
    mask[0, 4, 4] = True
    assert masks.blend_map(mask, (1, 1, 1), hard).sum() == 5


def test_resize_moves_the_rim_by_the_millimetres_asked_for() -> None:
    axes = np.mgrid[:41, :61, :61]
    spacing = (1.5, 1.0, 1.0)
    away = np.sqrt(sum(((a - c) * s) ** 2 for a, c, s in zip(axes, (20, 30, 30), spacing, strict=True)))
    mask = away <= 12
    for extent in (-5.0, -2.0, 3.0, 6.0):
        volume = masks.resize(mask, spacing, extent).sum() * np.prod(spacing)
        assert (3 * volume / 4 / np.pi) ** (1 / 3) == pytest.approx(12 + extent, abs=0.6)


def test_resize_is_nested_and_keeps_the_original_at_zero() -> None:
    mask = blobs(3)
    previous = np.zeros_like(mask)
    for extent in (-40.0, -3.0, -1.0, 0.0, 1.0, 2.5, 4.0):
        now = masks.resize(mask, (2, 1, 1), extent)
        assert (previous <= now).all()
        assert extent != 0 or (now == mask).all()
        previous = now
    assert not masks.resize(mask, (2, 1, 1), -40).any()


def test_shift_moves_and_refuses_to_clip() -> None:
    mask = np.zeros((4, 10, 10), bool)
    mask[1, 2:4, 5] = True
    moved = masks.shift(mask, (5, 1, 0.5), (5.0, -2.0, 1.0))
    assert np.argwhere(moved).tolist() == [[2, 0, 7], [2, 1, 7]]
    with pytest.raises(InputError, match=r"out of the scan.*-5…10 and -2…6 and -2…2 mm"):
        masks.shift(mask, (5, 1, 0.5), (0, -3, 0))
    with pytest.raises(InputError, match="out of the scan"):
        masks.shift(mask, (5, 1, 0.5), (0, 7, 0))
    assert not masks.shift(np.zeros_like(mask), (5, 1, 0.5), (99, 0, 0)).any()


def test_ball_has_the_volume_and_the_centre_asked_for() -> None:
    affine = np.array([[0, 2, 0, -30], [1, 0, 0, -20], [0, 0, 1.5, 5], [0, 0, 0, 1.0]])
    mask = masks.ball((60, 40, 30), affine, (8, 6, 25), 18)
    centres = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(centres.mean(0), (8, 6, 25), atol=0.3)
    assert mask.sum() * 3 == pytest.approx(np.pi * 18**3 / 6, rel=0.03)
    assert masks.ball((60, 40, 30), affine, (8, 6, 25), 0.1).sum() == 1


@pytest.mark.parametrize(("point", "size", "said"), [((500, 0, 0), 5, "outside the scan"), ((8, 6, 25), 0, "above 0"), ((8, 6, 25), float("nan"), "above 0")])
def test_ball_refuses(point: tuple[float, ...], size: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        masks.ball((60, 40, 30), np.diag([1.0, 1, 1, 1]), point, size)


def test_in_plane_is_nothing_on_the_grid() -> None:
    array = np.ones((2, 5, 5), np.float32)
    assert masks.in_plane(array, (5, 1.005, 0.995), 1.0, order=1) is array
    assert masks.back(array, (2, 5, 5), (5, 1.005, 0.995), 1.0, order=1) is array


@pytest.mark.parametrize("spacing", [(5, 0.9, 0.9), (5, 1.2, 0.8), (5, 1.0, 0.6)])
def test_in_plane_there_and_back(spacing: tuple[float, ...]) -> None:
    z, y, x = np.mgrid[:2, :60, :70]
    smooth = (np.sin(y * spacing[1] / 7) + np.cos(x * spacing[2] / 6) + z).astype(np.float32)
    there = masks.in_plane(smooth, spacing, 1.0, order=3)
    assert there.shape == masks.working_shape(smooth.shape, spacing, 1.0)
    assert there.shape == (2, round(60 * spacing[1]), round(70 * spacing[2]))
    again = masks.back(there, smooth.shape, spacing, 1.0, order=3)
    assert again.shape == smooth.shape
    inside = (slice(None), slice(5, -5), slice(5, -5))
    assert np.abs(again - smooth)[inside].max() < 0.04
    labels = (smooth > 1).astype(np.uint8) * 4
    coarse = masks.in_plane(labels, spacing, 1.0, order=0)
    assert coarse.dtype == np.uint8
    assert set(np.unique(coarse)) == {0, 4}


def test_in_plane_keeps_the_place_in_mm() -> None:
    """The centre of mass of a blob, in mm from the middle of the array, does not move."""
    y, x = np.mgrid[:80, :90]
    blob = np.exp(-((y - 20) ** 2 + (x - 60) ** 2) / 60)[None].astype(np.float32)
    spacing = (1, 0.7, 1.3)
    there = masks.in_plane(blob, spacing, 1.0, order=1)
    before = (np.array(ndimage.center_of_mass(blob[0])) - [39.5, 44.5]) * spacing[1:]
    after = np.array(ndimage.center_of_mass(there[0])) - (np.array(there.shape[1:]) - 1) / 2
    np.testing.assert_allclose(after, before, atol=0.05)


def test_boxes() -> None:
    assert masks.box_of(np.zeros((3, 3), bool)) is None
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 5] = True
    box = masks.box_of(mask)
    assert box == (slice(1, 4), slice(2, 3), slice(3, 6))
    assert masks.grown_box(box, (9, 1, 0), mask.shape) == (slice(0, 5), slice(1, 4), slice(3, 6))
