"""Scans in and out: what is stored is kept bit for bit, and what is not a scan is refused in words."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import signal
from itertools import permutations, product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest

from pathosyn.data import nifti_parse
from pathosyn.data.nifti import file_sha256, read_volume, write_map, write_volume
from pathosyn.errors import InputError

SHAPE = (5, 6, 4)
SPACING = (0.8, 1.2, 3.0)


def save(path: Path, stored: np.ndarray, *, affine: np.ndarray | None = None, kind: Any = nib.Nifti1Header, order: str = "<", **fields: Any) -> Path:
    """A NIfTI file with exactly these stored voxels and raw header fields, put together byte by byte."""
    header = kind(endianness=order)
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header.set_sform(np.diag((*SPACING, 1.0)) if affine is None else affine, code=1)
    header["pixdim"][1:4] = SPACING
    header["vox_offset"] = header.single_vox_offset
    for name, value in fields.items():
        header[name] = value
    data = header.binaryblock + b"\0\0\0\0" + stored.astype(stored.dtype.newbyteorder(order)).tobytes(order="F")
    path.write_bytes(gzip.compress(data) if path.name.lower().endswith(".gz") else data)
    return path


def ramp(dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def fault_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert len(caught.value.faults) == 1
    line = str(caught.value)
    assert "\n" not in line
    assert "; expected " in line
    return line


@pytest.mark.parametrize(("axes", "signs"), list(product(permutations(range(3)), product((1, -1), repeat=3))))
def test_all_48_orientations_round_trip(tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """The value of a voxel is a function of its world position, so the canonical array is known whatever the order on disk."""
    canonical = ramp()
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored_axis, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, stored_axis] = sign * SPACING[axis]
        affine[axis, 3] = 0 if sign > 0 else SPACING[axis] * (SHAPE[axis] - 1)
    stored = canonical.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    volume = read_volume(save(tmp_path / "scan.nii.gz", stored, affine=affine))
    np.testing.assert_array_equal(volume.canonical(), canonical)
    np.testing.assert_array_equal(volume.native(), canonical)
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)
    np.testing.assert_allclose(volume.canonical_affine, np.diag((*SPACING, 1)), atol=1e-5)

    where = np.zeros(SHAPE, bool)
    where[1:3, 2, 1:] = True
    write_volume(volume.replaced(np.full(SHAPE, 77.4), where), tmp_path / "out.nii.gz", note="synthetic")
    again = read_volume(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(again.canonical(), np.where(where, 77, canonical))
    np.testing.assert_array_equal(again.affine, volume.affine)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.5, -3.0), (0.0, 5.0), (np.nan, np.nan), (-2.0, 1.0)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_outside_where_the_bytes_are_the_files_own(tmp_path: Path, dtype: Any, slope: float, inter: float, order: str) -> None:
    stored = np.random.default_rng(1).integers(0, 200, (*SHAPE, 1)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        stored += np.float32(0.1)
    source = save(tmp_path / "scan.nii", stored, order=order, scl_slope=slope, scl_inter=inter)
    volume = read_volume(source)
    where = np.random.default_rng(2).random(SHAPE) < 0.3
    native = volume.canonical()
    a, b = (slope, inter) if slope and np.isfinite(slope) else (1, 0)
    np.testing.assert_allclose(native, stored[..., 0].astype(float) * a + b, rtol=1e-6)

    values = np.linspace(native.min(), native.max(), native.size, dtype=np.float32).reshape(SHAPE)
    write_volume(volume.replaced(values, where), tmp_path / "out.nii")
    before, after = source.read_bytes(), (tmp_path / "out.nii").read_bytes()
    assert before[:352] == after[:352]
    old, new = (np.frombuffer(data[352:], stored.dtype.newbyteorder(order)).reshape(SHAPE, order="F") for data in (before, after))
    np.testing.assert_array_equal(old[~where].tobytes(), new[~where].tobytes())
    step = abs(a) / 2 * 1.001 if stored.dtype.kind in "iu" else 1e-4
    assert np.abs(new[where].astype(float) * a + b - values[where]).max() <= step


def test_integers_round_to_the_nearest_step_and_stop_at_the_dtypes_ends(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", ramp(np.uint8), scl_slope=2.0, scl_inter=10.0))
    values = np.zeros(SHAPE)
    values[0, 0] = (12.9, 13.1, -400.0, 9000.0)
    stored = volume.replaced(values, np.indices(SHAPE)[:2].sum(axis=0) == 0).stored[0, 0]
    assert stored.tolist() == [1, 2, 0, 255]
    for dtype in (np.int64, np.uint64):
        wide = read_volume(save(tmp_path / "wide.nii", ramp(dtype)))
        assert wide.replaced(np.full(SHAPE, 1e30), np.ones(SHAPE, bool)).stored.min() > 2**62


@pytest.mark.parametrize(
    "dtype, fields, kept",
    [(np.uint8, {}, np.uint8), (np.int16, {}, np.int16), (np.int16, {"scl_slope": 0.5}, np.float32), (np.int32, {}, np.float32), (np.float32, {}, np.float32)],
)
@pytest.mark.parametrize("order", "<>")
def test_small_integers_without_scaling_stay_integers(tmp_path: Path, dtype: Any, fields: dict[str, Any], kept: Any, order: str) -> None:
    volume = read_volume(save(tmp_path / "scan.nii.gz", ramp(dtype), order=order, **fields))
    native = volume.native()
    assert native.dtype == kept and native.dtype.isnative and native.transpose(2, 1, 0).flags.c_contiguous
    np.testing.assert_array_equal(native, volume.canonical())
    assert volume.stored.tobytes(order="F") == ramp(dtype).astype(np.dtype(dtype).newbyteorder(order)).tobytes(order="F")


def test_replaced_refuses_what_it_cannot_store(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", ramp()))
    with pytest.raises(ValueError, match="NaN"):
        volume.replaced(np.full(SHAPE, np.nan), np.ones(SHAPE, bool))
    with pytest.raises(ValueError, match="canonical shape"):
        volume.replaced(np.zeros((2, 2, 2)), np.ones((2, 2, 2), bool))
    with pytest.raises(ValueError, match="read-only"):
        volume.stored[0] = 0


def test_nibabel_reads_the_same(tmp_path: Path) -> None:
    """Oracle: a file written by nibabel reads the same here, and a file written here reads the same there."""
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, -0.2, 0.15) @ np.diag((-1, 1.5, 2)), (10, -20, 30))
    image = nib.Nifti2Image(np.random.default_rng(0).normal(100, 20, SHAPE), affine)
    image.header.set_data_dtype(np.int16)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"from the scanner"))
    nib.save(image, tmp_path / "scan.nii.gz")
    oracle = nib.as_closest_canonical(nib.load(tmp_path / "scan.nii.gz"))
    volume = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(volume.canonical(), oracle.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(volume.canonical_affine, oracle.affine, atol=1e-6)
    write_volume(volume, tmp_path / "out.nii.gz", note="pathosyn: künstlich")
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), nib.load(tmp_path / "scan.nii.gz").get_fdata())
    contents = [extension.get_content() for extension in written.header.extensions]
    assert [c.encode() if isinstance(c, str) else c for c in contents] == [b"from the scanner", "pathosyn: künstlich".encode()]
    again = read_volume(tmp_path / "out.nii.gz").header  # nibabel's own loading forgets slope and intercept
    for name in set(volume.header.keys()) - {"vox_offset"}:
        np.testing.assert_array_equal(again[name], volume.header[name], err_msg=name)


def test_same_volume_same_bytes_and_a_picklable_record(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii.gz", ramp()))
    write_volume(volume, tmp_path / "a.nii.gz", note="n")
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)  # no time of writing in the gzip header
    write_volume(pickle.loads(pickle.dumps(volume)), tmp_path / "b.nii.gz", note="n")
    assert file_sha256(tmp_path / "a.nii.gz") == file_sha256(tmp_path / "b.nii.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz", "scan.nii.gz"]


def test_slices_order_of_the_canonical_array_needs_no_copy(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", ramp(), scl_slope=2.0))
    assert volume.canonical().transpose(2, 1, 0).flags.c_contiguous


@pytest.mark.parametrize(("values", "dtype"), [(np.bool_, np.uint8), (np.uint8, np.uint8), (np.float64, np.float32)])
def test_maps_lie_on_the_scans_grid_unscaled(tmp_path: Path, values: Any, dtype: Any) -> None:
    affine = np.array([[0, 0, -3.0, 4], [-1, 0, 0, 5], [0, 2, 0, 6], [0, 0, 0, 1]])
    like = read_volume(save(tmp_path / "scan.nii", ramp(np.int16, (*SHAPE, 1)), affine=affine, order=">", scl_slope=3.0, scl_inter=7.0))
    canonical = (np.random.default_rng(0).random(like.shape) * 3).astype(values)
    write_map(canonical, like, tmp_path / "map.nii.gz", note="a map")
    written = read_volume(tmp_path / "map.nii.gz")
    assert written.stored.dtype.newbyteorder("=") == dtype
    assert written.stored.shape == like.stored.shape
    np.testing.assert_array_equal(written.affine, like.affine)
    np.testing.assert_array_equal(written.canonical(), canonical.astype(np.float32))
    np.testing.assert_allclose(nib.load(tmp_path / "map.nii.gz").get_fdata(), written.stored)
    with pytest.raises(ValueError, match="canonical shape"):
        write_map(np.zeros((1, 2, 3)), like, tmp_path / "no.nii")


def test_names_of_every_kind(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", ramp()))
    for name in ("a b.nii", "räumlich.NII.GZ", "line\nbreak.nii.gz", "[red].nii"):
        write_volume(volume, tmp_path / name)
        np.testing.assert_array_equal(read_volume(tmp_path / name).stored, volume.stored)
    (tmp_path / "link.nii").symlink_to("scan.nii")
    (tmp_path / "plain_inside.nii.gz").write_bytes((tmp_path / "scan.nii").read_bytes())
    (tmp_path / "packed_inside.nii").write_bytes(gzip.compress((tmp_path / "scan.nii").read_bytes()))
    for name in ("link.nii", "plain_inside.nii.gz", "packed_inside.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).stored, volume.stored)
    with pytest.raises(InputError, match=r"ends in \.nii or \.nii\.gz"):
        write_volume(volume, tmp_path / "scan.mha")


def test_without_sform_and_qform_the_voxel_sizes_count(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", ramp(), sform_code=0, qform_code=0))
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)
    np.testing.assert_allclose(volume.affine, nib.load(tmp_path / "scan.nii").affine)
    assert int(volume.header["sform_code"]) == 0


def test_files_that_are_no_scan(tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_text("t1 of patient 7")
    (tmp_path / "packed_text.nii.gz").write_bytes(gzip.compress(b"t1 of patient 7" * 99))
    (tmp_path / "empty.nii").touch()
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "broken_link.nii").symlink_to("nowhere.nii")
    os.mkfifo(tmp_path / "pipe.nii")
    analyze = save(tmp_path / "analyze.nii", ramp(), magic=b"")
    pair = save(tmp_path / "pair.nii", ramp(), magic=b"ni1")
    expected = {"missing.nii": "no such file", "text.nii.gz": "not NIfTI", "packed_text.nii.gz": "not NIfTI", "empty.nii": "0 bytes"}
    expected |= {"folder.nii.gz": "a folder", "broken_link.nii": "link to nowhere.nii", "pipe.nii": "not a plain file", "a\0b.nii": "null"}
    expected |= {analyze.name: "Analyze", pair.name: "pair"}
    for name, words in expected.items():
        assert words in fault_of(tmp_path / name), name
    line = fault_of(tmp_path / "two\nlines.nii")
    assert "two lines.nii: found no such file" in line


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "scan.nii", ramp())
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert "may not read" in fault_of(path)
    with pytest.raises(InputError, match="Permission denied"):
        file_sha256(path)


@pytest.mark.parametrize("reader", [nifti_parse.GzipFile, gzip.GzipFile], ids=["as installed", "python's own"])
def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any) -> None:
    monkeypatch.setattr(nifti_parse, "GzipFile", reader)
    noise = np.random.default_rng(0).integers(0, 30000, (40, 40, 10)).astype(np.int16)
    packed = save(tmp_path / "whole.nii.gz", noise).read_bytes()
    plain = gzip.decompress(packed)
    path = tmp_path / "cut.nii.gz"
    for length in (3, 12, 100, 400, len(packed) // 2, len(packed) - 9, len(packed) - 1):
        path.write_bytes(packed[:length])
        assert "cut short" in fault_of(path), length
    path.write_bytes(packed[:-6] + b"\1\2" + packed[-4:])
    assert "damaged" in fault_of(path)
    middle = bytearray(packed)
    middle[len(packed) // 2 : len(packed) // 2 + 40] = bytes(40)
    path.write_bytes(middle)
    assert "damaged" in fault_of(path)
    for length, words in ((3, "not NIfTI"), (200, "header"), (350, "header"), (400, "(40 x 40 x 10)"), (len(plain) - 1, "fewer voxels")):
        (tmp_path / "cut.nii").write_bytes(plain[:length])
        assert words in fault_of(tmp_path / "cut.nii"), length
    save(path, ramp(), dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])  # 70 TB: not to be asked of the memory
    assert "cut short" in fault_of(path)

    data = bytearray(save(tmp_path / "streams.nii.gz", np.random.default_rng(0).integers(0, 9, (20, 20, 20)).astype(np.int16)).read_bytes())
    for place in (10, 40, len(data) // 2):  # the first block's type, its codes, a distance: each reader has its own words for them
        broken = data.copy()
        broken[place : place + 6] = b"\xff" * 6
        path.write_bytes(broken)
        assert "damaged compressed data" in fault_of(path)


@pytest.mark.parametrize(
    ("stored", "fields", "words"),
    [
        (ramp(np.complex64), {}, "complex"),
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), {}, "colours"),
        (ramp(), {"datatype": 1}, "not a number"),
        (ramp(), {"datatype": 1536}, "not a number"),
        (ramp(shape=(5, 6, 4, 3)), {}, "time series"),
        (ramp(shape=(5, 6, 1, 1, 3)), {}, "time series"),
        (ramp(shape=(5, 6)), {}, "5 x 6 pixels"),
        (ramp(), {"dim": [3, 5, 0, 4, 1, 1, 1, 1]}, "without voxels"),
        (ramp(), {"dim": [3, 5, -6, 4, 1, 1, 1, 1]}, "without voxels"),
        (ramp(), {"dim": [0, 5, 6, 4, 1, 1, 1, 1]}, "0 axes"),
        (ramp(), {"datatype": 999}, "unknown type"),
        (ramp(), {"vox_offset": np.nan}, "header that cannot be used"),
        (ramp(), {"vox_offset": 20}, "header that cannot be used"),
        (ramp(), {"scl_slope": 2.0, "scl_inter": np.nan}, "scl_inter"),
        (ramp(), {"srow_z": 0}, "affine without an inverse"),
        (ramp(), {"srow_x": [1, 0, 0, np.nan]}, "affine without an inverse"),
        (ramp(), {"srow_x": [1, 1, 0, 0], "srow_y": [0, 1e-4, 0, 0]}, "affine without an inverse"),
        (ramp(), {"sform_code": 0, "qform_code": 1, "quatern_b": 2.0}, "orientation that cannot be computed"),
        (np.where(ramp() == 7, np.nan, 1.0).astype(np.float32), {}, "1 voxels that are NaN"),
        (np.where(ramp() < 2, -np.inf, 1.0), {}, "2 voxels that are NaN"),
        (np.where(ramp() < 2, 1e200, 1.0), {}, "1e+200"),
        (ramp(np.float32), {"scl_slope": 3e38, "scl_inter": 3e38}, "rescale"),
    ],
)
def test_scans_that_cannot_be_used(tmp_path: Path, stored: np.ndarray, fields: dict[str, Any], words: str) -> None:
    assert words in fault_of(save(tmp_path / "scan.nii.gz", stored, **fields))


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", np.random.default_rng(0).integers(0, 9999, (60, 60, 20)).astype(np.int16)))
    before = (tmp_path / "scan.nii").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # a disk that is full after 20 kB
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            write_volume(volume, tmp_path / "scan.nii")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]
    assert (tmp_path / "scan.nii").read_bytes() == before
    (tmp_path / "folder.nii").mkdir()
    for path in (tmp_path / "no" / "such" / "out.nii.gz", tmp_path / "folder.nii", tmp_path / "scan.nii" / "x.nii"):
        with pytest.raises(InputError, match="cannot be written"):
            write_volume(volume, path)


def test_real_scans_keep_their_bytes(shared_data: Path, tmp_path: Path) -> None:
    for file in ("brats2021/BraTS2021_01482/BraTS2021_01482_flair.nii.gz", "open_ms/patient26/patient26_t1.nii.gz", "sri24/tissues.nii.gz"):
        volume = read_volume(shared_data / file)
        write_volume(volume, tmp_path / "out.nii.gz")
        oracle, written = nib.load(shared_data / file), nib.load(tmp_path / "out.nii.gz")
        assert written.header.binaryblock == oracle.header.binaryblock
        np.testing.assert_array_equal(np.asanyarray(written.dataobj), np.asanyarray(oracle.dataobj))
