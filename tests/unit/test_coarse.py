"""The coarse form: means and roughness of cells, there and back, and what eps_theta is shown of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pathosyn import decomposition, diffusion, rng
from pathosyn.checkpoint import Provenance, save_weights
from pathosyn.config import Config, Train, default
from pathosyn.lesion import appearance, borders, coarse, tails, texture
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.training.start import beginning, grown
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]


@pytest.fixture
def method(make_method: Maker) -> PathoSyn:
    made = make_method(default(), rough_of="finest")
    made.r_scale.copy_(torch.tensor([0.5, 2.0]))
    made.rough_mean.copy_(torch.tensor([-0.3, 0.2]))
    made.rough_std.copy_(torch.tensor([0.6, 0.8]))
    return made


def deviation(method: PathoSyn, batch: LesionBatch) -> Tensor:
    """Scaled, on the support."""
    return method.to_scaled((batch.x - batch.x_ph) * batch.D)


def test_the_form_gives_means_and_roughness_back(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    parts, r0 = method.parts(batch), deviation(method, batch)
    form, there = coarse.form(method, r0, batch, batch.x_ph, parts)
    mean, cells = decomposition.coarsen(r0, parts.support, 4)
    assert form.shape == (3, 4, 8, 8) and torch.allclose(coarse.means(method, form, batch, batch.x_ph, parts), mean, atol=1e-5) and torch.equal(there, cells)
    own = coarse.own_of(method, batch.x, parts).spread
    power, weight = (avg_pool2d(field, 12, stride=4, padding=4) for field in (texture.finest(batch.x, parts.support).square(), parts.support))
    wanted = (power / weight.clamp(min=1e-6)).sqrt() * there  # f + r_0 is the scan, and beyond the window nothing is support
    assert torch.allclose(coarse.roughness(method, form, own) * there, wanted, atol=1e-4) and float(wanted.max()) > 0.5


def test_a_rise_at_the_outline_is_no_roughness(make_method: Maker, batch_of: Batches) -> None:
    """A smooth lesion whose intensity rises over its rim by 30 times the grain's spread, on a smooth f: what `cells` makes of it is many times what `finest`
    does."""
    batch = batch_of()
    batch = replace(batch, x_ph=torch.zeros_like(batch.x_ph))
    found = {}
    for kind in ("cells", "finest"):
        method = make_method(default(), rough_of=kind)
        method.rough_std.fill_(1.0)
        parts = method.parts(batch)
        grain = 0.1 * rng.normal([rng.generator(i) for i in range(3)], (2, 32, 32))
        for height in (0.0, 3.0):
            x = batch.x_ph + height * decomposition.smooth(batch.m, sigma=1.5) + grain
            there, rough = coarse.relative_roughness(method, (x - batch.x_ph) * batch.D, replace(batch, x=x), batch.x_ph, parts)
            found[kind, height] = rough[there.expand_as(rough) > 0].mean()
    more = {kind: float(found[kind, 3.0] - found[kind, 0.0]) for kind in ("cells", "finest")}
    assert more["cells"] > 0.5 and more["cells"] > 2.5 * more["finest"], more


@pytest.mark.parametrize("cells", ["deviation", "intensity"])
def test_on_the_lesion_the_form_is_the_scans_own_intensity_whatever_f_is(cells: str, make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), cells=cells, roughness=False), batch_of(6)
    method.r_scale.copy_(torch.tensor([0.5, 2.0]))
    parts = method.parts(batch)
    share = decomposition.coarsen(batch.m, parts.support, 4)[0]
    lesion, beyond = ((share == k).expand(-1, 2, -1, -1) & (decomposition.coarsen(batch.D, batch.D, 4)[1] > 0) for k in (1, 0))
    assert lesion.any() and beyond.any()
    forms = [coarse.form(method, method.to_scaled((batch.x - f) * batch.D), batch, f, parts)[0] for f in (batch.x_ph, batch.x_ph + 3.0)]
    scale = method.r_scale.view(1, 2, 1, 1)
    own = decomposition.coarsen(batch.x / scale, parts.support, 4)[0]
    if cells == "intensity":
        assert torch.allclose(forms[0], forms[1], atol=1e-5) is False, "off the lesion it is the deviation"
        assert torch.allclose(forms[0][lesion], own[lesion], atol=1e-5) and torch.allclose(forms[1][lesion], own[lesion], atol=1e-5)
    else:
        assert torch.allclose(forms[0] - forms[1], (3.0 / scale).expand_as(own) * decomposition.coarsen(batch.D, batch.D, 4)[1], atol=1e-4)
    assert torch.allclose((forms[0] - forms[1])[beyond], (3.0 / scale).expand_as(own)[beyond], atol=1e-4)


def test_roughness_does_not_depend_on_the_scans_brightness(method: PathoSyn, batch_of: Batches) -> None:
    """Twice the intensities: twice the deviation and twice the scan's own grain. What is no tissue any more then is left out here."""
    batch = batch_of()
    quiet = replace(batch, x=0.1 * batch.x)
    r = (batch.x - batch.x_ph) * batch.D
    (_, once), (_, twice) = (coarse.relative_roughness(method, k * r, replace(quiet, x=k * quiet.x), k * batch.x_ph, method.parts(batch)) for k in (1.0, 2.0))
    there = decomposition.coarsen(batch.D, batch.D, 4)[1].expand_as(once) > 0
    assert (once - twice).abs()[there].max() < 0.25 < once[there].abs().max()


