"""`pathosyn insert`: the background is the file's own, controls do what they say, results repeat, and everything is on record."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pathosyn.checkpoint import load, save_weights
from pathosyn.data.subjects import find_subject, read_scan

Cli = Callable[..., int]

STORAGES = {
    "int16 as BraTS": {},
    "int16 plain": {"suffix": ".nii", "axes": "RAS"},
    "uint8": {"dtype": "uint8", "axes": "PIR"},
    "float32": {"dtype": "float32", "axes": "RAS", "suffix": ".nii"},
    "float64": {"dtype": "float64", "axes": "SPL"},
    "scaled int16": {"slope": 0.5, "inter": -3.0, "axes": "ASR"},
    "scaled uint8": {"dtype": "uint8", "slope": 1.7, "inter": 0.25, "suffix": ".nii"},
    "4-D": {"four_d": True, "axes": "LAS"},
    "big-endian": {"dtype": ">i2", "axes": "IPL", "suffix": ".nii"},
    "fine pixels": {"spacing": (0.75, 0.75, 2.0), "dtype": "float64"},
    "coarse oblong pixels": {"spacing": (1.3, 0.9, 3.0), "axes": "RIP", "slope": 0.5, "inter": -3.0},
    "uint16 oblique": {"dtype": "uint16", "spacing": (1.1, 1.1, 1.5), "turned": 17.0},
}
LOADS = ("--shift-mm", 0, -5, 0)
"""phantom_000's lesion, moved to where it is still on the brain: old and new support differ."""


def results(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.is_dir())


def native(path: Path) -> np.ndarray:
    """(X, Y, Z) in RAS+ order, scaled, float64."""
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj, np.float64)


def centroid(path: Path) -> np.ndarray:
    """World mm of a mask's centre."""
    image = nib.load(path)
    return np.argwhere(np.asarray(image.dataobj) > 0).mean(axis=0) @ image.affine[:3, :3].T + image.affine[:3, 3]


# -- the background ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", STORAGES)
def test_outside_the_support_every_stored_voxel_is_the_files_own(
    insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], reach: Any, tmp_path: Path, case: str
) -> None:
    how = storage(**STORAGES[case])
    source = restore(tmp_path / "in" / "case", how)
    shift = (0, -9 * how.spacing[1], 0)
    assert insert(source, tmp_path / "out", "--shift-mm", *shift, "--severity", 1.5) == 0
    (result,) = results(tmp_path / "out")
    old = read(source / f"case_seg{how.suffix}")
    new = read(result / f"case-r00_seg{how.suffix}")
    old_mask, new_mask = (np.asarray(seg.canonical()) > 0 for seg in (old, new))
    moved = np.zeros_like(old_mask)
    moved[:, :-9] = old_mask[:, 9:]
    # The shift is along RAS world axes; a turned scan's own axes are the nearest to them.
    assert np.array_equal(new_mask, moved)
    may_change = reach(old_mask, old.spacing) | reach(new_mask, old.spacing)
    assert 0 < may_change.mean() < 0.5
    for contrast in ("t1", "flair"):
        before, after = read(source / f"case_{contrast}{how.suffix}"), read(result / f"case-r00_{contrast}{how.suffix}")
        differs = after.canonical() != before.canonical()
        assert not (differs & ~may_change).any()
        assert after.voxels.dtype == before.voxels.dtype and after.voxels.shape == before.voxels.shape
        outside = np.where(may_change, 0, before.canonical()).astype(before.voxels.dtype)
        assert np.where(may_change, 0, after.canonical()).astype(before.voxels.dtype).tobytes() == outside.tobytes()
        # That nothing changed anywhere would prove nothing.
        assert differs[new_mask].mean() > 0.6 and differs[old_mask & ~reach(new_mask, old.spacing)].mean() > 0.6
        for field in before.header:
            if field != "vox_offset":  # the note that says "synthetic" lies in front of the voxels
                assert after.header[field].tobytes() == before.header[field].tobytes(), field


