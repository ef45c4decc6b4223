"""Cohorts: which subjects may be drawn on, by whom and for what; the same windows in any batch; and judges on the finished sets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pathosyn.checkpoint import Loaded, Provenance
from pathosyn.cohort import drawing, scenes
from pathosyn.cohort.controls import CONTROLS, NEEDS_DONOR
from pathosyn.cohort.scenes import chosen
from pathosyn.config import default
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.errors import InputError
from pathosyn.generate import generate as run
from pathosyn.rng import seed_of
from pathosyn.training import monitor

cohort = import_module("pathosyn.generate")  # `from pathosyn import generate` is the function
DRAWN = ("pathosyn", *CONTROLS)

PARTITION = {"train": ("phantom_002", "phantom_004", "phantom_005"), "validation": ("phantom_000", "phantom_001", "phantom_003"), "test": ("healthy_000",)}


@pytest.fixture(scope="module")
def data(prepared_cohort: Callable[..., Path]) -> Path:
    return prepared_cohort(PARTITION)


@pytest.fixture(scope="module")
def loaded(make_method: Callable[..., Any]) -> Loaded:
    """Weights that have learned from the training subjects."""
    method = make_method(default(), steps=2).eval().requires_grad_(False)
    method.r_max.fill_(3.0)
    return Loaded(method, method.config, Provenance(subjects={"train": list(PARTITION["train"])}), Path("weights.safetensors"), "s" * 64)


@pytest.fixture(scope="module")
def sets(data: Path, loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SyntheticSet]:
    """One of every method on the validation subjects."""
    root = tmp_path_factory.mktemp("sets")
    return {name: SyntheticSet(run(data, root / name, loaded, method=name, per_subject=3, progress=False)) for name in DRAWN}


def refused(*given: object, **named: object) -> str:
    with pytest.raises(InputError) as caught:
        run(*given, progress=False, **named)  # type: ignore[arg-type]
    (fault,) = caught.value.faults
    return str(fault)


def same(a: SyntheticSet, b: SyntheticSet) -> bool:
    """The same windows, whatever their order in the file."""
    key = ["row", "replicate"]
    ours, theirs = ({tuple(row[key]): window for row, window in each.windows()} for each in (a, b))
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[k][name], theirs[k][name]) for k in ours for name in ours[k])


# -- refusals ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose, partition", [("train", "validation"), ("train", "test"), ("evaluate", "train")])
def test_a_purpose_that_does_not_fit_the_partition_is_refused(purpose: str, partition: str, data: Path, loaded: Loaded, tmp_path: Path) -> None:
    told = refused(data, tmp_path / "set", loaded, purpose=purpose, partition=partition)
    assert f"{purpose} with --partition {partition}" in told and not (tmp_path / "set").exists()


def test_an_unknown_method_is_refused_with_the_known_ones(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    told = refused(data, tmp_path / "set", loaded, method="gan")
    assert "'gan'" in told and all(name in told for name in cohort.METHODS)


def test_weights_that_saw_the_subjects_may_not_be_judged_on_them(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    saw = replace(loaded, provenance=Provenance(subjects={"train": ["phantom_001", "someone"], "validation": ["phantom_000"]}))
    told = refused(data, tmp_path / "set", saw)
    assert "1 of these subjects (phantom_001" in told and not (tmp_path / "set").exists()
    assert "learned" in refused(data, tmp_path / "set", saw, method="real"), "a control's substrate is of these weights too"


def test_weights_may_draw_training_sets_on_what_they_learned_from(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    found = SyntheticSet(run(data, tmp_path / "set", loaded, purpose="train", partition="train", per_subject=1, progress=False))
    assert set(found.rows["subject"]) == set(PARTITION["train"]) and (found.origin.purpose, found.origin.partition) == ("train", "train")


def test_data_without_these_subjects_or_contrasts_is_refused(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    assert "another split" in refused(data, tmp_path / "set", replace(loaded, config=replace(loaded.config, contrasts=("t1", "flair"))), partition="nobody")
    assert "no pd" in refused(data, tmp_path / "set", replace(loaded, config=replace(loaded.config, contrasts=("t1", "pd"))))


def test_subjects_without_a_lesion_are_refused(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    assert "lesion" in refused(data, tmp_path / "set", loaded, partition="test")


def test_a_folder_that_is_there_is_not_written_over(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("1")
    with pytest.raises(InputError):
        run(data, tmp_path / "thesis", loaded, method="real", per_subject=1, progress=False)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "1"


# -- what is drawn ----------------------------------------------------------------------------------------------------------------------


def test_a_set_says_where_its_windows_are_from(data: Path, loaded: Loaded, sets: dict[str, SyntheticSet]) -> None:
    from pathosyn.data.population import fingerprint

    slices = Slices(data, "validation", contrasts=("t1", "flair"))
    for name, found in sets.items():
        about = found.origin
        assert (about.method, about.purpose, about.partition, about.seed) == (name, "evaluate", "validation", 0)
        assert (about.contrasts, about.weights, about.data) == (("t1", "flair"), loaded.sha256, fingerprint(slices))
        assert sorted(found.rows["row"]) == sorted(chosen(slices, 3).tolist())
        for row, window in found.windows():
            number, z, y, x, side, _ = (int(v) for v in slices.windows[row["row"]])
            assert (row["subject"], row["z"], row["y"], row["x"]) == (slices.subjects[number], z, y, x)
            assert window["m"].shape == (side, side) and row["lesion_pixels"] == (window["m"] > 0).sum()


@pytest.mark.parametrize("name", DRAWN)
def test_the_scan_stays_beyond_the_supports(name: str, data: Path, sets: dict[str, SyntheticSet]) -> None:
    slices, changed = Slices(data, "validation", contrasts=("t1", "flair")), 0
    for row, window in sets[name].windows():
        batch = slices.lesion([int(row["row"])])
        outside = (window["S"] == 0) & (batch.S[0, 0].numpy() == 0)
        assert np.array_equal(window["x_hat"][:, outside], batch.x[0].numpy()[:, outside])
        changed += not np.array_equal(window["x_hat"], batch.x[0].numpy())
    assert (changed == 0) == (name == "real")


@pytest.mark.parametrize("name", NEEDS_DONOR)
def test_donors_are_training_subjects(name: str, sets: dict[str, SyntheticSet]) -> None:
    assert set(sets[name].rows["donor"]) <= set(PARTITION["train"])
    assert all((sets[other].rows["donor"] == "").all() for other in ("pathosyn", "real"))


def test_a_training_lesion_is_not_its_own_donor(data: Path, loaded: Loaded, tmp_path: Path) -> None:
    found = SyntheticSet(run(data, tmp_path / "set", loaded, method="copy-paste", purpose="train", partition="train", per_subject=2, progress=False))
    assert (found.rows["donor"] != found.rows["subject"]).all() and set(found.rows["donor"]) <= set(PARTITION["train"])


@pytest.mark.parametrize("name", ["pathosyn", "gaussian", "permuted"])
def test_the_batch_does_not_show(name: str, data: Path, loaded: Loaded, sets: dict[str, SyntheticSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One window at a time, the same windows to float16's rounding; a control to the bit."""
    monkeypatch.setattr(scenes, "BATCH_PIXELS", 1)
    alone = SyntheticSet(run(data, tmp_path / "set", loaded, method=name, per_subject=3, progress=False))
    assert alone.rows.equals(sets[name].rows), "also the places in the file"
    for (_, ours), (_, theirs) in zip(alone.windows(), sets[name].windows(), strict=True):
        for field in ours:
            assert np.allclose(ours[field], theirs[field], rtol=2e-3, atol=2e-3), field


