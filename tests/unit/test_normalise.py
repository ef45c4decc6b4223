"""Native units to normalised ones and back, and where the head is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathosyn.data.nifti import read_volume
from pathosyn.data.normalise import CLIP, Normaliser, fit_normaliser, foreground, write_half
from pathosyn.data.subjects import find_subjects, read_scan

SHAPE = (64, 72, 20)


def head(radius: float = 1.0) -> np.ndarray:
    """An ellipse that is the same in every axial slice: a slab through a head."""
    x, y = np.ogrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    return np.broadcast_to(((x / 0.7) ** 2 + (y / 0.8) ** 2 < radius**2)[..., None], SHAPE).copy()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def stripped(rng: np.random.Generator) -> np.ndarray:
    """Exact zeros outside, dark ventricles that a threshold misses."""
    values = np.where(head(), rng.normal(400, 60, SHAPE).clip(30), 0)
    values[28:36, 30:42] = 0
    return values


def skull_on(rng: np.random.Generator) -> np.ndarray:
    """uint8 with Rician noise in air and a dark skull between scalp and brain."""
    signal = np.where(head(), 90.0, 0.0)
    signal[head(0.93) & ~head(0.86)] = 4
    noisy = np.hypot(signal + rng.normal(0, 4, SHAPE), rng.normal(0, 4, SHAPE))
    return noisy.clip(0, 255).astype(np.uint8)


def interpolated(rng: np.random.Generator) -> np.ndarray:
    """Zeros outside, ringing with negative values just inside."""
    values = np.where(head(), rng.normal(300, 40, SHAPE), 0)
    rim = head() & ~head(0.97)
    values[rim] = rng.normal(20, 30, int(rim.sum()))
    return values


def padded(rng: np.random.Generator) -> np.ndarray:
    """A scan turned in its frame: most of the air is exactly 0, but what lies near the head shines."""
    near = head(1.15)
    return np.where(near, skull_on(rng), 0) + np.where(near & ~head(), 6, 0)


@pytest.mark.parametrize("scan", [stripped, skull_on, interpolated, padded])
@pytest.mark.parametrize("gain", [1.0, 1e-3, 1e4])
def test_the_head_is_found_in_every_kind_of_scan(scan: Callable[[np.random.Generator], np.ndarray], gain: float) -> None:
    found = foreground([(scan(np.random.default_rng(0)) * gain).astype(np.float32)])
    assert dice(found, head()) > 0.97


def test_the_order_of_the_axes_does_not_matter() -> None:
    values = stripped(np.random.default_rng(1)).astype(np.float32)
    expected = foreground([values])
    assert expected[32, 36].all()  # the ventricle, open at both ends of the slab
    for axes in permutations(range(3)):
        assert dice(foreground([np.ascontiguousarray(values.transpose(axes))]), expected.transpose(axes)) > 0.999


def test_a_cavity_is_filled_where_its_plane_is_closed() -> None:
    """The paranasal sinuses open to the air in some slices: that must not empty them in the others."""
    values = np.where(head(), 100.0, 0).astype(np.float32)
    values[28:36, 30:42, 4:11] = 0
    values[28:36, 30:, 10] = 0
    found = foreground([values])
    assert found[28:36, 30:42, 4:10].all()
    assert not found[28:36, 66:, 10].any()


def test_one_spoilt_contrast_of_three_is_outvoted() -> None:
    rng = np.random.default_rng(2)
    spoilt = rng.normal(100, 30, SHAPE).astype(np.float32)
    good = [stripped(rng).astype(np.float32), skull_on(rng).astype(np.float32)]
    assert foreground([spoilt]).mean() > 0.99
    assert dice(foreground([*good, spoilt]), head()) > 0.97


def test_specks_in_the_air_are_dropped() -> None:
    values = stripped(np.random.default_rng(3)).astype(np.float32)
    values[1:3, 1:3, 4:7] = 500
    assert not foreground([values])[:4, :4].any()


def test_a_scan_cropped_to_tissue_is_all_foreground() -> None:
    values = np.random.default_rng(4).normal(500, 60, SHAPE).astype(np.float32)
    assert foreground([values]).all()
    assert foreground([np.full(SHAPE, 3.0, np.float32)]).all()
    with pytest.raises(ValueError, match="at least one"):
        foreground([])


@settings(max_examples=60, deadline=None)
@given(center=st.floats(-1e4, 1e4), scale=st.floats(1e-2, 1e4), value=st.floats(-3e4, 3e4))
def test_apply_and_invert_undo_each_other(center: float, scale: float, value: float) -> None:
    normaliser = Normaliser(center, scale)
    values = np.full((2, 3), value, np.float32)
    back = normaliser.invert(normaliser.apply(values))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=0, atol=1e-6 * (abs(value) + abs(center)) + 1e-30)  # the last term: below it float32 has few digits


def test_apply_is_the_formula() -> None:
    assert Normaliser(100, 20).apply(np.array([100, 120, 60], np.int16)).tolist() == [0, 1, -2]
    assert Normaliser(100, 20).invert(np.array([0, 1, -2])).tolist() == [100, 120, 60]
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="positive scale"):
            Normaliser(0, scale)


def test_a_normal_distribution_gives_its_mean_and_standard_deviation() -> None:
    values = np.random.default_rng(0).normal(300, 40, (100, 100, 20)).astype(np.float32)
    fitted = fit_normaliser(values, np.ones(values.shape, bool))
    assert fitted.center == pytest.approx(300, abs=0.5)
    assert fitted.scale == pytest.approx(40, rel=0.01)
    values[0, 0] = 32767
    spiked = fit_normaliser(values, np.ones(values.shape, bool))
    assert (spiked.center, spiked.scale) == pytest.approx((fitted.center, fitted.scale), rel=1e-3)


def test_neither_lesion_nor_background_move_the_fit() -> None:
    """DESIGN 3, row 19: statistics that include the lesion leak it."""
    rng = np.random.default_rng(0)
    clean = np.where(head(), rng.normal(300, 40, SHAPE), 0).astype(np.float32)
    lesion = head(0.5)
    diseased = np.where(lesion, clean * 3, clean)
    healthy = fit_normaliser(clean, head(), lesion)
    assert fit_normaliser(diseased, head(), lesion) == healthy
    assert fit_normaliser(diseased, head()).scale > 1.5 * healthy.scale


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_integers_as_they_are_give_what_floats_give(dtype: type) -> None:
    """The head, its scale (numpy's percentiles) and the half-precision image, with values over all of the type's range."""
    info = np.iinfo(dtype)
    tissue = np.random.default_rng(0).normal(0.4, 0.1, SHAPE).clip(0.1, 1)
    values = np.rint(np.where(head(), tissue, 0) * (float(info.max) - info.min) + info.min).astype(dtype)
    values[32, 36, :2] = info.max
    as_floats = values.astype(np.float32)
    found = foreground([values])
    assert np.array_equal(found, foreground([as_floats])) and dice(found, head()) > 0.97
    low, center, high = np.percentile(as_floats[found], (10, 50, 90))
    fitted = fit_normaliser(values, found)
    assert (fitted.center, fitted.scale) == pytest.approx((center, (high - low) / 2.563), rel=1e-6)
    normaliser = Normaliser(fitted.center, fitted.scale / 4)  # so that there is something to clip
    target = np.full(SHAPE[:1] + (2,) + SHAPE[1:], np.nan, np.float16)
    for channel, array in enumerate((values, as_floats)):
        write_half(normaliser, array, target[:, channel])
        np.testing.assert_array_equal(target[:, channel], np.clip(normaliser.apply(array), -CLIP, CLIP).astype(np.float16))
    assert target.max() == CLIP


@pytest.mark.parametrize("size", [(3, 5, 7), (3, 4, 6)])
def test_bytes_in_pairs_are_bytes_one_by_one(size: tuple[int, int, int]) -> None:
    """Planes of an odd and of an even number of bytes, cut out of larger ones, into places that lie together and into such that do not."""
    z, y, x = size
    values = np.random.default_rng(0).integers(0, 256, (z, y + 2, x + 2), np.uint8)[:, 1:-1, 1:-1]
    normaliser = Normaliser(100, 40)
    for target in (np.zeros(size, np.float16), np.zeros((z, y, 2 * x), np.float16)[..., ::2]):
        write_half(normaliser, values, target)
        np.testing.assert_array_equal(target, normaliser.apply(values).astype(np.float16))


def test_a_lesion_over_all_the_head_falls_back_to_the_head() -> None:
    values = np.where(head(), np.random.default_rng(0).normal(300, 40, SHAPE), 0).astype(np.float32)
    assert fit_normaliser(values, head(), head()) == fit_normaliser(values, head())


def test_percentiles_that_coincide_fall_back_to_the_standard_deviation() -> None:
    values = np.zeros(SHAPE, np.float32)
    values.reshape(-1)[:1000] = 50
    fitted = fit_normaliser(values, np.ones(SHAPE, bool))
    assert fitted.scale == pytest.approx(float(values.std()), rel=1e-4)
    with pytest.raises(ValueError, match="same value"):
        fit_normaliser(np.full(SHAPE, 7.0), np.ones(SHAPE, bool))
    tiny = np.arange(8.0).reshape(2, 2, 2)
    assert fit_normaliser(tiny, np.ones(tiny.shape, bool)).scale > 0


def test_real_heads(shared_data: Path) -> None:
    """Skull on, site by site: the lesion lies in the head, the frame's corners do not, and the head is a plausible share of the frame."""
    subjects = find_subjects(shared_data / "tcga_lgg")[::12]
    for files in subjects:
        scan = read_scan(files)
        images = [volume.canonical() for volume in scan.volumes.values()]
        found = foreground(images)
        assert scan.labels is not None
        assert found[scan.labels > 0].mean() > 0.99, files.name
        assert 0.2 < found.mean() < 0.7, files.name
        assert found[:8, :8].mean() + found[-8:, -8:].mean() < 0.02, files.name
        for image in images:
            normalised = fit_normaliser(image, found, scan.labels > 0).apply(image)
            assert abs(float(np.median(normalised[found & (scan.labels == 0)]))) < 1e-3


def test_a_skull_stripped_brain_is_what_is_not_zero(shared_data: Path) -> None:
    folder = shared_data / "brats2021" / "BraTS2021_01481"
    images = [read_volume(path).canonical() for path in sorted(folder.glob("*_t*.nii.gz"))]
    assert dice(foreground(images), images[0] > 0) > 0.98
