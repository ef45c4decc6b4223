"""Lesions drawn while a network trains: what stays, what changes, and that chance is the caller's."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pathosyn.data.phantom import make_phantoms
from pathosyn.errors import InputError
from pathosyn.scan import volume
from pathosyn.transforms import shapes
from pathosyn.transforms.axes import Axes
from pathosyn.transforms.core import Pool, Recipe, as_dtype, lesion, put
from pathosyn.transforms.scan import Scan, head_of

CONTRASTS = ("t1", "t1ce", "flair")
SMALL = (8.0, 12.0)
REACH = 4.5
"""grow + feather of the shipped weights, mm."""


@pytest.fixture(scope="module")
def recipe_of(tiny_weights: Callable[[Sequence[str]], Path]) -> Callable[..., Recipe]:
    """(contrasts, **fields) → a recipe with tiny weights, which have learned nothing, and small lesions."""
    weights = str(tiny_weights(CONTRASTS))

    def made(contrasts: Sequence[str] = CONTRASTS, **fields: Any) -> Recipe:
        return Recipe(tuple(contrasts), **{"weights": weights, "sizes_mm": None if "masks" in fields else SMALL} | fields)

    return made


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """A healthy phantom in slices order: image (3, 5, 112, 96) float32, stored intensities; label of zeros."""
    (folder,) = make_phantoms(tmp_path_factory.mktemp("scan"), subjects=0, healthy=1, seed=3, slices=5, size_px=(96, 112))
    image = np.stack([np.asarray(nib.load(folder / f"{folder.name}_{name}.nii.gz").dataobj, np.float32)[::-1, ::-1].transpose(2, 1, 0) for name in CONTRASTS])
    return image, np.zeros((1, *image.shape[1:]), np.uint8)


@pytest.fixture(scope="module")
def plane(scan: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Its middle slice."""
    return scan[0][:, 2], scan[1][:, 2]


