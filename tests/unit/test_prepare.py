"""slices.h5: what stands in it, that it comes out the same however often it was interrupted, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from pathosyn.config import Geometry
from pathosyn.data import prepare as module
from pathosyn.data import store, workers
from pathosyn.data.inpaint import inpaint
from pathosyn.data.masks import blend_map
from pathosyn.data.nifti import file_sha256, read_volume
from pathosyn.data.normalise import foreground
from pathosyn.data.prepare import prepare
from pathosyn.data.subjects import find_subject, read_scan
from pathosyn.data.windows import windows_of
from pathosyn.errors import InputError

Content = dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]


def content(path: Path) -> Content:
    """Everything below /subjects, comparable with ==."""
    with h5py.File(path, "r") as file:
        return {
            name: ({key: np.asarray(value).tobytes() for key, value in group.attrs.items()}, {key: group[key][()].tobytes() for key in store.ARRAYS})
            for name, group in file["subjects"].items()
        }


@pytest.fixture(scope="session")
def prepared(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "slices.h5"
    prepare([tiny_cohort], out, fractions=(0.6, 0.2, 0.2), workers=0, progress=False)
    return out


def full(group: h5py.Group, name: str) -> np.ndarray:
    """A stored plane array put back into the uncropped working grid."""
    whole = np.zeros(tuple(group.attrs["full_shape"]), group[name].dtype)
    z, y, x = group.attrs["origin"]
    depth, height, width = group[name].shape
    whole[z : z + depth, y : y + height, x : x + width] = group[name][()]
    return whole


def test_root_attributes(prepared: Path) -> None:
    header = store.read_header(prepared)
    assert header.contrasts == ("t1", "t1ce", "t2", "flair")
    assert header.geometry == Geometry()
    assert header.inpaint == "harmonic"
    assert header.split == {"fractions": [0.6, 0.2, 0.2], "seed": 0}
    assert not prepared.with_name("slices.h5.part").exists()


def test_images_are_the_scans(prepared: Path, tiny_cohort: Path) -> None:
    """Un-normalised and put back into the grid, the stored image is the file's, to half precision."""
    with h5py.File(prepared, "r") as file:
        assert len(file["subjects"]) == 7
        for name, group in file["subjects"].items():
            scan = read_scan(find_subject(tiny_cohort / name))
            assert list(group.attrs["present"]) == [c in scan.volumes for c in store.read_header(prepared).contrasts]
            z, y, x = group.attrs["origin"]
            for channel, contrast in enumerate(store.read_header(prepared).contrasts):
                image = group["image"][:, channel]
                assert group["image"].chunks == (1, *group["image"].shape[1:])
                if contrast not in scan.volumes:
                    assert not image.any()
                    assert np.isnan(group.attrs["normalisation"][channel]).all()
                    continue
                center, scale = group.attrs["normalisation"][channel]
                native = scan.volumes[contrast].canonical().transpose(2, 1, 0)[z : z + image.shape[0], y : y + image.shape[1], x : x + image.shape[2]]
                normalised = (native - center) / scale
                inside = np.abs(normalised) < 10
                np.testing.assert_allclose(image[inside], normalised[inside], atol=5e-3, rtol=1e-3)
                assert (np.abs(image[~inside]) == 10).all()


def test_planes_read_back_as_they_were(tmp_path: Path) -> None:
    """Chunks are made by ourselves: of arrays in any order, packed and not."""
    seg = np.random.default_rng(0).integers(0, 3, (7, 6, 5), np.uint8).transpose(2, 1, 0)
    with h5py.File(tmp_path / "planes.h5", "w") as file:
        store._write_planes(file, "packed", seg, compression="gzip", compression_opts=1)
        store._write_planes(file, "plain", seg.astype(np.float16)[:, None])
    with h5py.File(tmp_path / "planes.h5") as file:
        assert file["packed"].chunks == (1, 6, 7) and file["plain"].chunks == (1, 1, 6, 7)
        assert np.array_equal(file["packed"], seg) and np.array_equal(file["plain"][:, 0], seg)


