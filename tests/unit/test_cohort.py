"""A cohort's work: shared by processes, gone on with after an interruption, announced; whole slices, and whose lesion a row says it has."""

from __future__ import annotations

import hashlib
import json
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from pathosyn.checkpoint import Loaded, Provenance
from pathosyn.cohort import drawing, scenes
from pathosyn.cohort.placing import Wish
from pathosyn.config import Config, default
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.data.windows import Window, cut, paste
from pathosyn.errors import InputError
from pathosyn.generate import generate as run
from pathosyn.protocol import Method
from pathosyn.types import Controls, LesionBatch, Synthesis

cohort = import_module("pathosyn.generate")
VALIDATION = ("phantom_000", "phantom_001")


@pytest.fixture(scope="module")
def data(prepared_cohort: Callable[..., Path]) -> Path:
    names = [f"phantom_00{n}" for n in range(6)]
    return prepared_cohort({"validation": [*names[:2], "healthy_000"], "train": names[2:]})


@pytest.fixture(scope="module")
def loaded(make_method: Callable[..., Any]) -> Loaded:
    method = make_method(default(), steps=2).eval().requires_grad_(False)
    method.r_max.fill_(3.0)
    return Loaded(method, method.config, Provenance(subjects={"train": ["phantom_003"]}), Path("weights.safetensors"), "s" * 64)


class Painted(Method):
    """Whole slices: each pixel says where it lies, and the lesion is 9 brighter."""

    whole = 192
    stages = ()

    def modules_of(self, player: str) -> tuple[()]:
        return ()

    def losses(self, batch: LesionBatch, **_: Any) -> dict[str, torch.Tensor]:
        return {}

    def __init__(self) -> None:
        super().__init__(Config(contrasts=("t1", "flair"), name="brain-ldm"))
        self.anchor = torch.nn.Linear(1, 1)

    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        ramp = torch.arange(self.whole, dtype=torch.float32).expand(self.whole, -1)
        x_sub = torch.stack([ramp, ramp.T]).expand(len(batch), -1, -1, -1) * 0.1
        r = 9.0 * controls.severity * batch.m.expand_as(x_sub)
        return Synthesis(x_sub + r, x_sub, r, batch.S, batch.m, [controls.seed] * len(batch))


@pytest.fixture
def painted() -> Loaded:
    method = Painted().requires_grad_(False)
    return Loaded(method, method.config, Provenance(), Path("painted.safetensors"), "p" * 64)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def draw(data: Path, out: Path, loaded: Loaded, **more: Any) -> Path:
    return run(data, out, loaded, per_subject=4, per_lesion=2, progress=False, **more)


# -- shared and gone on with ----------------------------------------------------------------------------------------------------------


