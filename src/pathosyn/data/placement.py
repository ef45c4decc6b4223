"""Where a lesion is to be: the scan's own mask, a given one, another subject's shape, or a plain ball; grown, shrunk or moved.

Every way in which a mask cannot be meant as given is refused here, before anything is computed. Arrays are canonical (X, Y, Z).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pathosyn.data.labels import canonical_labels
from pathosyn.data.masks import ball, box_of, resize, shift
from pathosyn.data.nifti import file_sha256, read_volume
from pathosyn.data.subjects import Scan, find_subject, grid_fault
from pathosyn.errors import InputError, refuse

Mask = NDArray[np.bool_]

ON_TISSUE = 0.5
"""A mask of which less than this share lies on the head is taken for a mistake."""


ALL_TISSUE = 0.9
"""A mask that covers more than this share of the head is a brain mask."""
FAR_MM = 10_000.0
"""No scan is as large as this."""


@dataclass(frozen=True)
class Wish:
    """What was asked for. At most one of `mask`, `from_mask_of` and `size_mm`; none of them: the scan's own lesion.

    `at` is a point in world mm (RAS): the centre of the ball, or where the centroid of the other subject's lesion is to lie."""

    mask: Path | None = None
    from_mask_of: Path | None = None
    at: tuple[float, float, float] | None = None
    size_mm: float | None = None
    extent_mm: float = 0.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Lesions:
    """`old` is the scan's own lesion (all False if it has none), `new` where one is to be; `source` says where `new` came from."""

    old: Mask
    new: Mask
    source: dict[str, Any]

    @property
    def redrawn(self) -> bool:
        """The scan's own lesion, drawn anew in its place."""
        return bool(self.old.any()) and np.array_equal(self.old, self.new)


def own_lesion(scan: Scan) -> Mask:
    """The scan's own mask; all False without one."""
    return np.zeros(scan.shape, bool) if scan.labels is None else scan.labels > 0


def read_mask(path: Path, scan: Scan) -> Mask:
    """A mask file on the scan's grid. InputError: unreadable, another grid, fractions, empty."""
    volume = read_volume(path)
    if fault := grid_fault(scan.reference, volume):
        raise InputError(fault)
    labels, _ = canonical_labels(volume.native(), path)
    if not labels.any():
        raise refuse(path, found="an empty mask", expected="at least one lesion voxel", remedy="give a mask that marks the lesion with 1")
    return labels > 0


def lesions(scan: Scan, wish: Wish, head: Mask) -> Lesions:
    """Old and new lesion of a scan whose foreground is `head`. InputError with the reason if there is nothing sensible to draw."""
    _refuse_contradictions(wish)
    old = own_lesion(scan)
    new, source = _asked(scan, wish, old)
    name = source["mask"]
    if wish.extent_mm:
        new = _resized(new, scan, wish.extent_mm, name)
    if any(wish.shift_mm):
        try:
            new = shift(new, scan.spacing, wish.shift_mm)
        except InputError as error:
            raise InputError(replace(error.faults[0], where=f"{scan.name}: --shift-mm")) from None
    on_head = refuse_misplaced(new, head, name)
    return Lesions(old, new, {**source, "extent_mm": wish.extent_mm, "shift_mm": list(wish.shift_mm), "share_on_head": round(on_head, 4)})


def refuse_misplaced(lesion: Mask, head: Mask, where: object) -> float:
    """The share of the lesion that lies on the head; 1 for an empty mask. InputError where mask and scan, or mask and meaning, cannot belong together."""
    if not lesion.any():
        return 1.0
    both, marked, tissue = (int(np.count_nonzero(mask)) for mask in (lesion & head, lesion, head))
    on_head, covered = both / marked, both / max(tissue, 1)
    if on_head < ON_TISSUE:
        found, expected = f"a mask of which {100 * on_head:.0f} % lies on the head or brain", f"at least {100 * ON_TISSUE:.0f} %"
        raise refuse(where, found=found, expected=expected, remedy="check that mask and scan belong together (insert: or move it with --shift-mm)")
    if covered > ALL_TISSUE:
        found, expected = f"a mask that covers {100 * covered:.0f} % of the head or brain", "healthy tissue around the lesion"
        raise refuse(where, found=found, expected=expected, remedy="give the lesion's mask, not the brain's")
    return on_head


def _refuse_contradictions(wish: Wish) -> None:
    given = [flag for flag, value in (("--mask", wish.mask), ("--from-mask-of", wish.from_mask_of), ("--size-mm", wish.size_mm)) if value is not None]
    if len(given) > 1:
        raise refuse(" and ".join(given), found="several sources for the mask", expected="one of them", remedy="leave the others out")
    if wish.size_mm is not None and wish.at is None:
        raise refuse("--size-mm", found="a size without a place", expected="--at X Y Z with it", remedy="give the point in world mm")
    if wish.at is not None and wish.size_mm is None and wish.from_mask_of is None:
        raise refuse("--at", found="a place without a lesion", expected="--size-mm D or --from-mask-of DIR with it", remedy="give the diameter in mm")
    numbers = {"--extent-mm": (wish.extent_mm,), "--shift-mm": wish.shift_mm, "--at": wish.at or (), "--size-mm": (wish.size_mm or 0.0,)}
    for flag, values in numbers.items():
        if not all(abs(value) <= FAR_MM for value in values):  # NaN is not either
            found = " ".join(f"{value:g}" for value in values) + ("" if np.isfinite(values).all() else ", which is not finite")
            raise refuse(flag, found=found, expected=f"millimetres, up to {FAR_MM:g}", remedy="give a number in mm")


