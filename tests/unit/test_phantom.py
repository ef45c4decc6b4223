"""Phantoms: repeatable, different, and with lesions where and as lesions are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pathosyn.data import phantom
from pathosyn.data.phantom import ED, ET, NCR, make_phantoms
from pathosyn.errors import InputError

SMALL = {"slices": 20, "size_px": (84, 102)}
CONTRASTS = ("t1", "t1ce", "t2", "flair")


def read(folder: Path, name: str) -> np.ndarray:
    """A file's voxels turned to RAS."""
    return np.asarray(nib.as_closest_canonical(nib.load(folder / f"{folder.name}_{name}.nii.gz")).dataobj)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_phantoms(tmp_path_factory.mktemp("phantoms"), subjects=5, seed=3, healthy=1, **SMALL)


def test_same_seed_same_bytes_whatever_the_count(cohort: list[Path], tmp_path: Path) -> None:
    again = make_phantoms(tmp_path, subjects=2, seed=3, **SMALL)
    assert [digests(folder) for folder in again] == [digests(folder) for folder in cohort[:2]]


def test_seeds_and_subjects_differ_in_anatomy_and_lesion(cohort: list[Path], tmp_path: Path) -> None:
    other = make_phantoms(tmp_path, subjects=1, seed=4, **SMALL)[0]
    for first, second in ((cohort[0], cohort[1]), (cohort[0], other), (cohort[0], cohort[5])):
        brains = read(first, "t1") > 0, read(second, "t1") > 0
        assert (brains[0] != brains[1]).sum() > 0.01 * brains[0].sum()
    assert (read(cohort[0], "seg") != read(cohort[1], "seg")).any()


def test_files_and_names(cohort: list[Path]) -> None:
    assert [folder.name for folder in cohort] == [f"phantom_{i:03d}" for i in range(5)] + ["healthy_000"]
    for folder in cohort:
        names = {*CONTRASTS, "seg"} if folder.name.startswith("phantom") else set(CONTRASTS)
        assert {path.name for path in folder.iterdir()} == {f"{folder.name}_{name}.nii.gz" for name in names}
        for name in names:
            image = nib.load(folder / f"{folder.name}_{name}.nii.gz")
            assert image.shape == (84, 102, 20)
            assert image.get_data_dtype() == np.int16
            assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
            np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), 1.0)


def test_one_head_in_all_contrasts_and_exact_zero_outside(cohort: list[Path]) -> None:
    for folder in cohort:
        images = np.stack([read(folder, name) for name in CONTRASTS])
        brain = images[0] > 0
        assert (images.min(0)[brain] >= 1).all()
        assert (images[:, ~brain] == 0).all()
        assert 0.3 < brain.mean() < 0.75
        edges = np.concatenate([brain[0].ravel(), brain[-1].ravel(), brain[:, 0].ravel(), brain[:, -1].ravel()])
        assert edges.mean() < 0.01  # the whole head is in view


def test_front_is_front(cohort: list[Path]) -> None:
    """RAS: in an axial slice through the ventricles the brain is widest behind its middle, for every subject."""
    for folder in cohort:
        width = (read(folder, "t1") > 0)[:, :, 10].sum(0)
        inside = np.flatnonzero(width)
        assert np.average(inside, weights=width[inside] > 0.95 * width.max()) < (inside[0] + inside[-1]) / 2


def test_labels_are_those_of_brats_2020_and_close_inside_the_slab(cohort: list[Path]) -> None:
    found = set()
    for folder in cohort[:5]:
        seg = read(folder, "seg")
        values = set(np.unique(seg).tolist())
        assert values <= {0, 1, 2, 4}
        assert 2 in values
        assert not seg[:, :, [0, -1]].any()
        assert 100 < (seg > 0).sum() < 0.25 * (read(folder, "t1") > 0).sum()
        found |= values
    assert found == {0, 1, 2, 4}


def test_core_lies_within_the_lesion(cohort: list[Path]) -> None:
    """Growth is a front from one point: the lesion is one piece, and oedema surrounds the core rather than the reverse."""
    for folder in cohort[:5]:
        seg = read(folder, "seg")
        _, pieces = ndimage.label(seg > 0, structure=np.ones((3, 3, 3)))
        assert pieces == 1
        depth = ndimage.distance_transform_edt(seg > 0)
        assert depth[(seg == NCR) | (seg == ET)].mean() > depth[seg == ED].mean()


