"""Looks remembered of the training lesions, and drawn for a new one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pathosyn import rng
from pathosyn.checkpoint import Provenance, load, save_weights
from pathosyn.config import Config, default
from pathosyn.lesion import appearance, borders, coarse, looks, tails, texture
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.training.start import beginning
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
FORM = 13  # of two contrasts: six numbers each and one pair
K = FORM + 5  # and what the pair shares of the finest detail, how sparse each contrast's is, and how strong what is next finest
SPREADS, CORRELATIONS = [4, 5, 6, 7], [12, 13]
AS_THEY_ARE = [0, 1, 2, 3, 8, 9, 10, 11]


@pytest.fixture
def method(uneven: PathoSyn) -> PathoSyn:
    return uneven


def test_remembered_are_the_training_lesions_in_units_of_their_spread(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_stretch", lambda *_: 1.0)  # has a test of its own
    method, batch = make_method(default(), attune=False, fisher_z=False, log_spreads=False), batch_of(8, present=[[1, 1]] * 6 + [[1, 0]] * 2)
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    batch = replace(batch, subject=["a", "a", "b", "b", "b", "c", "d", "d"])
    found = method.begin("structure", [batch])
    found_looks, of = method.looks, method.looks_of
    assert found_looks.shape == (looks.ROWS, K) and not found_looks[8:].any() and not of[8:].any()
    assert (
        of[:8, 0].tolist() == [0, 0, 1, 1, 1, 2, 3, 3] and torch.equal(of[:8, 1], batch.m.sum(dim=(1, 2, 3))) and torch.equal(of[:8, 2:], batch.present.float())
    )
    rows = found_looks[:6]  # both contrasts are known here
    assert rows.mean(dim=0)[[1, 3, 12, 13]].abs().max() < 1e-4 and torch.allclose(rows.std(dim=0, correction=0)[[1, 3, 12, 13]], torch.ones(4), atol=1e-3)
    assert torch.allclose(found_looks[:8].mean(dim=0)[[0, 2, 4]], torch.zeros(3), atol=1e-4) and not found_looks[6:8, [1, 3, 12, 13]].any()
    assert found["look_mean"] == method.look_mean.tolist()
    parts = method.parts(batch)
    form, _ = coarse.form(method, method.to_scaled((batch.x - batch.x_ph) * batch.D), batch, batch.x_ph, parts)
    assert torch.allclose(appearance.measure(method, form, batch, parts), found_looks[:8], atol=1e-5)
    # Another training: other lesions, in the units that the network knows.
    units, before = method.look_mean.clone(), found_looks[:2].clone()
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph[:2])
    assert "look_mean" not in method.begin("structure", [replace(batch.shard(0, 4), x=batch.x[::4] + 1)])
    assert torch.equal(method.look_mean, units) and not method.looks[2:].any() and bool((method.looks[:2, 0] != before[:, 0]).all())


def remembering(method: PathoSyn, rows: Sequence[tuple[int, float, tuple[int, int], float]]) -> PathoSyn:
    """`rows`: subject, pixels, present, the value of all numbers."""
    method.looks.zero_(), method.looks_of.zero_()
    for i, (subject, pixels, present, value) in enumerate(rows):
        method.looks[i] = value
        method.looks_of[i] = torch.tensor([subject, pixels, *present])
    return method


BOTH, FIRST = torch.tensor([True, True]), torch.tensor([True, False])


def draws(method: PathoSyn, areas: Sequence[float], present: Tensor = BOTH, count: int = 200) -> Tensor:
    """(count, n, K)."""
    made = [looks.drawn(method, torch.tensor(areas), present, None, rng.generator(i)) for i in range(count)]
    return torch.stack([one for one in made if one is not None])


def test_nothing_remembered_is_nothing_told(method: PathoSyn, batch_of: Batches) -> None:
    assert looks.drawn(method, torch.tensor([50.0]), BOTH, None, rng.generator(0)) is None and method.look(batch_of(), 0) is None
    assert method.synthesize(batch_of(), controls=Controls(), steps=2).r.isfinite().all()


def test_one_training_lesion_lends_its_looks_to_all_windows(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    remembering(method, [(0, 400, (1, 1), 1.0), (0, 100, (1, 1), 3.0), (1, 400, (1, 1), -1.0), (1, 100, (1, 1), -3.0)])
    made = draws(method, [400.0, 100.0, 200.0, 20.0])[..., AS_THEY_ARE]
    assert torch.allclose(made[:, 0].abs(), torch.tensor(1.0), atol=1e-3) and torch.allclose(made[:, 1].abs(), torch.tensor(3.0), atol=1e-3)
    assert torch.allclose(made[:, 2].abs(), torch.tensor(2.0), atol=1e-3), "half way between in log area"
    assert torch.allclose(made[:, 3].abs(), torch.tensor(3.0), atol=1e-3), "beyond the smallest: as the smallest"
    signs = made[:, :, 0].sign()
    assert torch.equal(signs, signs[:, :1].expand_as(signs)) and 0.35 < float((signs > 0).float().mean()) < 0.65


def test_lesions_of_such_a_size_are_likelier(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odds of exp(-½ (Δ log area / width)²)."""
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    remembering(method, [(0, 100, (1, 1), 1.0), (1, 100 * np.exp(0.5), (1, 1), -1.0)])
    share = float((draws(method, [100.0], count=2000)[:, 0, 0] > 0).float().mean())
    assert share == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.03)