def _asked(scan: Scan, wish: Wish, old: Mask) -> tuple[Mask, dict[str, Any]]:
    if wish.mask is not None:
        return read_mask(wish.mask, scan), {"kind": "given", "mask": str(wish.mask), "sha256": file_sha256(wish.mask)}
    if wish.from_mask_of is not None:
        return _borrowed(scan, wish.from_mask_of, wish.at)
    if wish.at is not None and wish.size_mm is not None:
        try:
            new = ball(scan.shape, scan.affine, wish.at, wish.size_mm)
        except InputError as error:
            raise InputError(replace(error.faults[0], where=f"{scan.name}: --at / --size-mm")) from None
        _refuse_cut_ball(scan, wish.at, wish.size_mm)
        return new, {"kind": "ball", "mask": "--at", "at_mm": list(wish.at), "size_mm": wish.size_mm}
    if not old.any():
        where, what = (scan.name, "no mask") if scan.seg is None else (scan.seg.path, "an empty mask")
        remedy = "give --mask (insert: or --from-mask-of, or --at with --size-mm)"
        raise refuse(where, found=what, expected="the mask of a lesion, 1 on it", remedy=remedy)
    assert scan.seg is not None
    return old, {"kind": "own", "mask": str(scan.seg.path), "sha256": file_sha256(scan.seg.path)}


def _borrowed(scan: Scan, folder: Path, at: tuple[float, float, float] | None) -> tuple[Mask, dict[str, Any]]:
    """Another subject's lesion, by world coordinates; with `at`, its centroid on that point."""
    files = find_subject(folder)
    if files.seg is None:
        raise refuse(folder, found="no mask", expected="a subject with a seg file", remedy="give --from-mask-of another subject")
    other = read_volume(files.seg)
    labels, _ = canonical_labels(other.native(), files.seg)
    voxels = np.argwhere(labels > 0)
    if not len(voxels):
        raise refuse(files.seg, found="an empty mask", expected="a lesion", remedy="give --from-mask-of another subject")
    to_world = other.canonical_affine.copy()
    if at is not None:
        centroid = to_world[:3, :3] @ voxels.mean(axis=0) + to_world[:3, 3]
        to_world[:3, 3] += np.asarray(at) - centroid
    to_here = np.linalg.inv(scan.affine) @ to_world
    landed = voxels @ to_here[:3, :3].T + to_here[:3, 3]
    outside = float(((landed < -0.5) | (landed > np.array(scan.shape) - 0.5)).any(axis=1).mean())
    if outside > 0:
        raise refuse(
            f"{scan.name}: --from-mask-of {folder}",
            found=f"a lesion of which {100 * outside:.0f} % falls off this scan",
            expected="all of it inside",
            remedy="place it with --at X Y Z (world mm), or take another subject's",
        )
    back = np.linalg.inv(to_here)
    new = ndimage.affine_transform((labels > 0).astype(np.uint8), back[:3, :3], back[:3, 3], output_shape=scan.shape, order=0) > 0
    if not new.any():
        where, found = f"{scan.name}: --from-mask-of {folder}", "a lesion that falls between this scan's slices"
        raise refuse(where, found=found, expected="one at least a slice thick", remedy="take another subject's")
    return new, {"kind": "borrowed", "mask": str(files.seg), "sha256": file_sha256(files.seg), "from": files.name, "at_mm": list(at) if at else None}


def _refuse_cut_ball(scan: Scan, at: tuple[float, float, float], size_mm: float) -> None:
    centre = np.linalg.solve(scan.affine[:3, :3], np.asarray(at) - scan.affine[:3, 3])
    reach = size_mm / 2 / np.asarray(scan.spacing)
    # Within half a voxel beyond the last centre the scan still has tissue.
    if ((centre - reach < -0.5) | (centre + reach > np.array(scan.shape) - 0.5)).any():
        raise refuse(
            f"{scan.name}: --at {at[0]:g} {at[1]:g} {at[2]:g} --size-mm {size_mm:g}",
            found="a lesion that the edge of the scan cuts",
            expected="all of it inside",
            remedy="move it inwards or make it smaller",
        )


def _resized(mask: Mask, scan: Scan, extent_mm: float, name: str) -> Mask:
    """Grown or shrunk; refused where the scan's edge would cut what is grown, or nothing is left."""
    where = f"{scan.name}: --extent-mm {extent_mm:g}"
    if extent_mm < 0:
        smaller = resize(mask, scan.spacing, extent_mm)
        if not smaller.any():
            raise refuse(where, found=f"a lesion ({name}) that shrinks to nothing", expected="some of it left", remedy="shrink it by less")
        return smaller
    grown = resize(np.pad(mask, 1), scan.spacing, extent_mm)  # a lesion that goes over the edge is in the voxel beyond it
    if int(grown.sum()) != int(grown[1:-1, 1:-1, 1:-1].sum()):
        box = box_of(mask) or ()
        room = min(min(b.start, n - b.stop) * step for b, n, step in zip(box, mask.shape, scan.spacing, strict=True))
        expected = f"at most the {room:.1f} mm of room around it"
        raise refuse(where, found="a lesion that grows over the edge of the scan", expected=expected, remedy="grow it by less")
    return grown[1:-1, 1:-1, 1:-1]
