"""The adversarial stage: who learns from whom, at which times, from which start, and what its two terms are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pathosyn import losses, rng
from pathosyn.config import Method, default, paper
from pathosyn.diffusion import predict_eps, predict_r0, sampling_times, target
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import LesionBatch

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
    """What the critic is shown, call by call: x, m, S, flags."""
    assert method.critic is not None
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


@pytest.mark.parametrize("fields", [{"adversary": 0.0}, {"joint": True}])
def test_without_an_adversary_or_in_joint_training_there_is_no_third_stage(fields: dict[str, object], make_method: Maker) -> None:
    stages = make_method(default(), **fields).stages
    assert "sharpen" not in [stage.name for stage in stages] and sum(stage.share for stage in stages) == pytest.approx(1.0)


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
    assert float(terms["critic_patch"]) == pytest.approx(float(losses.critic_loss(patch, patch_hat)), rel=1e-5)
    assert float(terms["critic_whole"]) == pytest.approx(float(losses.critic_loss(whole, whole_hat)), rel=1e-5)


def test_every_second_sample_is_judged_and_the_others_learn_as_before(method: PathoSyn, batch_of: Batches, patches: list[tuple[Tensor, ...]]) -> None:
    """The terms of Alg. 1 are those of `eps` on samples 1, 3 …; a sample that is judged counts there with 0."""
    batch = batch_of(4)
    terms = method.losses(batch, player="sharp", rng=streams(4))
    ((x, m, _, _),) = patches
    assert len(x) == 2 and torch.equal(m, batch.m[[0, 2]])
    assert method.critic is not None
    patch, whole = method.critic(*patches[0])
    assert float(terms["adversary"]) == pytest.approx(float(-patch.mean() - whole.mean()), rel=1e-5)
    lam = method.config.method
    base = lam.weights.diff * terms["diff"] + lam.weights.dev * terms["dev"] + lam.weights.syn * terms["syn"]
    assert float(terms["loss"]) == pytest.approx(float(base + lam.adversary * terms["adversary"] + lam.low * terms["low"]), rel=1e-5)
    for name in ("diff", "pat", "ring", "syn"):
        noised = method._noised(batch, method.parts(batch), *_sub(method, batch), streams(4), torch.tensor([True, False, True, False]))
        full = method._deviation_terms(batch, method.parts(batch), noised)[name]
        sharp_only = method._deviation_terms(batch, method.parts(batch), noised.without(torch.tensor([False, True, False, True])))[name]
        assert float(terms[name]) == pytest.approx(float(full - sharp_only), rel=1e-4), name


def _sub(method: PathoSyn, batch: LesionBatch) -> tuple[Tensor]:
    parts = method.parts(batch)
    return (method.substrate(batch.x, parts.support, parts.known).detach(),)


def noised_many(method: PathoSyn, batch_of: Batches, count: int) -> tuple[list[Tensor], list[Tensor]]:
    batch = batch_of(2)
    sharp = torch.tensor([True, False])
    with torch.no_grad():
        found = [method._noised(batch, method.parts(batch), batch.x_ph, streams(2, k), sharp) for k in range(count)]
    return [n.t for n in found], [n.last for n in found]


def test_judged_samples_stand_before_one_of_the_samplers_calls(method: PathoSyn, batch_of: Batches) -> None:
    """calls = 4: 1000, 750, 500, 250, each about as often; the low-pass term acts at the last of them, where the true r_0 is under the noise."""
    times, last = noised_many(method, batch_of, 160)
    judged, others = (torch.stack([t[i] for t in times]) for i in (0, 1))
    grid = sampling_times(1000, method.config.method.calls)[:-1]
    assert set(judged.tolist()) == set(grid) == {1000, 750, 500, 250}
    assert all(20 <= int((judged == t).sum()) <= 60 for t in grid)
    assert len(set(others.tolist())) > 60, "the others stand anywhere"
    at_last = torch.stack([row[0] for row in last])
    assert not torch.stack([row[1] for row in last]).any() and (judged[at_last] == 250).all()
    share = int(at_last.sum()) / int((judged == 250).sum())
    assert 0.25 < share < 0.75, "half of the samples at the last call go on from an estimate"


def test_a_network_that_knows_the_truth_has_nothing_to_lose_in_the_stage(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both starts, true r_0 and the call before's estimate of it, give the scan back, so the low-pass term is 0 and real and composed are alike."""
    method, batch = make_method(default(), clamp_quantile=0.0), batch_of()
    r0 = (batch.x - batch.x_ph) * batch.D

    def knowing(r: Tensor, _: Tensor, t: Tensor) -> Tensor:
        return target(r0, predict_eps(r, r0, t, method.schedule), t, method.schedule, prediction="v")

    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    monkeypatch.setattr(method.eps, "forward", knowing)
    with torch.no_grad():
        terms, critic = (method.losses(batch, player=player, rng=streams()) for player in ("sharp", "critic"))
    assert float(terms["low"]) < 1e-3 and float(terms["pat"]) < 1e-2 and float(terms["diff"]) < 1e-6
    scores = method._scores(batch.x, batch, method.parts(batch))
    assert float(critic["critic_patch"]) == pytest.approx(float(losses.critic_loss(scores[0], scores[0])), abs=0.02)