@pytest.mark.parametrize("case", ["int16 as BraTS", "fine pixels"])
def test_fluid_beside_the_lesion_stays(
    insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], reach: Any, tmp_path: Path, case: str
) -> None:
    """Voxels around the mask that are dark in T1 and FLAIR are the file's own afterwards; those that are dark in one of them may change, and so may a cyst, as
    dark as they are, inside the mask."""
    how = storage(**STORAGES[case])
    source = restore(tmp_path / "in" / "case", how)
    seg = read(source / f"case_seg{how.suffix}")
    mask = np.asarray(seg.canonical()) > 0
    middle = int(np.argwhere(mask)[:, 0].mean())
    around = reach(mask, seg.spacing) & ~mask
    wet, dark_in_one = around.copy(), around.copy()
    wet[:middle], dark_in_one[middle:] = False, False
    cyst = mask.copy()
    cyst[:middle] = False
    for contrast, where in (("t1", wet | cyst), ("flair", wet | cyst | dark_in_one)):
        path = source / f"case_{contrast}{how.suffix}"
        volume = nib.load(path)
        stored = np.asarray(volume.dataobj).copy()
        canonical = nib.as_closest_canonical(nib.Nifti1Image(where.astype(np.uint8), nib.as_closest_canonical(volume).affine))
        there = np.asarray(nib.orientations.apply_orientation(np.asarray(canonical.dataobj), _orientation(volume))) > 0
        stored[there] = np.quantile(stored[stored > 0], 0.02) + np.random.default_rng(0).integers(0, 4, int(there.sum()))
        nib.save(nib.Nifti1Image(stored, volume.affine, volume.header), path)
    assert insert(source, tmp_path / "out", "--severity", 1.5) == 0
    (result,) = results(tmp_path / "out")
    before, after = read(source / f"case_t1{how.suffix}"), read(result / f"case-r00_t1{how.suffix}")
    differs = after.canonical() != before.canonical()
    assert not differs[wet].any() and differs[dark_in_one].any() and differs[mask & ~cyst].mean() > 0.6 and differs[cyst].mean() > 0.6


def test_a_contrast_is_not_drawn_beyond_its_own_field_of_view(
    insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], tmp_path: Path
) -> None:
    """A T1 that ends inside the lesion stays empty there, and is drawn up to there; the FLAIR is drawn on all of the lesion."""
    source = restore(tmp_path / "in" / "case", storage())
    mask = np.asarray(read(source / "case_seg.nii.gz").canonical()) > 0
    beyond = np.zeros(mask.shape, bool)
    beyond[int(np.argwhere(mask)[:, 0].mean()) :] = True
    path = source / "case_t1.nii.gz"
    image = nib.load(path)
    stored = np.asarray(image.dataobj).copy()
    canonical = nib.as_closest_canonical(nib.Nifti1Image(beyond.astype(np.uint8), nib.as_closest_canonical(image).affine))
    stored[np.asarray(nib.orientations.apply_orientation(np.asarray(canonical.dataobj), _orientation(image))) > 0] = 0
    nib.save(nib.Nifti1Image(stored, image.affine, image.header), path)
    assert insert(source, tmp_path / "out", "--severity", 1.5) == 0
    (result,) = results(tmp_path / "out")
    differs = {c: read(result / f"case-r00_{c}.nii.gz").canonical() != read(source / f"case_{c}.nii.gz").canonical() for c in ("t1", "flair")}
    assert not differs["t1"][beyond].any() and differs["t1"][mask & ~beyond].mean() > 0.6 and differs["flair"][mask & beyond].mean() > 0.6


def _orientation(image: Any) -> Any:
    """From RAS+ axes to the image's own."""
    ras = nib.orientations.axcodes2ornt("RAS")
    return nib.orientations.ornt_transform(ras, nib.orientations.io_orientation(image.affine))


def test_nibabel_reads_what_was_written(insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], tmp_path: Path) -> None:
    """Scaled values, affine, and a note that this scan is synthetic; a map for each contrast on the same grid."""
    source = restore(tmp_path / "in" / "case", storage(slope=0.5, inter=-3.0, axes="PIR"))
    assert insert(source, tmp_path / "out") == 0
    (result,) = results(tmp_path / "out")
    before, after = nib.load(source / "case_flair.nii.gz"), nib.load(result / "case-r00_flair.nii.gz")
    assert np.array_equal(before.affine, after.affine) and before.get_data_dtype() == after.get_data_dtype()
    same = np.asarray(before.dataobj) == np.asarray(after.dataobj)
    assert 0.8 < same.mean() < 1 and np.asarray(after.dataobj).min() == np.asarray(before.dataobj).min() == -3.0
    assert any(b"synthetic" in extension.get_content() for extension in after.header.extensions)
    mask = np.asarray(nib.load(result / "case-r00_seg.nii.gz").dataobj)
    deviation, substrate = (np.asarray(nib.load(result / f"case-r00_flair_{kind}.nii.gz").dataobj) for kind in ("deviation", "substrate"))
    assert deviation.dtype == np.float32 and deviation[mask > 0].any() and not deviation[same & (mask == 0)].all()
    assert np.count_nonzero(deviation) < 0.2 * deviation.size
    # At severity 1 the lesion's core is substrate + deviation, in native units, to half a stored step.
    assert np.abs(np.asarray(after.dataobj) - (substrate + deviation))[mask > 0].max() <= 0.25 + 1e-3


