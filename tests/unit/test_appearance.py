"""What a lesion looks like: measured, shown, remembered and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pathosyn import appearance, coarse, decomposition, gathering, moments, rng, texture
from pathosyn.checkpoint import Provenance, load, save_weights
from pathosyn.config import Config, default
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.start import beginning
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
FORM = 13  # of two contrasts: six numbers each and one pair
K = FORM + 1  # and what the pair shares of the finest detail


@pytest.fixture
def method(make_method: Maker) -> PathoSyn:
    made = make_method(default())
    made.look_mean.copy_(torch.linspace(-1, 1, K))
    made.look_std.copy_(torch.linspace(0.5, 2, K))
    made.rough_std.fill_(1.0)
    return made


def raw(method: PathoSyn, form: Tensor, batch: LesionBatch) -> Tensor:
    """`measure` in the form's own units."""
    return appearance.measure(method, form, batch, method.parts(batch)) * method.look_std + method.look_mean


def test_the_numbers_are_weighted_moments_over_the_lesion(method: PathoSyn, batch_of: Batches) -> None:
    batch, form = batch_of(), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = raw(method, form, batch).numpy()
    for b in range(3):
        # Independent: every pixel of the lesion votes for its cell, divided by the pixels of the support there.
        m, D = batch.m[b, 0].numpy().reshape(8, 4, 8, 4), batch.D[b, 0].numpy().reshape(8, 4, 8, 4)
        w = m.sum(axis=(1, 3)) / np.maximum(D.sum(axis=(1, 3)), 1)
        inner = sum(np.pad(w, 1)[y : y + 8, x : x + 8] for y in range(3) for x in range(3)) / 9
        values = form[b].numpy()
        mean = np.array([np.average(v, weights=w) for v in values])
        std = np.array([np.sqrt(np.average((v - a) ** 2, weights=w)) for v, a in zip(values, mean, strict=True)])
        third = np.array([np.cbrt(np.average((v - a) ** 3, weights=w)) for v, a in zip(values[:2], mean[:2], strict=True)])
        edge = np.array([np.average(v, weights=w * (1 - inner)) for v in values[:2]]) - mean[:2]
        pair = np.average((values[0] - mean[0]) * (values[1] - mean[1]), weights=w) / (std[0] * std[1])
        assert np.allclose(found[b, :FORM], [*mean, *std, *third, *edge, pair], atol=1e-3)
        x, inside = batch.x[b].numpy(), batch.m[b, 0].numpy() > 0
        fine = x - np.stack([ndimage.uniform_filter(each, 3, mode="nearest") for each in x])
        assert found[b, FORM] == pytest.approx(np.corrcoef(fine[:, inside])[0, 1], abs=1e-3)


def test_a_flat_lesion_has_its_value_and_nothing_else(method: PathoSyn, batch_of: Batches) -> None:
    batch, flat = batch_of(), torch.tensor([3.0, -2.0, 0.5, 0.25])
    found = raw(method, flat.view(1, 4, 1, 1).expand(3, 4, 8, 8), batch)
    assert torch.allclose(found[:, :4], flat.expand(3, 4), atol=1e-4) and found[:, 4:12].abs().max() < 0.02


def test_what_lies_beyond_the_lesion_does_not_count(method: PathoSyn, batch_of: Batches) -> None:
    batch, form = batch_of(), torch.randn(3, 4, 8, 8)
    share = coarse.lesion_share(method, batch, method.parts(batch))
    other = torch.where(share > 0, form, form + 9.0)
    assert torch.allclose(raw(method, form, batch), raw(method, other, batch), atol=1e-4) and bool((share == 0).any())


def test_a_missing_contrast_has_no_numbers(method: PathoSyn, batch_of: Batches) -> None:
    found = appearance.measure(method, torch.randn(3, 4, 8, 8), lacking := batch_of(present=[[1, 1], [1, 0], [0, 1]]), method.parts(lacking))
    first, second = [0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]  # by contrast: mean, its roughness, std, its roughness, third, edge
    assert bool(found[0].all()) and not found[1, [*second, 12, 13]].any() and not found[2, [*first, 12, 13]].any()
    assert bool(found[1, first].all()) and bool(found[2, second].all())


