"""Where a lesion is to be: every source of a mask, what changes it, and everything that cannot be meant as given."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pathosyn.data.placement import Lesions, Wish, lesions, own_lesion, read_mask
from pathosyn.data.subjects import Scan, find_subject, read_scan
from pathosyn.errors import InputError

SHAPE = (30, 32, 12)
LESION = (slice(8, 14), slice(10, 15), slice(4, 7))
HEAD = np.ones(SHAPE, bool)


def affine_of(spacing: tuple[float, float, float], origin: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    made = np.diag([*spacing, 1.0])
    made[:3, 3] = origin
    return made


def subject(folder: Path, *, shape: tuple[int, int, int] = SHAPE, affine: np.ndarray | None = None, seg: np.ndarray | None = None) -> Path:
    folder.mkdir(parents=True)
    affine = np.eye(4) if affine is None else affine
    image = np.random.default_rng(0).normal(100, 10, shape).astype(np.float32)
    nib.save(nib.Nifti1Image(image, affine), folder / f"{folder.name}_flair.nii.gz")
    if seg is not None:
        nib.save(nib.Nifti1Image(seg.astype(np.uint8), affine), folder / f"{folder.name}_seg.nii.gz")
    return folder


def box_mask(box: tuple[slice, slice, slice] = LESION, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[box] = True
    return mask


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    """RAS, 1 mm, a box as lesion."""
    return read_scan(find_subject(subject(tmp_path / "ill", seg=2 * box_mask())))


@pytest.fixture
def healthy(tmp_path: Path) -> Scan:
    return read_scan(find_subject(subject(tmp_path / "well", affine=affine_of((1, 1, 2), (-15, -16, 4)))))


def refused(scan: Scan, head: np.ndarray = HEAD, **wish: Any) -> str:
    with pytest.raises(InputError) as caught:
        lesions(scan, Wish(**wish), head)
    (fault,) = caught.value.faults
    return str(fault)


# -- the sources ------------------------------------------------------------------------------------------------------------------------


def test_without_a_wish_the_scans_own_lesion_is_drawn_anew(scan: Scan) -> None:
    found = lesions(scan, Wish(), HEAD)
    assert np.array_equal(found.old, box_mask()) and np.array_equal(found.new, box_mask()) and found.redrawn
    assert scan.seg is not None
    assert found.source["kind"] == "own" and found.source["sha256"] == hashlib.sha256(scan.seg.path.read_bytes()).hexdigest()
    assert found.source["share_on_head"] == 1.0


def test_a_scan_without_a_lesion_needs_a_wish(healthy: Scan, scan: Scan) -> None:
    assert not own_lesion(healthy).any()
    assert "no mask" in refused(healthy) and "--at" in refused(healthy)
    assert scan.labels is not None
    assert "an empty mask" in refused(replace(scan, labels=np.zeros_like(scan.labels)))


def test_a_given_mask_is_taken_as_it_lies(scan: Scan, tmp_path: Path) -> None:
    """Turned about: the same grid stored left-posterior-superior."""
    wanted = box_mask((slice(20, 25), slice(5, 9), slice(2, 4)))
    flip = np.diag([-1.0, -1, 1, 1])
    flip[:2, 3] = SHAPE[0] - 1, SHAPE[1] - 1
    nib.save(nib.Nifti1Image(wanted[::-1, ::-1].astype(np.uint8), flip), tmp_path / "m.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", scan), wanted)
    found = lesions(scan, Wish(mask=tmp_path / "m.nii.gz"), HEAD)
    assert np.array_equal(found.new, wanted) and np.array_equal(found.old, box_mask()) and not found.redrawn
    assert found.source["kind"] == "given"


def test_a_given_mask_equal_to_the_own_one_is_a_redraw(scan: Scan, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(box_mask().astype(np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
    assert lesions(scan, Wish(mask=tmp_path / "m.nii.gz"), HEAD).redrawn
    assert not Lesions(np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), {}).redrawn


@pytest.mark.parametrize(
    "values, affine, told",
    [
        (np.zeros(SHAPE, np.uint8), np.eye(4), "an empty mask"),
        (box_mask()[:-1].astype(np.uint8), np.eye(4), "29 x 32 x 12"),
        (box_mask().astype(np.uint8), affine_of((1, 1, 1.5)), "mm"),
        (box_mask() * np.float32(0.5), np.eye(4), "fractions"),
        (box_mask().astype(np.uint8) * 7, np.eye(4), "labels 0, 7"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(scan: Scan, tmp_path: Path, values: np.ndarray, affine: np.ndarray, told: str) -> None:
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "m.nii.gz")
    line = refused(scan, mask=tmp_path / "m.nii.gz")
    assert told in line and "m.nii.gz" in line


def test_a_ball_has_its_size_and_place_in_world_mm(healthy: Scan) -> None:
    found = lesions(healthy, Wish(at=(0.4, -1.2, 14.0), size_mm=8.0), HEAD)
    world = np.argwhere(found.new) @ healthy.affine[:3, :3].T + healthy.affine[:3, 3]
    away = np.linalg.norm(world - (0.4, -1.2, 14.0), axis=1)
    assert away.max() <= 4.0 and len(world) * 2.0 == pytest.approx(4 / 3 * np.pi * 64, rel=0.1)
    assert found.source["kind"] == "ball" and found.source["at_mm"] == [0.4, -1.2, 14.0]


@pytest.mark.parametrize(
    "at, size, told",
    [
        ((100.0, 0, 10), 5.0, "outside the scan"),
        ((-14.0, 0, 14), 8.0, "edge of the scan cuts"),
        ((0.0, 0, 5), 8.0, "edge of the scan cuts"),
        ((0.0, 0, 14), 0.0, "0 mm"),
        ((0.0, 0, 14), -3.0, "-3 mm"),
    ],
)
def test_a_ball_that_cannot_be_is_refused(healthy: Scan, at: tuple[float, float, float], size: float, told: str) -> None:
    line = refused(healthy, at=at, size_mm=size)
    assert told in line and "--at" in line and "well" in line


def test_a_ball_that_just_fits_is_taken(healthy: Scan) -> None:
    """Tissue reaches half a voxel beyond the last centre."""
    low = healthy.affine[0, 3]
    assert lesions(healthy, Wish(at=(low + 2.5, 0, 14), size_mm=6.0), HEAD).new.any()
    assert "cuts" in refused(healthy, at=(low + 2.4, 0, 14), size_mm=6.0)


def test_a_borrowed_lesion_lies_at_the_same_world_coordinates(healthy: Scan, tmp_path: Path) -> None:
    """Lender: finer, turned, other origin."""
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]) * (0.7, 0.7, 1.0)
    affine[:3, 3] = (-8, -12, 6)
    lent = box_mask((slice(8, 24), slice(10, 24), slice(3, 11)), (32, 34, 16))
    lender = subject(tmp_path / "lender", shape=(32, 34, 16), affine=affine, seg=lent)
    found = lesions(healthy, Wish(from_mask_of=lender), HEAD)
    there = np.argwhere(lent).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    here = np.argwhere(found.new).mean(axis=0) @ healthy.affine[:3, :3].T + healthy.affine[:3, 3]
    assert (np.abs(here - there) <= (0.5, 0.5, 1.0)).all(), "to half a voxel"
    assert found.new.sum() * 2.0 == pytest.approx(lent.sum() * 0.49, rel=0.05)
    assert found.source["from"] == "lender" and found.source["at_mm"] is None
    at = (2.0, 3.0, 15.0)
    placed = lesions(healthy, Wish(from_mask_of=lender, at=at), HEAD)
    centre = np.argwhere(placed.new).mean(axis=0) @ healthy.affine[:3, :3].T + healthy.affine[:3, 3]
    assert (np.abs(centre - at) <= (0.5, 0.5, 1.0)).all() and placed.source["at_mm"] == list(at)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("low", [True, False])
def test_a_borrowed_lesion_must_lie_wholly_on_the_scan(scan: Scan, tmp_path: Path, axis: int, low: bool) -> None:
    """Up to the first and the last voxel, and not one beyond."""
    room = -LESION[axis].start if low else SHAPE[axis] - LESION[axis].stop
    for beyond in (0, -1 if low else 1):
        origin = np.zeros(3)
        origin[axis] = room + beyond
        lender = subject(tmp_path / f"by{beyond}", affine=affine_of((1, 1, 1), tuple(origin)), seg=box_mask())
        if beyond:
            assert "falls off this scan" in refused(scan, from_mask_of=lender) and "100 %" not in refused(scan, from_mask_of=lender)
        else:
            assert lesions(scan, Wish(from_mask_of=lender), HEAD).new.sum() == box_mask().sum()


def test_a_borrowed_lesion_that_cannot_be_is_refused(healthy: Scan, scan: Scan, tmp_path: Path) -> None:
    off = subject(tmp_path / "off", affine=affine_of((1, 1, 1), (100, 0, 0)), seg=box_mask())
    line = refused(healthy, from_mask_of=off)
    assert "100 % falls off this scan" in line and "--at" in line
    assert lesions(healthy, Wish(from_mask_of=off, at=(0.0, 0.0, 14.0)), HEAD).new.any()
    thin = subject(tmp_path / "thin", affine=affine_of((1, 1, 0.2), (-15, -16, 10.5)), seg=box_mask((slice(8, 14), slice(10, 15), slice(2, 5))))
    assert "between this scan's slices" in refused(healthy, from_mask_of=thin)
    assert "no mask" in refused(scan, from_mask_of=subject(tmp_path / "none"))
    assert "an empty mask" in refused(scan, from_mask_of=subject(tmp_path / "empty", seg=np.zeros(SHAPE)))
    assert "no such folder" in refused(scan, from_mask_of=tmp_path / "nowhere")


# -- contradictions ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wish, told",
    [
        ({"mask": Path("m"), "from_mask_of": Path("s")}, "--mask and --from-mask-of"),
        ({"mask": Path("m"), "at": (0.0, 0, 0), "size_mm": 3.0}, "--mask and --size-mm"),
        ({"from_mask_of": Path("s"), "at": (0.0, 0, 0), "size_mm": 3.0}, "--from-mask-of and --size-mm"),
        ({"size_mm": 3.0}, "a size without a place"),
        ({"at": (0.0, 0, 0)}, "a place without a lesion"),
        ({"mask": Path("m"), "at": (0.0, 0, 0)}, "a place without a lesion"),
        ({"extent_mm": float("nan")}, "not finite"),
        ({"shift_mm": (0.0, float("inf"), 0.0)}, "not finite"),
        ({"at": (float("nan"), 0.0, 0.0), "size_mm": 3.0}, "not finite"),
        ({"at": (0.0, 0.0, 0.0), "size_mm": float("inf")}, "not finite"),
    ],
)
def test_wishes_that_contradict_themselves_are_refused(scan: Scan, wish: dict[str, Any], told: str) -> None:
    assert told in refused(scan, **wish)


# -- extent and shift -------------------------------------------------------------------------------------------------------------------


def test_extent_grows_by_mm_on_a_grid_of_unequal_steps(tmp_path: Path) -> None:
    scan = read_scan(find_subject(subject(tmp_path / "thick", affine=affine_of((1, 1, 3)), seg=box_mask())))
    grown = lesions(scan, Wish(extent_mm=2.0), HEAD).new
    assert np.array_equal(np.flatnonzero(grown.any(axis=(1, 2))), np.arange(6, 16))
    assert np.array_equal(np.flatnonzero(grown.any(axis=(0, 1))), np.arange(4, 7)), "a slice of 3 mm is further than 2 mm"
    assert np.array_equal(np.flatnonzero(lesions(scan, Wish(extent_mm=3.0), HEAD).new.any(axis=(0, 1))), np.arange(3, 8))
    shrunk = lesions(scan, Wish(extent_mm=-1.0), HEAD).new
    assert shrunk.any() and (shrunk & ~box_mask()).sum() == 0 and shrunk.sum() < box_mask().sum()


def test_growing_over_the_edge_is_refused_and_the_room_named_is_there(scan: Scan) -> None:
    line = refused(scan, extent_mm=6.0)
    assert "over the edge" in line and "at most the 4.0 mm of room" in line and "--extent-mm 6" in line
    assert lesions(scan, Wish(extent_mm=4.0), HEAD).new[..., 0].any(), "4 mm reaches the first slice"
    assert "over the edge" in refused(scan, extent_mm=5.0)


def test_shrinking_to_nothing_is_refused(scan: Scan) -> None:
    assert "shrinks to nothing" in refused(scan, extent_mm=-5.0)


def test_shift_goes_right_anterior_superior_to_the_nearest_voxel(scan: Scan) -> None:
    moved = lesions(scan, Wish(shift_mm=(3.0, -2.4, 1.6)), HEAD)
    assert np.array_equal(moved.new, box_mask((slice(11, 17), slice(8, 13), slice(6, 9))))
    assert np.array_equal(moved.old, box_mask()) and moved.source["shift_mm"] == [3.0, -2.4, 1.6]


def test_shifting_off_the_scan_is_refused_with_the_room_there_is(scan: Scan) -> None:
    line = refused(scan, shift_mm=(-9.0, 0.0, 0.0))
    assert "--shift-mm" in line and "-8…16" in line and "ill" in line
    assert lesions(scan, Wish(shift_mm=(-8.0, 0, 0)), HEAD).new.any() and lesions(scan, Wish(shift_mm=(16.0, 0, 0)), HEAD).new.any()


def test_extent_comes_before_shift(scan: Scan) -> None:
    """Grown at its old place, where there is room; then moved to the edge."""
    found = lesions(scan, Wish(extent_mm=2.0, shift_mm=(-6.0, 0, 0)), HEAD)
    assert found.new[0].any() and found.new.sum() == lesions(scan, Wish(extent_mm=2.0), HEAD).new.sum()


def test_a_mask_off_the_head_is_taken_for_a_mistake(scan: Scan) -> None:
    head = HEAD.copy()
    head[:11] = False  # half of the lesion's six columns
    assert lesions(scan, Wish(), head).source["share_on_head"] == 0.5
    head[11] = False
    line = refused(scan, head)
    assert "33 % lies on the head" in line and "ill_seg" in line
