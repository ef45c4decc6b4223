"""Sampled masks: exact sizes, allowed places, no shape lost for its size, and the same masks from the same generator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import ndimage, stats

from pathosyn.config import Geometry
from pathosyn.data import sampler
from pathosyn.data.ground import Ground, Grounds, brain, dark, in_box
from pathosyn.data.masks import blend_map
from pathosyn.data.phantom import make_phantoms
from pathosyn.data.prepare import prepare
from pathosyn.data.sampler import PriorMap, moved, prior, resized, sample, sample_on, windows_for
from pathosyn.data.shapes import CELLS, Bank, Shape, bank_of, changed, in_one_piece, lowest, margin_of, pieces, side_for, signed_distance, smooth_field
from pathosyn.data.slices import Slices
from pathosyn.data.windows import as_table, cut
from pathosyn.errors import InputError

GEOMETRY = Geometry()
Y, X = np.meshgrid(np.arange(160), np.arange(140), indexing="ij")
FLAT = PriorMap(np.ones((sampler.HEIGHTS, CELLS, CELLS)))


def disk(radius: float, y: float = 80, x: float = 70) -> np.ndarray:
    return (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def shape_of(mask: np.ndarray, subject: str = "a") -> Shape:
    n = int(mask.sum())
    return Shape(signed_distance(mask, margin_of(n)), n, float(n), subject, 0, 0.5, {})


def ground(**fields: object) -> Ground:
    """A brain-extracted head, a disk of 60 pixels, with two ventricles."""
    flair = np.where(disk(8, 80, 58) | disk(8, 80, 82), -3.0, 0.0).astype(np.float32)
    return Ground(**{"images": {"flair": flair}, "head": disk(60), "taken": np.zeros(Y.shape, bool), "height": 0.5, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sampler")
    make_phantoms(root / "scans", subjects=4, seed=1, slices=6, size_px=(120, 140))
    prepare([root / "scans"], root / "slices.h5", fractions=(0.75, 0.25, 0), workers=0, progress=False)
    return root / "slices.h5"


@pytest.fixture(scope="module")
def slices(path: Path) -> Slices:
    return Slices(path, "train")


@pytest.fixture(scope="module")
def bank(slices: Slices) -> Bank:
    return bank_of(slices)


def test_a_bank_holds_every_piece_of_the_training_masks(slices: Slices, bank: Bank) -> None:
    with h5py.File(slices.path, "r") as file:
        masks = {name: file["subjects"][name]["seg"][()] > 0 for name in slices.subjects}
    sizes = sorted(int(piece.sum()) for mask in masks.values() for plane in mask for piece in pieces(plane))
    assert sorted(shape.pixels for shape in bank.shapes) == sizes and len(sizes) > 6
    assert all((shape.sdf < 0).sum() == shape.pixels and shape.subject in slices.subjects for shape in bank.shapes)
    assert bank.areas_mm2.tolist() == [shape.pixels * slices.geometry.grid_mm**2 for shape in bank.shapes]


def test_shapes_come_from_training_subjects_only(path: Path) -> None:
    with pytest.raises(InputError, match="validation"):
        bank_of(Slices(path, "validation"))


def test_crumbs_are_no_shapes() -> None:
    two = [disk(4, 120, 20), disk(10)]
    assert sorted(int(piece.sum()) for piece in pieces(two[0] | two[1] | disk(2, 20, 20))) == [int(mask.sum()) for mask in two]


def test_the_signed_distance_of_a_disk() -> None:
    sdf = signed_distance(disk(20), 9)
    middle = (sdf.shape[0] - 1) / 2
    y, x = np.meshgrid(*[np.arange(sdf.shape[0]) - middle] * 2, indexing="ij")
    assert np.abs(sdf - (np.hypot(y, x) - 20)).max() < 1.0
    assert sdf[0].min() > 8


def test_a_turn_by_a_right_angle_and_a_mirror_are_exact() -> None:
    sdf = signed_distance(np.tri(9, 9, -2, dtype=bool) | np.eye(9, dtype=bool), 4)
    still = np.zeros((2, *sdf.shape))
    assert np.allclose(changed(sdf, angle=np.pi / 2, mirrored=False, shift=still), np.rot90(sdf, -1), atol=1e-4)
    assert np.allclose(changed(sdf, angle=0.0, mirrored=True, shift=still), sdf[:, ::-1])
    assert side_for(sdf) == int(np.ceil(np.sqrt(2) * sdf.shape[0]))


def test_a_level_set_has_exactly_the_pixels_that_are_asked_for() -> None:
    field = np.zeros((5, 5))  # all equal: any level has 0 or 25
    assert lowest(field, 7).sum() == 7
    field[:3] = np.inf
    with pytest.raises(ValueError, match="fewer than 11"):
        lowest(field, 11)


def test_a_smooth_field_has_unit_power_and_the_width_that_is_asked_for() -> None:
    fields = np.stack([smooth_field(np.random.default_rng(i), 64, 4.0) for i in range(40)])
    assert abs((fields**2).mean() - 1) < 0.1
    assert abs((fields[:, :, 8:] * fields[:, :, :-8]).mean() - np.exp(-(8**2) / (4 * 4.0**2))) < 0.1


def test_a_sampled_mask_has_its_shapes_size_and_lies_where_it_may() -> None:
    for seed in range(12):
        taken = [disk(38), disk(20, 55, 45), disk(20, 55, 45)][seed % 3]
        here = ground(taken=taken)
        shape = shape_of([disk(6), disk(14), disk(18) & ~disk(12, 70, 60)][seed % 3])
        made = sample(FLAT, here, GEOMETRY, np.random.default_rng(seed), shape)
        assert made is not None and made.mask.sum() == shape.pixels == made.pixels
        assert not (made.mask & (~here.head | ~here.tissue | here.fluid)).any()
        assert not ((blend_map(made.mask, (1.0, 1.0), GEOMETRY) > 0) & taken).any(), "its support keeps off the own lesion's"
        assert in_one_piece(made.mask, sampler.WHOLE)
        assert np.allclose(made.centre, [v[made.mask].mean() for v in (Y, X)])


def test_the_same_shape_twice_is_not_the_same_mask() -> None:
    shape = shape_of(disk(16))
    made = [sample(FLAT, ground(), GEOMETRY, np.random.default_rng(seed), shape) for seed in range(2)]
    assert made[0] is not None and made[1] is not None
    own = [m.mask[ndimage.find_objects(m.mask.astype(int))[0]] for m in made]
    assert not np.array_equal(*own) and made[0].elastic_px > 0.5


def test_what_has_no_room_is_given_up_and_not_made_smaller() -> None:
    shape = shape_of(disk(30))
    assert sample(FLAT, ground(head=disk(29), images={}), GEOMETRY, np.random.default_rng(0), shape) is None
    assert sample(FLAT, ground(taken=disk(40)), GEOMETRY, np.random.default_rng(0), shape) is None
    bank = Bank((shape,), (), 1.0)
    number, found = sample_on(bank, FLAT, [ground(taken=disk(40)), ground()], GEOMETRY, np.random.default_rng(0))
    assert number == 1 and found.pixels == shape.pixels, "the next slice has room"
    assert sample_on(bank, FLAT, [ground(taken=disk(40))], GEOMETRY, np.random.default_rng(0)) == (None, shape)


def test_masks_lie_where_lesions_lie() -> None:
    density = np.full((sampler.HEIGHTS, CELLS, CELLS), 0.01)
    density[:, : CELLS // 2, CELLS // 2 :] = 1.0
    made = [sample(PriorMap(density), ground(), GEOMETRY, np.random.default_rng(i), shape_of(disk(5))) for i in range(30)]
    inside = [m is not None and m.centre[0] < 80 and m.centre[1] > 70 for m in made]
    assert np.mean(inside) > 0.9


def test_large_masks_seldom_lie_across_the_middle() -> None:
    made = [sample(FLAT, ground(images={}), GEOMETRY, np.random.default_rng(i), shape_of(disk(12))) for i in range(30)]
    assert np.mean([m is not None and abs(m.centre[1] - 70) > 9 for m in made]) > 0.85  # of all places 70 %


def test_a_prior_counts_subjects_alike_and_both_sides_as_one(bank: Bank) -> None:
    places = prior(bank)
    assert np.allclose(places.density, places.density[:, :, ::-1]) and np.allclose(places.density.mean(axis=(1, 2)), 1)
    twice = Bank(bank.shapes, (*bank.spots, *(s for s in bank.spots if s.subject == bank.spots[0].subject)), 1.0)
    assert np.allclose(prior(twice).density, places.density)
    over = places.over(disk(40), 0.5)
    assert (over[~disk(40)] == 0).all() and (over[disk(40)] > 0).all()


def test_sizes_are_kept(slices: Slices, bank: Bank) -> None:
    """The areas of what is sampled are those of the bank: nothing is lost for its size."""
    rng, grounds, places = np.random.default_rng(0), Grounds(slices), prior(bank)
    sizes = []
    for _ in range(100):
        some = [grounds.of(int(n), int(z)) for n, z in zip(rng.integers(3, size=3), rng.integers(6, size=3), strict=True)]
        number, found = sample_on(bank, places, some, slices.geometry, rng)
        if number is not None:
            sizes.append(found.pixels)
    assert len(sizes) >= 95
    assert stats.ks_2samp(sizes, [shape.pixels for shape in bank.shapes]).pvalue > 0.05


def test_the_same_generator_gives_the_same_mask_in_another_process_without_torch() -> None:
    made = sample(FLAT, ground(), GEOMETRY, np.random.default_rng(4), shape_of(disk(11)))
    assert made is not None
    code = "import sys; sys.path.insert(0, sys.argv[1]); import pathosyn.data.sampler; print('torch' in sys.modules)\nimport test_sampler as t, numpy as np\n"
    code += "m = t.sample(t.FLAT, t.ground(), t.GEOMETRY, np.random.default_rng(4), t.shape_of(t.disk(11)))\nprint(np.flatnonzero(m.mask).tolist())"
    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", str(np.flatnonzero(made.mask).tolist())]


def test_a_brain_is_told_from_its_skull() -> None:
    inside, bone = disk(45), disk(50) & ~disk(45)
    images = {"flair": np.where(bone, -2.0, np.where(disk(60) & ~disk(50), 2.0, np.where(disk(8), -2.0, 0.0))).astype(np.float32)}
    found = brain(images, disk(60), skull=True)
    assert (found & ~disk(46)).sum() == 0 and (found & inside).sum() > 0.97 * inside.sum(), "the ventricle is filled"
    assert (dark(images, disk(60)) == (bone | disk(8))).all()
    assert not brain({"flair": np.zeros(Y.shape, np.float32)}, disk(60), skull=True).any(), "a skull that cannot be seen: no brain"
    assert (brain({"t2": np.zeros(Y.shape, np.float32)}, disk(60), skull=False) == disk(60)).all()


def test_box_coordinates_run_from_edge_to_edge() -> None:
    tissue = np.zeros((20, 30), bool)
    tissue[4:14, 10:14] = True
    v, u = in_box(tissue)
    assert np.allclose([v[4, 0], v[13, 0], u[0, 10], u[0, 13]], [-0.9, 0.9, -0.75, 0.75])


def test_moved_and_resized_stay_on_the_head() -> None:
    mask, head, spacing = disk(10, 80, 100), disk(60), (1.0, 1.0)
    there = moved(mask, (-5.0, -20.0), spacing, head)
    assert there is not None and np.array_equal(there, disk(10, 75, 80))
    assert moved(mask, (0.0, 25.0), spacing, head) is None and moved(mask, (0.0, 500.0), spacing, head) is None
    larger, smaller = resized(mask, 25.0, spacing, head), resized(mask, -3.0, spacing, head)
    assert larger is not None and smaller is not None
    assert not (larger & ~head).any() and (mask & ~larger).sum() == 0 and smaller.sum() < mask.sum()
    assert resized(mask, -15.0, spacing, head) is None


def test_windows_are_those_that_prepare_makes(slices: Slices) -> None:
    """Around a real mask of one slice: the same windows with the same lesion pixels, and S is 1 on the lesion, 0 off the head."""
    most = slices.windows[int(np.argmax(slices.windows["lesion_pixels"]))]
    number, z = int(most["subject"]), int(most["z"])
    with h5py.File(slices.path, "r") as file:
        group = file["subjects"][slices.subjects[number]]
        mask, head = group["seg"][z] > 0, group["foreground"][z] > 0
    made = windows_for(mask, head, slices.geometry, z=z, origin=slices.origin_of(number)[1:], full=slices.full[number])
    stored = slices.windows[(slices.windows["subject"] == number) & (slices.windows["z"] == z)]
    volume = np.zeros((z + 1, *mask.shape), bool)
    volume[z] = mask
    assert sorted(map(list, as_table([p.window for p in made], volume).tolist())) == sorted([int(v) for v in list(row)[1:]] for row in stored)
    for placed in made:
        on = cut((head | mask)[None], placed.window, mode="zero")[0]
        assert (placed.S[placed.m > 0] == 1).all() and (placed.S[~on] == 0).all()
    assert windows_for(np.zeros_like(mask), head, slices.geometry) == []


def test_the_blend_map_ends_with_the_head_but_not_before_the_lesion() -> None:
    mask, head = disk(10), disk(60) & (X < 76)
    [(window, m, blend)] = windows_for(mask, head, GEOMETRY)
    off = cut(X >= 76, window, mode="zero")
    assert m.sum() == mask.sum() and (blend[m > 0] == 1).all()
    assert (blend[off & (m == 0)] == 0).all() and (blend[~off & (m == 0)] > 0).any()