def test_the_same_seed_draws_the_same_and_another_another(data: Path, loaded: Loaded, sets: dict[str, SyntheticSet], tmp_path: Path) -> None:
    again, other = (SyntheticSet(run(data, tmp_path / str(seed), loaded, per_subject=3, seed=seed, progress=False)) for seed in (0, 1))
    assert same(again, sets["pathosyn"]) and again.rows.equals(sets["pathosyn"].rows) and not same(other, sets["pathosyn"])


def test_replicates_differ_and_the_first_is_the_single_one(data: Path, loaded: Loaded, sets: dict[str, SyntheticSet], tmp_path: Path) -> None:
    found = SyntheticSet(run(data, tmp_path / "set", loaded, per_subject=3, per_lesion=2, progress=False))
    windows = {(int(row["row"]), int(row["replicate"])): window for row, window in found.windows()}
    for row, window in sets["pathosyn"].windows():
        first, second = (windows[int(row["row"]), replicate] for replicate in (0, 1))
        assert np.array_equal(first["x_hat"], window["x_hat"]) and np.array_equal(first["x_sub"], second["x_sub"])
        assert not np.array_equal(first["x_hat"], second["x_hat"])
    assert set(found.rows["seed"]) == {0, seed_of(0, 1)} and len(found.rows) == 2 * len(sets["pathosyn"].rows)