def test_low_pass_term_is_taken_at_the_last_call_only(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """An r̂_0 that is off by 1 everywhere costs 1 for each sample at the last call with the true start, and nothing elsewhere."""
    method, batch = make_method(default()), batch_of()
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    r0 = (batch.x - batch.x_ph) * batch.D
    off = r0 + batch.D
    monkeypatch.setattr(method, "_estimate", lambda r, condition, t: (off, off))
    sharp = torch.tensor([True, False, True])
    seen = set()
    for k in range(24):
        with torch.no_grad():
            low = float(method.losses(batch, player="sharp", rng=streams(3, k))["low"])
            last = method._noised(batch, method.parts(batch), batch.x_ph, streams(3, k), sharp).last
        assert low == pytest.approx(int(last.sum()) / 3, rel=1e-3)
        seen.add(int(last.sum()))
    assert seen >= {0, 1}


def test_half_of_the_judged_go_on_from_what_the_call_before_made(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first estimate of 100 everywhere shows in r_t wherever it was gone on from, and never at the first call."""
    batch, shown = batch_of(1), []

    def estimate(r: Tensor, condition: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        shown.append((int(t), float(r.abs().max())))
        answer = torch.full_like(r, 100.0)
        return answer, answer

    monkeypatch.setattr(method, "_estimate", estimate)
    own = {250: [], 500: [], 750: [], 1000: []}
    for k in range(80):
        shown.clear()
        method._noised(batch, method.parts(batch), batch.x_ph, streams(1, k), torch.tensor([True]))
        (before, _), (t, size) = shown
        assert before == min(1000, t + 250)
        own[t].append(size > 20)
    assert not any(own[1000]) and all(0.15 < sum(own[t]) / len(own[t]) < 0.85 for t in (250, 500, 750))


def test_predict_r0_of_the_estimate_is_in_the_methods_parametrisation(method: PathoSyn, batch_of: Batches) -> None:
    batch, t = batch_of(), torch.tensor([250, 500, 1000])
    condition = method.condition(batch.x, batch.x_ph, batch.m, method.parts(batch))
    with torch.no_grad():
        output, r0_hat = method._estimate(batch.x, condition, t)
    assert torch.allclose(r0_hat, predict_r0(batch.x, output, t, method.schedule, prediction="v")) and not torch.allclose(output, r0_hat)


@pytest.mark.parametrize("preset", [default, paper])
def test_begin_of_the_stage_leaves_the_statistics_alone(preset: Callable[[], Method], make_method: Maker, batch_of: Batches) -> None:
    method = make_method(preset())
    assert method.begin("sharpen", [batch_of()]) == {} and method.r_scale.tolist() == [1.0, 1.0]


def test_a_lesion_too_small_for_a_patch_leaves_the_losses_finite(method: PathoSyn, batch_of: Batches) -> None:
    """The rim of a lesion in the slice above may be a few pixels of support, and a batch may be one window."""
    from dataclasses import replace

    batch = batch_of(1)
    speck = torch.zeros_like(batch.S)
    speck[..., 10, 10] = 0.4
    small = replace(batch, m=torch.zeros_like(batch.m), S=speck)
    for player in ("critic", "sharp"):
        terms = method.losses(small, player=player, rng=streams(1))
        assert all(bool(value.isfinite()) for value in terms.values()), (player, terms)