def test_masks_supports_and_targets(prepared: Path, tiny_cohort: Path) -> None:
    with h5py.File(prepared, "r") as file:
        for name, group in file["subjects"].items():
            scan = read_scan(find_subject(tiny_cohort / name))
            shape = group["seg"].shape
            index = group["support_index"][()]
            if scan.labels is None:
                assert index.size == group["windows"].shape[0] == 0
                continue
            labels = scan.labels.transpose(2, 1, 0)
            np.testing.assert_array_equal(full(group, "seg"), labels)
            blend = np.zeros(shape, np.float32)
            blend.reshape(-1)[index] = group["support_blend"]
            z, y, x = group.attrs["origin"]
            tissue = foreground([v.canonical().transpose(2, 1, 0) for v in scan.volumes.values()]) | (labels > 0)
            expected = np.where(tissue, blend_map(labels > 0, scan.spacing[::-1], Geometry()), 0)
            np.testing.assert_array_equal(blend, expected[z : z + shape[0], y : y + shape[1], x : x + shape[2]])
            assert np.count_nonzero(expected) == index.size  # the crop cuts nothing off
            some = int(index[len(index) // 2] // (shape[1] * shape[2]))
            target = np.zeros((*shape, 4), np.float16)
            target.reshape(-1, 4)[index] = group["support_inp"]
            hole = blend[some] > 0
            filled = inpaint("harmonic", group["image"][some].astype(np.float32), hole)
            np.testing.assert_allclose(target[some][hole], filled[:, hole].T, atol=2e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def off_centre(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, h5py.Group]:
    """A head in a corner of a larger, empty grid, its lesion partly off the head and far brighter than it."""
    folder = tmp_path_factory.mktemp("set") / "corner"
    folder.mkdir()
    rng = np.random.default_rng(0)
    image = np.zeros((150, 140, 8), np.float32)
    image[50:130, 50:120, 2:7] = rng.normal(100, 10, (80, 70, 5))
    seg = np.zeros(image.shape, np.uint8)
    seg[40:80, 60:80, 1:4] = 1
    image[(seg > 0) & (image > 0)] += 500
    for name, array in (("flair", image), ("seg", seg)):
        nib.save(nib.Nifti1Image(array, np.diag([1, 1, 5, 1.0])), folder / f"corner_{name}.nii.gz")
    out = folder.parent / "corner.h5"
    prepare([folder], out, fractions=(1, 0, 0), workers=0, progress=False)
    return folder, h5py.File(out, "r")["subjects/corner"]


def test_the_crop_keeps_the_lesion_and_eight_pixels(off_centre: tuple[Path, h5py.Group]) -> None:
    _, group = off_centre
    assert tuple(group.attrs["full_shape"]) == (8, 140, 150)
    z, y, x = group.attrs["origin"]
    depth, height, _ = group["seg"].shape
    assert (z, z + depth) == (1, 7)  # lesion from slice 1, head to slice 6
    assert (y, y + height) == (50 - 8, 120 + 8)
    assert x == 40 - 8  # the lesion, which has no support off the head beyond itself, and eight more
    assert (group["seg"][()] > 0).sum() == 40 * 20 * 3


def test_windows_are_those_of_the_uncropped_scan(off_centre: tuple[Path, h5py.Group]) -> None:
    folder, group = off_centre
    scan = read_scan(find_subject(folder))
    lesion = scan.labels.transpose(2, 1, 0) > 0
    head = foreground([v.canonical().transpose(2, 1, 0) for v in scan.volumes.values()])
    support = (blend_map(lesion, (5, 1, 1), Geometry()) > 0) & (head | lesion)
    expected = [(w.z, w.y, w.x, w.side) for w in windows_of(support, Geometry())]
    stored = [(z + group.attrs["origin"][0], y + group.attrs["origin"][1], x + group.attrs["origin"][2], side) for z, y, x, side, _ in group["windows"]]
    assert stored == expected


def test_the_lesion_does_not_move_the_scale(off_centre: tuple[Path, h5py.Group]) -> None:
    """Median and spread are those of the healthy part, N(100, 10)."""
    center, scale = off_centre[1].attrs["normalisation"][0]
    assert center == pytest.approx(100, abs=0.5)
    assert scale == pytest.approx(10, rel=0.03)


def test_windows_count_the_lesion(prepared: Path) -> None:
    with h5py.File(prepared, "r") as file:
        for group in file["subjects"].values():
            seg = group["seg"][()] > 0
            for z, y, x, side, pixels in group["windows"]:
                assert side in Geometry().buckets
                assert seg[z, max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)].sum() == pixels
            assert set(group["windows"][:, 0]) >= set(np.flatnonzero(seg.any((1, 2))))


def test_source_and_attributes_lead_back_to_the_files(tmp_path: Path, tiny_cohort: Path) -> None:
    root = tmp_path / "set_a"
    shutil.copytree(tiny_cohort / "phantom_005", root / "phantom_005")
    (root / "subjects.csv").write_text("subject,grade\nother,2\nphantom_005,3\n")
    out = tmp_path / "one.h5"
    prepare([root], out, fractions=(1, 0, 0), progress=False)
    with h5py.File(out, "r") as file:
        group = file["subjects/phantom_005"]
        assert json.loads(group.attrs["attributes"]) == {"subject": "phantom_005", "grade": "3"}
        assert (group.attrs["set"], group.attrs["partition"], group.attrs["label_scheme"]) == ("set_a", "train", "brats")
        source = json.loads(group.attrs["source"])
    assert list(source) == ["t1", "t1ce", "t2", "flair", "seg"]
    path = root / "phantom_005" / source["flair"]["name"]
    assert source["flair"]["sha256"] == file_sha256(path)
    assert source["flair"]["shape"] == [48, 56, 6]
    assert source["flair"]["dtype"] == str(read_volume(path).stored.dtype)


def test_another_in_plane_spacing_is_brought_to_the_grid(tmp_path: Path, tiny_cohort: Path) -> None:
    folder = tmp_path / "set" / "fine"
    folder.mkdir(parents=True)
    for path in (tiny_cohort / "phantom_000").glob("*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([0.8, 0.8, 5, 1])), folder / path.name)
    out = tmp_path / "fine.h5"
    prepare([folder], out, fractions=(1, 0, 0), progress=False)
    with h5py.File(out, "r") as file:
        group = file["subjects/fine"]
        np.testing.assert_allclose(group.attrs["spacing"], (5, 1, 1))
        assert tuple(group.attrs["full_shape"]) == (6, round(56 * 0.8), round(48 * 0.8))
        assert (full(group, "seg") > 0).sum() == pytest.approx(0.64 * (read_scan(find_subject(folder)).labels > 0).sum(), rel=0.1)


def test_workers_do_not_change_the_content(prepared: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "two.h5"
    prepare([tiny_cohort], out, fractions=(0.6, 0.2, 0.2), workers=2, progress=False)
    assert content(out) == content(prepared)


@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_interrupted_and_resumed_is_the_straight_run(prepared: Path, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    out = tmp_path / "slices.h5"
    write, work = store.write_record, module._work
    calls: list[str] = []

    def stop(file: h5py.File, record: store.Record, partition: str, digest: int) -> None:
        if len(calls) == after:
            file["subjects"].create_group(record.name)  # as a writer that is killed within a subject may leave it
            raise KeyboardInterrupt
        calls.append(record.name)
        write(file, record, partition, digest)

    def counted(files: Any, **options: Any) -> Any:
        again.append(files.name)
        return work(files, **options)

    again: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_record", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare([tiny_cohort], out, fractions=(0.6, 0.2, 0.2), workers=0, progress=False)
    assert not out.exists()
    with pytest.raises(InputError, match="run the same prepare command again"):
        store.read_header(out)
    monkeypatch.setattr(module, "_work", counted)
    summary = prepare([tiny_cohort], out, fractions=(0.6, 0.2, 0.2), workers=0, progress=False)
    assert summary.resumed == after
    assert sorted(again + calls) == sorted(content(prepared))
    assert content(out) == content(prepared)


@pytest.mark.parametrize("after", [1, 5])
def test_killed_and_resumed_at_once_is_the_straight_run(prepared: Path, tiny_cohort: Path, tmp_path: Path, after: int) -> None:
    """kill -9 of the writer while two workers are busy: nothing is left behind that holds the work file."""
    out = tmp_path / "slices.h5"
    process = get_context("spawn").Process(target=_killed, args=(tiny_cohort, out, after))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    summary = prepare([tiny_cohort], out, fractions=(0.6, 0.2, 0.2), workers=2, progress=False)
    assert summary.resumed >= after
    assert content(out) == content(prepared)


def _killed(root: Path, out: Path, after: int) -> None:
    """In a process of its own: prepare, and die within subject number `after`."""
    write, written = store.write_record, []

    def die(file: h5py.File, record: store.Record, partition: str, digest: int) -> None:
        if len(written) == after:
            group = file["subjects"].create_group(record.name)
            group["image"] = record.image
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(record.name)
        write(file, record, partition, digest)

    store.write_record = die
    prepare([root], out, fractions=(0.6, 0.2, 0.2), workers=2, progress=False)


def test_readers_end_with_the_process_that_started_them() -> None:
    here, there = Pipe()
    process = get_context("spawn").Process(target=_start_and_wait, args=(there,))
    process.start()
    readers = here.recv()
    assert all(_runs(pid) for pid in readers)
    process.kill()
    process.join()
    end = time.monotonic() + 20
    while time.monotonic() < end and any(_runs(pid) for pid in readers):
        time.sleep(0.1)
    assert not any(_runs(pid) for pid in readers)


def _start_and_wait(pipe: Connection) -> None:
    pool, count = workers.start(2, 2)
    assert pool is not None
    assert count == 2
    pipe.send(sorted(pool._processes))
    time.sleep(60)


def _runs(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and was not collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_damaged_work_file_is_begun_anew(prepared: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    part = tmp_path / "slices.h5.part"
    shutil.copy(prepared, part)
    with h5py.File(part, "r+") as file:
        image = file["subjects/phantom_001/image"]
        image[0, 0, :5, :5] = 9  # one subject whose bytes are not those that were written
    summary = prepare([tiny_cohort], tmp_path / "slices.h5", fractions=(0.6, 0.2, 0.2), progress=False)
    assert summary.resumed == 6
    assert content(tmp_path / "slices.h5") == content(prepared)
    torn = tmp_path / "torn.h5.part"
    torn.write_bytes(prepared.read_bytes()[: prepared.stat().st_size // 3])
    summary = prepare([tiny_cohort], tmp_path / "torn.h5", fractions=(0.6, 0.2, 0.2), progress=False)
    assert summary.resumed == 0
    assert content(tmp_path / "torn.h5") == content(prepared)


def test_two_at_once_are_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    with store.open_part(tmp_path / "s.h5.part"), ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert "another process is writing" in pool.submit(_refusal, tiny_cohort, tmp_path / "s.h5").result()


def _refusal(root: Path, out: Path) -> str:
    with pytest.raises(InputError) as caught:
        prepare([root], out, workers=0, progress=False)
    return str(caught.value)


def test_a_changed_scan_is_read_again(tiny_cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiny"
    for name in ("phantom_000", "phantom_001"):
        shutil.copytree(tiny_cohort / name, root / name)
    first, out = tmp_path / "first.h5", tmp_path / "second.h5"
    prepare([root], first, progress=False)
    shutil.copy(first, out.with_name("second.h5.part"))
    path = root / "phantom_000" / "phantom_000_t1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), path)
    assert prepare([root], out, progress=False).resumed == 1
    assert content(out)["phantom_000"] != content(first)["phantom_000"]
    assert content(out)["phantom_001"] == content(first)["phantom_001"]
    with pytest.raises(InputError, match="other subjects or scans"):
        prepare([root], first, progress=False)


def test_the_same_command_again_does_nothing(prepared: Path, tiny_cohort: Path) -> None:
    before = prepared.stat().st_mtime_ns
    summary = prepare([tiny_cohort], prepared, fractions=(0.6, 0.2, 0.2), progress=False)
    assert (summary.resumed, summary.subjects, summary.partitions) == (7, 7, {"train": 4, "validation": 2, "test": 1})
    assert prepared.stat().st_mtime_ns == before


def test_other_settings_are_refused(prepared: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"other settings \(inpaint\)"):
        prepare([tiny_cohort], prepared, fractions=(0.6, 0.2, 0.2), inpaint="biharmonic", progress=False)
    with pytest.raises(InputError, match="another split"):
        prepare([tiny_cohort], prepared, fractions=(0.6, 0.2, 0.2), seed=1, progress=False)
    shutil.copy(prepared, tmp_path / "x.h5.part")
    with pytest.raises(InputError, match="delete this file, or give another --out"):
        prepare([tiny_cohort], tmp_path / "x.h5", fractions=(0.6, 0.2, 0.2), geometry=Geometry(grow_mm=1), progress=False)
    with pytest.raises(InputError, match="bicubic"):
        prepare([tiny_cohort], tmp_path / "y.h5", inpaint="bicubic", progress=False)


def test_the_split_file_decides(tiny_cohort: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in tiny_cohort.iterdir() if path.is_dir())
    split = tmp_path / "split.csv"
    split.write_text("subject,partition\n" + "".join(f"{name},{'test' if name == 'phantom_003' else 'train'}\n" for name in names))
    prepare([tiny_cohort], tmp_path / "s.h5", split=split, progress=False)
    with h5py.File(tmp_path / "s.h5", "r") as file:
        assert {name for name, group in file["subjects"].items() if group.attrs["partition"] == "test"} == {"phantom_003"}
    assert store.read_header(tmp_path / "s.h5").split == {"file": "split.csv", "sha256": file_sha256(split)}
    split.write_text("subject,partition\nphantom_000,train\n")
    with pytest.raises(InputError) as caught:
        prepare([tiny_cohort], tmp_path / "t.h5", split=split, progress=False)
    assert len(caught.value.faults) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_every_faulty_subject_is_named_and_the_good_ones_are_kept(tiny_cohort: Path, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "tiny"
    shutil.copytree(tiny_cohort, root)
    good = {}
    for name in ("phantom_000", "phantom_002"):
        path = root / name / f"{name}_t2.nii.gz"
        good[path] = path.read_bytes()
        path.write_bytes(good[path][:200])
    out = tmp_path / "s.h5"
    with pytest.raises(InputError) as caught:
        prepare([root], out, workers=workers, progress=False)
    assert sorted(Path(fault.where).name for fault in caught.value.faults) == ["phantom_000_t2.nii.gz", "phantom_002_t2.nii.gz"]
    for path, data in good.items():
        path.write_bytes(data)
    assert prepare([root], out, workers=workers, progress=False).resumed == 5


def test_what_is_refused_before_any_work(tiny_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        prepare([], tmp_path / "s.h5", progress=False)
    with pytest.raises(InputError, match="2 subjects of this name"):
        prepare([tiny_cohort, tiny_cohort / "phantom_000"], tmp_path / "s.h5", progress=False)
    with pytest.raises(InputError) as caught:
        prepare([tmp_path / "a", tmp_path / "b"], tmp_path / "s.h5", progress=False)
    assert len(caught.value.faults) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        prepare([tiny_cohort], tmp_path / "file" / "s.h5", progress=False)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file.attrs["format"] = "something"
    with pytest.raises(InputError, match="HDF5 file of another kind"):
        prepare([tiny_cohort], other, progress=False)


def test_read_header_tells_what_a_file_is(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        store.read_header(tmp_path / "none.h5")
    text = tmp_path / "text.h5"
    text.write_text("no")
    with pytest.raises(InputError, match="no readable HDF5 file"):
        store.read_header(text)
    unfinished = tmp_path / "unfinished.h5"
    shutil.copy(prepared, unfinished)
    with h5py.File(unfinished, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(InputError, match="has not ended"):
        store.read_header(unfinished)
    newer = tmp_path / "newer.h5"
    shutil.copy(prepared, newer)
    with h5py.File(newer, "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(InputError, match="layout version 2"):
        store.read_header(newer)


def test_summary_reads_as_a_sentence(prepared: Path, tiny_cohort: Path) -> None:
    said = str(prepare([tiny_cohort], prepared, fractions=(0.6, 0.2, 0.2), progress=False))
    assert "7 subjects (4 train, 2 validation, 1 test, 7 of them from an earlier run)" in said
    assert "lesion windows" in said


def test_real_scans_keep_lesion_and_head(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "real.h5"
    folder = shared_data / "tcga_lgg" / "TCGA_CS_4942_19970222"
    prepare([folder], out, fractions=(1, 0, 0), progress=False)
    with h5py.File(out, "r") as file:
        group = file["subjects/TCGA_CS_4942_19970222"]
        assert json.loads(group.attrs["attributes"])["grade"] == "3.0"
        assert (group["seg"][()] > 0).sum() == 7112  # subjects.csv
        assert group["foreground"][()].mean() > 0.5
        assert group["image"].shape[3] < 256