def test_an_interrupted_call_goes_on_and_ends_the_same(
    data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scenes, "BATCH_PIXELS", 2 * 64**2)
    straight = digests(draw(data, tmp_path / "straight", loaded))
    real, calls = cohort._batch, []

    def cut_short(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(cohort, "_batch", cut_short)
    with pytest.raises(KeyboardInterrupt):
        draw(data, tmp_path / "set", loaded)
    assert not (tmp_path / "set").exists() and len(list((tmp_path / ".set.part").glob("batch-*"))) == 3
    run(data, tmp_path / "set", loaded, per_subject=4, per_lesion=2)
    assert len(calls) == 4 + (8 - 3), "what was there is not drawn again"
    assert "6 of 16 windows are there from before" in capsys.readouterr().err
    assert digests(tmp_path / "set") == straight and not (tmp_path / ".set.part").exists()


def test_a_call_that_fails_leaves_nothing(data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw(data, tmp_path / "set", loaded)
    assert not list(tmp_path.iterdir())


class Rank:
    """One of two processes, played in turn: the first opens the set, lets the other do its share, and finishes."""

    world_size, device = 2, "cpu"

    def __init__(self, global_rank: int, meanwhile: Callable[[], object]) -> None:
        self.global_rank, self.meanwhile = global_rank, meanwhile

    def barrier(self) -> None:
        self.meanwhile()
        self.meanwhile = lambda: None


def test_two_processes_make_the_same_set(data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "BATCH_PIXELS", 2 * 64**2)
    alone = digests(draw(data, tmp_path / "alone", loaded))
    real, drawn = cohort._batch, {0: 0, 1: 0}
    bar, totals = cohort.track, []
    monkeypatch.setattr(cohort, "track", lambda total, *given, **more: totals.append(total) or bar(total, *given, **more))
    turn = [0]

    def counted(*given: Any) -> Any:
        drawn[turn[0]] += 1
        return real(*given)

    def second() -> None:
        turn[0] = 1
        monkeypatch.setattr(cohort, "fabric_for", lambda *_, **__: Rank(1, lambda: None))
        draw(data, tmp_path / "set", loaded, devices=2)
        turn[0] = 0

    monkeypatch.setattr(cohort, "_batch", counted)
    monkeypatch.setattr(cohort, "fabric_for", lambda *_, **__: Rank(0, second))
    draw(data, tmp_path / "set", loaded, devices=2)
    assert drawn == {0: 4, 1: 4} and digests(tmp_path / "set") == alone
    assert totals == [8, 8], "each shows its own share"


def test_no_room_is_said_before_anything_is_drawn(data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cohort.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**5, 10**5))
    with pytest.raises(InputError, match="0 MB free"):
        draw(data, tmp_path / "set", loaded)
    assert not list(tmp_path.iterdir())


def test_what_is_to_come_is_announced(data: Path, loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data, tmp_path / "set", loaded, method="real", per_subject=4, per_lesion=2)
    assert "16 windows of 2 subjects, at most 1 MB" in capsys.readouterr().err


def test_masks_that_grow_are_announced_with_the_windows_that_they_may_need(
    data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = cohort._size
    monkeypatch.setattr(cohort, "_size", lambda *given: asked.append(real(*given)) or asked[-1])
    for extent_mm in (0.0, 1.0, 16.0, 17.0):  # windows of 64 pixels are the only kind here; what is larger is a multiple of 32
        wish = Wish(shift_mm=(2.0, 0.0), extent_mm=extent_mm)
        run(data, tmp_path / str(extent_mm), loaded, per_subject=3, wish=wish, progress=False)
    planes = asked[0] - 6 * 64**2 * 2 * 6
    assert [size - planes for size in asked] == [6 * side**2 * 2 * 6 for side in (64, 96, 96, 128)]


@pytest.mark.parametrize(
    ("method", "wish"),
    [
        ("pathosyn", Wish()),
        ("copy-paste", Wish()),
        ("conventional", Wish()),
        ("pathosyn", Wish(shift_mm=(2.0, 0.0))),
        ("pathosyn", Wish(masks="sampled", anatomy="other")),
    ],
)
def test_what_is_announced_holds_and_is_not_many_times_too_much(
    method: str, wish: Wish, data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = cohort._size
    if method == "conventional":  # whose windows are whole slices, which are no larger than a window here
        monkeypatch.setattr(scenes, "SIDES", 160)
    monkeypatch.setattr(cohort, "_size", lambda *given: asked.append(real(*given)) or asked[-1])
    found = SyntheticSet(run(data, tmp_path / "set", loaded, method=method, per_subject=3, wish=wish, progress=False))
    written = sum(array.nbytes // 2 for _, window in found.windows() for array in window.values())  # half precision
    written *= 6 / len(found.rows)  # as if each mask had found a place
    assert written <= asked[0] < 2.5 * written


# -- whole slices -----------------------------------------------------------------------------------------------------------------------


def test_windows_are_cut_where_the_scan_has_them(data: Path, painted: Loaded, tmp_path: Path) -> None:
    found, slices = SyntheticSet(draw(data, tmp_path / "set", painted, method="brain-ldm")), Slices(data, "validation", contrasts=("t1", "flair"))
    assert len(found.rows) == 16 and set(found.rows["plane"]) != {""}
    for row, window in found.windows():
        number, z, y, x, side, _ = (int(v) for v in slices.windows[int(row["row"])])
        place = Window(z, y, x, side)
        batch = slices.lesion([int(row["row"])])
        scan, _ = slices.plane(number, z)
        assert window["plane"].shape == scan.shape
        assert np.array_equal(window["m"], batch.m[0, 0].numpy()) and np.allclose(window["S"], batch.S[0, 0].numpy(), atol=1e-3)
        inside = cut(np.ones(scan.shape[1:], bool), place, mode="zero")
        assert np.allclose(window["x_hat"][:, inside], cut(window["plane"], place)[:, inside], atol=2e-2)
        assert np.allclose((window["x_hat"] - window["x_sub"])[:, window["m"] > 0], 9.0, atol=2e-2)
        # the left edge of the head's box, centred in 192 pixels
        left = (192 - scan.shape[2]) // 2 if scan.shape[2] % 2 == 0 else -((scan.shape[2] - 192) // 2)
        outside = window["plane"][0, :, 0][window["plane"][0, :, 0] < 9.0]
        assert np.allclose(outside, 0.1 * left, atol=2e-2)


def test_the_judge_of_the_whole_image_sees_all_of_a_drawn_slice(data: Path, painted: Loaded, tmp_path: Path) -> None:
    from pathosyn.evaluate import realism

    found = realism.pairs(data, [SyntheticSet(draw(data, tmp_path / "set", painted, method="brain-ldm"))], show=False)
    column = next(name for name in found.table if str(name).startswith("whole/"))
    background = next(name for name in found.table if str(name).startswith("background/"))
    for name in (column, background):
        assert not np.isclose(found.table[name][found.fake], found.table[name][~found.fake]).any(), name


def test_a_slice_that_is_too_large_for_the_method_is_refused(data: Path) -> None:
    slices = Slices(data, "validation")
    with pytest.raises(InputError, match="at most 32"):
        slices.whole(32)


def test_whole_slices_are_the_lesions_slices_once(data: Path) -> None:
    slices = Slices(data, "train")
    wholes = slices.whole(192)
    pairs = {(int(row["subject"]), int(row["z"])) for row in slices.windows}
    assert {(int(row["subject"]), int(row["z"])) for row in wholes.windows} == pairs and len(wholes.windows) == len(pairs)
    assert wholes.sides == {192: len(pairs)} and slices.sides == {64: len(slices.windows)}, "a copy"
    batch = wholes.lesion(range(len(pairs)))
    assert np.array_equal(batch.m.sum(dim=(1, 2, 3)).numpy(), wholes.windows["lesion_pixels"])


# -- whose ------------------------------------------------------------------------------------------------------------------------------


def test_labels_belong_to_the_lesion(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    """A drawn lesion has none, a real one its subject's, a pasted one its donor's."""
    graded = tmp_path / "graded.h5"
    graded.write_bytes(data.read_bytes())
    with h5py.File(graded, "r+") as file:
        for number, group in enumerate(file["subjects"].values()):
            group.attrs["attributes"] = json.dumps({"grade": number})
    drawn, real, pasted = (SyntheticSet(draw(graded, tmp_path / name, loaded, method=name)).rows for name in ("pathosyn", "real", "copy-paste"))
    order = sorted(["healthy_000", *(f"phantom_00{n}" for n in range(6))])
    assert set(drawn["labels"]) == {""} and set(drawn["donor"]) == {""}
    assert all(json.loads(row.labels) == {"grade": order.index(row.subject)} for row in real.itertuples())
    assert all(json.loads(row.labels) == {"grade": order.index(row.donor)} for row in pasted.itertuples()) and set(pasted["mask"]) == {"donor"}


def test_every_row_says_what_it_was_made_of(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    rows = SyntheticSet(draw(data, tmp_path / "set", loaded, severity=0.5, seed=7)).rows
    wanted = {"method": "pathosyn", "partition": "validation", "weights": "s" * 12, "severity": 0.5, "mask": "own"}
    assert all((rows[name] == value).all() for name, value in wanted.items())
    assert (rows["mask_subject"] == rows["subject"]).all() and (rows["mask_z"] == rows["z"]).all() and set(rows["replicate"]) == {0, 1}


@pytest.mark.parametrize("method", ["copy-paste", "permuted"])
def test_a_donors_mask_is_of_the_slice_that_is_named(method: str, data: Path, loaded: Loaded, tmp_path: Path) -> None:
    found, training = SyntheticSet(draw(data, tmp_path / "set", loaded, method=method)), Slices(data, "train", contrasts=("t1", "flair"))
    for row, window in found.windows():
        lent = (training.windows["subject"] == training.subjects.index(row["mask_subject"])) & (training.windows["z"] == row["mask_z"])
        masks = [training.lesion([int(n)]).m[0, 0].numpy() > 0 for n in np.flatnonzero(lent)]
        assert any(np.array_equal(window["m"] > 0, mask) for mask in masks)
    assert (found.rows["mask_z"] != found.rows["z"]).any()


@pytest.mark.parametrize("method", ["conventional", "none"])
def test_a_set_in_which_no_weights_have_a_part_names_none(method: str, data: Path, loaded: Loaded, tmp_path: Path) -> None:
    found = SyntheticSet(draw(data, tmp_path / "set", loaded, method=method))
    assert found.origin.weights == "" and not found.rows.get("weights", pd.Series(dtype=str)).astype(str).str.strip().any()


def test_severity_scales_what_is_drawn(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    sets = {s: dict(enumerate(w for _, w in SyntheticSet(draw(data, tmp_path / str(s), loaded, severity=s)).windows())) for s in (0.0, 1.0, 2.0)}
    moved = 0.0
    for i, healed in sets[0.0].items():
        once, twice = (sets[s][i]["x_hat"] - healed["x_hat"] for s in (1.0, 2.0))
        assert np.allclose(twice, 2 * once, atol=2e-2)
        moved = max(moved, float(np.abs(once).max()))
    assert moved > 0.5


def test_weights_of_another_method_are_refused_by_name(data: Path, loaded: Loaded, painted: Loaded, tmp_path: Path) -> None:
    for given, method, told in ((loaded, "vaegan", "vaegan with weights of pathosyn"), (painted, "pathosyn", "pathosyn with weights of brain-ldm")):
        with pytest.raises(InputError, match=told):
            draw(data, tmp_path / "set", given, method=method)
    with pytest.raises(InputError, match="hold no f_sub"):
        draw(data, tmp_path / "set", painted, method="copy-paste")
    with pytest.raises(InputError, match="weights of pathosyn"):
        _ = painted.method
    assert not list(tmp_path.iterdir())


def test_none_is_an_empty_set(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    assert len(SyntheticSet(draw(data, tmp_path / "set", loaded, method="none")).rows) == 0


def test_a_scene_of_another_slice_is_centred_alike(data: Path) -> None:
    """The same windows, once as the file's own slices and once as slices that were handed in."""
    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    scene = scenes.own(slices, [0, 3, 5])
    handed = replace(scene, planes=[scene.plane(slices, b) for b in range(3)])
    (own, places), (other, others) = (scenes.Wholes(slices, 192).of(each) for each in (scene, handed))
    assert places == others and torch.equal(own.x, other.x)
    for b, (window, place) in enumerate(zip(scene.windows, places, strict=True)):
        inside = Window(0, window.y - place.y, window.x - place.x, window.side)
        assert np.array_equal(cut(other.m[b, 0].numpy(), inside), scene.batch.m[b, 0].numpy())
        assert other.m[b].sum() == scene.batch.m[b].sum()


def test_the_drawn_window_lies_in_the_slice_that_was_handed_in(data: Path, loaded: Loaded) -> None:
    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    scene = scenes.own(slices, [0, 3])
    flat = [np.full_like(scene.plane(slices, b), 0.25) for b in range(2)]
    x = torch.stack([torch.from_numpy(cut(plane, window)) for plane, window in zip(flat, scene.windows, strict=True)])
    handed = replace(scene, planes=flat, batch=replace(scene.batch, x=x, healthy=torch.ones(2, dtype=torch.bool)))
    drawn = drawing.drawer("pathosyn", loaded, slices, None, None)(handed, Controls(seed=3))
    for b, (plane, window) in enumerate(zip(drawn.planes, drawn.windows, strict=True)):
        assert plane is not None and np.array_equal(cut(plane, window), drawn.x_hat[b].numpy())
        outside = np.ones(plane.shape[1:], bool)
        outside[max(window.y, 0) : window.y + window.side, max(window.x, 0) : window.x + window.side] = False
        assert (plane[:, outside] == 0.25).all() and not (drawn.x_hat[b] == 0.25).all()


# -- other masks ------------------------------------------------------------------------------------------------------------------------


def masks_on(found: SyntheticSet) -> list[tuple[Any, np.ndarray, np.ndarray]]:
    """Each row with its drawn slice and the mask on it."""
    rows = []
    for row, window in found.windows():
        mask = np.zeros(window["plane"].shape[1:], bool)
        paste(mask, window["m"] > 0, Window(0, int(row["y"]), int(row["x"]), int(row["side"])), window["m"] > 0)
        rows.append((row, window["plane"], mask))
    return rows


def test_a_moved_and_grown_mask_is_the_old_one_moved_and_grown(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    wish = Wish(shift_mm=(2.0, 1.0), extent_mm=1.0)
    found = SyntheticSet(run(data, tmp_path / "set", loaded, per_subject=2, wish=wish, progress=False))
    assert set(found.rows["mask"]) == {"moved and resized"} and (found.rows["row"] >= 0).all()
    for row, _, mask in masks_on(found):
        _, z, y, x, side, _ = (int(v) for v in slices.windows[int(row["row"])])
        old = np.zeros(mask.shape, bool)
        patch = slices.lesion([int(row["row"])]).m[0, 0].numpy() > 0
        paste(old, patch, Window(z, y, x, side), patch)
        centre, before = (np.argwhere(each).mean(axis=0) for each in (mask, old))
        assert np.allclose(centre - before, (-1.0, 2.0), atol=0.7) and mask.sum() > old.sum()


def test_the_old_lesion_is_gone_where_the_mask_went_away(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    """With a mask that is tiny what is left is the healed slice: far from the real lesion's values, and the scan's own beyond its support."""
    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    found = SyntheticSet(run(data, tmp_path / "set", loaded, per_subject=2, severity=0.0, wish=Wish(shift_mm=(2.0, 0.0)), progress=False))
    for row, plane, _ in masks_on(found):
        number, z = int(slices.windows["subject"][int(row["row"])]), int(row["z"])
        scan, _ = slices.plane(number, z)
        own = slices.head_and_own(number, z)[1]
        assert own is not None and np.array_equal(plane[:, ~own], scan[:, ~own]) and not np.allclose(plane[:, own], scan[:, own], atol=0.1)


@pytest.mark.parametrize("anatomy", ["own", "other", "healthy"])
def test_sampled_masks_lie_on_the_anatomy_that_was_asked_for(anatomy: Any, data: Path, loaded: Loaded, tmp_path: Path) -> None:
    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    wish = Wish(masks="sampled", anatomy=anatomy)
    found = SyntheticSet(run(data, tmp_path / "set", loaded, per_subject=2, wish=wish, progress=False))
    assert set(found.rows["mask"]) == {"sampled"} and set(found.rows["mask_subject"]) <= {f"phantom_00{n}" for n in range(2, 6)}
    lesions = {(int(row["subject"]), int(row["z"])) for row in slices.windows}
    sources = [slices.subjects[int(slices.windows["subject"][row])] for row in scenes.chosen(slices, 2)]
    for row, plane, mask in masks_on(found):
        number = slices.subjects.index(row["subject"])
        scan, head = slices.plane(number, int(row["z"]))
        own = slices.head_and_own(number, int(row["z"]))[1]
        assert mask.any() and head[mask].all() and (own is None or not (own & mask).any())
        assert not np.array_equal(plane[:, mask], scan[:, mask])
        if anatomy == "healthy":
            assert (number, int(row["z"])) not in lesions and row["row"] == -1
        else:
            source = slices.subjects[int(slices.windows["subject"][int(row["row"])])]
            assert source in sources and (source == row["subject"]) == (anatomy == "own")


def test_lesions_on_healthy_slices_are_not_judged(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    from pathosyn.evaluate import realism

    wish = Wish(masks="sampled", anatomy="healthy")
    found = SyntheticSet(run(data, tmp_path / "set", loaded, per_subject=1, wish=wish, progress=False))
    with pytest.raises(InputError, match="slices that have none"):
        realism.pairs(data, [found], show=False)


def test_moved_lesions_are_judged_where_they_lie(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    from pathosyn.evaluate import realism

    found = SyntheticSet(run(data, tmp_path / "set", loaded, per_subject=4, wish=Wish(shift_mm=(3.0, 0.0)), progress=False))
    pairs = realism.pairs(data, [found], show=False)
    assert len(pairs.table) and pairs.fake.sum() * 2 == len(pairs.fake)


@pytest.mark.parametrize(
    "wish, method, told",
    [
        (Wish(extent_mm=-30.0), "pathosyn", "no mask that found a place"),
        (Wish(shift_mm=(300.0, 0.0)), "pathosyn", "no mask that found a place"),
        (Wish(extent_mm=2.0), "copy-paste", "other masks than the scan's own"),
        (Wish(anatomy="other"), "pathosyn", "other with the scan's own masks"),
    ],
)
def test_wishes_that_cannot_be_are_told(wish: Wish, method: str, told: str, data: Path, loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        run(data, tmp_path / "set", loaded, method=method, per_subject=1, wish=wish, progress=False)
    assert not list(tmp_path.iterdir())


# -- conventional, and out ----------------------------------------------------------------------------------------------------------------


def test_conventional_augmentation_is_one_slice_each(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    found = SyntheticSet(draw(data, tmp_path / "set", loaded, method="conventional"))
    keys = list(zip(found.rows["subject"], found.rows["z"], found.rows["replicate"], strict=True))
    assert len(set(keys)) == len(keys) > 4 and set(found.rows["mask"]) == {"augmented"} and set(found.rows["donor"]) == {""}
    for row, window in found.windows():
        plane, _ = slices.plane(slices.subjects.index(row["subject"]), int(row["z"]))
        assert window["x_hat"].shape[-1] % 32 == 0 and window["x_hat"].shape[-1] >= max(plane.shape[1:])
        assert set(np.unique(window["m"])) <= {0.0, 1.0} and not np.allclose(window["x_hat"], window["x_hat"].mean())
    first, second = (found.rows["replicate"] == replicate for replicate in (0, 1))
    shapes = [window["m"] for _, window in found.windows()]
    assert any(not np.array_equal(shapes[a], shapes[b]) for a, b in zip(np.flatnonzero(first), np.flatnonzero(second), strict=True))


def pictures_of(data: Path, folder: Path) -> list[tuple[Any, Any]]:
    from pathosyn.export.slices import Source, drawn_cases, file_names, pictures

    drawn = SyntheticSet(folder)
    source = Source(Slices(data, drawn.origin.partition, contrasts=drawn.origin.contrasts), drawn, "x")
    cases = drawn_cases(source, file_names(source.slices.subjects))
    assert len({case.name for case in cases}) == len(cases)
    return list(pictures(source, cases, drawn.origin.contrasts))


def test_a_slice_drawn_whole_leaves_with_all_its_lesions(data: Path, painted: Loaded, tmp_path: Path) -> None:
    found = pictures_of(data, draw(data, tmp_path / "set", painted, method="brain-ldm"))
    assert len(found) >= 8 and any(picture.label.any() for _, picture in found)
    for case, picture in found:
        lesion = case.source.lesion(case.number, case.z)
        assert np.array_equal(picture.label, lesion) and (picture.image[:, lesion] >= 9.0).all()


def test_a_slice_with_a_sampled_mask_leaves_with_that_lesion_alone(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    wish = Wish(masks="sampled")
    folder = run(data, tmp_path / "set", loaded, per_subject=3, per_lesion=2, wish=wish, progress=False)
    by_row = {str(row["plane"]): mask for row, _, mask in masks_on(SyntheticSet(folder))}
    found = pictures_of(data, folder)
    assert len(found) == len(by_row)
    for case, picture in found:
        assert np.array_equal(picture.label, by_row[str(case.rows["plane"].iloc[0])])
        assert not (picture.label & case.source.lesion(case.number, case.z)).any()
        assert case.sources >= {case.subject, *case.rows["mask_subject"]}


def test_an_augmented_slice_leaves_with_its_own_mask(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    folder = draw(data, tmp_path / "set", loaded, method="conventional")
    masks = {}
    for row, window in SyntheticSet(folder).windows():
        plane = np.zeros(Slices(data, "validation").plane(Slices(data, "validation").subjects.index(row["subject"]), int(row["z"]))[1].shape, bool)
        paste(plane, window["m"] > 0, Window(0, int(row["y"]), int(row["x"]), int(row["side"])), np.ones(window["m"].shape, bool))
        masks[row["subject"], int(row["z"]), int(row["replicate"])] = plane
    for case, picture in pictures_of(data, folder):
        assert np.array_equal(picture.label, masks[case.subject, case.z, case.replicate])