def test_it_is_shown_on_the_lesion_as_far_as_each_cell_is_lesion(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    parts, look = method.parts(batch), torch.arange(3 * K).float().view(3, K)
    share, seen = coarse.lesion_share(method, batch, parts), appearance.shown(method, look, batch, parts)
    assert seen.shape == (3, FORM + 1, 8, 8) and torch.allclose(seen[:, FORM:], share)
    assert torch.allclose(seen[:, :FORM], look[:, :FORM, None, None] * share), "what contrasts share of detail is the last call's"
    silent = look.clone()
    silent[1] = torch.nan
    assert not appearance.shown(method, silent, batch, parts)[1].any() and torch.equal(appearance.shown(method, silent, batch, parts)[0], seen[0])
    assert appearance.shown(method, None, batch, parts).shape == seen.shape and not appearance.shown(method, None, batch, parts).any()


def test_training_blurs_it_and_is_silent_now_and_then() -> None:
    look = torch.ones(4000, K)
    told = appearance.taught(look, [rng.generator(i) for i in range(4000)])
    silent = told.isnan().all(dim=1)
    assert torch.equal(silent, told.isnan().any(dim=1)) and float(silent.float().mean()) == pytest.approx(appearance.SILENT, abs=0.02)
    assert float((told - 1)[~silent].std()) == pytest.approx(appearance.BLUR, rel=0.02)
    assert torch.equal(told[:5].nan_to_num(7), appearance.taught(look[:5], [rng.generator(i) for i in range(5)]).nan_to_num(7)), "by sample, not by batch"


def test_remembered_are_the_training_lesions_in_units_of_their_spread(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make_method(default(), attune=False, fisher_z=False), batch_of(8, present=[[1, 1]] * 6 + [[1, 0]] * 2)
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    batch = replace(batch, subject=["a", "a", "b", "b", "b", "c", "d", "d"])
    found = method.begin("structure", [batch])
    looks, of = method.looks, method.looks_of
    assert looks.shape == (appearance.ROWS, K) and not looks[8:].any() and not of[8:].any()
    assert (
        of[:8, 0].tolist() == [0, 0, 1, 1, 1, 2, 3, 3] and torch.equal(of[:8, 1], batch.m.sum(dim=(1, 2, 3))) and torch.equal(of[:8, 2:], batch.present.float())
    )
    rows = looks[:6]  # both contrasts are known here
    assert rows.mean(dim=0)[[1, 3, 12, 13]].abs().max() < 1e-4 and torch.allclose(rows.std(dim=0, correction=0)[[1, 3, 12, 13]], torch.ones(4), atol=1e-3)
    assert torch.allclose(looks[:8].mean(dim=0)[[0, 2, 4]], torch.zeros(3), atol=1e-4) and not looks[6:8, [1, 3, 12, 13]].any()
    assert found["look_mean"] == method.look_mean.tolist()
    parts = method.parts(batch)
    form, _ = coarse.form(method, method.to_scaled((batch.x - batch.x_ph) * batch.D), batch, batch.x_ph, parts)
    assert torch.allclose(appearance.measure(method, form, batch, parts), looks[:8], atol=1e-5)
    # Another training: other lesions, in the units that the network knows.
    units, before = method.look_mean.clone(), looks[:2].clone()
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
    made = [appearance.drawn(method, torch.tensor(areas), present, None, rng.generator(i)) for i in range(count)]
    return torch.stack([one for one in made if one is not None])


def test_nothing_remembered_is_nothing_told(method: PathoSyn, batch_of: Batches) -> None:
    assert appearance.drawn(method, torch.tensor([50.0]), BOTH, None, rng.generator(0)) is None and method.look(batch_of(), 0) is None
    assert method.synthesize(batch_of(), controls=Controls(), steps=2).r.isfinite().all()


def test_one_training_lesion_lends_its_looks_to_all_windows(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "SMOOTH", 0.0)
    remembering(method, [(0, 400, (1, 1), 1.0), (0, 100, (1, 1), 3.0), (1, 400, (1, 1), -1.0), (1, 100, (1, 1), -3.0)])
    made = draws(method, [400.0, 100.0, 200.0, 20.0])[..., :12]  # correlations have a test of their own
    assert torch.allclose(made[:, 0].abs(), torch.tensor(1.0), atol=1e-3) and torch.allclose(made[:, 1].abs(), torch.tensor(3.0), atol=1e-3)
    assert torch.allclose(made[:, 2].abs(), torch.tensor(2.0), atol=1e-3), "half way between in log area"
    assert torch.allclose(made[:, 3].abs(), torch.tensor(3.0), atol=1e-3), "beyond the smallest: as the smallest"
    signs = made[:, :, 0].sign()
    assert torch.equal(signs, signs[:, :1].expand_as(signs)) and 0.35 < float((signs > 0).float().mean()) < 0.65


def test_lesions_of_such_a_size_are_likelier(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odds of exp(-½ (Δ log area / width)²)."""
    monkeypatch.setattr(appearance, "SMOOTH", 0.0)
    remembering(method, [(0, 100, (1, 1), 1.0), (1, 100 * np.exp(0.5), (1, 1), -1.0)])
    share = float((draws(method, [100.0], count=2000)[:, 0, 0] > 0).float().mean())
    assert share == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.03)


def test_a_lesion_without_the_contrasts_is_the_last_resort(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "SMOOTH", 0.0)
    remembering(method, [(0, 100, (1, 1), 1.0), (1, 100, (1, 0), 2.0)])
    assert set(draws(method, [100.0])[:, 0, 0].tolist()) == {1.0}
    assert set(draws(method, [100.0], FIRST)[:, 0, 0].round().tolist()) == {1.0, 2.0} and not draws(method, [100.0], FIRST)[:, 0, 1].any()
    remembering(method, [(1, 100, (1, 0), 2.0)])
    assert draws(method, [100.0])[0, 0, 0] == 2.0


@pytest.mark.parametrize("smooth", [appearance.SMOOTH, 1.0])
def test_the_smoothed_bootstrap_keeps_the_spread(smooth: float, method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "SMOOTH", smooth)
    values = torch.randn(200, generator=torch.Generator().manual_seed(1))
    remembering(method, [(i, 100, (1, 1), float(v)) for i, v in enumerate((values - values.mean()) / values.std())])
    made = draws(method, [100.0, 90.0], count=3000)[..., :12]
    assert made[:, 0].std(dim=0).sub(1).abs().max() < 0.08
    assert torch.equal(made[:, 0], made[:, 1]), "moved by the same in all windows"
    assert len(made[:, 0, 0].unique()) == 3000, "no training lesion is taken as it is"


def test_a_draw_is_keyed_by_seed_and_subject(method: PathoSyn, batch_of: Batches) -> None:
    remembering(method, [(i, 40 + i, (1, 1), float(i)) for i in range(20)])
    batch = replace(batch_of(), subject=["a", "a", "b"], m=batch_of().m[:1].expand(3, -1, -1, -1))
    one, again, other = (method.look(batch, seed) for seed in (0, 0, 1))
    assert one is not None and again is not None and other is not None
    assert torch.equal(one, again) and torch.equal(one[0], one[1]) and not torch.equal(one[0], one[2]) and not torch.equal(one, other)


def test_a_lesions_end_looks_like_the_end_of_a_lesion_as_large(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is known how large the subject's lesion is elsewhere; else the window is taken for its largest."""
    monkeypatch.setattr(appearance, "SMOOTH", 0.0)
    batch = batch_of()
    area = float(batch.m[0].sum())
    remembering(method, [(0, 8 * area, (1, 1), 3.0), (0, area, (1, 1), 1.0), (1, area, (1, 1), -1.0)])
    for largest, sign in ((None, -1.0), (torch.full((3,), 8 * area), 1.0)):
        looks = [method.look(replace(batch, largest=largest), seed) for seed in range(50)]
        found = [float(look[0, 0]) for look in looks if look is not None]
        assert len(found) == 50 and np.median(found) == pytest.approx(sign, abs=0.01), "and its slice of that area, not its largest"


def test_what_is_told_moves_the_draw(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    noise = [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(4)]
    forms = [method.draw_form(batch, batch.x_ph, lambda k: noise[k % 4], look=look, steps=2) for look in (None, torch.zeros(3, K), torch.ones(3, K))]
    assert all((a - b).abs().max() > 1e-4 for a, b in pairwise(forms))


def large(batch_of: Batches) -> LesionBatch:
    """A lesion of whole cells, six by six, so that each cell has the same weight."""
    m = torch.zeros(3, 1, 32, 32)
    m[:, :, 4:28, 4:28] = 1.0
    return replace(batch_of(), m=m, S=m)


def test_a_form_that_is_held_has_the_moments_that_were_asked(method: PathoSyn, batch_of: Batches) -> None:
    batch = large(batch_of)
    parts = method.parts(batch)
    form, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    other = 1.5 * other
    other[:, 1] += 2.0 * other[:, 0]
    asked = appearance.measure(method, other + torch.tensor([1.0, -2.0, 0.5, 0.0]).view(1, 4, 1, 1), batch, parts)
    found = appearance.measure(method, held := appearance.held(method, form, asked, batch, parts), batch, parts)
    moments = [*range(8), 12]  # means, standard deviations and the correlation; the edge and the third moment are left as they come
    assert torch.allclose(found[:, moments], asked[:, moments], atol=0.1), "to what EVEN leaves open"
    assert (appearance.measure(method, form, batch, parts) - asked)[:, moments].abs().amax(dim=0).min() > 0.2
    beyond = (coarse.lesion_share(method, batch, parts) == 0).expand_as(form)
    assert torch.equal(held[beyond], form[beyond]) and bool(beyond.any())


def test_holding_moves_no_more_than_it_must(method: PathoSyn, batch_of: Batches) -> None:
    batch = large(batch_of)
    parts, form = method.parts(batch), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    own = appearance.measure(method, form, batch, parts)
    assert torch.allclose(appearance.held(method, form, own, batch, parts), form, atol=1e-4)
    brighter = own.clone()
    brighter[:, 0] += 1.0
    moved = appearance.held(method, form, brighter, batch, parts) - form
    assert torch.allclose(moved[:, :1], batch.m[:, :, ::4, ::4] * method.look_std[0], atol=1e-4) and moved[:, 1:].abs().max() < 1e-4


def test_the_map_is_the_ratio_of_spreads_where_covariances_commute() -> None:
    a, b = torch.tensor([[[4.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 9.0]]])
    assert torch.allclose(moments.transport(a, b), torch.tensor([[[0.5, 0.0], [0.0, 3.0]]]), atol=0.03)
    c = torch.tensor([[[2.0, 0.6], [0.6, 1.0]]])
    map_ = moments.transport(a, c)
    assert torch.allclose(map_ @ a @ map_.transpose(1, 2), c, atol=0.03) and torch.allclose(map_, map_.transpose(1, 2), atol=1e-6)


def test_what_was_not_told_is_not_held(method: PathoSyn, batch_of: Batches) -> None:
    batch = replace(batch_of(present=[[1, 1], [1, 0], [1, 1]]))
    parts, form = method.parts(batch), torch.randn(3, 4, 8, 8)
    look = torch.full((3, K), 2.0)
    look[0] = torch.nan
    held = appearance.held(method, form, look, batch, parts)
    assert torch.equal(held[0], form[0]) and torch.equal(held[1, [1, 3]], form[1, [1, 3]]) and (held[1, [0, 2]] - form[1, [0, 2]]).abs().max() > 0.1


def test_a_lesion_of_one_cell_and_numbers_that_belong_to_nothing_stay_finite(method: PathoSyn, batch_of: Batches) -> None:
    m = torch.zeros(3, 1, 32, 32)
    m[:, :, 12:16, 12:16] = 1.0
    batch = replace(batch_of(), m=m, S=m)
    parts, form = method.parts(batch), torch.randn(3, 4, 8, 8)
    for value in (-30.0, 0.0, 30.0):
        held = appearance.held(method, form, torch.full((3, K), value), batch, parts)
        assert held.isfinite().all() and held.abs().max() < 100


@pytest.mark.parametrize("hold", [False, True])
def test_a_draw_is_held_where_the_method_asks(hold: bool, make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), hold=hold, gather=False), large(batch_of)
    method.look_std.fill_(1.0), method.rough_std.fill_(1.0), method.r_max.fill_(3.0)
    noise = [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(4)]
    asked = torch.full((3, K), 0.5)
    form = method.draw_form(batch, batch.x_ph, lambda k: noise[k % 4], look=asked, steps=2)
    away = (appearance.measure(method, form, batch, method.parts(batch)) - asked)[:, :8].abs().max()
    assert (away < 0.05) == hold


def test_a_draw_is_gathered_before_it_is_held(make_method: Maker, batch_of: Batches) -> None:
    """The same weights and noise, with and without."""
    batch, noise = large(batch_of), [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(4)]
    forms = {}
    for gather, look in ((False, None), (True, None), (True, torch.full((3, K), 0.5))):
        torch.manual_seed(0)
        method = make_method(default(), gather=gather)
        method.look_std.fill_(1.0), method.rough_std.fill_(1.0), method.r_max.fill_(3.0)
        forms[gather, look is not None] = method.draw_form(batch, batch.x_ph, lambda k: noise[k % 4], look=look, steps=2)
    share = coarse.lesion_share(method, batch, method.parts(batch))
    assert torch.allclose(forms[True, False], gathering.gathered(forms[False, False], share, batch.present), atol=1e-6)
    assert not torch.allclose(forms[True, False], forms[False, False], atol=0.01)
    spread = appearance.measure(method, forms[True, True], batch, method.parts(batch))[:, 4:6]
    assert spread.sub(0.5).abs().max() < 0.1, "the spread that was asked for, not what the smoothing left"


def test_the_structures_step_teaches_what_is_told(method: PathoSyn, batch_of: Batches) -> None:
    assert method.coarse is not None
    method.zero_grad()
    method.losses(batch_of(), player="coarse", rng=[rng.generator(i) for i in range(3)])["loss"].backward()
    gradient = method.coarse.net.conv_in.conv.weight.grad
    assert gradient is not None and gradient.shape[1] == 4 + 6 + FORM + 1 and bool((gradient[:, 10:].abs().amax(dim=(0, 2, 3)) > 0).all())


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
    correlations = [12, 13]
    method.look_mean[correlations], method.look_std[correlations] = 0.6, 0.3
    look = torch.full((3, K), 2.5)
    look[:, correlations] = torch.tensor([[1.0], [-4.0], [0.0]])  # correlations of .9, -.6 and .6
    found = appearance.natural(method, look)
    for row, correlation in ((0, 0.9), (1, -0.6), (2, 0.6)):
        wanted = (np.arctanh(correlation) - np.arctanh(0.6)) * (1 - 0.36) / 0.3
        assert torch.allclose(found[row, correlations], torch.tensor(wanted).float(), atol=1e-4)
    assert torch.equal(found[:, :12], look[:, :12]) and torch.allclose(appearance.plain(method, found), look, atol=1e-4)
    near = torch.full((1, K), 1e-2)
    assert torch.allclose(appearance.natural(method, near), near, rtol=0.02)
    before = make_method(default(), fisher_z=False)
    before.look_mean.copy_(method.look_mean), before.look_std.copy_(method.look_std)
    assert torch.equal(appearance.natural(before, look), look) and torch.equal(appearance.plain(before, look), look)


def test_correlations_that_cannot_be_stay_finite_both_ways(method: PathoSyn) -> None:
    method.look_mean[12:], method.look_std[12:] = 1.5, 0.5
    for value in (-30.0, 30.0):
        assert appearance.natural(method, torch.full((1, K), value)).isfinite().all()
        assert appearance.plain(method, torch.full((1, K), value)).isfinite().all()


def test_correlations_of_two_slices_are_averaged_by_their_z(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "SMOOTH", 0.0)
    method.look_mean.fill_(0.2), method.look_std.fill_(0.5)
    remembering(method, [(0, 400, (1, 1), 0.0), (0, 100, (1, 1), 0.0)])
    for row, correlation in enumerate((0.95, 0.1)):
        method.looks[row] = appearance.natural(method, torch.full((1, K), (correlation - 0.2) / 0.5))[0]
    drawn = draws(method, [200.0], count=1)[0, 0, 12] * 0.5 + 0.2
    assert float(drawn) == pytest.approx(np.tanh((np.arctanh(0.95) + np.arctanh(0.1)) / 2), abs=1e-3), "half way in log area"


def test_looks_that_were_measured_otherwise_are_measured_anew(make_method: Maker, batch_of: Batches, tmp_path: Path) -> None:
    old = remembering(make_method(default(), fisher_z=False).eval(), [(0, 100, (1, 1), 1.0)])
    old.look_std.fill_(2.0), old.rough_std.fill_(1.0)
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    config = Config(contrasts=old.config.contrasts, networks=old.config.networks)
    for asked, kept in ((default(), False), (replace(default(), fisher_z=False), True)):
        new = beginning(replace(config, method=asked), tmp_path / "old.safetensors")
        assert isinstance(new, PathoSyn) and torch.equal(new.look_std, old.look_std) and bool(new.looks_of.any()) is kept
        new.begin("sharpen", [batch_of(4)])
        assert bool(new.looks[1].any()) is not kept


def test_what_contrasts_share_is_asked_for_in_its_own_units(method: PathoSyn, batch_of: Batches, make_method: Maker) -> None:
    """As it was measured; 0 where a contrast is missing, NaN where nothing is told, nothing where the method does not ask."""
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    look = appearance.measure(method, torch.randn(3, 4, 8, 8), batch, method.parts(batch))
    look[2] = torch.nan
    asked = appearance.shared(method, look, batch.present)
    assert asked is not None and torch.allclose(asked[0], texture.shared(batch.x, batch.m)[0], atol=1e-5) and asked[0].abs() > 1e-3
    assert asked[1] == 0 and asked[2].isnan()
    without = make_method(default(), shared_grain=False)
    assert appearance.shared(method, None, batch.present) is None and appearance.shared(without, look[:, :FORM], batch.present) is None
    assert len(without.look_mean) == FORM and torch.equal(appearance.of_form(without, look[:, :FORM])[:2], look[:2, :FORM])


@pytest.mark.parametrize(("stage", "measures"), [("substrate", False), ("structure", True), ("deviation", True), ("sharpen", True), ("joint", True)])
def test_looks_are_measured_before_anything_is_told(stage: str, measures: bool, make_method: Maker, batch_of: Batches) -> None:
    method = make_method(default())
    method.begin(stage, [batch_of(4)])
    assert appearance.remembered(method) is measures


def test_weights_from_before_it_keep_their_units_and_measure_the_new_number(
    make_method: Maker, batch_of: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_method(default(), shared_grain=False, attune=False, fisher_z=False).eval()
    remembering(old, [(0, 100, (1, 1), 1.0)])
    old.look_mean.fill_(0.5), old.look_std.fill_(2.0), old.rough_std.fill_(1.0)
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    asked = Config(contrasts=old.config.contrasts, networks=old.config.networks, method=replace(default(), attune=False, fisher_z=False))
    new = beginning(asked, tmp_path / "old.safetensors")
    assert isinstance(new, PathoSyn) and len(new.look_std) == K and new.look_std[FORM] == 0 and torch.equal(new.looks[:, :FORM], old.looks)
    batch = batch_of(4)
    monkeypatch.setattr(new.sub, "forward", lambda *_: batch.x_ph)
    assert "look_std" in new.begin("sharpen", [batch]), "the stage that needs it"
    assert torch.equal(new.look_std[:FORM], old.look_std) and torch.equal(new.look_mean[:FORM], old.look_mean)
    found = texture.shared(batch.x, batch.m)
    assert new.look_mean[FORM] == pytest.approx(float(found.mean()), abs=1e-5) and new.look_std[FORM] == pytest.approx(float(found.std(correction=0)), abs=1e-5)
    assert torch.allclose(new.looks[:4, FORM:], (found - found.mean()) / found.std(correction=0), atol=1e-4)
    assert new.begin("sharpen", [batch]) == {}, "known is known"


def test_the_share_of_lesion_is_of_the_support(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    assert torch.equal(coarse.lesion_share(method, batch, method.parts(batch)), decomposition.coarsen(batch.m, batch.D, 4)[0])