@pytest.mark.parametrize("kind", ["v", "r0"])
def test_a_network_that_knows_the_form_has_nothing_to_learn_and_draws_it(
    kind: str, make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it puts out. The last call's own prediction stays what it was."""
    monkeypatch.setattr(appearance, "recoloured", lambda model, form, *_: form)
    method, batch = make_method(default(), coarse_prediction=kind, prediction="v", hold=False, gather=False), batch_of()
    parts = method.parts(batch)
    truth, there = coarse.form(method, deviation(method, batch), batch, batch.x_ph, parts)

    class Knowing(torch.nn.Module):
        def forward(self, r_t: Tensor, _: Tensor, t: Tensor) -> Tensor:
            return diffusion.target(truth, diffusion.predict_eps(r_t, truth, t, method.schedule), t, method.schedule, prediction=kind)

    method.coarse = Knowing()
    method.r_max.fill_(100.0)
    terms = method.losses(replace(batch, x_sub=batch.x_ph), player="coarse", rng=[rng.generator(k) for k in range(len(batch))])
    assert float(terms["loss"]) < 1e-6
    noise = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0))
    drawn = method.draw_form(batch, batch.x_ph, lambda _: noise, steps=3)
    assert torch.allclose(drawn, truth.clamp(-coarse.FARTHEST, coarse.FARTHEST) * there, atol=1e-3)


def test_an_error_of_r0_counts_as_that_of_v_up_to_a_limit(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """‖v - v̂‖² = ‖r_0 - r̂_0‖² / (1 - ᾱ): v is linear in r_0 for a given r_t."""
    method, batch = make_method(default(), coarse_prediction="r0"), batch_of()
    off = 0.3
    for t, expected in ((1000, 1.0), (500, None), (20, diffusion.MOST)):
        spread = float(1 - method.schedule.alpha_bar[t])
        weight = 1 / spread if expected is None else expected
        assert diffusion.snr_weight(torch.tensor([t]), method.schedule).tolist() == pytest.approx([weight], rel=1e-4)
        r0, r_t, times = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.7), torch.tensor([t])
        v, w = (diffusion.target(r, diffusion.predict_eps(r_t, r, times, method.schedule), times, method.schedule, prediction="v") for r in (r0, r0 + off))
        assert float((v - w).square()) == pytest.approx(off**2 / spread, rel=1e-3)
    monkeypatch.setattr(diffusion, "training_times", lambda u, T, times: torch.full_like(u, 20))
    monkeypatch.setattr(appearance, "recoloured", lambda model, form, *_: form)

    class Off(torch.nn.Module):
        def forward(self, r_t: Tensor, _: Tensor, __: Tensor) -> Tensor:
            return coarse.form(method, deviation(method, batch), batch, batch.x_ph, method.parts(batch))[0] + off

    method.coarse = Off()
    terms = method.losses(replace(batch, x_sub=batch.x_ph), player="coarse", rng=[rng.generator(k) for k in range(len(batch))])
    assert float(terms["loss"]) == pytest.approx(diffusion.MOST * off**2, rel=1e-3)