def test_printed_composition_also_keeps_the_background(
    cli: Cli, paper_straight: Path, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], tmp_path: Path, sidecar: Any
) -> None:
    source = restore(tmp_path / "in" / "case", storage(dtype="float32"))
    weights = paper_straight / "weights.safetensors"
    assert cli("insert", source, "--out", tmp_path / "out", "--weights", weights, "--steps", 3, "--device", "cpu", *LOADS) == 0
    (result,) = results(tmp_path / "out")
    assert sidecar(result)["weights"]["composition"] == "paper"
    old, new = (read(f).canonical() > 0 for f in (source / "case_seg.nii.gz", result / "case-r00_seg.nii.gz"))
    far = np.ones(old.shape, bool)
    for mask in (old, new):  # G_σ∗m: σ = 2 px, cut at 4σ, slice by slice
        for x, y, z in np.argwhere(mask):
            far[max(x - 8, 0) : x + 9, max(y - 8, 0) : y + 9, z] = False
    before, after = read(source / "case_t1.nii.gz").canonical(), read(result / "case-r00_t1.nii.gz").canonical()
    assert far.any() and np.array_equal(before[far], after[far]) and (before != after)[new].mean() > 0.9


# -- the same again ---------------------------------------------------------------------------------------------------------------------


def test_seeds_differ_and_repeat(insert: Cli, subject: Path, tmp_path: Path, contents: Callable[[Path], dict[str, str]]) -> None:
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert insert(subject, tmp_path / out, "--seed", seed) == 0
    a, b, c = (contents(tmp_path / out) for out in "abc")
    assert a == b
    images = [name for name in a if name.endswith((*(f"_{contrast}.nii.gz" for contrast in ("t1", "t1ce", "t2", "flair")), "deviation.nii.gz"))]
    assert len(images) == 8 and all(a[name] != c[name] for name in images)
    assert all(a[name] == c[name] for name in a if name.endswith(("seg.nii.gz", "substrate.nii.gz")))


def test_a_replicate_does_not_depend_on_how_many_are_asked_for(insert: Cli, subject: Path, tmp_path: Path, contents: Callable[[Path], dict[str, str]]) -> None:
    assert insert(subject, tmp_path / "three", "--replicates", 3) == 0
    assert insert(subject, tmp_path / "one") == 0
    names = [path.name for path in results(tmp_path / "three")]
    assert names == ["phantom_000-r00", "phantom_000-r01", "phantom_000-r02"]
    first, second, third = (contents(tmp_path / "three" / name) for name in names)
    assert first == contents(tmp_path / "one" / "phantom_000-r00")
    drawn = [{files[f"{name}_flair.nii.gz"] for name in names if f"{name}_flair.nii.gz" in files}.pop() for files in (first, second, third)]
    assert len(set(drawn)) == 3, "replicates are draws of their own"
    shutil.rmtree(tmp_path / "three" / "phantom_000-r02")
    assert insert(subject, tmp_path / "three", "--replicates", 3) == 0
    assert contents(tmp_path / "three" / "phantom_000-r02") == third


