"""What a lesion looks like: measured, shown, and kept to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from pathosyn import decomposition, rng
from pathosyn.config import default
from pathosyn.lesion import appearance, borders, coarse, gathering, moments, tails, texture
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
FORM = 13  # of two contrasts: six numbers each and one pair
K = FORM + 5  # and what the pair shares of the finest detail, how sparse each contrast's is, and how strong what is next finest


@pytest.fixture
def method(uneven: PathoSyn) -> PathoSyn:
    return uneven


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
    moments = [*range(8), 10, 11, 12]  # means, standard deviations, edges and the correlation
    assert torch.allclose(found[:, moments], asked[:, moments], atol=0.1), "to what EVEN leaves open"
    assert (appearance.measure(method, form, batch, parts) - asked)[:, moments].abs().amax(dim=0).min() > 0.2
    beyond = (coarse.lesion_share(method, batch, parts) == 0).expand_as(form)
    assert torch.equal(held[beyond], form[beyond]) and bool(beyond.any())


@pytest.mark.parametrize("skew", [False, True])
def test_the_third_moments_are_held_where_the_method_asks(skew: bool, make_method: Maker, batch_of: Batches) -> None:
    """A bright part of a tenth of the lesion is asked of a form that has none."""
    method, batch = make_method(default(), skew=skew), large(batch_of)
    method.look_std.fill_(1.0)
    parts, form = method.parts(batch), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    other = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    other[:, 0, 1:3, 1:3] += 3.0
    asked = appearance.measure(method, other, batch, parts)
    found = appearance.measure(method, appearance.held(method, form, asked, batch, parts), batch, parts)
    before = appearance.measure(method, form, batch, parts)
    third = slice(8, 10)
    nearer = (found - asked)[:, third].abs().mean() / (before - asked)[:, third].abs().mean()
    assert (float(nearer) < 0.3) == skew
    assert torch.allclose(found[:, [*range(8), 12]], asked[:, [*range(8), 12]], atol=0.1), "and the others still are"


def test_an_edge_is_held_as_a_whole(make_method: Maker, batch_of: Batches) -> None:
    """A ring of cells that is to be darker, and a middle brighter, than they are."""
    method, batch = make_method(default(), skew=False), large(batch_of)
    method.look_std.fill_(1.0)
    parts, form = method.parts(batch), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    before = appearance.measure(method, form, batch, parts)
    asked = before.clone()
    asked[:, 10] -= 0.4
    found = appearance.measure(method, held := appearance.held(method, form, asked, batch, parts), batch, parts)
    assert torch.allclose(found[:, [*range(8), 10, 11, 12]], asked[:, [*range(8), 10, 11, 12]], atol=0.05)
    share = coarse.lesion_share(method, batch, parts)[:, 0]
    ring = (share > 0) & (torch.nn.functional.avg_pool2d(share, 3, stride=1, padding=1) < 0.99)
    moved = (held - form)[:, 0]
    assert all(float(moved[b][ring[b]].mean()) < -0.1 < 0.1 < float(moved[b][(share[b] > 0) & ~ring[b]].mean()) for b in range(3))


def test_what_stands_in_a_missing_contrasts_place_moves_nothing(method: PathoSyn, batch_of: Batches) -> None:
    batch = replace(large(batch_of), present=torch.tensor([[True, False]] * 3))
    parts, form = method.parts(batch), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    form[:, 1] += 3.0 * form[:, 0]
    empty = form * torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 4, 1, 1)
    asked = appearance.measure(method, 1.5 * empty, batch, parts)
    held, without = (appearance.held(method, each, asked, batch, parts) for each in (form, empty))
    assert torch.allclose(held[:, 0], without[:, 0], atol=1e-4) and torch.equal(held[:, 1], form[:, 1])


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


@pytest.mark.parametrize("hold", [False, True])
def test_what_the_last_call_made_of_the_form_is_held_too(hold: bool, make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), hold=hold, gather=False), large(batch_of)
    method.look_std.fill_(1.0), method.rough_std.fill_(1.0), method.r_max.fill_(9.0), method.r_scale.fill_(1.0)
    noise = [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(6)]
    asked = torch.full((3, K), 0.5)
    asked[:, 10:12] = 0.0  # an edge that differs, too, would have to be made of the cells at the rim that are half lesion, as the mean has
    parts = method.parts(batch)
    r = method.draw(batch, batch.x_ph, lambda k: noise[k % 6], look=asked, steps=2)
    form, _ = coarse.form(method, method.to_scaled(r), batch, batch.x_ph, parts)
    mean = (appearance.measure(method, form, batch, parts) - asked)[:, :2].abs().max()
    assert (mean < 0.1) == hold, "the networks of this test know nothing, so what is not held is anything"
    silent = method.draw(batch, batch.x_ph, lambda k: noise[k % 6], look=torch.full((3, K), torch.nan), steps=2)
    assert silent.isfinite().all() and torch.allclose(silent, method.draw(batch, batch.x_ph, lambda k: noise[k % 6], look=None, steps=2), atol=1e-5)


@pytest.mark.parametrize("asks", [False, True])
def test_the_last_calls_detail_is_as_sparse_as_the_look_asks(asks: bool, make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), tails=asks, gather=False), large(batch_of)
    method.look_std.fill_(1.0), method.rough_std.fill_(1.0), method.r_max.fill_(9.0), method.r_scale.fill_(1.0)
    noise = [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(6)]
    asked = torch.full((3, len(method.look_mean)), 0.2)
    asked[:, FORM + 1 : FORM + 3] = torch.tensor(6.0 / tails.UNIFORM).log()
    x = torch.where(batch.D > 0, batch.x_ph + method.draw(batch, batch.x_ph, lambda k: noise[k % 6], look=asked, steps=2), batch.x)
    away = (tails.sparseness(x - texture.box_mean(x, 1), batch.m).exp() * tails.UNIFORM - 6.0).abs().max()
    assert (away < 0.6) == asks


@pytest.mark.parametrize("asks", [False, True])
def test_the_last_calls_middle_band_is_as_strong_as_the_look_asks(asks: bool, make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), borders=asks, gather=False, tails=False, roughness=False), large(batch_of)
    method.look_std.fill_(1.0), method.r_max.fill_(9.0), method.r_scale.fill_(1.0)
    noise = [rng.normal([rng.generator(k)] * 3, (2, 32, 32)) for k in range(6)]

    def drawn(strong: float) -> Tensor:
        asked = torch.full((3, len(method.look_mean)), 0.2)
        if asks:
            asked[:, -2:] = strong
        r = method.draw(batch, batch.x_ph, lambda k: noise[k % 6], look=asked, steps=2)
        return borders.strength(torch.where(batch.D > 0, batch.x_ph + r, batch.x), batch.m)

    weak, strong = drawn(0.0), drawn(9.0)
    assert bool((strong > 1.1 * weak).all()) if asks else torch.equal(weak, strong)


def test_a_form_that_is_held_has_the_moments_of_cells_that_are_half_lesion_too(method: PathoSyn, batch_of: Batches) -> None:
    """A cell moves only as far as it is lesion: once is not enough."""
    m = torch.zeros(3, 1, 32, 32)
    m[:, :, 6:26, 6:26] = 1.0
    batch = replace(batch_of(), m=m, S=(torch.nn.functional.max_pool2d(m, 5, 1, 2)))
    parts = method.parts(batch)
    form, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    asked = appearance.measure(method, 2.0 * other, batch, parts)
    asked[:, FORM - 1] = (0.5 - method.look_mean[FORM - 1]) / method.look_std[FORM - 1]
    found = appearance.measure(method, appearance.held(method, form, asked, batch, parts), batch, parts)
    assert torch.allclose(found[:, [*range(8), 10, 11, 12]], asked[:, [*range(8), 10, 11, 12]], atol=0.05)


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


def recoloured(method: PathoSyn, form: Tensor, batch: LesionBatch, name: object = "looks") -> Tensor:
    return appearance.recoloured(method, form, batch, method.parts(batch), [rng.generator(name, i) for i in range(len(batch))])


def test_a_form_of_other_looks_is_a_linear_map_of_its_contrasts_about_their_mean(method: PathoSyn, batch_of: Batches) -> None:
    batch = large(batch_of)
    share = coarse.lesion_share(method, batch, method.parts(batch))
    form = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    made = recoloured(method, form, batch)
    whole = (share[:, 0] == 1).numpy()
    for b in range(3):
        before, after = (values[b].numpy()[:, whole[b]] for values in (form, made))
        one = np.ones((1, before.shape[1]))
        for mine, of in ((slice(0, 2), slice(0, 2)), (slice(2, 3), slice(2, 3)), (slice(3, 4), slice(3, 4))):
            known = np.concatenate([before[of], one])
            matrix = np.linalg.lstsq(known.T, after[mine].T, rcond=None)[0]
            assert np.allclose(known.T @ matrix, after[mine].T, atol=1e-4), "roughness keeps to itself, and so does each of its contrasts"
            assert abs(matrix[0, 0] - 1) > 1e-3 and abs(matrix[-1]).min() > 1e-3
    beyond = (share == 0).expand_as(form)
    assert torch.equal(made[beyond], form[beyond])
    assert torch.equal(made, recoloured(method, form, batch)) and not torch.equal(made, recoloured(method, form, batch, "others"))


@pytest.mark.parametrize(("name", "changed"), [("GAIN", "std"), ("MIX", "correlation"), ("SHIFT", "mean")])
def test_each_change_of_looks_is_as_wide_as_it_says(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch, name: str, changed: str) -> None:
    for each in ("GAIN", "MIX", "SHIFT"):
        monkeypatch.setattr(appearance, each, 0.3 if each == name else 0.0)
    m = torch.zeros(1000, 1, 32, 32)
    m[:, :, 8:24, 8:24] = 1.0
    batch = replace(batch_of(1000), m=m, S=m)
    form = torch.zeros(1000, 4, 8, 8)
    form[:, 0, :, ::2], form[:, 0, :, 1::2] = -1.0, 1.0
    form[:, 1, ::2], form[:, 1, 1::2] = -1.0, 1.0
    inside = recoloured(method, form, batch)[:, :2, 2:6, 2:6].flatten(2)
    mean, std = inside.mean(dim=2), inside.std(dim=2, correction=0)
    apart = inside - mean[:, :, None]
    found = {
        "std": std[:, 0].log(),
        "correlation": (apart[:, 0] * form[:, 1, 2:6, 2:6].flatten(1)).mean(dim=1),  # the part of the other contrast that was mixed in
        "mean": mean[:, 0],
    }
    assert 0.27 < float(found[changed].std()) < 0.33 and abs(float(found[changed].mean())) < 0.03
    assert all(float(values.std()) < 1e-3 for what, values in found.items() if what != changed and (name, what) != ("MIX", "std"))


def test_a_missing_contrast_gets_no_looks(method: PathoSyn, batch_of: Batches) -> None:
    batch = replace(large(batch_of), present=torch.tensor([[True, False]] * 3))
    form = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    form[:, [1, 3]] = 0.0
    made = recoloured(method, form, batch)
    assert not made[:, [1, 3]].any() and not torch.equal(made[:, [0, 2]], form[:, [0, 2]])


def test_the_structures_step_learns_from_forms_of_other_looks(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, seen = large(batch_of), []
    monkeypatch.setattr(appearance, "recoloured", lambda model, form, *rest: torch.full_like(form, 5.0))
    monkeypatch.setattr(appearance, "taught", lambda look, streams: seen.append(look) or look)
    method.losses(batch, player="coarse", rng=[rng.generator(i) for i in range(3)])
    assert torch.allclose((seen[0] * method.look_std + method.look_mean)[:, :4], torch.full((3, 4), 5.0), atol=1e-3), "and is told these"


def test_what_contrasts_share_is_asked_for_in_its_own_units(method: PathoSyn, batch_of: Batches, make_method: Maker) -> None:
    """As it was measured; 0 where a contrast is missing, NaN where nothing is told, nothing where the method does not ask."""
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    look = appearance.measure(method, torch.randn(3, 4, 8, 8), batch, method.parts(batch))
    look[2] = torch.nan
    asked = appearance.shared(method, look, batch.present)
    assert asked is not None and torch.allclose(asked[0], texture.shared(batch.x, batch.m)[0], atol=1e-5) and asked[0].abs() > 1e-3
    assert asked[1] == 0 and asked[2].isnan()
    without = make_method(default(), shared_grain=False, tails=False, borders=False)
    assert appearance.shared(method, None, batch.present) is None and appearance.shared(without, look[:, :FORM], batch.present) is None
    assert len(without.look_mean) == FORM and torch.equal(appearance.of_form(without, look[:, :FORM])[:2], look[:2, :FORM])


def test_how_sparse_detail_is_to_be_is_asked_for_in_its_own_units(method: PathoSyn, batch_of: Batches, make_method: Maker) -> None:
    """As what contrasts share is; with and without that before it."""
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    for model in (method, make_method(default(), shared_grain=False)):
        model.look_mean.fill_(0.3), model.look_std.fill_(1.7)
        look = appearance.measure(model, torch.randn(3, 4, 8, 8), batch, model.parts(batch))
        assert look.shape[1] == len(model.look_mean) == FORM + 4 + model.config.method.shared_grain
        look[2] = torch.nan
        asked = appearance.sparseness(model, look, batch.present)
        wanted = tails.sparseness(batch.x - texture.box_mean(batch.x, 1), batch.m)
        assert asked is not None and torch.allclose(asked[0], wanted[0], atol=1e-5) and float(asked[0].min()) > 0.1
        assert asked[1, 1] == 0 and asked[1, 0] != 0 and asked[2].isnan().all()
        assert torch.equal(appearance.of_form(model, look)[:2], look[:2, :FORM])
    without = make_method(default(), tails=False, borders=False)
    assert appearance.sparseness(method, None, batch.present) is None and appearance.sparseness(without, look[:, : FORM + 1], batch.present) is None


def test_how_strong_the_middle_band_is_to_be_is_asked_for_in_its_own_units(method: PathoSyn, batch_of: Batches, make_method: Maker) -> None:
    """Last of all, with and without what comes before it."""
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    for model in (method, make_method(default(), shared_grain=False), make_method(default(), tails=False)):
        model.look_mean.fill_(0.3), model.look_std.fill_(1.7)
        look = appearance.measure(model, torch.randn(3, 4, 8, 8), batch, model.parts(batch))
        look[2] = torch.nan
        asked, wanted = appearance.strengths(model, look, batch.present), borders.strength(batch.x, batch.m)
        assert asked is not None and torch.allclose(asked[0], wanted[0], atol=1e-5) and float(asked[0].min()) > 0.1
        assert asked[1, 1] == 0 and asked[1, 0] != 0 and asked[2].isnan().all()
    without = make_method(default(), borders=False)
    assert appearance.strengths(method, None, batch.present) is None and appearance.strengths(without, look[:, : FORM + 3], batch.present) is None


def test_what_was_never_measured_is_not_asked_for(method: PathoSyn, batch_of: Batches) -> None:
    """Weights that did not know it and have trained f_sub alone since: a spread of 0. Of what contrasts share all is left open or nothing."""
    batch, look = batch_of(), torch.full((3, K), 0.3)
    method.look_mean.fill_(0.4), method.look_std.fill_(2.0)
    method.look_std[FORM + 2] = 0.0
    asked, shared = appearance.sparseness(method, look, batch.present), appearance.shared(method, look, batch.present)
    assert asked is not None and shared is not None
    assert torch.allclose(asked[:, 0], torch.full((3,), 1.0)) and asked[:, 1].isnan().all() and torch.allclose(shared, torch.full((3, 1), 1.0))
    method.look_std[FORM:] = 0.0
    asked, shared = appearance.sparseness(method, look, batch.present), appearance.shared(method, look, batch.present)
    assert asked is not None and shared is not None and asked.isnan().all() and shared.isnan().all()


def test_the_share_of_lesion_is_of_the_support(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    assert torch.equal(coarse.lesion_share(method, batch, method.parts(batch)), decomposition.coarsen(batch.m, batch.D, 4)[0])