@pytest.mark.parametrize("number", range(4))
def test_lesion_keeps_to_tissue(number: int) -> None:
    """Against the subject's own tissue fractions: no voxel of the lesion is mostly CSF or outside the brain, and white matter is preferred."""
    rng = np.random.default_rng([11, number])
    anatomy = phantom._anatomy(rng, (84, 102, 20), 2.0)
    lesion = phantom._grow(rng, anatomy, 2.0)
    inside = lesion.labels > 0
    box = lesion.box
    assert inside.any()
    assert anatomy.brain[box][inside].all()
    assert (anatomy.csf[box][inside] > 0.5).mean() == 0
    assert anatomy.csf[box][inside].mean() < 0.1
    assert anatomy.wm[box][inside].mean() > 1.2 * anatomy.wm[anatomy.brain].mean()


@pytest.mark.parametrize("number", range(6))
def test_lesion_closes_by_itself(number: int) -> None:
    """Growth is computed in a box: no lesion may end at the box's side, where it would show a straight edge."""
    rng = np.random.default_rng([12, number])
    lesion = phantom._grow(rng, phantom._anatomy(rng, (168, 204, 12), 1.0), 1.0)
    for axis, size in ((0, 168), (1, 204)):
        span, there = lesion.box[axis], np.flatnonzero((lesion.labels > 0).any(axis=(1 - axis, 2)))
        assert there[0] >= 3 or span.start == 0
        assert there[-1] < span.stop - span.start - 3 or span.stop == size


def test_contrast_order_is_that_of_gliomas(tmp_path: Path) -> None:
    """Medians against the subject's own white matter, whose voxels are the mode of the healthy FLAIR-dark, T1-bright brain."""
    for folder in make_phantoms(tmp_path, subjects=5, seed=21, slices=20, size_px=(168, 204)):
        images = {name: read(folder, name).astype(float) for name in CONTRASTS}
        seg = read(folder, "seg")
        healthy = (images["t1"] > 0) & ~ndimage.binary_dilation(seg > 0, iterations=4)
        white = healthy & (images["t1"] > np.percentile(images["t1"][healthy], 70)) & (images["t2"] < np.percentile(images["t2"][healthy], 50))
        level = {(label, name): np.median(image[seg == label]) / np.median(image[white]) for name, image in images.items() for label in np.unique(seg) if label}
        assert level[ED, "t1"] < 0.95
        assert level[ED, "t2"] > 1.3
        assert level[ED, "flair"] > 1.3
        if (NCR, "t1") in level and (seg == NCR).sum() > 100:
            assert level[NCR, "t1"] < level[ED, "t1"]
            assert level[NCR, "flair"] < level[ED, "flair"]
        if (ET, "t1ce") in level:
            assert level[ET, "t1ce"] > 1.15
            assert level[ET, "t1ce"] > 1.3 * level[ET, "t1"]
            assert level[ET, "t1ce"] > level.get((NCR, "t1ce"), 0)


def test_smooth_noise_has_unit_variance_everywhere_and_the_stated_reach() -> None:
    fields = np.stack([phantom._smooth_noise(np.random.default_rng(i), (24, 30), 4.0) for i in range(400)])
    assert fields.shape == (400, 24, 30)
    np.testing.assert_allclose(fields.std(0), 1.0, atol=0.2)
    near, far = ((fields[:, 8:12, 8:12] * np.roll(fields, shift, axis=1)[:, 8:12, 8:12]).mean() for shift in (1, 12))
    assert near > 0.8
    assert abs(far) < 0.15


def test_displacement_does_not_fold() -> None:
    """The bent grid keeps its orientation: the Jacobian determinant stays positive, near 1 on average."""
    for seed in range(3):
        where = phantom._coordinates(np.random.default_rng(seed), (84, 102, 20), 2.0) / 2.0
        jacobian = np.linalg.det(np.moveaxis(np.stack([np.stack(np.gradient(part)) for part in where]), (0, 1), (-2, -1)))
        assert jacobian.min() > 0.2
        assert 0.85 < jacobian.mean() < 1.2


def test_healthy_subject_has_no_seg(cohort: list[Path]) -> None:
    assert not (cohort[5] / "healthy_000_seg.nii.gz").exists()


def test_smallest_grid_still_grows_a_lesion(tmp_path: Path) -> None:
    for folder in make_phantoms(tmp_path, subjects=4, seed=0, slices=5, size_px=(32, 32)):
        assert read(folder, "seg").any()


def test_every_impossible_size_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        make_phantoms(tmp_path, subjects=-1, seed=0, slices=2, size_px=(8, 8))
    assert [fault.where for fault in caught.value.faults] == ["subjects", "slices", "size_px[0]", "size_px[1]"]
    assert not list(tmp_path.iterdir())