class Table:
    """What `chosen` reads of a Slices."""

    def __init__(self, *counts: int) -> None:
        self.windows = np.zeros(sum(counts), dtype=[("subject", np.int32)])
        self.windows["subject"] = np.repeat(np.arange(len(counts)), counts)


def test_chosen_spreads_evenly_over_each_subject() -> None:
    assert chosen(Table(10, 2, 1), 0).tolist() == list(range(13)), "0: all"  # type: ignore[arg-type]
    assert chosen(Table(10), 1).tolist() == [5] and chosen(Table(10), 2).tolist() == [2, 7]  # type: ignore[arg-type]
    assert chosen(Table(100), 4).tolist() == [12, 37, 62, 87], "the middles of equal stretches"  # type: ignore[arg-type]
    assert chosen(Table(3, 9), 3).tolist() == [0, 1, 2, 4, 7, 10] and chosen(Table(2), 5).tolist() == [0, 1]  # type: ignore[arg-type]
    assert chosen(Table(), 3).tolist() == []  # type: ignore[arg-type]
    for count in range(1, 40):
        for keep in range(1, 12):
            rows = chosen(Table(count), keep)  # type: ignore[arg-type]
            assert len(set(rows.tolist())) == min(count, keep)
            assert len(rows) < 2 or np.ptp(np.diff(rows)) <= 1


# -- judged -----------------------------------------------------------------------------------------------------------------------------


