"""The adversarial stage: who learns from whom, at which call, from which start, and what its two terms are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pathosyn import alg1, decomposition, losses, rng
from pathosyn.config import Method, default, paper
from pathosyn.diffusion import predict_eps, target
from pathosyn.lesion import appearance, coarse, texture
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
Tiny = dict[str, PathoSyn]


def streams(count: int = 3, name: object = "test") -> list[torch.Generator]:
    return [rng.generator(name, i) for i in range(count)]


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.fixture
def method(tiny: Tiny) -> PathoSyn:
    return tiny["default"].requires_grad_(True)


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch, method: PathoSyn) -> list[tuple[Tensor, ...]]:
    """What the critic is shown, call by call: x, m, S, flags. Nothing is moved."""
    assert method.critic is not None
    monkeypatch.setattr(alg1, "_shifts", lambda streams: torch.zeros(len(streams), 2, dtype=torch.long))
    seen: list[tuple[Tensor, ...]] = []
    original = method.critic.forward

    def forward(*given: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(given)
        return original(*given)

    monkeypatch.setattr(method.critic, "forward", forward)
    return seen


def test_players_and_their_modules(method: PathoSyn, tiny: Tiny) -> None:
    assert list(method.modules_of("critic")) == [method.critic] and list(method.modules_of("sharp")) == [method.eps]
    assert tiny["paper"].critic is None and not tiny["paper"].modules_of("critic")


@pytest.mark.parametrize("fields", [{"adversary": 0.0, "patches": 0.0}, {"joint": True}])
def test_without_an_adversary_and_patches_or_in_joint_training_there_is_no_third_stage(fields: dict[str, object], make_method: Maker) -> None:
    stages = make_method(default(), **fields).stages
    assert "sharpen" not in [stage.name for stage in stages] and sum(stage.share for stage in stages) == pytest.approx(1.0)


def test_without_an_adversary_the_third_stage_has_one_player(make_method: Maker) -> None:
    (last,) = [stage for stage in make_method(default()).stages if stage.name == "sharpen"]
    assert last.players == ("sharp",)


def test_the_critics_step_moves_the_critic_alone(method: PathoSyn, batch_of: Batches) -> None:
    terms = method.losses(batch_of(), player="critic", rng=streams())
    terms["loss"].backward()
    assert method.critic is not None and has_gradient(method.critic)
    assert not has_gradient(method.eps) and not has_gradient(method.sub)
    assert set(terms) == {"critic_patch", "critic_whole", "loss"}
    assert float(terms["loss"].detach()) == pytest.approx(float((terms["critic_patch"] + terms["critic_whole"]).detach()))


def test_sharp_moves_eps_theta_and_a_fixed_critic_passes_the_gradient_on(method: PathoSyn, batch_of: Batches) -> None:
    assert method.critic is not None
    method.critic.requires_grad_(False)
    terms = method.losses(batch_of(), player="sharp", rng=streams())
    (gradient,) = torch.autograd.grad(terms["adversary"], method.eps.net.out[-1].conv.bias, retain_graph=True)
    assert gradient.any(), "the critic's verdict reaches eps_theta"
    terms["loss"].backward()
    assert has_gradient(method.eps) and not has_gradient(method.critic) and not has_gradient(method.sub)


def test_the_critic_compares_the_scan_with_what_was_composed(method: PathoSyn, batch_of: Batches, patches: list[tuple[Tensor, ...]]) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    terms = method.losses(batch, player="critic", rng=streams())
    (real, m, S, flags), (fake, *beside) = patches  # noqa: N806
    assert torch.equal(real, batch.x) and torch.equal(m, batch.m) and torch.equal(S, batch.S)
    assert torch.equal(flags, batch.present[:, :, None, None].expand_as(batch.x).float())
    assert all(torch.equal(a, b) for a, b in zip(beside, (m, S, flags), strict=True))
    outside = (batch.S == 0).expand_as(fake)
    assert torch.equal(fake[outside], real[outside]) and not torch.allclose(fake[~outside], real[~outside], atol=1e-2)
    assert not fake[~batch.present].any(), "a missing contrast tells nothing"
    assert method.critic is not None
    (patch, whole), (patch_hat, whole_hat) = method.critic(real, m, S, flags), method.critic(fake, m, S, flags)
    assert terms["critic_patch"].item() == pytest.approx(losses.critic_loss(patch, patch_hat).item(), rel=1e-5)
    assert terms["critic_whole"].item() == pytest.approx(losses.critic_loss(whole, whole_hat).item(), rel=1e-5)


def test_sharp_is_judged_on_every_window_and_weighs_its_terms(method: PathoSyn, batch_of: Batches, patches: list[tuple[Tensor, ...]]) -> None:
    batch = batch_of()
    terms = method.losses(batch, player="sharp", rng=streams())
    ((x, m, _, _),) = patches
    assert torch.equal(m, batch.m) and not torch.equal(x, batch.x) and method.critic is not None
    patch, whole = method.critic(*patches[0])
    assert terms["adversary"].item() == pytest.approx((-patch.mean() - whole.mean()).item(), rel=1e-5)
    lam = method.config.method
    weighed = lam.adversary * terms["adversary"] + lam.low * terms["low"] + lam.patches * terms["patches"] + lam.anchor * terms["diff"]
    weighed = weighed + lam.shared * terms["shared"] + lam.lay * terms["lay"]
    assert terms["loss"].item() == pytest.approx(weighed.item(), rel=1e-5)


def test_the_critic_sees_the_scan_and_the_drawn_window_moved_alike(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """By up to seven pixels, another way for each window: a dot at a fixed place of the critic's grid gains nothing."""
    assert method.critic is not None
    seen: list[tuple[Tensor, ...]] = []
    original = method.critic.forward
    monkeypatch.setattr(method.critic, "forward", lambda *given: (seen.append(given), original(*given))[1])
    batch = batch_of()
    method.losses(batch, player="critic", rng=streams())
    shifts = alg1._shifts([g.manual_seed(i) for i, g in enumerate(streams(64))])
    assert shifts.min() == 0 and shifts.max() == 7 and len({tuple(s) for s in shifts.tolist()}) > 20
    moves = []
    for i in range(3):
        (found,) = [(dy, dx) for dy in range(8) for dx in range(8) if torch.equal(batch.m[i].roll((dy, dx), dims=(1, 2)), seen[0][1][i])][:1]
        moves.append(found)
        assert torch.equal(seen[0][0][i], batch.x[i].roll(found, dims=(1, 2))) and torch.equal(seen[1][2][i], batch.S[i].roll(found, dims=(1, 2)))
    assert len(set(moves)) > 1


