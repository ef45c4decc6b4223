"""Reject and redraw: what is measured of a form, that real forms are told from others, and that the best of a few lesions is the one that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pathosyn import appearance, coarse, decomposition, redraw, rng, volume
from pathosyn.checkpoint import Provenance, load, save_weights
from pathosyn.config import chosen, default, paper
from pathosyn.data.windows import windows_of
from pathosyn.start import beginning
from pathosyn.types import Controls, LesionBatch
from pathosyn.volume import Target

SIDE = 64
CELLS = SIDE // 4
CHANNELS = 4
LOOKS = appearance.count(2, rough=True)


@pytest.fixture
def method(make_method: Callable[..., Any]) -> Any:
    built = make_method(default(), steps=2).eval().requires_grad_(False)
    built.r_max.fill_(3.0)
    return built


def windows(count: int = 3, radius: float = 18.0, seed: int = 0) -> LesionBatch:
    """Two contrasts of noise, a disk of lesion in the middle, S = 1 on it and 0 elsewhere."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    m = (((y - 31.5) ** 2 + (x - 31.5) ** 2) <= radius**2).float().expand(count, 1, SIDE, SIDE).clone()
    scan = torch.randn(count, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    known = torch.ones(count, 2, dtype=torch.bool)
    return LesionBatch(scan, m, m.clone(), scan, known, torch.zeros(count, dtype=torch.bool), [f"s{i}" for i in range(count)], list(range(count)))


def measured(method: Any, form: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `numbers` adds to the looks, by name, (B, …)."""
    batch = windows(len(form))
    found = redraw.numbers(method, form, batch, method.parts(batch))[:, LOOKS:]
    parts = {"fourth": CHANNELS} | {f"{name} {reach}": CHANNELS for reach in (1,) for name in ("rms", "share", "even")} | {"pairs 1": 6}
    parts |= {f"{name} 2": CHANNELS for name in ("rms", "share", "even")} | {"pairs 2": 6} | {f"{name} 4": CHANNELS for name in ("rms", "share", "even")}
    assert sum(parts.values()) == found.shape[1] and found.shape[1] + LOOKS == redraw.count(method)
    return dict(zip(parts, found.split(list(parts.values()), dim=1), strict=True))


def stripes(period: int) -> torch.Tensor:
    """±1 in columns, `period` cells a cycle, the same in all channels."""
    wave = torch.where(torch.arange(CELLS) % period < period // 2, 1.0, -1.0)
    return wave.expand(1, CHANNELS, CELLS, CELLS).clone()


def test_stripes_in_closed_form(method: Any) -> None:
    """Columns of ±1: half of the steps of 1 are across and of size 2, the others 0; steps of 2 are all 0."""
    found = measured(method, stripes(2))
    assert torch.allclose(found["rms 1"], torch.full((1, CHANNELS), float(np.log(np.sqrt(2 + 1e-4)))), atol=0.02), "half of the steps, up to the disk's edge"
    assert torch.allclose(found["rms 2"], torch.full((1, CHANNELS), float(np.log(np.sqrt(1e-4)))), atol=1e-3)
    assert torch.allclose(found["fourth"], torch.full((1, CHANNELS), 0.1), atol=1e-3), "the kurtosis of ±1 is 1"
    assert torch.allclose(found["pairs 1"], torch.ones(1, 6), atol=1e-3), "all channels step together"
    assert torch.allclose(found["even 1"], torch.full((1, CHANNELS), float(np.log(1.01 / np.sqrt(2)))), atol=0.02), "mean absolute step 1, rms √2"
    wide = measured(method, stripes(4))
    assert torch.allclose(wide["rms 2"], found["rms 1"], atol=0.05) and torch.allclose(wide["rms 4"], found["rms 2"], atol=1e-3)


def test_the_sign_between_channels_counts(method: Any) -> None:
    form = stripes(2)
    form[:, 1] *= -1
    pairs = measured(method, form)["pairs 1"][0]
    assert torch.allclose(pairs, torch.tensor([-1.0, 1.0, 1.0, -1.0, -1.0, 1.0]), atol=1e-3)


def test_cells_that_are_no_lesion_do_not_count(method: Any) -> None:
    batch = windows(1)
    form = torch.randn(1, CHANNELS, CELLS, CELLS, generator=torch.Generator().manual_seed(3))
    share = coarse.lesion_share(method, batch, method.parts(batch))
    assert bool((share == 0).any()) and bool((share > 0.5).any())
    other = torch.where(share > 0, form, form + 7.0)
    assert torch.allclose(*(redraw.numbers(method, f, batch, method.parts(batch)) for f in (form, other)), atol=1e-5)


def test_the_numbers_are_of_each_window_alone(method: Any) -> None:
    form = torch.randn(3, CHANNELS, CELLS, CELLS, generator=torch.Generator().manual_seed(4))
    batch = windows(3)
    together = redraw.numbers(method, form, batch, method.parts(batch))
    for i in range(3):
        one = batch.shard(i, 3)
        assert torch.allclose(together[i : i + 1], redraw.numbers(method, form[i : i + 1], one, method.parts(one)), atol=1e-5)


def learned(method: Any, monkeypatch: pytest.MonkeyPatch, smooth: bool = True) -> list[LesionBatch]:
    """The method has learned that real forms are smooth and drawn ones white."""

    def lesion(seed: int) -> LesionBatch:
        batch = windows(8, seed=seed)
        soft = torch.nn.functional.interpolate(batch.x[:, :, ::16, ::16], size=(SIDE, SIDE), mode="bicubic")
        return replace(batch, x=soft, x_sub=torch.zeros_like(soft), subject=[f"{seed}-{i}" for i in range(8)])

    def draw_form(batch: LesionBatch, x_sub: torch.Tensor, noise: Callable[[int], torch.Tensor], **_: Any) -> torch.Tensor:
        return noise(0).repeat(1, 2, 1, 1)[:, :, :CELLS, :CELLS]

    monkeypatch.setattr(method, "draw_form", draw_form)
    batches = [lesion(seed) for seed in range(4)]
    method.end("structure", batches[:3])
    return batches


def test_real_forms_are_told_from_drawn_ones_on_windows_not_learned_from(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not method.judge.any() and redraw.candidates(method) == 1, "nothing learned yet"
    *_, unseen = learned(method, monkeypatch)
    assert redraw.candidates(method) == 4
    parts = method.parts(unseen)
    real, _ = coarse.form(method, method.to_scaled(decomposition.deviation(unseen.x, unseen.x_sub, parts.support)), unseen, unseen.x_sub, parts)
    drawn = method.draw_form(unseen, unseen.x_sub, method.noise(unseen, [9] * 8))
    assert redraw.score(method, real, unseen, parts).min() > redraw.score(method, drawn, unseen, parts).max()


def test_the_regression_is_sklearns(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored weights give the log odds of the fitted pipeline."""
    from sklearn.pipeline import Pipeline

    kept: list[tuple[Any, np.ndarray]] = []
    fit = Pipeline.fit

    def watched(self: Any, values: np.ndarray, labels: Any) -> Any:
        kept.append((self, values))
        return fit(self, values, labels)

    monkeypatch.setattr(Pipeline, "fit", watched)
    learned(method, monkeypatch)
    (pipeline, values), judge = kept[0], method.judge.double().numpy()
    assert np.allclose(values @ judge[1:] + judge[0], pipeline.decision_function(values), atol=1e-3)


def test_only_the_structures_end_teaches_it(method: Any, make_method: Callable[..., Any]) -> None:
    assert method.end("sharpen", []) == {} and method.end("substrate", []) == {}
    one = make_method(default(), redraw=1)
    assert one.end("structure", []) == {} and redraw.candidates(one) == 1 and "judge" not in one.state_dict()
    assert "judge" not in make_method(paper()).state_dict()


def test_the_first_candidate_is_what_was_asked_for() -> None:
    assert redraw.key([3, "s", 0], 0) == (3, "s", 0) and redraw.key([3, "s", 0], 2) == (3, "s", 0, "candidate", 2)
    assert [redraw.noise_of(lambda k: k, c)(7) for c in (0, 1, 3)] == [7, 7 + redraw.STRIDE, 7 + 3 * redraw.STRIDE]


# -- on a whole scan --------------------------------------------------------------------------------------------------------------------


def target() -> Target:
    m = np.zeros((3, 80, 80), bool)
    m[:, 30:50, 30:50] = True
    x = np.random.default_rng(1).normal(size=(3, 2, 80, 80)).astype(np.float32)
    from pathosyn.config import Geometry

    return Target(x, m, m.astype(np.float32), np.ones(2, bool), windows_of(m, Geometry(buckets=(64,), margin_mm=4.0)))


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_the_candidate_with_the_best_forms_is_drawn_in_all_slices(wanted: int, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method.judge.fill_(1.0)
    scan = target()
    noise = volume.noise_field(scan, 1.0, 2.0, 0)
    x_sub = np.zeros_like(scan.x)

    def alone(k: int) -> np.ndarray:
        one = replace(method.config, method=replace(method.config.method, redraw=1))
        monkeypatch.setattr(method, "config", one)
        made = volume.deviation(method, scan, x_sub, redraw.noise_of(noise, k), key=redraw.key(["a"], k), steps=2, device=torch.device("cpu"))
        monkeypatch.undo()
        return made

    expected = [alone(k) for k in range(4)]
    tried: list[int] = []

    def score(_: Any, form: torch.Tensor, batch: LesionBatch, parts: Any) -> torch.Tensor:
        tried.append(len(batch))
        return torch.full((len(batch),), 1.0 if len(tried) - 1 == wanted else 0.0)

    monkeypatch.setattr(redraw, "score", score)
    drawn = volume.deviation(method, scan, x_sub, noise, key=["a"], steps=2, device=torch.device("cpu"))
    assert tried == [3] * 4, "each candidate is scored once, on all windows"
    assert np.array_equal(drawn, expected[wanted]) and not np.array_equal(expected[0], expected[1])


def test_windows_weigh_as_much_as_their_lesion(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method.judge.fill_(1.0)
    scan = target()
    m = scan.m.copy()
    m[0] = False
    m[0, 38:42, 38:42] = True
    scan = replace(scan, m=m)
    monkeypatch.setattr(redraw, "score", lambda *_: torch.tensor([10.0, 1.0, 2.0]))
    found = volume._Try(method, scan, np.zeros_like(scan.x), volume.noise_field(scan, 1.0, 2.0, 0), ["a"], 2, torch.device("cpu")).score()
    assert found == pytest.approx((16 * 10 + 400 * 1 + 400 * 2) / 816)


# -- in weight files --------------------------------------------------------------------------------------------------------------------


def test_weights_keep_it_to_the_bit_and_may_be_drawn_without_it(method: Any, tmp_path: Path) -> None:
    method.judge.copy_(torch.randn(len(method.judge), generator=torch.Generator().manual_seed(1)) * 1e-4)
    save_weights(tmp_path / "w.safetensors", method, Provenance(), half=True)
    loaded = load(tmp_path / "w.safetensors")
    assert torch.equal(loaded.method.judge, method.judge), "not rounded to 16 bit"
    loaded.method.config = replace(loaded.config, method=chosen(loaded.config.method, "redraw=1"))
    assert redraw.candidates(loaded.method) == 1


def test_a_training_from_weights_without_it_begins_with_none_and_one_with_it_keeps_it(make_method: Callable[..., Any], tmp_path: Path) -> None:
    old, new = make_method(default(), redraw=1), make_method(default())
    new.judge.fill_(0.5)
    for name, method in (("old", old), ("new", new)):
        save_weights(tmp_path / f"{name}.safetensors", method, Provenance())
    assert not beginning(new.config, tmp_path / "old.safetensors").judge.any()
    assert torch.equal(beginning(new.config, tmp_path / "new.safetensors").judge, new.judge)


def test_a_window_is_drawn_with_its_own_seed(method: Any) -> None:
    batch = windows(3)
    mixed = method.synthesize(batch, controls=Controls(), seeds=[5, 6, 5])
    five, six = (method.synthesize(batch, controls=Controls(seed=seed)) for seed in (5, 6))
    assert mixed.seeds == [5, 6, 5] and five.seeds == [5, 5, 5]
    for i, whole in enumerate((five, six, five)):
        assert torch.allclose(mixed.r[i], whole.r[i], atol=1e-5)
    assert not torch.allclose(five.r[1], six.r[1], atol=1e-2)
    assert rng.seed_of(5, "s1", 1) != rng.seed_of(6, "s1", 1)
