"""Batches from slices.h5: the right pixels, pure in (seed, step), holes on healthy tissue."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pathosyn.data.holes import outline, spot
from pathosyn.data.phantom import make_phantoms
from pathosyn.data.prepare import prepare
from pathosyn.data.slices import Slices
from pathosyn.data.windows import Window, cut
from pathosyn.errors import InputError
from pathosyn.types import LesionBatch

OPTIONS = {"seed": 3, "batch_pixels": 6 * 64**2, "healthy": 0.5}


@pytest.fixture(scope="module")
def path(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slices") / "slices.h5"
    prepare([tiny_cohort], out, fractions=(1, 0, 0), workers=0, progress=False)
    return out


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    """Heads large enough for holes of every size."""
    root = tmp_path_factory.mktemp("roomy")
    make_phantoms(root / "scans", subjects=3, seed=1, slices=5, size_px=(120, 140), healthy=1)
    prepare([root / "scans"], root / "slices.h5", fractions=(1, 0, 0), workers=0, progress=False)
    return Slices(root / "slices.h5", "train")


def same(a: LesionBatch, b: LesionBatch) -> bool:
    tensors = all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("x", "m", "S", "x_ph", "present", "healthy"))
    return tensors and a.subject == b.subject and a.z == b.z


def test_a_hole_is_placed_in_the_coordinates_of_the_whole_grid(roomy: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crop's rows and columns, not its slices, say where a head lies."""
    given = []

    def place(*args: object, **options: object) -> tuple[int, int, int, int] | None:
        given.append((options["origin"], options["full"]))
        return spot(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("pathosyn.data.holes.spot", place)
    roomy.healthy([np.random.default_rng(i) for i in range(6)], next(iter(roomy.sides)))
    with h5py.File(roomy.path, "r") as file:
        crops = {tuple(group.attrs["origin"]): tuple(group.attrs["full_shape"]) for group in file["subjects"].values()}
    assert any(z != y for z, y, _ in crops), "or the test sees no difference"
    assert given and all(any(origin == where[1:] and full == shape[1:] for where, shape in crops.items()) for origin, full in given)
    assert [roomy.origin_of(n) for n in range(len(roomy.subjects))] == _origins(roomy)


def _origins(slices: Slices) -> list[tuple[int, ...]]:
    with h5py.File(slices.path, "r") as file:
        return [tuple(int(n) for n in file["subjects"][name].attrs["origin"]) for name in slices.subjects]


def test_lesion_windows_are_the_stored_pixels(path: Path) -> None:
    slices = Slices(path, "train")
    assert sum(slices.sides.values()) == len(slices.windows) > 0
    with h5py.File(path, "r") as file:
        for row, (number, z, y, x, side, pixels) in enumerate(slices.windows):
            batch = slices.lesion([row])
            group = file["subjects"][slices.subjects[number]]
            window = Window(int(z), int(y), int(x), int(side))
            assert torch.equal(batch.x[0], torch.from_numpy(cut(group["image"][z], window).astype(np.float32)))
            assert torch.equal(batch.m[0, 0], torch.from_numpy((cut(group["seg"][z], window, mode="zero") > 0).astype(np.float32)))
            assert batch.m.sum() == pixels
            of_subject = [int(other["lesion_pixels"]) for other in slices.windows if other["subject"] == number]
            assert batch.largest is not None and batch.largest.tolist() == [max(of_subject)]
            blend = np.zeros(group["seg"].shape, np.float32)
            blend.reshape(-1)[group["support_index"][()]] = group["support_blend"]
            assert torch.equal(batch.S[0, 0], torch.from_numpy(cut(blend[z], window, mode="zero")))
            target = np.ascontiguousarray(group["image"][()].transpose(0, 2, 3, 1))
            target.reshape(-1, target.shape[-1])[group["support_index"][()]] = group["support_inp"]
            target = cut(target[z].transpose(2, 0, 1), window).astype(np.float32)
            assert torch.equal(batch.x_ph[0], torch.where(batch.S[0] > 0, torch.from_numpy(target), batch.x[0]))
            assert (batch.subject, batch.z, batch.healthy.tolist()) == ([group.name.split("/")[-1]], [int(z)], [False])
            assert batch.present[0].tolist() == group.attrs["present"].tolist()


def test_target_differs_from_the_image_on_the_support_only(path: Path) -> None:
    slices = Slices(path, "train")
    batch = slices.lesion([0])
    outside = batch.S == 0
    assert torch.equal((batch.x * outside), (batch.x_ph * outside))
    assert not torch.equal(batch.x, batch.x_ph)
    assert (batch.S[batch.m > 0] == 1).all()


def test_contrasts_are_chosen_and_ordered(path: Path) -> None:
    every, some = Slices(path, "train"), Slices(path, "train", contrasts=("flair", "t1ce"))
    a, b = every.lesion([1]), some.lesion([1])
    for name in ("x", "x_ph", "present"):
        assert torch.equal(getattr(a, name)[:, [3, 1]], getattr(b, name))


def test_an_absent_contrast_stays_zero(path: Path) -> None:
    slices = Slices(path, "train")
    seen = 0
    for step in range(12):
        batch = slices.draw(step, **OPTIONS)
        absent = ~batch.present
        seen += int(absent.sum())
        assert not batch.x[absent].any()
        assert not batch.x_ph[absent].any()
    assert seen


def test_draw_is_pure_in_seed_and_step(path: Path) -> None:
    slices = Slices(path, "train")
    batches = [slices.draw(step, **OPTIONS) for step in range(4)]
    other = Slices(path, "train")
    for step in (3, 0, 2, 1):
        assert same(other.draw(step, **OPTIONS), batches[step])
    assert not same(batches[0], batches[1])
    assert not same(slices.draw(0, **{**OPTIONS, "seed": 4}), batches[0])


def test_seed_and_step_both_choose_everything(roomy: Slices) -> None:
    options = {"batch_pixels": 30000, "healthy": 0.0}
    chosen = [[(b.subject, b.z) for b in (roomy.draw(step, seed=seed, **options) for step in range(5))] for seed in (0, 1)]
    assert chosen[0] != chosen[1]
    first = [roomy.draw(step, seed=0, batch_pixels=30000, healthy=1.0) for step in range(8)]
    places = {(b.subject[0], b.z[0], float(b.x[0].mean())) for b in first}
    assert len(places) > 6


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_draw_the_same(path: Path, method: str) -> None:
    slices = Slices(path, "train")
    here = slices.draw(1, **OPTIONS)  # opened here before it goes to the worker
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        assert pool.submit(_numbers, pickle.dumps(slices)).result() == [float(here.x.sum()), float(here.S.sum())]
    assert same(slices.draw(1, **OPTIONS), here)


def _numbers(pickled: bytes) -> list[float]:
    torch.set_num_threads(1)
    batch = pickle.loads(pickled).draw(1, **OPTIONS)
    return [float(batch.x.sum()), float(batch.S.sum())]


def test_batches_have_the_size_asked_for(path: Path) -> None:
    slices = Slices(path, "train")
    assert slices.batch_size(64, 6 * 64**2) == 6
    assert slices.batch_size(64, 100) == 1
    held = {1.4: 1, 1.6: 2, 2.9: 2, 3.5: 4, 7.1: 8, 16.0: 16, 20.4: 20}
    assert {windows: slices.batch_size(64, round(windows * 64**2)) for windows in held} == held, "two processes share them evenly"
    assert slices.batch_size(64, 6 * 64**2, world_size=4) == 6
    assert slices.batch_size(64, 2 * 64**2, world_size=4) == 4, "none may be idle"


def test_the_processes_share_one_batch(path: Path) -> None:
    slices = Slices(path, "train")
    whole = slices.draw(1, **OPTIONS)
    shares = [slices.draw(1, **OPTIONS, rank=rank, world_size=4) for rank in range(4)]
    assert sum(map(len, shares)) == len(whole) > 3 and len({len(share) for share in shares}) == 2, "unevenly"
    assert all(same(share, whole.shard(rank, 4)) for rank, share in enumerate(shares))


def test_every_window_is_drawn_as_often_as_any_other(roomy: Slices) -> None:
    """Sides are weighted by windows per batch: the share of windows of a side equals its share of the table."""
    assert len(roomy.sides) > 1
    drawn = dict.fromkeys(roomy.sides, 0)
    for step in range(300):
        batch = roomy.draw(step, seed=0, batch_pixels=40000, healthy=0.0)
        drawn[batch.x.shape[-1]] += len(batch)
    total = sum(drawn.values())
    for side, count in roomy.sides.items():
        assert drawn[side] / total == pytest.approx(count / len(roomy.windows), abs=0.12)


def test_share_of_holes_and_the_jitter(roomy: Slices) -> None:
    none, every = (roomy.draw(0, seed=0, batch_pixels=30000, healthy=share) for share in (0.0, 1.0))
    assert not none.healthy.any()
    assert every.healthy.all()
    share = np.mean([roomy.draw(step, seed=0, batch_pixels=30000, healthy=0.3).healthy.float().mean() for step in range(60)])
    assert share == pytest.approx(0.3, abs=0.1)


def test_mirror_and_jitter_are_undone_exactly(roomy: Slices) -> None:
    """Each drawn lesion is a stored window, mirrored or not, with one gain and offset a contrast."""
    mirrored = 0
    for step in range(6):
        batch = roomy.draw(step, seed=1, batch_pixels=20000, healthy=0.0)
        side = batch.x.shape[-1]
        for i in range(len(batch)):
            rows = [r for r, w in enumerate(roomy.windows) if w["side"] == side and roomy.subjects[w["subject"]] == batch.subject[i] and w["z"] == batch.z[i]]
            matches = [
                (original, flip)
                for original in (roomy.lesion([r]) for r in rows)
                for flip in (False, True)
                if torch.equal(_flip(original.S[0], flip), batch.S[i])
            ]
            original, flip = matches[0]
            mirrored += flip
            assert torch.equal(_flip(original.m[0], flip), batch.m[i])
            for channel in range(batch.x.shape[1]):
                x, target = (_flip(image[0, channel], flip).numpy().ravel() for image in (original.x, original.x_ph))
                gain, offset = np.polyfit(x, batch.x[i, channel].numpy().ravel(), 1)
                assert 0.9 <= gain <= 1.1
                assert -0.1 <= offset <= 0.1
                np.testing.assert_allclose(batch.x_ph[i, channel].numpy().ravel(), gain * target + offset, atol=1e-4)
    assert mirrored


def _flip(image: torch.Tensor, flip: bool) -> torch.Tensor:
    return image.flip(-1) if flip else image


def test_holes_lie_on_healthy_head(roomy: Slices) -> None:
    """The truth under a hole is the stored image; the hole keeps off the slice's own lesion and on the head."""
    with h5py.File(roomy.path, "r") as file:
        for side in roomy.sides:
            batch = roomy.healthy([np.random.default_rng(i) for i in range(12)], side)
            assert batch.healthy.all()
            assert torch.equal(batch.x, batch.x_ph)
            for i in range(len(batch)):
                group = file["subjects"][batch.subject[i]]
                hole = (batch.S[i, 0] > 0).numpy()
                assert hole.any()
                assert (batch.S[i][batch.m[i] > 0] == 1).all()
                y, x = _found(group["image"][batch.z[i]].astype(np.float32), batch.x[i].numpy())
                window = Window(0, y, x, side)
                own = np.zeros(group["seg"].shape, bool)
                own.reshape(-1)[group["support_index"][()]] = True
                assert not (cut(own[batch.z[i]], window, mode="zero") & hole).any()
                assert cut(group["foreground"][batch.z[i]], window, mode="zero")[hole].mean() >= 0.75


def _found(plane: np.ndarray, patch: np.ndarray) -> tuple[int, int]:
    """Where in the slice the window was cut."""
    side = patch.shape[-1]
    for y in range(-side + 1, plane.shape[-2]):
        for x in range(-side + 1, plane.shape[-1]):
            middle = y + side // 2, x + side // 2
            if (
                0 <= middle[0] < plane.shape[-2]
                and 0 <= middle[1] < plane.shape[-1]
                and np.array_equal(plane[:, middle[0], middle[1]], patch[:, side // 2, side // 2])
                and np.array_equal(cut(plane, Window(0, y, x, side)), patch)
            ):
                return y, x
    raise AssertionError("the window is nowhere in its slice")


def test_crowded_heads_still_give_holes(path: Path) -> None:
    """Tiny heads have no room for whole lesions: the outline shrinks until it fits, and still keeps its promises."""
    slices = Slices(path, "train")
    for side in slices.sides:
        batch = slices.healthy([np.random.default_rng(i) for i in range(8)], side)
        assert (batch.S.flatten(1).amax(1) > 0).all()
        assert batch.healthy.all()


def test_spot_refuses_what_does_not_fit() -> None:
    rng = np.random.default_rng(0)
    head = np.zeros((60, 60), bool)
    head[10:50, 10:50] = True
    hole = np.ones((11, 11), bool)
    options = {"centre": (0.5, 0.3), "side": 64, "origin": (5, 5), "full": (80, 80)}
    y, x, dy, dx = spot(rng, hole, head, None, lonely=True, **options)
    assert head[y + dy : y + dy + 11, x + dx : x + dx + 11].mean() >= 0.75
    # Centred on the hole, but kept in the uncropped slice, whose pixels run from -5 to 74 here.
    assert y == min(max(y + dy + 11 // 2 - 32, -5), 11)
    assert x == min(max(x + dx + 11 // 2 - 32, -5), 11)
    own = np.zeros_like(head)
    own[:, 30:] = True
    for _ in range(20):
        found = spot(rng, hole, head, own, lonely=False, **options)
        assert found is None or found[1] + found[3] + 11 <= 30
    assert spot(rng, hole, head, own, lonely=True, **options) is None
    assert spot(rng, hole, ~head & False, None, lonely=False, **options) is None
    assert spot(rng, np.ones((61, 3), bool), head, None, lonely=False, **options) is None


def test_plain_windows_are_drawn_as_they_are_stored(roomy: Slices) -> None:
    drawn, plain = roomy.draw(3, seed=1, batch_pixels=20000, healthy=0.0), roomy.plain().draw(3, seed=1, batch_pixels=20000, healthy=0.0)
    assert plain.subject == drawn.subject and plain.z == drawn.z and not torch.equal(plain.x, drawn.x)
    for i in range(len(plain)):
        stored = [roomy.lesion([r]) for r, w in enumerate(roomy.windows) if roomy.subjects[w["subject"]] == plain.subject[i] and w["z"] == plain.z[i]]
        assert any(torch.equal(one.x[0], plain.x[i]) and torch.equal(one.S[0], plain.S[i]) and torch.equal(one.m[0], plain.m[i]) for one in stored)


def test_outline_turns_mirrors_and_shrinks() -> None:
    m = np.zeros((8, 8), np.float32)
    m[2:4, 1:6] = 1
    blend = np.zeros_like(m)
    blend[1:5, 1:7] = 0.5 + m[1:5, 1:7] / 2
    shapes = set()
    for seed in range(30):
        mask, soft = outline(np.random.default_rng(seed), m, blend)
        shapes.add(soft.shape)
        assert (mask.sum(), soft.sum()) == (m.sum(), blend.sum())
        assert (soft[mask > 0] == 1).all()
    assert shapes == {(4, 6), (6, 4)}
    assert sorted(outline(np.random.default_rng(0), m, blend, step=2)[1].shape) == [2, 3]
    with pytest.raises(ValueError, match="without support"):
        outline(np.random.default_rng(0), m, 0 * blend)


def test_refusals(path: Path) -> None:
    with pytest.raises(InputError, match=r"no subject in test \(there are: 7 train\)"):
        Slices(path, "test")
    with pytest.raises(InputError, match="no adc"):
        Slices(path, "train", contrasts=("flair", "adc"))
    with pytest.raises(ValueError, match="one side"):
        slices = Slices(path, "train")
        object.__setattr__(slices, "windows", np.concatenate([slices.windows[:1], slices.windows[:1]]))
        slices.windows["side"][1] += 32
        slices.lesion([0, 1])


def test_only_healthy_subjects_have_nothing_to_draw(tiny_cohort: Path, tmp_path: Path) -> None:
    prepare([tiny_cohort / "healthy_000"], tmp_path / "h.h5", fractions=(1, 0, 0), progress=False)
    slices = Slices(tmp_path / "h.h5", ["train", "validation"])
    assert slices.sides == {}
    with pytest.raises(InputError, match="no lesion window in train or validation"):
        slices.draw(0, **OPTIONS)


def test_a_contrast_that_nobody_here_has(tiny_cohort: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    split.write_text("subject,partition\nphantom_004,validation\nphantom_000,train\n")
    prepare([tiny_cohort / "phantom_004", tiny_cohort / "phantom_000"], tmp_path / "s.h5", split=split, progress=False)
    with pytest.raises(InputError, match="no subject of validation with t1ce"):
        Slices(tmp_path / "s.h5", "validation")
    assert Slices(tmp_path / "s.h5", "validation", contrasts=("flair",)).contrasts == ("flair",)


def test_the_slice_of_a_hole_is_centred_as_whole_slices_are(roomy: Slices) -> None:
    """Else a method of whole slices would see heads with a lesion in one place and heads without one in another."""
    side = 160
    batch = roomy.whole(side).healthy([np.random.default_rng(i) for i in range(4)], side)
    for b in range(4):
        number = roomy.subjects.index(batch.subject[b])
        plane, _ = roomy.plane(number, batch.z[b])
        top, left = ((plane.shape[axis] - side) // 2 for axis in (1, 2))
        assert np.array_equal(batch.x[b, :, -top : plane.shape[1] - top, -left : plane.shape[2] - left].numpy(), plane)