def test_a_lesion_without_the_contrasts_is_the_last_resort(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    remembering(method, [(0, 100, (1, 1), 1.0), (1, 100, (1, 0), 2.0)])
    assert set(draws(method, [100.0])[:, 0, 0].tolist()) == {1.0}
    assert set(draws(method, [100.0], FIRST)[:, 0, 0].round().tolist()) == {1.0, 2.0} and not draws(method, [100.0], FIRST)[:, 0, 1].any()
    remembering(method, [(1, 100, (1, 0), 2.0)])
    assert draws(method, [100.0])[0, 0, 0] == 2.0


@pytest.mark.parametrize("smooth", [looks.SMOOTH, 1.0])
def test_the_smoothed_bootstrap_keeps_the_spread(smooth: float, method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SMOOTH", smooth)
    values = torch.randn(200, generator=torch.Generator().manual_seed(1))
    remembering(method, [(i, 100, (1, 1), float(v)) for i, v in enumerate((values - values.mean()) / values.std())])
    made = draws(method, [100.0, 90.0], count=1000)[..., AS_THEY_ARE]
    assert made[:, 0].std(dim=0).sub(1).abs().max() < 0.08
    assert torch.equal(made[:, 0], made[:, 1]), "moved by the same in all windows"
    assert len(made[:, 0, 0].unique()) == 1000, "no training lesion is taken as it is"


def test_a_draw_is_keyed_by_seed_and_subject(method: PathoSyn, batch_of: Batches) -> None:
    remembering(method, [(i, 40 + i, (1, 1), float(i)) for i in range(20)])
    batch = replace(batch_of(), subject=["a", "a", "b"], m=batch_of().m[:1].expand(3, -1, -1, -1))
    one, again, other = (method.look(batch, seed) for seed in (0, 0, 1))
    assert one is not None and again is not None and other is not None
    assert torch.equal(one, again) and torch.equal(one[0], one[1]) and not torch.equal(one[0], one[2]) and not torch.equal(one, other)


def test_a_lesions_end_looks_like_the_end_of_a_lesion_as_large(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is known how large the subject's lesion is elsewhere; else the window is taken for its largest."""
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    batch = batch_of()
    area = float(batch.m[0].sum())
    remembering(method, [(0, 8 * area, (1, 1), 3.0), (0, area, (1, 1), 1.0), (1, area, (1, 1), -1.0)])
    for largest, sign in ((None, -1.0), (torch.full((3,), 8 * area), 1.0)):
        made = [method.look(replace(batch, largest=largest), seed) for seed in range(50)]
        found = [float(look[0, 0]) for look in made if look is not None]
        assert len(found) == 50 and np.median(found) == pytest.approx(sign, abs=0.01), "and its slice of that area, not its largest"


def test_weights_from_before_it_go_on_with_it(make_method: Maker, batch_of: Batches, tmp_path: Path) -> None:
    """And draw as before while nothing is told, since the new channels' weights are 0."""
    old = make_method(default(), appearance=False).eval()
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    new = beginning(
        Config(contrasts=old.config.contrasts, networks=old.config.networks, method=replace(default(), hold=False)), tmp_path / "old.safetensors"
    ).eval()
    assert new.looking and not old.looking and new.look(batch_of(), 0) is None
    batch = batch_of()
    noise = [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(4)]
    drawn = [each.draw_form(batch, batch.x_ph, lambda k: noise[k % 4], look=look, steps=2) for each, look in ((old, None), (new, torch.ones(3, K)))]
    assert torch.allclose(*drawn, atol=1e-5)
    save_weights(tmp_path / "new.safetensors", remembering(new, [(0, 100, (1, 1), 1.0)]), Provenance(), half=True)
    assert torch.equal(load(tmp_path / "new.safetensors").method.looks, new.looks), "statistics are not rounded to 16 bit"
    gone_on = beginning(load(tmp_path / "new.safetensors").config, tmp_path / "new.safetensors")
    assert torch.equal(gone_on.looks, new.looks)


def test_correlations_become_fishers_z_in_closed_form(method: PathoSyn, make_method: Maker) -> None:
    """Of unit slope at the mean, back again, and as they were where the method says so."""
    method.look_mean[CORRELATIONS], method.look_std[CORRELATIONS] = 0.6, 0.3
    look = torch.full((3, K), 2.5)
    look[:, CORRELATIONS] = torch.tensor([[1.0], [-4.0], [0.0]])  # correlations of .9, -.6 and .6
    found = looks.natural(method, look)
    for row, correlation in ((0, 0.9), (1, -0.6), (2, 0.6)):
        wanted = (np.arctanh(correlation) - np.arctanh(0.6)) * (1 - 0.36) / 0.3
        assert torch.allclose(found[row, CORRELATIONS], torch.tensor(wanted).float(), atol=1e-4)
    assert torch.equal(found[:, AS_THEY_ARE], look[:, AS_THEY_ARE]) and torch.allclose(
        looks.plain(method, found)[:, [*AS_THEY_ARE, *CORRELATIONS]], look[:, [*AS_THEY_ARE, *CORRELATIONS]], atol=1e-4
    )
    near = torch.full((1, K), 1e-2)
    assert torch.allclose(looks.natural(method, near)[:, CORRELATIONS], near[:, CORRELATIONS], rtol=0.02)
    before = make_method(default(), fisher_z=False, log_spreads=False)
    before.look_mean.copy_(method.look_mean), before.look_std.copy_(method.look_std)
    assert torch.equal(looks.natural(before, look), look) and torch.equal(looks.plain(before, look), look)


def test_standard_deviations_become_logarithms_in_closed_form(method: PathoSyn, make_method: Maker) -> None:
    """Of unit slope at the mean, and back again; nothing lies further than `FARTHEST`, not a lesion of one cell, whose spread is 0."""
    method.look_mean[SPREADS], method.look_std[SPREADS], floor = 0.6, 0.2, 0.05
    look = torch.full((4, K), 0.5)
    look[:, SPREADS] = (torch.tensor([[0.9], [0.3], [0.6], [0.0]]) - 0.6) / 0.2
    found = looks.natural(method, look)
    for row, spread in ((0, 0.9), (1, 0.3), (2, 0.6)):
        wanted = np.log((spread + floor) / (0.6 + floor)) * (0.6 + floor) / 0.2
        assert torch.allclose(found[row, SPREADS], torch.tensor(wanted).float(), atol=1e-4)
    assert torch.allclose(looks.plain(method, found)[:3, SPREADS], look[:3, SPREADS], atol=1e-4) and torch.all(found[3, SPREADS] == -looks.FARTHEST)
    method.look_mean[SPREADS] = 0.1
    below = looks.plain(method, torch.full((1, K), -2.9))[0, SPREADS] * 0.2 + 0.1
    assert torch.allclose(below, torch.zeros(4), atol=1e-6), "no standard deviation below 0"
    before = make_method(default(), log_spreads=False)
    before.look_mean.copy_(method.look_mean), before.look_std.copy_(method.look_std)
    assert torch.equal(looks.natural(before, look)[:, SPREADS], look[:, SPREADS])


def test_what_is_drawn_varies_as_the_training_lesions_do() -> None:
    """Told and left open that go together over the lesions, and slices that differ: apart, and averaged, they would vary too little."""
    generator = torch.Generator().manual_seed(3)
    subject = torch.arange(300).repeat_interleave(4).float()
    areas = torch.tensor([100.0, 105.0, 300.0, 310.0]).repeat(300)
    told = torch.randn(300, 1, generator=generator).repeat_interleave(4, dim=0).repeat(1, K)
    left = 0.5 * told + torch.randn(1200, K, generator=generator)
    rows = torch.stack([subject, areas, torch.ones(1200), torch.ones(1200)], dim=1)
    factor = looks._stretch(told + left, told, torch.ones(1200, K), rows)
    # Independent: draw from other subjects, as `drawn` does it without its choice by size.
    made = torch.empty(1200, K)
    for row in range(1200):
        mine = subject == int(torch.randint(300, (1,), generator=generator))
        weight = (-0.5 * ((areas[row].log() - areas[mine].log()) / looks.NEAR_SLICE) ** 2).softmax(dim=0)
        noise = looks.SMOOTH * left.std(dim=0, correction=0) * torch.randn(K, generator=generator)
        made[row] = told[row] + factor * (weight @ left[mine] + noise) / (1 + looks.SMOOTH**2) ** 0.5
    assert torch.allclose(made.std(dim=0), (told + left).std(dim=0), rtol=0.08)
    assert bool((factor > 1.2).all()), "without it less than five sixths of what is left open"
    assert torch.equal(looks._stretch(told, told, torch.ones(1200, K), rows), torch.ones(K)), "nothing left open, nothing to stretch"
    one = looks._stretch(told + left, told, torch.cat([torch.ones(600, K), torch.zeros(600, K)]), rows)
    half = looks._stretch((told + left)[:600], told[:600], torch.ones(600, K), rows[:600])
    assert torch.allclose(one, half, rtol=0.03), "lesions whose contrast is missing do not count"


def test_standard_deviations_correlations_tails_and_strengths_are_stretched_and_nothing_else(
    make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for factor in (1.0, 3.0):
        monkeypatch.setattr(looks, "_stretch", lambda *_, factor=factor: torch.full((K,), factor))
        torch.manual_seed(0)
        method, batch = make_method(default(), attune=False), batch_of(4)
        method.begin("structure", [batch])
        rows.append(method.looks[:4])
    plain, stretched = rows
    changed = [*SPREADS, *CORRELATIONS, *range(FORM + 1, K)]
    assert torch.equal(stretched[:, AS_THEY_ARE], plain[:, AS_THEY_ARE]) and torch.allclose(stretched[:, changed], 3.0 * plain[:, changed])


def test_windows_without_a_lesion_are_not_remembered(make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default()), batch_of(4)
    method.begin("structure", [replace(batch, m=batch.m * torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1, 1))])
    assert int((method.looks_of[:, 1] > 0).sum()) == 3 and bool(method.looks_of[:3, 1].all()) and method.look_std.isfinite().all()


def test_correlations_that_cannot_be_stay_finite_both_ways(method: PathoSyn) -> None:
    method.look_mean[12:], method.look_std[12:] = 1.5, 0.5
    for value in (-30.0, 30.0):
        assert looks.natural(method, torch.full((1, K), value)).isfinite().all()
        assert looks.plain(method, torch.full((1, K), value)).isfinite().all()


def test_how_sparse_and_how_strong_detail_is_is_never_asked_below_0(method: PathoSyn) -> None:
    method.look_mean.fill_(0.5)
    for value in (-30.0, -1.0):
        asked = looks.plain(method, torch.full((1, K), value))[:, FORM + 1 :] * method.look_std[FORM + 1 :] + 0.5
        assert bool((asked >= -1e-6).all()) and bool((asked < 0.5).all())


def test_correlations_of_two_slices_are_averaged_by_their_z(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    method.look_mean.fill_(0.2), method.look_std.fill_(0.5)
    remembering(method, [(0, 400, (1, 1), 0.0), (0, 100, (1, 1), 0.0)])
    for row, correlation in enumerate((0.95, 0.1)):
        method.looks[row] = looks.natural(method, torch.full((1, K), (correlation - 0.2) / 0.5))[0]
    drawn = draws(method, [200.0], count=1)[0, 0, 12] * 0.5 + 0.2
    assert float(drawn) == pytest.approx(np.tanh((np.arctanh(0.95) + np.arctanh(0.1)) / 2), abs=1e-3), "half way in log area"


def test_looks_that_were_measured_otherwise_are_measured_anew(make_method: Maker, batch_of: Batches, tmp_path: Path) -> None:
    old = remembering(make_method(default(), fisher_z=False, log_spreads=False).eval(), [(0, 100, (1, 1), 1.0)])
    old.look_std.fill_(2.0), old.rough_std.fill_(1.0)
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    config = Config(contrasts=old.config.contrasts, networks=old.config.networks)
    for asked, kept in ((default(), False), (replace(default(), fisher_z=False), False), (replace(default(), fisher_z=False, log_spreads=False), True)):
        new = beginning(replace(config, method=asked), tmp_path / "old.safetensors")
        assert isinstance(new, PathoSyn) and torch.equal(new.look_std, old.look_std) and bool(new.looks_of.any()) is kept
        new.begin("sharpen", [batch_of(4)])
        assert bool(new.looks[1].any()) is not kept


@pytest.mark.parametrize(("stage", "measures"), [("substrate", False), ("structure", True), ("deviation", True), ("sharpen", True), ("joint", True)])
def test_looks_are_measured_before_anything_is_told(stage: str, measures: bool, make_method: Maker, batch_of: Batches) -> None:
    method = make_method(default())
    method.begin(stage, [batch_of(4)])
    assert looks.remembered(method) is measures


def test_weights_from_before_it_keep_their_units_and_measure_the_new_number(
    make_method: Maker, batch_of: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_method(default(), shared_grain=False, tails=False, borders=False, attune=False, fisher_z=False, log_spreads=False).eval()
    remembering(old, [(0, 100, (1, 1), 1.0)])
    old.look_mean.fill_(0.5), old.look_std.fill_(2.0), old.rough_std.fill_(1.0)
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    asked = Config(contrasts=old.config.contrasts, networks=old.config.networks, method=replace(default(), attune=False, fisher_z=False, log_spreads=False))
    new = beginning(asked, tmp_path / "old.safetensors")
    assert isinstance(new, PathoSyn) and len(new.look_std) == K and new.look_std[FORM] == 0 and torch.equal(new.looks[:, :FORM], old.looks)
    batch = batch_of(4)
    monkeypatch.setattr(new.sub, "forward", lambda *_: batch.x_ph)
    assert "look_std" in new.begin("sharpen", [batch]), "the stage that needs it"
    assert torch.equal(new.look_std[:FORM], old.look_std) and torch.equal(new.look_mean[:FORM], old.look_mean)
    found = texture.shared(batch.x, batch.m)
    assert new.look_mean[FORM] == pytest.approx(float(found.mean()), abs=1e-5) and new.look_std[FORM] == pytest.approx(float(found.std(correction=0)), abs=1e-5)
    assert torch.allclose(new.looks[:4, FORM : FORM + 1], (found - found.mean()) / found.std(correction=0), atol=1e-4)
    sparse = tails.sparseness(batch.x - texture.box_mean(batch.x, 1), batch.m)
    found = torch.cat([sparse, borders.strength(batch.x, batch.m)], dim=1)
    assert torch.allclose(new.look_mean[FORM + 1 :], found.mean(dim=0), atol=1e-5)
    assert torch.allclose(new.looks[:4, FORM + 1 :], (found - found.mean(dim=0)) / found.std(dim=0, correction=0), atol=1e-4)
    assert new.begin("sharpen", [batch]) == {}, "known is known"
