"""`pathosyn heal`: the lesion goes, everything else stays."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

Cli = Callable[..., int]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dtype": "uint8", "axes": "PIR", "suffix": ".nii"},
        {"dtype": "float64", "axes": "RAS"},
        {"slope": 0.5, "inter": -3.0, "four_d": True},
        {"dtype": "float32", "spacing": (0.8, 0.9, 2.5), "axes": "IAR"},
    ],
)
def test_only_the_lesion_and_its_rim_change(
    heal: Cli, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], reach: Any, tmp_path: Path, fields: dict[str, Any]
) -> None:
    how = storage(**fields)
    source = restore(tmp_path / "in" / "case", how)
    assert heal(source, tmp_path / "out") == 0
    result = tmp_path / "out" / "case-healed"
    seg = read(source / f"case_seg{how.suffix}")
    mask = seg.canonical() > 0
    near = reach(mask, seg.spacing)
    for contrast in ("t1", "flair"):
        before, after = read(source / f"case_{contrast}{how.suffix}"), read(result / f"case-healed_{contrast}{how.suffix}")
        assert after.voxels.dtype == before.voxels.dtype
        changed = after.canonical() != before.canonical()
        assert not (changed & ~near).any() and changed[mask].mean() > 0.6
        assert all(after.header[field].tobytes() == before.header[field].tobytes() for field in before.header if field != "vox_offset")
    assert not read(result / f"case-healed_seg{how.suffix}").voxels.any()


def test_the_healed_lesion_is_the_substrate(heal: Cli, subject: Path, tmp_path: Path) -> None:
    """Where the blend map is 1, to half a stored step, in native units; the substrate beside it is the scan itself outside the support."""
    assert heal(subject, tmp_path / "out", "--no-texture") == 0
    result = tmp_path / "out" / "phantom_000-healed"
    mask = np.asarray(nib.load(subject / "phantom_000_seg.nii.gz").dataobj) > 0
    for contrast in ("t1", "t1ce", "t2", "flair"):
        before, after, substrate = (
            np.asarray(nib.load(path).dataobj, np.float64)
            for path in (
                subject / f"phantom_000_{contrast}.nii.gz",
                result / f"phantom_000-healed_{contrast}.nii.gz",
                result / f"phantom_000-healed_{contrast}_substrate.nii.gz",
            )
        )
        assert np.abs(after - substrate)[mask].max() <= 0.5 + 1e-3
        assert np.abs(before - substrate)[:, :15].max() < 1e-2 and np.abs(before - substrate)[mask].max() > 1


def test_what_is_filled_in_is_as_rough_as_the_scan(heal: Cli, subject: Path, tmp_path: Path) -> None:
    """The substrate beside it stays smooth; the grain is the same at each call and tells nothing of the lesion (below)."""

    def detail(values: np.ndarray) -> np.ndarray:
        return values - ndimage.uniform_filter(values, (3, 3, 1))

    for out in ("a", "b"):
        assert heal(subject, tmp_path / out) == 0
    inside = ndimage.binary_erosion(np.asarray(nib.load(subject / "phantom_000_seg.nii.gz").dataobj) > 0, np.ones((3, 3, 1)))
    around = ndimage.binary_dilation(inside, np.ones((3, 3, 1)), iterations=12) & ~ndimage.binary_dilation(inside, np.ones((3, 3, 1)), iterations=8)
    for contrast in ("t1", "t1ce", "t2", "flair"):
        name = f"phantom_000-healed/phantom_000-healed_{contrast}"
        first, again, substrate = (
            np.asarray(nib.load(tmp_path / path).dataobj, np.float64) for path in (f"a/{name}.nii.gz", f"b/{name}.nii.gz", f"a/{name}_substrate.nii.gz")
        )
        rough = {place: np.median(np.abs(detail(first)[where])) for place, where in (("inside", inside), ("around", around))}
        assert 0.5 < rough["inside"] / rough["around"] < 1.5 and np.median(np.abs(detail(substrate)[inside])) < 0.5 * rough["inside"]
        assert np.array_equal(first, again)


def test_nothing_of_the_lesion_is_left(heal: Cli, subject: Path, tmp_path: Path, read: Callable[[Path], Any], reach: Any) -> None:
    """f_sub never sees the lesion: whatever lay there, the healed scan is the same to the bit where the blend map is 1."""
    twin = Path(shutil.copytree(subject, tmp_path / "twin" / "phantom_000"))
    mask = np.asarray(nib.load(subject / "phantom_000_seg.nii.gz").dataobj) > 0
    for contrast in ("t1", "t1ce", "t2", "flair"):
        path = twin / f"phantom_000_{contrast}.nii.gz"
        image = nib.load(path)
        values = np.asarray(image.dataobj).copy()
        values[mask] = values[mask][::-1] // 2 + 7
        nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    assert heal(subject, tmp_path / "a") == 0
    assert heal(twin, tmp_path / "b") == 0
    for contrast in ("t1", "t1ce", "t2", "flair"):
        one, other = (read(tmp_path / out / "phantom_000-healed" / f"phantom_000-healed_{contrast}.nii.gz").voxels for out in "ab")
        assert not np.array_equal(*(read(folder / f"phantom_000_{contrast}.nii.gz").voxels for folder in (subject, twin)))
        assert np.array_equal(one[mask], other[mask])


def test_a_given_mask_is_what_goes(heal: Cli, tiny_cohort: Path, tmp_path: Path, read: Callable[[Path], Any], reach: Any, sidecar: Any) -> None:
    """On a scan whose own mask marks something else, and on one without a mask."""
    mask_file = tiny_cohort / "phantom_003" / "phantom_003_seg.nii.gz"
    near = reach(read(mask_file).canonical() > 0, (1, 1, 1))
    for name in ("phantom_001", "healthy_000"):
        assert heal(tiny_cohort / name, tmp_path / name, "--mask", mask_file) == 0
        result = tmp_path / name / f"{name}-healed"
        changed = read(tiny_cohort / name / f"{name}_flair.nii.gz").canonical() != read(result / f"{name}-healed_flair.nii.gz").canonical()
        assert changed.any() and not (changed & ~near).any()
        told = sidecar(result)
        assert told["verb"] == "heal" and told["own_lesion_taken_out"] is True and told["lesion_ml"] == 0
        assert told["request"]["lesion"]["sha256"] == hashlib.sha256(mask_file.read_bytes()).hexdigest()


def test_a_healthy_scan_without_a_mask_is_refused(heal: Cli, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert heal(tiny_cohort / "healthy_000", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "healthy_000" in told and "--mask" in told
    assert not (tmp_path / "out").exists()


def test_healing_again_keeps_the_result_and_another_mask_is_refused(heal: Cli, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tiny_cohort / "phantom_000", tmp_path / "out"
    assert heal(source, out) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert heal(source, out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert heal(source, out, "--mask", tiny_cohort / "phantom_003" / "phantom_003_seg.nii.gz") == 2
    assert "another --out" in capsys.readouterr().err


def test_several_subjects_one_faulty(heal: Cli, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("phantom_000", "healthy_000"):
        shutil.copytree(tiny_cohort / name, tmp_path / "in" / name)
    assert heal(tmp_path / "in", tmp_path / "out") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["phantom_000-healed"]
    assert "healthy_000" in capsys.readouterr().err


def test_printed_composition_heals_too(
    cli: Cli, paper_straight: Path, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], tmp_path: Path
) -> None:
    source = restore(tmp_path / "in" / "case", storage(dtype="float32"))
    assert cli("heal", source, "--out", tmp_path / "out", "--weights", paper_straight / "weights.safetensors", "--device", "cpu") == 0
    before, after = (read(f).canonical() for f in (source / "case_flair.nii.gz", tmp_path / "out" / "case-healed" / "case-healed_flair.nii.gz"))
    mask = read(source / "case_seg.nii.gz").canonical() > 0
    assert (before != after)[mask].all() and np.array_equal(before[:, :10], after[:, :10])