def test_real_against_real_and_every_background_is_a_coin(data: Path, sets: dict[str, SyntheticSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs that are equal to the bit are ties, whatever the judge has learned."""
    from pathosyn.evaluate import realism

    monkeypatch.setattr(realism, "SEEDS", 1)
    for name in ("real", "blurred", "copy-paste", "pathosyn"):
        found = realism.pairs(data, [sets[name]], show=False)
        assert found.fake.sum() * 2 == len(found.fake) == len(found.table) and found.judged.all()
        regions = realism.REGIONS if name == "real" else ["background"]
        for region in regions:
            interval, _ = realism.trees(found, region)
            assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5), (name, region)


def test_a_set_drawn_on_other_data_is_refused(data: Path, sets: dict[str, SyntheticSet]) -> None:
    from pathosyn.data.matching import matching

    assert matching(data, sets["real"]).subjects == list(PARTITION["validation"])
    sets["real"].origin, kept = replace(sets["real"].origin, data="0" * 64), sets["real"].origin
    try:
        with pytest.raises(InputError, match="drawn on other data"):
            matching(data, sets["real"])
    finally:
        sets["real"].origin = kept


def test_fluid_beyond_the_masks_stays_in_the_controls_too(loaded: Loaded, make_method: Callable[..., Any]) -> None:
    from pathosyn.types import LesionBatch

    m = torch.zeros(1, 1, 32, 32)
    m[..., 12:20, 12:20] = 1
    x = 0.01 * torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    x[:, :, :, :16] -= 3.0  # the left half is fluid, also under the lesion's left half
    x[:, 0, :4] = 5.0  # but for the uppermost rows, bright in T1
    batch = LesionBatch(x, m, m, x, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, dtype=torch.bool), ["a"], [0])
    pasted = torch.zeros_like(m)
    pasted[..., 24:30, 4:10] = 1
    found = drawing.stopped_at_fluid(loaded.any_method, batch, torch.full_like(x, 9.0), pasted)
    drawn = (found == 9).all(dim=1)[0]
    assert bool(drawn[:, 16:].all()) and bool(drawn[12:20, 12:16].all()) and bool(drawn[24:30, 4:10].all()) and bool(drawn[:4].all())
    wet = torch.ones(32, 16, dtype=torch.bool)
    wet[:4], wet[12:20, 12:16], wet[24:30, 4:10] = False, False, False
    assert torch.equal(found[0, :, :, :16][:, wet], x[0, :, :, :16][:, wet])
    off = make_method(default(), stop_at_fluid=False)
    assert bool((drawing.stopped_at_fluid(off, batch, torch.full_like(x, 9.0), pasted) == 9).all())


@pytest.mark.parametrize("stops", [True, False])
def test_no_contrast_is_drawn_where_it_holds_no_signal(make_method: Callable[..., Any], stops: bool) -> None:
    from pathosyn.types import LesionBatch

    m = torch.zeros(1, 1, 32, 32)
    m[..., 12:20, 12:20] = 1
    x = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    x[:, 0, :, 16:] = -2.0  # the field of view of the first contrast ends inside the lesion
    x[:, 1, 15, 15] = -2.0  # a dark pixel of the second is tissue
    batch = LesionBatch(x, m, m, x, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, dtype=torch.bool), ["a"], [0])
    found = drawing.stopped_at_fluid(make_method(default(), stop_at_fluid=stops), batch, torch.full_like(x, 9.0), m)
    assert torch.equal(found[:, 0, :, 16:], x[:, 0, :, 16:]) and bool((found[:, 0, :, :16] == 9).all()) and bool((found[:, 1] == 9).all())


@pytest.mark.parametrize("name", ["pathosyn", "gaussian", "copy-paste"])
def test_every_method_is_finished_so(name: str, data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "stopped_at_fluid", lambda _, batch, x_hat, m: torch.full_like(x_hat, 7.0) * (m >= 0))
    found = SyntheticSet(run(data, tmp_path / "set", loaded, method=name, per_subject=1, progress=False))
    assert all((window["x_hat"] == 7).all() for _, window in found.windows())


def test_previews_are_finished_so_too(data: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices(data, "validation", contrasts=loaded.config.contrasts, every=False)
    monkeypatch.setattr(monitor, "stopped_at_fluid", lambda _, batch, x_hat, m: torch.full_like(x_hat, 7.0) * (m >= 0))
    made = monitor._drawn(loaded.any_method, slices.lesion([0]), 0, 1, torch.device("cpu"))
    assert bool((made.x_hat == 7).all()) and not bool((made.x_sub == 7).any())


def test_realism_is_told_beside_copy_paste(data: Path, sets: dict[str, SyntheticSet], monkeypatch: pytest.MonkeyPatch) -> None:
    from pathosyn.evaluate import realism

    monkeypatch.setattr(realism, "SEEDS", 1)
    some = {name: [sets[name]] for name in ("real", "copy-paste")}
    table = realism.measure(data, some, judges=["trees"], show=False).set_index(["method", "region"])
    for region in realism.REGIONS:
        beside = table.loc[("real", region), "auc"] - table.loc[("copy-paste", region), "auc"]
        assert table.loc[("real", region), "beside"] == pytest.approx(beside)
    assert table.loc["copy-paste", "beside"].isna().all() and table.loc["real vs real", "beside"].isna().all()
    assert "beside" not in realism.measure(data, {"real": [sets["real"]]}, judges=["trees"], show=False)


def test_appearance_of_the_real_is_the_reals_and_of_the_healed_is_not(data: Path, sets: dict[str, SyntheticSet]) -> None:
    from pathosyn.evaluate import appearance

    rows = appearance.measure(data, "real", sets["real"], show=False)
    assert len(rows) and np.allclose(rows["real"], rows["drawn"], equal_nan=True)
    table = appearance.table(rows)
    assert (table["gap"].abs() < 1e-9).all() and set(table["subjects"]) <= {1, 2, 3}
    healed = appearance.table(appearance.measure(data, "substrate", sets["substrate"], show=False))
    assert (healed["gap"].abs() > 0.2).any()


def test_diversity_finds_a_pasted_training_lesion(data: Path, sets: dict[str, SyntheticSet]) -> None:
    """A lesion whose donor is in the bank comes nearer to it than the real lesions of the same place do."""
    from pathosyn.evaluate import diversity

    found = diversity.table(diversity.measure(data, "copy-paste", sets["copy-paste"], show=False)).set_index("metric")["value"]
    assert found["nearest, drawn"] < found["nearest, real"]


def test_a_gallery_shows_both_kinds_and_hides_which(data: Path, sets: dict[str, SyntheticSet], tmp_path: Path) -> None:
    from pathosyn.evaluate import gallery

    sheets = gallery.blind(data, sets["blurred"], tmp_path / "sheets", least_pixels=1)
    key, scores = (pd.read_csv(tmp_path / "sheets" / name) for name in ("key.csv", "scores.csv"))
    assert sheets and all(sheet.is_file() for sheet in sheets)
    assert key["drawn"].sum() * 2 == len(key) > 1 and key["number"].tolist() == scores["number"].tolist() == list(range(len(key)))
    assert not key.duplicated(["subject", "z"]).any() and scores["score"].isna().all(), "no lesion is shown twice, once drawn and once real"


def scored(folder: Path, scores: list[object], drawn: list[int]) -> Path:
    folder.mkdir()
    numbers = range(len(drawn))
    pd.DataFrame({"number": numbers, "drawn": drawn, "subject": [f"s{i % 3}" for i in numbers], "z": 0}).to_csv(folder / "key.csv", index=False)
    pd.DataFrame({"number": range(len(scores)), "score": scores}).to_csv(folder / "scores.csv", index=False)
    return folder


def test_a_scored_gallery_gives_the_eyes_auc(tmp_path: Path) -> None:
    from pathosyn.evaluate import gallery

    assert gallery.result(tmp_path) is None
    assert gallery.result(scored(tmp_path / "blank", [""] * 6, [0, 1] * 3)) is None
    sure = gallery.result(scored(tmp_path / "sure", [0.1, 0.9] * 3, [0, 1] * 3))
    assert sure is not None and (sure.value, sure.low, sure.high, sure.subjects) == (1.0, 1.0, 1.0, 3)
    # Of the nine pairs the drawn one is higher in four and level in one.
    eye = gallery.result(scored(tmp_path / "eye", [0.2, 0.5, 0.7, 0.1, 0.5, 0.9], [0, 0, 0, 1, 1, 1]))
    assert eye is not None and eye.value == pytest.approx(4.5 / 9)


@pytest.mark.parametrize(
    "scores, told",
    [
        ([0.1, "", 0.3, 0.4], "lesion 1"),
        ([0.1, 0.2, "yes", 0.4], "'yes' for lesion 2"),
        ([0.1, 0.2, 0.3, 1.5], "'1.5' for lesion 3"),
        ([0.1, 0.2, 0.3], "other numbers"),
    ],
)
def test_scores_that_cannot_be_are_named(scores: list[object], told: str, tmp_path: Path) -> None:
    from pathosyn.evaluate import gallery

    with pytest.raises(InputError, match=re.escape(told)):
        gallery.result(scored(tmp_path / "blind", scores, [0, 1, 0, 1]))


def test_a_key_without_its_columns_is_refused(tmp_path: Path) -> None:
    from pathosyn.evaluate import gallery

    folder = scored(tmp_path / "blind", [0.5], [1])
    (folder / "key.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column drawn, number, subject"):
        gallery.result(folder)


def test_what_generate_says_comes_next_can_be_typed(
    data: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    from pathosyn import weights
    from pathosyn.cli import evaluate, generate

    monkeypatch.setattr(weights, "find", lambda given=None: tmp_path)
    monkeypatch.setattr(cohort, "opened", lambda *_: loaded)
    assert generate.parse(["--data", str(data), "--out", str(tmp_path / "set"), "--method", "real", "--per-subject", "1", "--threads", "1"]).run() == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    words = shlex.split(line.removeprefix("next: "))
    own = ["--out", str(tmp_path / "own"), "--method", "real", "--per-subject", "1", "--threads", "1", "--purpose", "train"]
    assert generate.parse(["--data", str(data), *own]).run() == 0
    assert f"next: pathosyn export {tmp_path / 'own'} --data {data} --to nnunet" in capsys.readouterr().out, "a set to train with is not judged"
    assert words[:3] == ["pathosyn", "evaluate", "realism"] and re.fullmatch(r"\w+=.*set", words[words.index("--synthetic") + 1])
    assert evaluate.parse(words[2:]).real == data