@pytest.mark.parametrize("player, calls", [("critic", 1), ("sharp", 1), ("eps", 1)])
def test_eps_theta_stands_at_the_draws_last_call(player: str, calls: int, method: PathoSyn, batch_of: Batches) -> None:
    """Whatever t would have been drawn: its noise is that of `level`."""
    seen: list[Tensor] = []
    hook = method.eps.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    method.losses(batch_of(), player=player, rng=streams())
    hook.remove()
    assert [t.tolist() for t in seen] == [[method.config.method.level] * 3] * calls


def test_what_eps_theta_is_shown_holds_the_coarse_deviation_only(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deviation whose mean in every cell of 4×4 vanishes leaves r_t as it was."""
    batch, shown = batch_of(), []
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    hook = method.eps.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].clone()))
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    chequers, blocks = 1.0 - 2.0 * ((y + x) % 2), 1.0 - 2.0 * ((y // 8 + x // 8) % 2)
    whole = torch.ones_like(batch.S)
    for extra in (0.0, 3.0 * chequers, 3.0 * blocks):
        scan = batch.x_ph + (batch.x - batch.x_ph) + extra
        method.losses(replace(batch, x=scan, S=whole), player="sharp", rng=streams())
    hook.remove()
    assert torch.allclose(shown[1], shown[0], atol=1e-4) and not torch.allclose(shown[2], shown[0], atol=0.5)


def test_a_network_that_knows_the_truth_has_nothing_to_lose(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is shown the coarse deviation only, the real one: what is asked for gives r_0 itself."""
    method, batch = make_method(default(), clamp_quantile=0.0, adversary=0.1, drawn_forms=0.0), batch_of()
    r0 = (batch.x - batch.x_ph) * batch.D

    def knowing(r: Tensor, _: Tensor, t: Tensor) -> Tensor:
        return target(r0, predict_eps(r, r0, t, method.schedule), t, method.schedule, prediction="v")

    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    monkeypatch.setattr(method.eps, "forward", knowing)
    with torch.no_grad():
        sharp, eps, critic = (method.losses(batch, player=player, rng=streams()) for player in ("sharp", "eps", "critic"))
    assert float(sharp["low"]) < 1e-3 and float(eps["pat"]) < 1e-3 and float(eps["diff"]) < 1e-6
    assert method.critic is not None
    patch, _ = method.critic(batch.x, batch.m, batch.S, torch.ones_like(batch.x))
    assert float(critic["critic_patch"]) == pytest.approx(losses.critic_loss(patch, patch).item(), abs=0.02), "composed is the scan, feather included"


def test_low_pass_term_of_an_estimate_that_is_off_is_how_far(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of()
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    off = (batch.x - batch.x_ph + 0.7) * batch.D
    monkeypatch.setattr(method, "estimate", lambda network, r, condition, t: (off, off))
    assert method.losses(batch, player="sharp", rng=streams())["low"].item() == pytest.approx(0.7, rel=1e-4)


def test_the_structures_step_moves_the_coarse_network_alone(method: PathoSyn, batch_of: Batches) -> None:
    terms = method.losses(batch_of(), player="coarse", rng=streams())
    terms["loss"].backward()
    assert method.coarse is not None and has_gradient(method.coarse)
    assert not any(has_gradient(part) for part in (method.eps, method.sub, method.critic) if part is not None)


@pytest.mark.parametrize("preset", [default, paper])
def test_begin_of_the_stage_leaves_the_statistics_alone(preset: Callable[[], Method], make_method: Maker, batch_of: Batches) -> None:
    method = make_method(preset(), roughness=False, shared_grain=False, tails=False, borders=False)
    if method.looking:
        method.looks_of.fill_(1.0)
    assert method.begin("sharpen", [batch_of()]) == {} and method.r_scale.tolist() == [1.0, 1.0]


def test_a_lesion_too_small_for_a_patch_leaves_the_losses_finite(method: PathoSyn, batch_of: Batches) -> None:
    """The rim of a lesion in the slice above may be a few pixels of support, and a batch may be one window."""
    batch = batch_of(1)
    speck = torch.zeros_like(batch.S)
    speck[..., 10, 10] = 0.4
    small = replace(batch, m=torch.zeros_like(batch.m), S=speck)
    for player in ("critic", "sharp"):
        terms = method.losses(small, player=player, rng=streams(1))
        assert all(bool(value.isfinite()) for value in terms.values()), (player, terms)


@pytest.mark.parametrize("moved", [(0, 0), (5, 11)])
def test_a_drawn_form_takes_the_real_ones_place_and_is_kept_over_squares_of_four_cells(
    moved: tuple[int, int], make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a form of a known height: nothing of the real deviation is asked for, pixel by pixel or cell by cell, and an estimate that waves within 16 × 16
    pixels about that height has nothing to lose, wherever these squares lie."""
    sizes: list[int] = []
    monkeypatch.setattr(alg1, "_shifts", lambda streams, size: (sizes.append(size), torch.tensor([moved]).expand(len(streams), 2))[1])
    method, batch = make_method(default(), drawn_forms=1.0, cells="deviation", roughness=False, appearance=False), batch_of()
    monkeypatch.setattr(method, "draw_form", lambda given, *_, **__: torch.full((3, 2, 8, 8), 0.3))
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    waves = torch.where((y // 8 + x // 8) % 2 > 0, 1.0, -1.0)
    whole = replace(batch, S=torch.ones_like(batch.S))
    for height, lost in ((0.3, 0.0), (0.8, 0.5)):
        monkeypatch.setattr(method, "estimate", lambda network, r, condition, t, at=height: ((at + waves).expand_as(r), (at + waves).expand_as(r)))
        terms = method.losses(whole, player="sharp", rng=streams())
        assert terms["low"].item() == pytest.approx(lost, abs=1e-5) and terms["diff"].item() == 0.0 and terms["patches"].item() > 0
    assert set(sizes) == {16}
    monkeypatch.setattr(method, "estimate", lambda network, r, condition, t: (torch.full_like(r, 0.8),) * 2)
    assert method.losses(batch, player="sharp", rng=streams())["low"].item() == pytest.approx(0.5, abs=1e-4), "the support moves along"


def test_the_squares_lie_elsewhere_at_each_step() -> None:
    found = torch.stack([alg1._shifts(streams(name=k), 16) for k in range(200)])
    assert int(found.min()) == 0 and int(found.max()) == 15 and len(found.flatten(1).unique(dim=0)) > 150


def test_the_last_call_is_told_what_the_contrasts_share(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training the real lesion's, blurred now and then silent; at a draw what its look asks for; without a look nothing."""
    method, batch = make_method(default(), drawn_forms=0.0), batch_of()
    method.look_std.fill_(1.0), method.looks_of.fill_(1.0)
    told: list[Tensor | None] = []
    original = coarse.seen
    monkeypatch.setattr(coarse, "seen", lambda *given, shared, **more: (told.append(shared), original(*given, shared=shared, **more))[1])
    parts, x_sub = method.parts(batch), method.fill(batch)
    for last in (True, False):
        for k in range(20):
            alg1.noised(method, batch, parts, x_sub, streams(name=k), last=last)
    found = torch.stack([each for each in told if each is not None])
    assert len(found) == 40 and 0.0 < float(found.isnan().float().mean()) < 0.3
    apart = (found - texture.shared(batch.x, batch.m))[found.isfinite()]
    assert 0.05 < float(apart.std()) < 0.2 and apart.abs().max() < 0.5
    told.clear()
    method.synthesize(batch, controls=Controls(seed=1), steps=2)
    look = method.look(batch, 1)
    assert look is not None and told[0] is not None and torch.allclose(told[0], appearance.shared(method, look, batch.present), atol=1e-6)
    method.last_call(batch, x_sub, torch.zeros(3, 4, 8, 8), lambda _: torch.zeros_like(batch.x))
    assert told[1] is None


def test_the_model_draws_the_form_told_what_the_real_lesion_looks_like(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make_method(default(), drawn_forms=0.5), batch_of()
    method.look_std.fill_(1.0)
    asked: list[Tensor] = []
    original = method.draw_form
    monkeypatch.setattr(method, "draw_form", lambda *given, look, **more: (asked.append(look), original(*given, look=look, **more))[1])
    parts, x_sub = method.parts(batch), method.fill(batch)
    drawn = alg1.noised(method, batch, parts, x_sub, streams(name="some"), last=True)
    assert drawn.drawn.flatten().unique().tolist() == [0.0, 1.0], "keyed by the sample's own stream: some are drawn, some are real"
    r0 = method.to_scaled((batch.x - x_sub) * parts.support)
    form, there = coarse.form(method, r0, batch, x_sub, parts)
    own = drawn.drawn.flatten() > 0
    assert torch.allclose(asked[0], appearance.measure(method, form, batch, parts)[own], atol=1e-4), "no more are drawn than wanted"
    real = decomposition.refine(coarse.means(method, form, batch, x_sub, parts), there, parts.support, 4)
    kept = (drawn.start - real).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert kept.tolist() == (~own).tolist()
    alg1.noised(method, batch, parts, x_sub, streams())
    assert len(asked) == 1, "only the last stage draws"


def test_a_window_is_taught_alone_as_beside_others(make_method: Maker, batch_of: Batches) -> None:
    """Whether or not its form is drawn, and others' are: two processes, each with its share of a batch, end where one does."""
    method, batch = make_method(default(), drawn_forms=0.5), batch_of()
    method.look_std.fill_(1.0)

    def taught(some: LesionBatch, own: list[torch.Generator]) -> alg1.Noised:
        return alg1.noised(method, some, method.parts(some), method.fill(some), own, last=True)

    whole = taught(batch, streams(name="some"))
    for i in range(len(batch)):
        alone = taught(batch.some([i]), [streams(name="some")[i]])
        assert alone.drawn.flatten().tolist() == whole.drawn[i].flatten().tolist()
        for name in ("start", "r0_hat", "x_hat"):
            assert torch.allclose(getattr(alone, name)[0], getattr(whole, name)[i], atol=1e-4), name
