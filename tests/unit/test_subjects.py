"""Which files make a subject, what makes them one scan, and what the numbers in a mask mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pathosyn.data.labels import canonical_labels
from pathosyn.data.subjects import SubjectFiles, find_subject, find_subjects, kind_of, named_files, read_scan, subject_folders
from pathosyn.errors import InputError

SHAPE = (6, 7, 5)
AFFINE = np.diag((-1.0, -1.0, 2.0, 1.0))


def write(path: Path, values: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if values is None else values
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def lines(error: pytest.ExceptionInfo[InputError]) -> list[str]:
    assert all(line.count(": found ") == 1 for line in str(error.value).splitlines())
    return str(error.value).splitlines()


def mask_of(*labels: int, dtype: Any = np.uint8) -> np.ndarray:
    values = np.zeros(SHAPE, dtype)
    values[2, 3, : len(labels)] = labels
    return values


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BraTS20_Training_001_t1.nii.gz", "t1"),
        ("BraTS20_Training_001_t1ce.nii", "t1ce"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "t1"),
        ("BraTS-GLI-00000-000-t1c.nii.gz", "t1ce"),
        ("BraTS-GLI-00000-000-t2w.nii.gz", "t2"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "flair"),
        ("BraTS-GLI-00000-000-seg.nii.gz", "seg"),
        ("X_FLAIR.NII.GZ", "flair"),
        ("a patient_seg.nii", "seg"),
        ("two\nlines_t2.nii", "t2"),
        ("flair.nii.gz", "flair"),
        ("._X_t1.nii.gz", None),
        ("X_t1.json", None),
        ("X_t10.nii.gz", None),
        ("Xt1.nii.gz", None),
        ("X_t1_brain.nii.gz", None),
        ("X_deviation.nii.gz", None),
    ],
)
def test_names(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


def test_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my cohort" / "pätient 1"
    for name in ("x_flair.nii.gz", "x_T1.nii", "x-seg.nii.gz", "._x_t2.nii.gz", "notes.txt"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    files = find_subject(folder)
    assert files == SubjectFiles("pätient 1", "my cohort", {"t1": folder / "x_T1.nii", "flair": folder / "x_flair.nii.gz"}, folder / "x-seg.nii.gz", folder)
    assert list(files.images) == ["t1", "flair"]
    monkeypatch.chdir(folder)
    assert (find_subject(".").name, find_subject(".").set) == ("pätient 1", "my cohort")


def test_folders_that_are_no_subject(tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            find_subject(folder)
        return str(caught.value)

    assert "no such folder" in refused(tmp_path / "missing")
    assert "found a file" in refused(write(tmp_path / "file_t1.nii.gz"))
    (tmp_path / "empty").mkdir()
    assert "no scan" in refused(tmp_path / "empty")
    write(tmp_path / "only_seg" / "x_seg.nii.gz")
    assert "a mask but no scan" in refused(tmp_path / "only_seg")
    write(tmp_path / "named" / "T1w brain.nii.gz")
    assert "T1w brain.nii.gz" in refused(tmp_path / "named")
    write(tmp_path / "above" / "in" / "x_t1.nii.gz")
    assert "folders but no scan (in)" in refused(tmp_path / "above")
    assert "null" in refused(Path("a\0b"))


def test_two_files_for_one_contrast_are_refused_together(tmp_path: Path) -> None:
    for name in ("x_t1.nii", "x_t1.nii.gz", "x_t2.nii.gz", "x-t2w.nii.gz", "x_flair.nii.gz"):
        write(tmp_path / name)
    with pytest.raises(InputError) as caught:
        find_subject(tmp_path)
    first, second = lines(caught)
    assert "2 files for t1 (x_t1.nii, x_t1.nii.gz)" in first
    assert "2 files for t2" in second


def test_a_collection(tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    for name in ("b", "a", "c"):
        write(root / name / f"{name}_t1.nii.gz")
    (root / "logs").mkdir()
    (root / ".hidden").mkdir()
    write(root / ".hidden" / "h_t1.nii.gz")
    (root / "subjects.csv").touch()
    (tmp_path / "linked").symlink_to(root / "a")
    assert [(files.name, files.set) for files in find_subjects(root)] == [("a", "cohort"), ("b", "cohort"), ("c", "cohort")]
    assert [files.name for files in find_subjects(root / "b")] == ["b"]
    assert find_subjects(root / "b")[0].set == "cohort"
    assert find_subject(tmp_path / "linked").name == "linked"

    write(root / "d" / "scan.nii.gz")
    write(root / "a" / "a-t1n.nii")
    with pytest.raises(InputError) as caught:
        find_subjects(root)
    assert [line.split(": ")[0] for line in lines(caught)] == [str(root / "a"), str(root / "d")]
    assert subject_folders(root)[0] == root / "a"


def test_nothing_that_could_be_a_collection(tmp_path: Path) -> None:
    write(tmp_path / "sets" / "one" / "a" / "a_t1.nii.gz")
    with pytest.raises(InputError, match=r"folders but no scan \(one\)"):
        find_subjects(tmp_path / "sets")
    with pytest.raises(InputError, match="no such folder"):
        find_subjects(tmp_path / "missing")


def test_files_named_one_by_one(tmp_path: Path) -> None:
    files = named_files(["t2f=dir/p 7_FLAIR.nii.gz", "T1 =a=b.nii"], "m.nii")
    assert files.images == {"t1": Path("a=b.nii"), "flair": Path("dir/p 7_FLAIR.nii.gz")}
    assert list(files.images) == ["t1", "flair"]
    assert files.seg == Path("m.nii")
    assert files.name == "a=b"
    assert named_files(["flair=dir/p 7_FLAIR.nii.gz"]).name == "p 7"
    with pytest.raises(InputError) as caught:
        named_files(["scan.nii", "dwi=d.nii", "seg=s.nii", "t1=", "t2=a.nii", "t2w=b.nii"])
    missing, unknown, mask, empty, twice = lines(caught)
    assert "--image flair=scan.nii" in missing
    assert "t1, t1ce, t2, flair" in unknown
    assert "--mask s.nii" in mask
    assert "no file" in empty
    assert "t2 a second time" in twice
    with pytest.raises(InputError, match="at least one"):
        named_files([])


def test_a_scan_is_one_grid_whatever_the_order_on_disk(tmp_path: Path) -> None:
    """The mask is stored with other axes than the image: both turn to the same canonical place."""
    image, labels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32), mask_of(1, 2, 4)
    write(tmp_path / "s_t1.nii.gz", image, np.diag((1.0, 1.0, 2.0, 1.0)))
    turned = np.array([[0, 0, 1.0, 0], [-1, 0, 0, SHAPE[1] - 1], [0, 2, 0, 0], [0, 0, 0, 1]])
    write(tmp_path / "s_seg.nii", labels.transpose(1, 2, 0)[::-1][..., None], turned)
    scan = read_scan(find_subject(tmp_path))
    assert scan.labels is not None
    assert scan.label_scheme == "brats"
    np.testing.assert_array_equal(scan.labels, np.where(labels == 4, 3, labels))
    np.testing.assert_array_equal(scan.reference.canonical(), image)
    assert scan.shape == SHAPE
    assert scan.spacing == (1, 1, 2)
    np.testing.assert_array_equal(scan.affine, np.diag((1.0, 1.0, 2.0, 1.0)))


def test_a_scan_without_mask_and_with_another_mask(tmp_path: Path) -> None:
    write(tmp_path / "s" / "s_flair.nii.gz")
    scan = read_scan(find_subject(tmp_path / "s"))
    assert (scan.labels, scan.label_scheme, scan.seg) == (None, "none", None)
    write(tmp_path / "s" / "s_seg.nii.gz", mask_of(1, 7))
    mask = write(tmp_path / "drawn.nii", mask_of(255))
    drawn = read_scan(find_subject(tmp_path / "s"), mask=mask)
    assert drawn.label_scheme == "binary"
    assert drawn.labels is not None
    assert drawn.labels.sum() == 1
    assert drawn.seg is not None
    assert drawn.seg.path == mask


def test_every_fault_of_a_subject_at_once(tmp_path: Path) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] = 0.5
    write(tmp_path / "s_t1.nii.gz")
    write(tmp_path / "s_t1ce.nii.gz", np.full(SHAPE, 4, np.int16))
    write(tmp_path / "s_t2.nii.gz", affine=shifted)
    (tmp_path / "s_flair.nii.gz").write_text("no scan")
    write(tmp_path / "s_seg.nii.gz", np.zeros((6, 7, 4), np.uint8) + 9)
    with pytest.raises(InputError) as caught:
        read_scan(find_subject(tmp_path))
    flair, t1ce, t2, grid, labels = lines(caught)
    assert "s_flair.nii.gz: found a file that is not NIfTI" in flair
    assert "s_t1ce.nii.gz: found the same value 4 in every voxel" in t1ce
    assert "s_t2.nii.gz: found a grid that lies up to 0.5 mm (0.5 voxels) off" in t2
    assert "s_seg.nii.gz: found a grid of 6 x 7 x 4 voxels; expected 6 x 7 x 5 as in s_t1.nii.gz" in grid
    assert "found the labels 9;" in labels


@pytest.mark.parametrize(("voxels", "refused"), [(0.009, False), (0.011, True)])
def test_grids_may_differ_by_rounding_only(tmp_path: Path, voxels: float, refused: bool) -> None:
    """The tolerance holds at the far corner: a scale that is off by ε moves it by ε·(n-1) voxels."""
    write(tmp_path / "s_t1.nii.gz")
    scaled = AFFINE.copy()
    scaled[2, 2] *= 1 + voxels / (SHAPE[2] - 1)
    write(tmp_path / "s_t2.nii.gz", affine=scaled)
    if refused:
        with pytest.raises(InputError, match=r"s_t2\.nii\.gz: found a grid"):
            read_scan(find_subject(tmp_path))
    else:
        assert list(read_scan(find_subject(tmp_path)).volumes) == ["t1", "t2"]


@pytest.mark.parametrize(
    ("stored", "scheme", "canonical"),
    [
        ((0, 1), "binary", (0, 1)),
        ((0, 255), "binary", (0, 1)),
        ((0, 0), "binary", (0, 0)),
        ((1, 1), "binary", (1, 1)),
        ((0, 1.0, 0.9999), "binary", (0, 1, 1)),
        ((0, 1, 2, 4), "brats", (0, 1, 2, 3)),
        ((0, 1, 2, 3), "brats", (0, 1, 2, 3)),
        ((0, 1, 2), "brats", (0, 1, 2)),
        ((0, 4), "brats", (0, 3)),
        ((0, 2), "brats", (0, 2)),
    ],
)
def test_what_labels_mean(stored: tuple[float, ...], scheme: str, canonical: tuple[int, ...]) -> None:
    labels, found = canonical_labels(np.array(stored, np.float32), "m.nii")
    assert found == scheme
    assert labels.dtype == np.uint8
    assert labels.tolist() == list(canonical)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ((0, 1, 7), "the labels 0, 1, 7"),
        ((0, 5), "the labels 0, 5"),
        ((0, 1, 2, 3, 4), "one label, 3 or 4"),
        ((0, -1), "the labels -1, 0"),
        ((0, 1, 255), "the labels 0, 1, 255"),
        ((0, 300), "the labels 0, 300"),
        ((0, 0.5, 1), "fractions in the mask (1 voxels, for example 0.5)"),
        (tuple(range(40)), "the labels 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …"),
    ],
)
def test_labels_without_a_meaning_are_refused(stored: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError) as caught:
        canonical_labels(np.array(stored, np.float32), "m.nii")
    (line,) = lines(caught)
    assert line.startswith("m.nii: ")
    assert words in line


def test_a_mask_may_be_float_or_scaled(tmp_path: Path) -> None:
    write(tmp_path / "s_t1.nii.gz")
    image = nib.Nifti1Image(mask_of(255, 255), AFFINE)
    image.header.set_slope_inter(1 / 255, 0)
    nib.save(image, tmp_path / "scaled.nii.gz")
    for mask in (write(tmp_path / "float.nii", mask_of(1, 1, dtype=np.float64)), tmp_path / "scaled.nii.gz"):
        scan = read_scan(find_subject(tmp_path), mask=mask)
        assert scan.labels is not None
        assert scan.labels.sum() == 2


def test_all_real_subjects_can_be_read(shared_data: Path) -> None:
    found = [files for name in ("brats2021", "open_ms", "tcga_lgg") for files in find_subjects(shared_data / name)]
    assert len(found) == 98
    contrasts = {len(files.images) for files in found}
    assert contrasts == {1, 2, 3, 4}
    assert all(files.seg for files in found)
    scan = read_scan(find_subject(shared_data / "brats2021" / "BraTS2021_01482"))
    assert scan.labels is not None
    assert (scan.set, scan.label_scheme, np.unique(scan.labels).tolist()) == ("brats2021", "brats", [0, 1, 2, 3])
    assert scan.volumes["flair"].canonical().max() == 32767
    atlas = named_files([f"t1={shared_data / 'sri24' / 'sri24_t1_1mm_skull_stripped.nii.gz'}"], shared_data / "sri24" / "tissues.nii.gz")
    assert read_scan(atlas).shape == (240, 240, 155)