def test_begin_brings_the_logarithms_to_mean_0_and_spread_1(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make_method(default()), batch_of(8, present=[[1, 1]] * 4 + [[1, 0]] * 4)
    monkeypatch.setattr(method.sub, "forward", lambda x, *_: batch.x_ph)
    found = method.begin("structure", [batch])
    form, there = coarse.form(method, method.to_scaled((batch.x - batch.x_ph) * batch.D), batch, batch.x_ph, method.parts(batch))
    for c in range(2):
        cells = form[:, 2 + c][(there[:, 0] > 0) & batch.present[:, c, None, None]]
        assert float(cells.mean()) == pytest.approx(0.0, abs=1e-3) and float(cells.std()) == pytest.approx(1.0, abs=1e-3)
    assert found["rough_std"] == method.rough_std.tolist() and method.begin("sharpen", [batch_of()]) == {}, "known is known"
    assert not form[4:, 3].any(), "a missing contrast has none"


def test_the_grain_on_the_support_is_as_rough_as_the_form_asks(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    parts, white = method.parts(batch), rng.normal([rng.generator(i) for i in range(3)], (2, 32, 32))
    condition, there = method.condition(batch.x, batch.x_ph, batch.m, parts), decomposition.coarsen(batch.D, batch.D, 4)[1]
    own = coarse.own_of(method, batch.x, parts).spread
    grains = []
    for asked in (0.1, 0.4):
        relative = (torch.log((asked + coarse.FLOOR) / (own + coarse.FLOOR)) - method.rough_mean.view(1, 2, 1, 1)) / method.rough_std.view(1, 2, 1, 1)
        form = torch.cat([torch.zeros(3, 2, 8, 8), relative.expand(3, 2, 8, 8)], 1)
        seen = coarse.seen(method, condition, coarse.own_of(method, batch.x, parts), parts, white, form=form, there=there)
        assert seen.shape[1] == 6 + 2 + 2 and torch.equal(seen[:, :6], condition)
        rough = seen[:, 8:] * method.r_scale.view(1, 2, 1, 1)
        assert torch.allclose(rough, asked * parts.support.expand_as(rough), atol=1e-3)
        grains.append(seen[:, 6:8])
    inside = parts.support.expand_as(grains[0]) > 0
    assert torch.equal(grains[0][~inside], grains[1][~inside])
    assert torch.allclose(grains[1][inside], grains[0][inside] * (0.4 + coarse.FLOOR) / (0.1 + coarse.FLOOR), rtol=1e-3, atol=1e-4)


def test_the_grain_on_the_support_shares_what_is_asked(method: PathoSyn, batch_of: Batches) -> None:
    """There alone; windows that are told nothing see the scan's own."""
    batch = batch_of()
    parts, white = method.parts(batch), rng.normal([rng.generator(i) for i in range(3)], (2, 32, 32))
    condition, there = method.condition(batch.x, batch.x_ph, batch.m, parts), decomposition.coarsen(batch.D, batch.D, 4)[1]
    form = torch.zeros(3, 4, 8, 8)
    own, asked = (
        coarse.seen(method, condition, coarse.own_of(method, batch.x, parts), parts, white, form=form, there=there, shared=shared)[:, 6:8]
        for shared in (None, torch.tensor([[0.7], [-0.4], [torch.nan]]))
    )
    off = (parts.support == 0).expand_as(own)
    assert torch.equal(asked[off], own[off]) and torch.allclose(asked[2], own[2], atol=1e-4)
    assert (asked[0] - own[0]).abs().max() > 0.01
    inner = 1.0 - torch.nn.functional.max_pool2d(1.0 - parts.support, 3, stride=1, padding=1)  # the 3×3 mean at the border sees grain that was not mixed
    found = texture.shared(asked, inner)[:2, 0]
    assert torch.allclose(found, torch.tensor([0.7, -0.4]), atol=0.15), found


def test_what_lies_under_the_support_is_seen_through_the_form_alone(method: PathoSyn, batch_of: Batches) -> None:
    """Where S is 1; in the feather (1 - S) of the scan stays, and is seen. With a look, too, to which the draw is held."""
    batch = batch_of()
    method.r_max.fill_(100.0), method.look_std.fill_(1.0), method.looks_of.fill_(1.0)
    other = replace(batch, x=torch.where(batch.S == 1, batch.x * 5 + 7, batch.x))
    first, second = (method.synthesize(each, controls=Controls(seed=1), steps=2).r for each in (batch, other))
    assert method.look(batch, 1) is not None and float(first[batch.D.expand_as(first) > 0].std()) > 0.1
    assert torch.equal(first, second), "a draw depends on nothing of the lesion that it replaces"


def test_going_on_with_more_to_see_changes_nothing_at_first(make_method: Maker, batch_of: Batches, tmp_path: Path) -> None:
    """Weights from before grain and roughness: eps_theta answers as before, whatever the new channels hold."""
    old = make_method(default(), grain=False, roughness=False)
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    asked = Config(contrasts=old.config.contrasts, networks=old.config.networks, method=default())
    new = beginning(asked, tmp_path / "old.safetensors").eval()
    assert new.rough and new.config.method.grain
    r_t, t = torch.randn(3, 2, 32, 32), torch.tensor([250, 250, 250])
    condition, extra = torch.randn(3, 6, 32, 32), torch.randn(3, 4, 32, 32)
    with torch.no_grad():
        assert torch.allclose(new.eps(r_t, torch.cat([condition, extra], 1), t), old.eps(r_t, condition, t), atol=1e-5)
    assert new.coarse is not None and new.coarse.net.out[-1].conv.weight.shape[0] == 4, "a coarse network that drew no roughness starts afresh"


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_roughness_of_an_older_kind_is_measured_anew_where_forms_are_learned(share: float, make_method: Maker, tmp_path: Path) -> None:
    old = make_method(default(), rough_of="cells")
    for name, value in old.named_buffers():
        if name.startswith(("rough_", "look")):
            value.fill_(3.0)
    save_weights(tmp_path / "old.safetensors", old, Provenance())
    asked = Config(
        contrasts=old.config.contrasts, networks=old.config.networks, method=replace(default(), rough_of="finest"), train=Train(structure_share=share)
    )
    new = beginning(asked, tmp_path / "old.safetensors")
    assert new.config.method.rough_of == ("finest" if share else "cells")
    rough = {name: bool(value.any()) for name, value in new.named_buffers() if name.startswith(("rough_", "looks", "look_around", "look_map"))}
    assert len(rough) >= 5 and set(rough.values()) == {not share}
    numbers = [0.0 if share and (2 <= k < 4 or 6 <= k < 8) else 3.0 for k in range(len(new.look_mean))]  # means of both kinds, standard deviations of both
    assert new.look_mean.tolist() == new.look_std.tolist() == numbers, "the units of other looks stay"
    assert torch.equal(new.coarse.net.out[-1].conv.weight, old.coarse.net.out[-1].conv.weight), "the networks go on"


def test_a_grown_layer_keeps_its_weights_first() -> None:
    weight = torch.randn(4, 3, 3, 3)
    wider = grown(weight, torch.Size([4, 5, 3, 3]))
    assert torch.equal(wider[:, :3], weight) and not wider[:, 3:].any() and grown(weight, weight.shape) is weight


def test_a_form_is_changed_in_its_cells_means(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    parts, r0 = method.parts(batch), deviation(method, batch)
    own = coarse.own_of(method, batch.x, parts).spread
    assert torch.allclose(coarse.with_form(method, r0, lambda form: form, batch, batch.x_ph, parts, own=own), r0, atol=1e-5)
    moved = coarse.with_form(method, r0, lambda form: form + torch.tensor([0.5, -1.0, 0.0, 0.0]).view(1, 4, 1, 1), batch, batch.x_ph, parts, own=own)
    assert torch.allclose(moved - r0, torch.tensor([0.5, -1.0]).view(1, 2, 1, 1) * parts.support, atol=1e-5), "by the same throughout: its detail stays"
    there = coarse.form(method, r0, batch, batch.x_ph, parts)[1]
    one = torch.zeros_like(there)
    one[0, 0].view(-1)[there[0, 0].flatten().argmax()] = 1.0
    changed = coarse.with_form(method, r0, lambda form: form + one, batch, batch.x_ph, parts, own=own) - r0
    assert bool(changed[0].any()) and changed[1:].abs().max() < 1e-5 and not changed[~(parts.support > 0).expand_as(changed)].any()


@pytest.mark.parametrize("kind", ["cells", "finest"])
def test_a_rougher_form_makes_detail_stronger_by_as_much(kind: str, make_method: Maker, batch_of: Batches) -> None:
    """What was asked comes out, nearly: between cells it is interpolated."""
    method = make_method(default(), rough_of=kind)
    method.r_scale.copy_(torch.tensor([0.5, 2.0])), method.rough_std.copy_(torch.tensor([0.6, 0.8]))
    grain = 0.3 * rng.normal([rng.generator(i) for i in range(3)], (2, 32, 32))
    batch = batch_of()
    batch = replace(batch, x_ph=torch.zeros_like(batch.x_ph), x=0.6 * decomposition.smooth(batch.m, sigma=1.5) + grain)
    parts, r0 = method.parts(batch), deviation(method, batch)
    own = coarse.own_of(method, batch.x, parts).spread
    form, _ = coarse.form(method, r0, batch, batch.x_ph, parts)
    asked = torch.tensor([0.0, 0.0, 0.5, -0.5]).view(1, 4, 1, 1)
    made = coarse.with_form(method, r0, lambda form: form + asked, batch, batch.x_ph, parts, own=own)
    moved = (coarse.form(method, made, batch, batch.x_ph, parts)[0] - form)[:, 2:]
    inside = decomposition.coarsen(batch.m, parts.support, 4)[0][:, 0] > 0.9
    assert [float(moved[:, c][inside].mean()) for c in range(2)] == pytest.approx([0.5, -0.5], abs=0.12)


def test_a_rise_at_the_outline_stays_where_a_form_becomes_rougher(make_method: Maker, batch_of: Batches) -> None:
    """Of all that the cells' means do not tell most is the rise; of the finest detail little."""
    batch = batch_of()
    batch = replace(batch, x_ph=torch.zeros_like(batch.x_ph), x=3.0 * decomposition.smooth(batch.m, sigma=1.5).expand_as(batch.x) * batch.S)
    moved = {}
    for kind in ("cells", "finest"):
        method = make_method(default(), rough_of=kind)
        method.rough_std.fill_(1.0)
        parts, r0 = method.parts(batch), deviation(method, batch)
        asked = torch.tensor([0.0, 0.0, 0.5, 0.5]).view(1, 4, 1, 1)
        own = torch.full((3, 2, 1, 1), 0.1)
        made = coarse.with_form(method, r0, lambda form, asked=asked: form + asked, batch, batch.x_ph, parts, own=own)
        moved[kind] = float((made - r0).square().mean().sqrt())
    assert moved["cells"] > 3 * moved["finest"] > 0, moved


@pytest.mark.parametrize("asked", [0.6, -0.4])
def test_detail_is_mixed_until_the_composed_lesion_shares_what_is_asked(asked: float, method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of()
    parts, r0 = method.parts(batch), deviation(method, batch)
    shared = torch.tensor([[asked], [asked], [torch.nan]])
    made = coarse.with_form(method, r0, lambda form: form, batch, batch.x_ph, parts, own=coarse.own_of(method, batch.x, parts).spread, shared=shared)
    found = texture.shared(batch.x_ph + method.from_scaled(made), batch.m)
    had = texture.shared(batch.x_ph + method.from_scaled(r0), batch.m)
    assert (found - shared)[:2].abs().max() < 0.05 < (had - shared)[:2].abs().min()
    assert torch.allclose(made[2], r0[2], atol=1e-5), "a window that is told nothing"
    form, before = (coarse.form(method, each, batch, batch.x_ph, parts)[0][:, :2] for each in (made, r0))
    assert (form - before).std() < 0.2 * before.std(), "cells keep their means, nearly"


@pytest.mark.parametrize("asked", [3.0, 4.5, 7.0])
def test_the_finest_detail_of_the_composed_lesion_is_as_sparse_as_is_asked(asked: float, method: PathoSyn, batch_of: Batches) -> None:
    """Within a twentieth of the kurtosis; what is not told, missing or off the lesion stays, and the detail stays about as strong."""
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    quiet = torch.arange(32) % 16 < 12
    uneven = torch.where(quiet[:, None] | quiet, 1.0, 4.0)  # what is as strong everywhere stays so
    parts, r = method.parts(batch), method.from_scaled(deviation(method, batch) * uneven)
    wanted = (torch.tensor([[asked, asked], [asked, asked], [torch.nan, torch.nan]]) / tails.UNIFORM).log()
    made = coarse.with_tails(method, r, batch, batch.x_ph, parts, wanted)
    there = [(0, 0), (0, 1), (1, 0)]

    def found(each: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.where(parts.support > 0, batch.x_ph + each, batch.x)
        detail = x - texture.box_mean(x, 1)
        return tails.UNIFORM * tails.sparseness(detail, batch.m).exp(), (detail * batch.m).square().sum(dim=(2, 3))

    (kurtosis, power), (_, before) = found(made), found(r)
    assert all(float(kurtosis[at]) == pytest.approx(asked, rel=0.05) and float(power[at] / before[at]) == pytest.approx(1.0, abs=0.3) for at in there)
    assert torch.equal(made[2], r[2]) and not made[1, 1].any() and torch.equal(made * (1 - batch.m), r * parts.known * (1 - batch.m))


@pytest.mark.parametrize("factor", [0.85, 1.3])
def test_the_middle_band_of_the_composed_lesion_is_as_strong_as_is_asked(factor: float, method: PathoSyn, batch_of: Batches) -> None:
    """In the scan's own units, whatever those of r_0; what is not told, missing or off the lesion stays."""
    method.r_scale.copy_(torch.tensor([0.5, 2.0]))
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    batch = replace(batch, m=(batch.D > 0).to(batch.m))  # a lesion with an inside
    parts, r0 = method.parts(batch), deviation(method, batch)

    def found(each: Tensor) -> Tensor:
        return borders.strength(torch.where(parts.support > 0, batch.x_ph + method.from_scaled(each), batch.x) * parts.known, batch.m)

    wanted = factor * found(r0)
    wanted[2, 0] = torch.nan
    made = coarse.with_strength(method, r0, batch, batch.x_ph, parts, wanted)
    assert all(float(found(made)[at] / wanted[at]) == pytest.approx(1.0, abs=0.15) for at in ((0, 0), (0, 1), (1, 0)))
    assert not torch.allclose(made[0], r0[0], atol=0.05) and torch.allclose(made[2], r0[2], atol=1e-6) and not made[1, 1].any()
    assert torch.equal(made * (1 - batch.m), r0 * (1 - batch.m))


def test_a_missing_contrast_is_not_changed(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 0], [1, 1], [0, 1]])
    parts, r0 = method.parts(batch), deviation(method, batch)
    changed = coarse.with_form(method, r0, lambda form: form + 1.0, batch, batch.x_ph, parts, own=coarse.own_of(method, batch.x, parts).spread) - r0
    assert not changed[0, 1].any() and not changed[2, 0].any() and bool(changed[1].all(dim=0).any())
