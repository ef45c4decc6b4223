"""Every subject's faults and warnings, each provoked once."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pathosyn.data import check as module
from pathosyn.data.check import Row, check, table
from pathosyn.errors import InputError

SHAPE = (40, 44, 8)


def brain() -> np.ndarray:
    x, y = np.ogrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    return np.broadcast_to((x**2 + y**2 < 0.5)[..., None], SHAPE)


def put(folder: Path, kind: str, values: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 3), prefix: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{prefix or folder.name}_{kind}.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag((*spacing, 1.0))), path)
    return path


def subject(folder: Path, *, gain: float = 1.0, spacing: tuple[float, float, float] = (1, 1, 3), seed: int = 0) -> Path:
    """A sound subject: t1, flair and a lesion of 6·6·2 voxels in the brain."""
    rng = np.random.default_rng(seed)
    for kind in ("t1", "flair"):
        put(folder, kind, np.where(brain(), rng.normal(100, 10, SHAPE) * gain, 0).astype(np.float32), spacing)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[16:22, 20:26, 3:5] = 1
    put(folder, "seg", lesion, spacing)
    return folder


def only(rows: list[Row]) -> Row:
    (row,) = rows
    return row


def test_a_sound_subject(tmp_path: Path) -> None:
    row = only(check(subject(tmp_path / "set" / "s1", spacing=(0.5, 2, 3))))
    assert (row.subject, row.set, row.contrasts, row.shape, row.spacing) == ("s1", "set", ("t1", "flair"), SHAPE, (0.5, 2, 3))
    assert row.labels == (1,)
    assert row.lesion_ml == pytest.approx(6 * 6 * 2 * 3 / 1000)
    assert row.levels["t1"] == pytest.approx(100, abs=1)
    assert row.faults == row.warnings == ()


def test_phantoms_are_sound(tiny_cohort: Path) -> None:
    rows = check(tiny_cohort)
    assert [row.subject for row in rows] == sorted(folder.name for folder in tiny_cohort.iterdir() if folder.is_dir())
    assert [row.faults for row in rows] == [()] * 7
    healthy = next(row for row in rows if row.subject == "healthy_000")
    assert ["no mask" in str(warning) for warning in healthy.warnings] == [True]
    assert healthy.labels is None


def test_what_reading_refuses_is_a_fault_of_its_subject_only(tmp_path: Path) -> None:
    subject(tmp_path / "a")
    put(subject(tmp_path / "b"), "t2", np.full(SHAPE, 5, np.int16))
    (tmp_path / "b" / "b_t1.nii.gz").write_text("not a scan")
    shutil.copy(tmp_path / "a" / "a_t1.nii.gz", subject(tmp_path / "c") / "c-t1n.nii.gz")
    put(tmp_path / "d", "other", np.zeros(SHAPE))
    seen: list[tuple[int, int]] = []
    rows = check([tmp_path], progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [len(row.faults) for row in rows] == [0, 2, 1, 1]
    assert "not NIfTI" in str(rows[1].faults[0])
    assert "same value 5" in str(rows[1].faults[1])
    assert "2 files for t1" in str(rows[2].faults[0])
    assert rows[1].contrasts == ("t1", "t2", "flair")


@pytest.mark.parametrize(("rows_outside", "kind"), [(0, ""), (2, "warnings"), (5, "faults")])
def test_a_lesion_outside_the_head(tmp_path: Path, rows_outside: int, kind: str) -> None:
    folder = subject(tmp_path / "s")
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[16:22, 20:26, 3] = 1
    lesion[16 : 16 + rows_outside, 20:26, 3] = 0
    lesion[:rows_outside, :6, 3] = 1
    put(folder, "seg", lesion)
    row = only(check(folder))
    found = {name: [str(fault) for fault in getattr(row, name)] for name in ("faults", "warnings")}
    assert {name for name, lines in found.items() if lines} == ({kind} if kind else set())
    if kind:
        assert f"{rows_outside / 6:.0%} of the lesion outside the head" in found[kind][0]


def test_warnings_about_one_subject(tmp_path: Path) -> None:
    def warned(folder: Path) -> str:
        row = only(check(folder))
        assert row.faults == ()
        return "\n".join(map(str, row.warnings))

    put(subject(tmp_path / "empty"), "seg", np.zeros(SHAPE, np.uint8))
    assert "an empty mask" in warned(tmp_path / "empty")
    assert "as of sagittal slices" in warned(subject(tmp_path / "sagittal", spacing=(5, 1, 1)))
    assert "as of coronal slices" in warned(subject(tmp_path / "coronal", spacing=(1, 5, 1)))
    assert "taken to be in mm" in warned(subject(tmp_path / "metres", spacing=(0.001, 0.001, 0.003)))
    put(subject(tmp_path / "stray"), "adc", np.zeros(SHAPE))
    put(tmp_path / "stray", "deviation", np.zeros(SHAPE))
    assert "not used (stray_adc.nii.gz)" in warned(tmp_path / "stray")
    shutil.move(subject(tmp_path / "mixed") / "mixed_t1.nii.gz", tmp_path / "mixed" / "other_t1.nii.gz")
    assert "several names (mixed, other)" in warned(tmp_path / "mixed")
    shutil.copy(subject(tmp_path / "copy") / "copy_t1.nii.gz", tmp_path / "copy" / "copy_t2.nii.gz")
    assert "the same voxels in t1 and t2" in warned(tmp_path / "copy")
    (subject(tmp_path / "healthy") / "healthy_seg.nii.gz").unlink()
    assert "no mask" in warned(tmp_path / "healthy")


def test_names_must_differ_over_all_collections(tmp_path: Path) -> None:
    for name in ("one/a", "one/b", "two/b"):
        subject(tmp_path / name)
    rows = check([tmp_path / "one", tmp_path / "two", tmp_path / "one" / "a"])
    assert [(row.set, row.subject) for row in rows] == [("one", "a"), ("one", "b"), ("two", "b")]
    assert [len(row.faults) for row in rows] == [0, 1, 1]
    assert str(tmp_path / "two" / "b") in str(rows[1].faults[0])


@pytest.mark.parametrize("gain", [0.05, 0.2, 5.0, 20.0])
def test_intensities_unlike_the_rest(tmp_path: Path, gain: float) -> None:
    for number in range(5):
        subject(tmp_path / f"s{number}", gain=gain if number == 3 else 1.0, seed=number)
    rows = check(tmp_path)
    far = not 0.1 < gain < 10
    assert [len(row.warnings) for row in rows] == [0, 0, 0, int(far), 0]
    if far:
        assert " in t1, " in str(rows[3].warnings[0])


def test_what_lies_beside_the_subjects(tmp_path: Path) -> None:
    subject(tmp_path / "set" / "s")
    put(tmp_path / "set", "average", np.zeros(SHAPE))
    (tmp_path / "set" / "derivatives").mkdir()
    (tmp_path / "set" / "subjects.csv").touch()
    rows = check(tmp_path / "set")
    assert [row.subject for row in rows] == ["s", "(beside the subjects)"]
    first, second = map(str, rows[1].warnings)
    assert "set_average.nii.gz" in first
    assert "derivatives" in second


def test_unusable_collections_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.csv").touch()
    with pytest.raises(InputError) as caught:
        check([tmp_path / "missing", tmp_path / "empty", tmp_path / "file.csv"])
    assert ["no such folder" in str(caught.value.faults[0]), "no scan" in str(caught.value.faults[1]), "a file" in str(caught.value.faults[2])] == [True] * 3


def test_processes_and_threads_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(8):
        subject(tmp_path / f"s{number}", seed=number)
    (tmp_path / "s2" / "s2_t1.nii.gz").write_bytes(b"")
    monkeypatch.setattr(module, "_MANY", 8)
    in_processes = check(tmp_path, workers=2)
    monkeypatch.setattr(module, "_MANY", 9)
    assert check(tmp_path, workers=2) == in_processes
    assert [bool(row.faults) for row in in_processes] == [number == 2 for number in range(8)]


def test_the_table_shows_any_name_as_it_is(tmp_path: Path) -> None:
    from rich.console import Console

    subject(tmp_path / "[red]x\ny")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "z_t1.nii").touch()
    console = Console(width=160, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(table(check(tmp_path)))
    text = console.export_text()
    assert "[red]x y" in text
    assert "1 fault" in text
    assert "good" in text


def test_the_real_collections_have_no_faults(shared_data: Path) -> None:
    rows = check([shared_data / "brats2021", shared_data / "open_ms"])
    assert len(rows) == 7
    assert [row.faults for row in rows] == [()] * 7
    assert {row.subject: row.labels for row in rows}["BraTS2021_01480"] == (1, 2)
    assert [row.subject for row in rows if row.warnings] == ["BraTS2021_01482"]  # its intensities are ten times the others'