def test_how_windows_are_batched_changes_nothing_beyond_a_stored_step(
    insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathosyn.scan import volume

    source = restore(tmp_path / "in" / "case", storage(), source="phantom_001", contrasts=("t1", "t1ce", "t2", "flair", "seg"))
    assert insert(source, tmp_path / "together") == 0
    monkeypatch.setattr(volume, "BATCH_PIXELS", 1)
    calls: list[int] = []
    original = volume._batch
    monkeypatch.setattr(volume, "_batch", lambda target, x, some: (calls.append(len(some)), original(target, x, some))[1])
    assert insert(source, tmp_path / "apart") == 0
    assert set(calls) == {1} and len(calls) > 4
    for contrast in ("t1", "t1ce", "t2", "flair"):
        one, other = (read(tmp_path / out / "case-r00" / f"case-r00_{contrast}.nii.gz").voxels.astype(int) for out in ("together", "apart"))
        assert np.abs(one - other).max() <= 1


def test_the_same_command_again_keeps_its_results(insert: Cli, subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert insert(subject, out, "--replicates", 2) == 0
    first = capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert insert(subject, out, "--replicates", 2) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    again = capsys.readouterr().out
    assert [line.split("; ")[0] for line in again.splitlines()] == [line.split("; ")[0] for line in first.splitlines()]


@pytest.mark.parametrize("flags", [("--seed", 5), ("--severity", 0.5), ("--extent-mm", 1), ("--steps", 3)])
def test_another_request_into_the_same_folder_is_refused(
    insert: Cli, subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], contents: Callable[[Path], dict[str, str]], flags: tuple[object, ...]
) -> None:
    out = tmp_path / "out"
    assert insert(subject, out) == 0
    before = contents(out)
    assert insert(subject, out, *flags) == 2
    assert "another --out" in capsys.readouterr().err and contents(out) == before


def test_other_content_of_the_same_file_is_another_request(insert: Cli, subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert insert(subject, tmp_path / "out") == 0
    path = subject / "phantom_000_t2.nii.gz"
    image = nib.load(path)
    values = np.asarray(image.dataobj).copy()
    values[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    assert insert(subject, tmp_path / "out") == 2
    assert "other settings, files or weights" in capsys.readouterr().err


def test_a_killed_insert_leaves_no_half_result(
    insert: Cli, subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Callable[[Path], dict[str, str]]
) -> None:
    from pathosyn.scan import output

    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_preview", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert insert(subject, out) == 130
    assert not out.exists() or not list(out.iterdir())
    # What a power cut leaves is cleared away.
    (out / ".phantom_000-r00.part").mkdir(parents=True)
    (out / ".phantom_000-r00.part" / "old").write_text("half")
    assert insert(subject, out) == 0
    assert insert(subject, tmp_path / "fresh") == 0
    assert contents(out) == contents(tmp_path / "fresh")


# -- controls ---------------------------------------------------------------------------------------------------------------------------


def test_severity_scales_the_distance_to_the_healed_scan(
    insert: Cli, heal: Cli, restore: Callable[..., Path], storage: Callable[..., Any], tmp_path: Path
) -> None:
    source = restore(tmp_path / "in" / "case", storage(dtype="float32"))
    assert heal(source, tmp_path / "healed") == 0
    healed = native(tmp_path / "healed" / "case-healed" / "case-healed_flair.nii.gz")
    away = []
    for severity in (0, 0.25, 0.5, 1, 2):
        assert insert(source, tmp_path / str(severity), "--severity", severity) == 0
        away.append(np.abs(native(tmp_path / str(severity) / "case-r00" / "case-r00_flair.nii.gz") - healed).mean())
    assert away[0] == 0 and all(a < b for a, b in pairwise(away))
    assert np.allclose(np.array(away[1:]) / away[3], (0.25, 0.5, 1, 2), rtol=1e-3), "linear in severity where nothing is clipped"


def test_nothing_is_drawn_below_the_scans_least_value(insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], tmp_path: Path) -> None:
    source = restore(tmp_path / "in" / "case", storage(dtype="float32"))
    assert insert(source, tmp_path / "out", "--severity", 40) == 0
    for name in ("t1", "flair"):
        scan, drawn = (native(folder / f"{stem}_{name}.nii.gz") for folder, stem in ((source, "case"), (tmp_path / "out" / "case-r00", "case-r00")))
        changed = drawn[drawn != scan]
        assert changed.min() >= scan.min() and changed.max() > 2 * scan.max(), "and nothing else holds it"


def test_severity_0_is_heal_to_the_bit(insert: Cli, heal: Cli, subject: Path, tmp_path: Path, read: Callable[[Path], Any]) -> None:
    assert insert(subject, tmp_path / "out", "--severity", 0) == 0
    assert heal(subject, tmp_path / "out") == 0
    for contrast in ("t1", "t1ce", "t2", "flair"):
        zero, healed = (read(tmp_path / "out" / f"phantom_000-{end}" / f"phantom_000-{end}_{contrast}.nii.gz") for end in ("r00", "healed"))
        assert zero.voxels.tobytes() == healed.voxels.tobytes()
        assert not np.array_equal(zero.voxels, read(subject / f"phantom_000_{contrast}.nii.gz").voxels)
    assert not read(tmp_path / "out" / "phantom_000-r00" / "phantom_000-r00_seg.nii.gz").voxels.any(), "no lesion, so no mask"


def test_extent_grows_and_shrinks_the_mask(insert: Cli, subject: Path, tmp_path: Path) -> None:
    sizes, masks = [], []
    for extent in (-1, 0, 1, 1.5):
        assert insert(subject, tmp_path / str(extent), "--extent-mm", extent) == 0
        masks.append(native(tmp_path / str(extent) / "phantom_000-r00" / "phantom_000-r00_seg.nii.gz") > 0)
        sizes.append(int(masks[-1].sum()))
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3]
    assert sizes[1] == int((native(subject / "phantom_000_seg.nii.gz") > 0).sum())
    assert all((small <= large).all() for small, large in pairwise(masks))


def test_a_moved_lesion_leaves_its_old_place_healed(
    insert: Cli, heal: Cli, subject: Path, tmp_path: Path, read: Callable[[Path], Any], reach: Any, sidecar: Any
) -> None:
    """Left is negative, posterior is negative, whatever the file's own order; beyond the new support the scan is `heal`'s."""
    shift = np.array([-10.0, -3.0, 1.0])
    assert insert(subject, tmp_path / "out", "--shift-mm", *shift) == 0
    assert heal(subject, tmp_path / "out") == 0
    result = tmp_path / "out" / "phantom_000-r00"
    own, new = subject / "phantom_000_seg.nii.gz", result / "phantom_000-r00_seg.nii.gz"
    assert np.allclose(centroid(new) - centroid(own), shift, atol=1e-3)
    assert set(np.unique(native(new))) == {0, 1}
    assert int((native(new) > 0).sum()) == int((native(own) > 0).sum())
    mask = read(new).canonical() > 0
    elsewhere = ~reach(mask, (1, 1, 1))
    old = read(own).canonical() > 0
    assert (old & elsewhere).any()
    for contrast in ("t1", "t1ce", "t2", "flair"):
        drawn, healed = (read(tmp_path / "out" / f"phantom_000-{end}" / f"phantom_000-{end}_{contrast}.nii.gz").canonical() for end in ("r00", "healed"))
        assert np.array_equal(drawn[elsewhere], healed[elsewhere]) and (drawn != healed)[mask].mean() > 0.8
    assert sidecar(result)["own_lesion_taken_out"] is True and sidecar(result)["request"]["lesion"]["shift_mm"] == list(shift)


def test_the_new_lesion_is_drawn_beside_a_healed_place_that_has_the_scans_grain(
    insert: Cli, subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smooth patch beside it would tell the networks that this scan has none."""
    from pathosyn.scan import volume

    seen = []
    real = volume.deviation
    monkeypatch.setattr(volume, "deviation", lambda method, target, *rest, **named: seen.append(target.x) or real(method, target, *rest, **named))
    assert insert(subject, tmp_path / "out", "--shift-mm", -10, -3, 1) == 0
    inside = ndimage.binary_erosion(native(subject / "phantom_000_seg.nii.gz") > 0, np.ones((3, 3, 1)))
    around = ndimage.binary_dilation(inside, np.ones((3, 3, 1)), iterations=12) & ~ndimage.binary_dilation(inside, np.ones((3, 3, 1)), iterations=8)
    for c in range(seen[0].shape[1]):
        x = seen[0][:, c].transpose(2, 1, 0)
        detail = np.abs(x - ndimage.uniform_filter(x, (3, 3, 1)))
        assert 0.3 < np.median(detail[inside]) / np.median(detail[around]) < 1.5


def test_nothing_of_the_old_lesion_reaches_the_new_one(insert: Cli, subject: Path, tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """The new lesion's windows show the old one's place: it must be healed before they are cut. Two scans that differ under the old mask
    alone then give the same result in every voxel."""
    twin = Path(shutil.copytree(subject, tmp_path / "twin" / "phantom_000"))
    mask = np.asarray(nib.load(subject / "phantom_000_seg.nii.gz").dataobj) > 0
    for contrast in ("t1", "t1ce", "t2", "flair"):
        path = twin / f"phantom_000_{contrast}.nii.gz"
        image = nib.load(path)
        values = np.asarray(image.dataobj).copy()
        values[mask] = values[mask][::-1] // 2 + 7
        nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    for out, source in (("a", subject), ("b", twin)):
        assert insert(source, tmp_path / out, "--shift-mm", 0, -8, 0) == 0
    for contrast in ("t1", "t1ce", "t2", "flair"):
        one, other = (read(tmp_path / out / "phantom_000-r00" / f"phantom_000-r00_{contrast}.nii.gz").voxels for out in "ab")
        assert np.array_equal(one, other)
        assert not np.array_equal(*(read(folder / f"phantom_000_{contrast}.nii.gz").voxels for folder in (subject, twin)))


@pytest.mark.parametrize("flags, kept", [((), False), (("--shift-mm", 0, -8, 0), True)], ids=["in its own place", "moved"])
def test_anatomy_goes_on_under_a_lesion_where_there_was_none(
    insert: Cli, weights: Path, subject: Path, tmp_path: Path, read: Callable[[Path], Any], flags: tuple[Any, ...], kept: bool
) -> None:
    """Weights that keep none draw another lesion on healthy tissue, and the same one, voxel by voxel, where the scan's own lies: that is no anatomy."""
    loaded = load(weights)
    loaded.method.config = replace(loaded.config, method=replace(loaded.config.method, anatomy=0.0))
    save_weights(tmp_path / "none.safetensors", loaded.method, loaded.provenance)
    assert loaded.config.method.anatomy == 1.0
    for out, which in (("all", weights), ("none", tmp_path / "none.safetensors")):
        assert insert(subject, tmp_path / out, "--weights", which, *flags) == 0
    one, other = (read(tmp_path / out / "phantom_000-r00" / "phantom_000-r00_flair.nii.gz").voxels for out in ("all", "none"))
    assert np.array_equal(one, other) != kept


def test_a_ball_lies_where_the_viewer_says(insert: Cli, restore: Callable[..., Path], storage: Callable[..., Any], tmp_path: Path, sidecar: Any) -> None:
    source = restore(tmp_path / "in" / "case", storage(axes="PIR", spacing=(1.0, 1.0, 1.2)))
    at = np.array([-5.3, 2.1, 5.4])
    assert insert(source, tmp_path / "out", "--at", *at, "--size-mm", 6) == 0
    (result,) = results(tmp_path / "out")
    seg = nib.load(result / "case-r00_seg.nii.gz")
    voxels = np.argwhere(np.asarray(seg.dataobj) > 0) @ seg.affine[:3, :3].T + seg.affine[:3, 3]
    assert np.linalg.norm(voxels - at, axis=1).max() <= 3.0
    assert np.abs(voxels.mean(axis=0) - at).max() < 0.5
    assert len(voxels) * 1.2 == pytest.approx(4 / 3 * np.pi * 27, rel=0.15)
    assert sidecar(result)["request"]["lesion"] | {"kind": "ball", "at_mm": list(at), "size_mm": 6.0} == sidecar(result)["request"]["lesion"]


@pytest.mark.parametrize("at", [None, (-4.0, 1.0, 1.0)])
def test_a_borrowed_shape(insert: Cli, tiny_cohort: Path, tmp_path: Path, at: tuple[float, float, float] | None, sidecar: Any) -> None:
    """Another subject's lesion: in its own place by world coordinates, or with its centroid at a point."""
    other = tiny_cohort / "phantom_003"
    flags = () if at is None else ("--at", *at)
    assert insert(tiny_cohort / "phantom_001", tmp_path / "out", "--from-mask-of", other, *flags) == 0
    (result,) = results(tmp_path / "out")
    theirs, new = other / "phantom_003_seg.nii.gz", result / "phantom_001-r00_seg.nii.gz"
    if at is None:
        assert np.array_equal(native(theirs) > 0, native(new) > 0)
    else:
        assert np.abs(centroid(new) - at).max() <= 0.5
        assert int((native(new) > 0).sum()) == int((native(theirs) > 0).sum())
    lesion = sidecar(result)["request"]["lesion"]
    assert (lesion["kind"], lesion["from"]) == ("borrowed", "phantom_003")
    assert lesion["sha256"] == hashlib.sha256(theirs.read_bytes()).hexdigest()


def test_a_given_mask_goes_where_it_lies(insert: Cli, tiny_cohort: Path, subject: Path, tmp_path: Path, sidecar: Any) -> None:
    """The mask file may store the same grid in another order."""
    source = nib.load(tiny_cohort / "phantom_003" / "phantom_003_seg.nii.gz")
    mask = tmp_path / "mask.nii"
    binary = nib.Nifti1Image((np.asarray(source.dataobj) > 0).astype(np.uint8), source.affine)
    nib.save(nib.as_closest_canonical(binary), mask)
    assert insert(subject, tmp_path / "out", "--mask", mask) == 0
    (result,) = results(tmp_path / "out")
    assert np.array_equal(native(result / "phantom_000-r00_seg.nii.gz"), native(mask))
    assert sidecar(result)["request"]["lesion"]["kind"] == "given"


# -- which scans ------------------------------------------------------------------------------------------------------------------------


def test_files_of_any_name(insert: Cli, tiny_cohort: Path, tmp_path: Path) -> None:
    source = tiny_cohort / "phantom_000"
    odd = {"flair": "T2w FLAIR (1).nii.gz", "t1": "série_3.nii.gz", "seg": "Läsion=neu.nii.gz"}
    for contrast, name in odd.items():
        shutil.copy(source / f"phantom_000_{contrast}.nii.gz", tmp_path / name)
    images = ("--image", f"t2f={tmp_path / odd['flair']}", f"T1={tmp_path / odd['t1']}")
    assert insert(*_no_subject(tmp_path / "out"), *images, "--mask", tmp_path / odd["seg"]) == 0
    (result,) = results(tmp_path / "out")
    names = {path.name for path in result.iterdir()}
    assert result.name == "série_3-r00" and {"série_3-r00_t1.nii.gz", "série_3-r00_flair.nii.gz", "série_3-r00_seg.nii.gz"} <= names
    assert not any("t1ce" in name or "_t2." in name for name in names)


def _no_subject(out: Path) -> tuple[str, Path]:
    """The `insert` fixture takes a subject first; a flag in its place leaves it out."""
    return "--seed=0", out


def test_a_missing_contrast_is_not_made_up(insert: Cli, tiny_cohort: Path, tmp_path: Path, sidecar: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert insert(tiny_cohort / "phantom_004", tmp_path / "out") == 0
    (result,) = results(tmp_path / "out")
    assert sorted(sidecar(result)["files"]) == ["flair", "seg", "t1", "t2"]
    assert not [path.name for path in result.iterdir() if "t1ce" in path.name]
    assert "warning" not in capsys.readouterr().err


def test_brats_2023_names_and_labels(insert: Cli, tiny_cohort: Path, tmp_path: Path) -> None:
    assert insert(tiny_cohort / "phantom_005", tmp_path / "out") == 0
    (result,) = results(tmp_path / "out")
    assert np.array_equal(native(result / "phantom_005-r00_seg.nii.gz") > 0, native(tiny_cohort / "phantom_005" / "phantom_005-seg.nii.gz") > 0)


def test_a_contrast_that_the_weights_do_not_know(
    insert: Cli, weights: Path, subject: Path, tmp_path: Path, sidecar: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named once and not written: a scan without the lesion beside scans with it would be false."""
    from dataclasses import replace

    from pathosyn.checkpoint import Provenance, load, save_weights
    from pathosyn.methods import build

    config = replace(load(weights).config, contrasts=("t1", "flair"))
    save_weights(tmp_path / "two.safetensors", build(config), Provenance(steps=config.train.steps))
    assert insert(subject, tmp_path / "out", "--weights", tmp_path / "two.safetensors") == 0
    (result,) = results(tmp_path / "out")
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 1 and "t1ce, t2" in told[0]
    assert sidecar(result)["warnings"] == [told[0].split(": ", 2)[2]]
    assert sorted(sidecar(result)["files"]) == ["flair", "seg", "t1"]
    assert not [path.name for path in result.iterdir() if "_t2" in path.name or "_t1ce" in path.name]


def test_a_healthy_subject_needs_to_be_told_where(insert: Cli, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sidecar: Any) -> None:
    healthy = tiny_cohort / "healthy_000"
    assert insert(healthy, tmp_path / "out") == 2
    assert "healthy_000" in (told := capsys.readouterr().err) and "--at" in told
    assert insert(healthy, tmp_path / "out", "--from-mask-of", tiny_cohort / "phantom_000") == 0
    (result,) = results(tmp_path / "out")
    assert sidecar(result)["own_lesion_taken_out"] is False
    changed = native(result / "healthy_000-r00_t2.nii.gz") != native(healthy / "healthy_000_t2.nii.gz")
    assert changed[native(result / "healthy_000-r00_seg.nii.gz") > 0].mean() > 0.8


def test_one_faulty_subject_does_not_stop_the_others(insert: Cli, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("phantom_000", "phantom_001", "phantom_002"):
        shutil.copytree(tiny_cohort / name, tmp_path / "in" / name)
    broken = tmp_path / "in" / "phantom_001" / "phantom_001_t2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    assert insert(tmp_path / "in", tmp_path / "out") == 2
    assert [path.name for path in results(tmp_path / "out")] == ["phantom_000-r00", "phantom_002-r00"]
    faults = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pathosyn insert:")]
    assert len(faults) == 1 and str(broken) in faults[0]


# -- what is left behind ----------------------------------------------------------------------------------------------------------------


def test_the_result_is_a_subject(insert: Cli, subject: Path, tmp_path: Path) -> None:
    """Found, read and accepted as input again, by the same names as any scan."""
    assert insert(subject, tmp_path / "out") == 0
    (result,) = results(tmp_path / "out")
    found = find_subject(result)
    assert found.name == "phantom_000-r00" and list(found.images) == ["t1", "t1ce", "t2", "flair"] and found.seg == result / "phantom_000-r00_seg.nii.gz"
    scan = read_scan(found)
    assert scan.label_scheme == "binary" and scan.labels is not None and scan.labels.any()
    assert insert(result, tmp_path / "again") == 0


def test_sidecar_and_preview(
    insert: Cli, subject: Path, weights: Path, tmp_path: Path, sidecar: Any, read: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    assert insert(subject, tmp_path / "out", "--seed", 11, "--severity", 0.75, "--extent-mm", 0.5, "--replicates", 2) == 0
    result = results(tmp_path / "out")[1]
    told = sidecar(result)
    assert told["synthetic"] is True and told["verb"] == "insert" and told["subject"] == "phantom_000"
    request = told["request"]
    assert (request["seed"], request["replicate"], request["severity"], request["steps"], request["lesion"]["extent_mm"]) == (11, 1, 0.75, 2, 0.5)
    assert request["distilled"] is False
    for contrast in ("t1", "t1ce", "t2", "flair"):
        path = subject / f"phantom_000_{contrast}.nii.gz"
        assert told["sources"][contrast] == {"file": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        changed = int((read(path).voxels != read(result / told["files"][contrast]).voxels).sum())
        assert told["voxels"]["changed"][contrast] == changed > 0
    assert told["voxels"]["changed_outside_support"] == 0 and told["voxels"]["support"] >= max(told["voxels"]["changed"].values())
    assert told["weights"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert told["request"]["lesion"]["sha256"] == hashlib.sha256((subject / "phantom_000_seg.nii.gz").read_bytes()).hexdigest()
    assert told["lesion_ml"] == pytest.approx(float(read(result / told["files"]["seg"]).voxels.sum()) / 1000, abs=1e-4)
    assert told["weights_provenance"]["subjects"]["validation"] == ["phantom_003"]
    assert told["warnings"] == [] and told["pathosyn"]
    with Image.open(result / f"{result.name}.png") as picture:
        assert min(picture.size) > 100
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith(f"{result}: lesion {told['lesion_ml']:.2f} ml") and printed[-1].startswith("next:")


def test_a_scan_unlike_the_training_data_is_said_to_be(insert: Cli, subject: Path, tmp_path: Path, sidecar: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Heavy noise on one contrast: that contrast is named, the others are not."""
    path = subject / "phantom_000_t1.nii.gz"
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    noise = np.random.default_rng(0).normal(0, 0.5 * np.median(values[values > 0]), values.shape)
    nib.save(nib.Nifti1Image(np.where(values > 0, np.clip(values + noise, 1, None), 0).astype(np.int16), image.affine, image.header), path)
    assert insert(subject, tmp_path / "out") == 0
    (result,) = results(tmp_path / "out")
    warnings = sidecar(result)["warnings"]
    assert warnings and all(warning.startswith("t1 is unlike the training data") for warning in warnings)
    assert any("sharpness" in warning for warning in warnings)
    told = capsys.readouterr().err
    assert all(warning in told for warning in warnings)


def test_weights_of_an_unfinished_training_are_said_to_be(insert: Cli, weights: Path, subject: Path, tmp_path: Path, sidecar: Any) -> None:
    """Stopped in the first stage they know no lesion yet, and the mask beside the result would mark nothing."""
    from dataclasses import replace

    from pathosyn.checkpoint import load, save_weights

    whole = load(weights)
    save_weights(tmp_path / "early.safetensors", whole.method, replace(whole.provenance, steps=3))
    assert insert(subject, tmp_path / "out", "--weights", tmp_path / "early.safetensors") == 0
    (told,) = sidecar(results(tmp_path / "out")[0])["warnings"]
    assert "step 3 of 8" in told


def test_a_lesion_larger_than_any_in_training_is_said_to_be(insert: Cli, subject: Path, tmp_path: Path, sidecar: Any) -> None:
    path = tmp_path / "mask.nii.gz"
    image = nib.load(subject / "phantom_000_t1.nii.gz")
    mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
    mask[..., (0, 1, 4, 5)] = 0
    mask[:, :20] = 0
    nib.save(nib.Nifti1Image(mask, image.affine), path)
    assert insert(subject, tmp_path / "out", "--mask", path) == 0
    warnings = " ".join(sidecar(results(tmp_path / "out")[0])["warnings"])
    assert "lesion area in a slice" in warnings and "lesion volume" in warnings and "in the training data" in warnings


def test_json_is_plain(insert: Cli, subject: Path, tmp_path: Path) -> None:
    """No NaN, which is not JSON, and no path of this machine but the sources'."""
    assert insert(subject, tmp_path / "out") == 0
    (result,) = results(tmp_path / "out")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((result / f"{result.name}.json").read_text(), parse_constant=refuse)


def test_two_processes_write_what_one_does(insert: Cli, tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same bytes in every scan, each result told in the order of the subjects, the faulty one named at the end."""
    cohort = tmp_path / "cohort"
    for number in range(3):
        shutil.copytree(tiny_cohort / f"phantom_00{number}", cohort / f"phantom_00{number}")
    (cohort / "phantom_001" / "phantom_001_t1.nii.gz").write_bytes(b"no scan")
    assert insert(cohort, tmp_path / "one", "--threads", 1, "--workers", 1) == 2
    capsys.readouterr()
    assert insert(cohort, tmp_path / "two", "--threads", 1, "--workers", 2) == 2
    said = capsys.readouterr()
    told = [line for line in said.out.splitlines() if "outside the support: 0" in line]
    assert ["phantom_000" in told[0], "phantom_002" in told[1], len(told)] == [True, True, 2]
    assert "phantom_001_t1" in said.err and "Traceback" not in said.err
    written = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.nii.gz")}
    assert len(written) > 4
    assert written == {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.nii.gz")}