def far(label: np.ndarray, reach: float = REACH) -> np.ndarray:
    """Farther than `reach` pixels from the label, by SciPy's exact transform."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(label == 0) >= reach


def disc(shape: tuple[int, ...], y: int, x: int, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    return np.broadcast_to((rows - y) ** 2 + (columns - x) ** 2 <= radius**2, shape)


# -- one lesion into one array ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [lambda x: x, lambda x: (x - 300) / 1000, lambda x: (x / 7).astype(np.float64), lambda x: np.rint(x).astype(np.int16)])
def test_outside_the_support_every_value_is_the_images_own(plane: tuple[np.ndarray, np.ndarray], unit: Callable[[np.ndarray], np.ndarray]) -> None:
    image, label = unit(plane[0]), plane[1]
    before = image.copy()
    made = put(Recipe(CONTRASTS, sizes_mm=SMALL), image, label, (1.0, 1.0), 5)
    assert made is not None and made[0].dtype == image.dtype and made[1].dtype == label.dtype
    assert np.array_equal(image, before) and not label.any()
    assert np.array_equal(made[0][:, far(made[1][0])], image[:, far(made[1][0])])
    assert (made[0] != image)[:, made[1][0] > 0].mean() > 0.9
    flair = made[0][2].astype(float) - image[2]
    assert flair[made[1][0] > 0].mean() > 0.3 * image[2][head_of([image[2][None]])[0]].std()  # a glioma is bright in FLAIR, in whatever units


def test_units_do_not_matter(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of()
    raw, other = (put(recipe, image, plane[1], (1.0, 1.0), 5) for image in (plane[0], plane[0] * np.float32(0.001) - np.float32(3)))
    assert raw is not None and other is not None and np.array_equal(raw[1], other[1])
    assert np.abs((other[0] + 3) * 1000 - raw[0]).max() < 0.02 * plane[0].max()


def test_a_slice_is_a_volume_of_one_slice(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of()
    flat, deep = put(recipe, *plane, (1.0, 1.0), 9), put(recipe, plane[0][:, None], plane[1][:, None], (1.0, 1.0, 1.0), 9)
    assert flat is not None and deep is not None
    assert np.array_equal(flat[0], deep[0][:, 0]) and np.array_equal(flat[1], deep[1][:, 0])


def test_a_volume_gets_one_lesion_through_its_slices(scan: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    made = put(recipe_of(sizes_mm=(8.0, 9.0)), *scan, (3.0, 1.0, 1.0), 1)
    assert made is not None
    assert made[1][0].any(axis=(1, 2)).sum() >= 2
    changed = (made[0] != scan[0]).any(axis=0)
    assert changed[made[1][0] > 0].all() and not changed[0 if not made[1][0, :2].any() else 4].any()


def test_the_seed_decides(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of()
    first, again, other = (put(recipe, *plane, (1.0, 1.0), seed) for seed in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_a_coarser_grid_is_drawn_on_its_own_voxels(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    image, label = plane[0][:, ::2, ::2], plane[1][:, ::2, ::2]
    made = put(recipe_of(sizes_mm=(12.0, 16.0)), image, label, (2.0, 2.0), 4)
    assert made is not None and np.array_equal(made[0][:, far(made[1][0], REACH / 2)], image[:, far(made[1][0], REACH / 2)])
    assert (made[0] != image)[:, made[1][0] > 0].mean() > 0.9


def test_a_channel_is_not_drawn_beyond_its_own_field_of_view(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of(("t1", "flair"))
    image = plane[0][[0, 2]]
    outline = put(recipe, image, plane[1], (1.0, 1.0), 4)
    assert outline is not None
    lesion = outline[1][0] > 0
    beyond = np.zeros(lesion.shape, bool)
    beyond[:, int(np.argwhere(lesion)[:, 1].mean()) :] = True
    ended = image.copy()
    ended[0, beyond] = image[0].min()
    made = put(recipe_of(("t1", "flair"), masks=[lesion], rim_mm=0.0), ended, plane[1], (1.0, 1.0), 4)
    assert made is not None
    differs, drawn = made[0] != ended, made[1][0] > 0
    assert (drawn & beyond).any() and not differs[0][beyond].any() and differs[1][drawn & beyond].mean() > 0.9


def test_fewer_contrasts_are_missing_channels(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    alone = put(recipe_of(("flair",)), plane[0][2:], plane[1], (1.0, 1.0), 5)
    turned = put(recipe_of(("flair", "t1")), plane[0][[2, 0]], plane[1], (1.0, 1.0), 5)
    empty = np.stack([np.zeros_like(plane[0][0]), plane[0][2]])
    blank = put(recipe_of(("t1", "flair")), empty, plane[1], (1.0, 1.0), 5)
    assert alone is not None and turned is not None and blank is not None
    assert alone[0].shape[0] == 1 and (alone[0] != plane[0][2:]).any() and (turned[0] != plane[0][[2, 0]]).any(axis=(1, 2)).all()
    assert not blank[0][0].any() and np.array_equal(blank[0][1], alone[0][0])  # a channel of one value is as good as none


def test_the_networks_are_told_what_is_missing(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, real = [], volume.substrate
    monkeypatch.setattr(volume, "substrate", lambda method, target, **rest: (seen.append(target), real(method, target, **rest))[1])
    put(recipe_of(("flair", "t1")), plane[0][[2, 0]], plane[1], (1.0, 1.0), 5)
    assert seen[0].present.tolist() == [True, False, True]
    assert not seen[0].x[:, 1].any() and seen[0].x[:, 0].any() and abs(np.median(seen[0].x[0, 2][head_of([plane[0][2][None]])[0]])) < 0.5


def test_a_new_lesion_lies_on_the_scans_own_anatomy(
    plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    real = volume.deviation
    monkeypatch.setattr(volume, "deviation", lambda method, target, *rest, **more: told.append(target.healthy) or real(method, target, *rest, **more))
    assert put(recipe_of(), *plane, (1.0, 1.0), 1) is not None and told == [True]


def test_whole_numbers_are_rounded_and_held() -> None:
    values = np.array([-7.6, 1.5, 2.4, 300.0], np.float32)
    assert as_dtype(values, np.dtype(np.uint8)).tolist() == [0, 2, 2, 255]
    assert as_dtype(values, np.dtype(np.float32)) is values


def test_a_lesion_that_is_there_stays(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    label = plane[1].copy()
    label[0][disc(label[0].shape, 56, 30, 12)] = 3
    for seed in range(4):
        made = put(recipe_of(label_value=2), plane[0], label, (1.0, 1.0), seed)
        assert made is not None and set(np.unique(made[1])) == {0, 2, 3}
        assert np.array_equal(made[1] == 3, label == 3)
        assert np.array_equal(made[0][:, label[0] == 3], plane[0][:, label[0] == 3])


def test_no_place_no_lesion(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    nowhere, everywhere = np.zeros_like(plane[1]), np.ones_like(plane[1])
    recipe = recipe_of()
    assert put(recipe, *plane, (1.0, 1.0), 0, allowed=nowhere) is None
    assert put(recipe, plane[0], everywhere, (1.0, 1.0), 0) is None
    assert put(recipe, np.zeros_like(plane[0]), plane[1], (1.0, 1.0), 0) is None
    left = everywhere.copy()
    left[..., 48:] = 0
    made = put(recipe, *plane, (1.0, 1.0), 0, allowed=left)
    assert made is not None and not made[1][..., 48:].any()


def test_severity_scales_what_changes(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    half, whole = (put(recipe_of(severity=(s, s)), *plane, (1.0, 1.0), 6) for s in (0.5, 1.0))
    assert half is not None and whole is not None
    inside = half[1][0] > 0
    assert np.allclose(2 * (half[0] - plane[0])[:, inside], (whole[0] - plane[0])[:, inside], atol=1e-2)


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"severity": (0.0, 1.0)}, "severity"),
        ({"severity": (2.0, 1.0)}, "severity"),
        ({"sizes_mm": (9.0, 3.0)}, "sizes_mm"),
        ({"sizes_mm": SMALL, "masks": [np.ones((3, 3))]}, "sizes_mm"),
        ({"label_value": 0}, "label_value"),
        ({"steps": 0}, "steps"),
        ({"rim_mm": -1.0}, "rim_mm"),
    ],
)
def test_recipes_that_cannot_be_meant(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=f"^{word}: "):
        Recipe(CONTRASTS, **fields)


@pytest.mark.parametrize(
    "contrasts, shape, marks, spacing, word",
    [
        (("t1", "t2"), (2, 9, 9), (1, 9, 9), (1, 1), "contrasts"),
        (("t1", "t1"), (2, 9, 9), (1, 9, 9), (1, 1), "contrasts"),
        (("t1",), (2, 9, 9), (1, 9, 9), (1, 1), "image"),
        (("t1",), (1, 9, 9), (2, 9, 9), (1, 1), "label"),
        (("t1",), (1, 9, 9), (1, 9, 9), (1, 1, 1), "spacing"),
        (("t1",), (1, 9, 9), (1, 9, 9), (1, 0), "spacing"),
    ],
)
def test_arrays_that_do_not_fit(
    contrasts: tuple[str, ...], shape: tuple[int, ...], marks: tuple[int, ...], spacing: tuple[float, ...], word: str, recipe_of: Callable[..., Recipe]
) -> None:
    with pytest.raises(InputError, match=f"^{word}: "):
        put(recipe_of(contrasts), np.zeros(shape, np.float32), np.zeros(marks, np.uint8), spacing, 0)


# -- the pool ---------------------------------------------------------------------------------------------------------------------------


def test_a_pool_draws_each_lesion_of_a_scan_once(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    recipe, pool = recipe_of(), Pool(2)
    made = [pool.put(recipe, *plane, (1.0, 1.0), seed) for seed in (0, 1, 2, 3)]
    assert pool.drawn == 2 and all(one is not None for one in made)
    assert np.array_equal(made[0][0], made[2][0]) and not np.array_equal(made[0][0], made[1][0])  # type: ignore[index]
    pool.put(recipe, plane[0] * 2, plane[1], (1.0, 1.0), 0)
    assert pool.drawn == 3  # another scan
    fresh = pickle.loads(pickle.dumps(pool))
    assert np.array_equal(fresh.put(recipe, *plane, (1.0, 1.0), 2)[0], made[0][0]) and fresh.drawn == 1  # type: ignore[index]


def test_a_pool_forgets_what_was_not_used_for_longest(
    plane: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, recipe_of: Callable[..., Recipe]
) -> None:
    recipe, pool = recipe_of(), Pool(3)
    one = lesion(recipe, *plane, (1.0, 1.0), 0)
    assert one is not None
    monkeypatch.setattr("pathosyn.transforms.core.POOL_BYTES", int(one.bytes))
    for seed in (0, 1, 1):
        pool.put(recipe, *plane, (1.0, 1.0), seed)
    assert pool.drawn == 2
    pool.put(recipe, *plane, (1.0, 1.0), 0)
    assert pool.drawn == 3


# -- masks ------------------------------------------------------------------------------------------------------------------------------


def test_outlines_are_lent() -> None:
    hook = np.zeros((40, 40), bool)
    hook[5:17, 5:10] = hook[13:17, 5:14] = True
    free, chance, ways = np.ones((1, 60, 60), bool), np.random.default_rng(0), set()
    for _ in range(30):
        mask = shapes.Outlines([hook])(free, (1.0, 1.0, 1.0), chance)
        if mask is not None:
            rows, columns = np.nonzero(mask[0])
            found = mask[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            ways |= {(a, b) for a in (-1, 1) for b in (-1, 1) if np.array_equal(found[::a, ::b], hook[5:17, 5:14])}
    assert ways == {(-1, -1), (-1, 1), (1, -1), (1, 1)}


def test_a_recipe_takes_outlines(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    made = put(recipe_of(masks=[np.ones((7, 11))]), *plane, (1.0, 1.0), 0)
    assert made is not None and np.count_nonzero(made[1]) >= 0.95 * 77 and np.ptp(np.nonzero(made[1][0])[1]) == 10


def test_a_scan_may_end_within_a_lesion() -> None:
    free, chance = np.zeros((4, 40, 40), bool), np.random.default_rng(0)
    free[:, 5:35, 5:35] = True
    masks = [shapes.placed(np.ones((7, 5, 5), bool), free, chance) for _ in range(8)]
    assert {int(m.any(axis=(1, 2)).sum()) for m in masks if m is not None} <= {4} and all(m is not None for m in masks)
    assert shapes.placed(np.ones((2, 33, 5), bool), free, chance) is None


def test_a_deep_mask_lends_a_slice_one_of_its_slices() -> None:
    deep = np.zeros((5, 30, 30), bool)
    deep[1, 3:13, 3:8] = deep[3, 3:8, 3:13] = True
    free = np.ones((1, 60, 60), bool)
    chance = np.random.default_rng(0)
    shapes_found = {tuple(np.ptp(np.argwhere(shapes.Outlines([deep])(free, (1, 1, 1), chance)[0]), axis=0)) for _ in range(12)}  # type: ignore[index]
    assert shapes_found == {(9, 4), (4, 9)}


def test_a_function_of_the_users_says_where(plane: tuple[np.ndarray, np.ndarray], recipe_of: Callable[..., Recipe]) -> None:
    asked: list[np.ndarray] = []

    def mine(free: np.ndarray, spacing: tuple[float, ...], rng: np.random.Generator) -> np.ndarray | None:
        assert free.shape == (1, 112, 96) and spacing == (1.0, 1.0, 1.0)
        if (mask := shapes.placed(disc((1, 13, 13), 6, 6, 6), free, rng)) is not None:
            asked.append(mask & free)
        return mask

    made = put(recipe_of(masks=mine), *plane, (1.0, 1.0), 0)
    assert made is not None and np.array_equal(made[1] > 0, asked[-1])
    off = disc((1, *plane[0].shape[1:]), 2, 2, 6)
    assert put(recipe_of(masks=lambda free, spacing, rng: off), *plane, (1.0, 1.0), 0) is None
    assert put(recipe_of(masks=lambda free, spacing, rng: None), *plane, (1.0, 1.0), 0) is None
    with pytest.raises(ValueError, match="shape"):
        put(recipe_of(masks=lambda free, spacing, rng: asked[-1][0]), *plane, (1.0, 1.0), 0)


def test_blobs_have_the_size_that_was_asked() -> None:
    chance = np.random.default_rng(1)
    areas = [shapes.blob(20.0, (1.0, 1.0, 1.0), chance, flat=True).sum() for _ in range(40)]
    volumes = [shapes.blob(20.0, (4.0, 1.0, 1.0), chance, flat=False).sum() * 4 for _ in range(10)]
    assert 0.85 < np.mean(areas) / (np.pi * 100) < 1.2 and np.std(areas) > 10
    assert 0.8 < np.mean(volumes) / (4 / 3 * np.pi * 1000) < 1.3


def test_sizes_come_from_what_the_weights_have_seen() -> None:
    known = {"area_mm2": [1.0, 314.16], "volume_ml": [4.18879, 33.5103]}
    assert shapes.sizes_of(known, flat=True) == pytest.approx((shapes.SMALLEST_MM, 20.0), rel=1e-4)
    assert shapes.sizes_of(known, flat=False) == pytest.approx((20.0, 40.0), rel=1e-4)
    assert shapes.sizes_of({}, flat=True) == shapes.SIZES_MM


def test_outlines_that_cannot_be_meant() -> None:
    for masks in ([], [np.zeros((4, 4))], [np.ones(3)]):
        with pytest.raises(ValueError, match="bank"):
            shapes.Outlines(masks)


# -- the scan ---------------------------------------------------------------------------------------------------------------------------


def test_the_head_is_found_where_the_background_is_not_darkest(plane: tuple[np.ndarray, np.ndarray]) -> None:
    raw = plane[0][:, None]
    head = head_of(list(raw))
    normalised = np.where(raw > 0, (raw - raw[raw > 0].mean()) / raw[raw > 0].std(), np.float32(0))  # MONAI's NormalizeIntensity(nonzero=True)
    assert head.mean() < 0.7 and (head_of(list(normalised)) == head).mean() > 0.995


def test_skull_and_skin_keep_lesions_off_the_rim(plane: tuple[np.ndarray, np.ndarray]) -> None:
    from pathosyn.config import Geometry

    image, old = plane[0][:, None], plane[1] > 0
    cut_out = Scan.of(CONTRASTS, Geometry(), image, old, (1.0, 1.0, 1.0))
    noisy = Scan.of(CONTRASTS, Geometry(), image + np.random.default_rng(0).gamma(2.0, 5.0, image.shape).astype(np.float32), old, (1.0, 1.0, 1.0))
    assert cut_out is not None and noisy is not None
    edge = far(~noisy.head[0], 12) & noisy.head[0]
    assert not (noisy.free(None)[0] & ~edge).any() and noisy.free(None).any()
    assert (cut_out.free(None)[0] & ~edge).any() and not (cut_out.free(15.0)[0] & ~edge).any()


# -- axes -------------------------------------------------------------------------------------------------------------------------------


def test_any_nifti_orientation_comes_into_slices_order_and_back() -> None:
    volume = np.arange(2 * 4 * 5 * 6).reshape(2, 4, 5, 6)  # (C, x, y, z), RAS
    base = np.diag([1.0, 2.0, 3.0, 1.0])
    for codes in ("RAS", "LPS", "SAR", "PIL"):
        turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes))
        stored = np.stack([nib.orientations.apply_orientation(channel, turn) for channel in volume])
        affine = base @ nib.orientations.inv_ornt_aff(turn, volume.shape[1:])
        axes = Axes.of(affine, 3)
        assert axes.spacing == (3.0, 2.0, 1.0)
        assert np.array_equal(axes.turned(stored), volume.transpose(0, 3, 2, 1))
        assert np.array_equal(axes.restored(axes.turned(stored)), stored)


def test_slices_by_their_affine() -> None:
    image = np.arange(20).reshape(1, 4, 5)
    axial = Axes.of(np.diag([-1.0, -2.0, 3.0, 1.0]), 2)
    assert axial.spacing == (2.0, 1.0) and np.array_equal(axial.turned(image), image[:, ::-1, ::-1].transpose(0, 2, 1))
    sagittal = Axes.of(np.array([[0, 0, 1, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]]), 2)
    assert sagittal.spacing == (2.0, 3.0) and np.array_equal(sagittal.turned(image), image)


# -- what is imported -------------------------------------------------------------------------------------------------------------------


def test_the_package_imports_no_framework() -> None:
    code = "import sys, pathosyn.transforms; print(sorted({'monai', 'torchio', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name, extra", [("RandLesiond", "monai"), ("RandLesion", "torchio")])
def test_an_absent_extra_is_named_in_one_line(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, extra, None)
    for module in [m for m in sys.modules if m.startswith((f"{extra}.", f"pathosyn.transforms.{extra}"))]:
        monkeypatch.setitem(sys.modules, module, None) if module.startswith(extra) else monkeypatch.delitem(sys.modules, module)
    import pathosyn.transforms

    monkeypatch.delitem(vars(pathosyn.transforms), name, raising=False)
    with pytest.raises(ImportError, match=rf"^{name} needs .*: pip install 'pathosyn\[{extra}\]'$"):
        getattr(pathosyn.transforms, name)


def test_the_extras_are_in_the_package() -> None:
    import tomllib

    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"monai", "torchio"} <= set(extras)
