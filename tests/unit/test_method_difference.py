"""The difference GAN on toy windows: what bounds a difference, who learns from whom, that noise alone decides a draw, and that it can learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pathosyn import decomposition, losses, rng
from pathosyn.compared import Compared
from pathosyn.compared import DifferenceGan as Settings
from pathosyn.config import Config, Networks, Train, default, paper
from pathosyn.errors import InputError
from pathosyn.methods import build
from pathosyn.methods.difference import DifferenceGan
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]


def make(*, train: Train | None = None, **settings: object) -> DifferenceGan:
    """Tiny, κ known; layers that start at 0 are given weights, so that every input counts."""
    torch.manual_seed(0)
    networks = Networks(sub=(8, 8, 8, 8, 8), eps=(8, 16), critic=(8, 8, 8))
    config = Config(("t1", "flair"), networks=networks, method=default(), name="difference-gan", train=train or Train())
    built = build(replace(config, compared=Compared(difference=replace(Settings(), **settings))))  # type: ignore[arg-type]
    assert isinstance(built, DifferenceGan)
    for parameter in built.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    built.r_scale.copy_(torch.tensor([2.0, 0.5]))
    built.r_max.copy_(torch.tensor([3.0, 4.0]))
    return built


@pytest.fixture(scope="module")
def _made() -> DifferenceGan:
    return make(seek=1.0, apart=0.3, anchor=0.5, r1=1.0)


@pytest.fixture
def method(_made: DifferenceGan) -> Iterator[DifferenceGan]:
    yield _made.requires_grad_(True)
    _made.zero_grad(set_to_none=True)


def streams(count: int = 3, name: object = "test") -> list[torch.Generator]:
    return [rng.generator(name, i) for i in range(count)]


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def shouting(method: DifferenceGan, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """A generator that puts out one number everywhere."""
    monkeypatch.setattr(method.generator, "forward", lambda noise, condition, t: torch.full_like(condition[:, :2], value))


def test_stages_share_the_steps_and_none_is_idle() -> None:
    stages = make(train=Train(substrate_share=0.2)).stages
    assert [s.name for s in stages] == ["substrate", "warm-up", "adversarial"] and [s.share for s in stages] == pytest.approx([0.2, 0.2, 0.6])
    assert stages[2].players == ("critic", "difference") and stages[2].betas == (0.5, 0.99)
    assert stages[1].healthy(0.5) == 0.0 and stages[2].healthy(0.5) == 0.25 and not stages[2].filled
    assert [s.name for s in make(train=Train(substrate_share=0.0), warm_up=0.0).stages] == ["adversarial"]


def test_an_unbounded_difference_is_refused() -> None:
    with pytest.raises(InputError, match="clamp-quantile"):
        build(Config(("t1", "flair"), method=paper(), name="difference-gan"))


@pytest.mark.parametrize("cells", [(), (8, 0)])
def test_noise_without_a_size_is_refused(cells: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"difference\.cells"):
        make(cells=cells)


def test_kappa_is_the_most_and_the_support_the_place(method: DifferenceGan, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """±κ in units of r_0's RMS where the generator shouts, nearly its word where it whispers, and 0 beyond the support."""
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    inside = batch.D.expand_as(batch.x) > 0
    for word, most in ((1e4, (6.0, 2.0)), (-1e4, (-6.0, -2.0)), (0.01, (0.02, 0.005))):
        shouting(method, monkeypatch, word)
        r = method.synthesize(batch, controls=Controls()).r
        expected = torch.tensor(most).view(1, 2, 1, 1) * batch.D * batch.present[:, :, None, None]
        assert torch.allclose(r, expected, rtol=1e-4) and not r[~inside].any()
    shouting(method, monkeypatch, 0.0)
    method.r_max.zero_()
    try:
        assert not method.synthesize(batch, controls=Controls()).r.any(), "before it was measured"
    finally:
        method.r_max.copy_(torch.tensor([3.0, 4.0]))


def test_it_is_put_into_the_scan_as_every_deviation_is(method: DifferenceGan, batch_of: Batches) -> None:
    """Severity 0 is the healed scan, or the scan itself where there is no lesion; 1 the printed composition; beyond the support the scan's own values."""
    batch = batch_of(healthy=(False, True, False))
    made = {s: method.synthesize(batch, controls=Controls(severity=s)) for s in (0.0, 1.0, 2.0)}
    healed = decomposition.heal(batch.x, made[0.0].x_sub, batch.S)
    assert torch.equal(made[0.0].x_hat[1], batch.x[1]) and torch.allclose(made[0.0].x_hat[0], healed[0], atol=1e-6)
    assert torch.allclose(made[1.0].x_hat, decomposition.recompose(batch.x, made[1.0].x_sub, made[1.0].r, batch.S), atol=1e-6)
    assert torch.allclose(made[2.0].x_hat[0] - made[1.0].x_hat[0], (batch.S * made[1.0].r)[0], atol=1e-5)
    outside = (batch.S == 0).expand_as(batch.x)
    assert all(torch.equal(one.x_hat[outside], batch.x[outside]) for one in made.values())


def test_noise_decides_and_its_key_alone(method: DifferenceGan, batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    first, again, other = (method.synthesize(batch, controls=Controls(seed=seed)).x_hat for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)
    alone = torch.cat([method.synthesize(batch.shard(i, 3), controls=Controls()).x_hat for i in range(3)])
    assert torch.allclose(alone, first, atol=1e-5) and not first[~batch.present].any()
    hidden = replace(batch, x=torch.where(batch.present[:, :, None, None], batch.x, torch.tensor(7.0)))
    assert torch.allclose(method.synthesize(hidden, controls=Controls()).x_hat, first, atol=1e-6)


def test_the_lesion_under_the_support_is_not_seen(method: DifferenceGan, batch_of: Batches) -> None:
    batch = batch_of()
    whole = replace(batch, S=batch.D)
    other = replace(whole, x=torch.where(batch.D > 0, 9.0, batch.x))
    assert torch.allclose(method.synthesize(other, controls=Controls()).r, method.synthesize(whole, controls=Controls()).r, atol=1e-5)


def test_noise_has_a_map_for_each_size_of_cell(method: DifferenceGan, batch_of: Batches) -> None:
    noise = method.noise(streams(40), batch_of(40).x)
    assert noise.shape == (40, 6, 32, 32)
    steps = (noise[..., 1:] - noise[..., :-1]).abs().mean(dim=(0, 2, 3))
    assert float((noise[:, 2:4, :, 1:] - noise[:, 2:4, :, :-1]).abs().max()) < 1.0, "no seams between cells"
    assert (steps[:2] > 1.0).all() and ((steps[2:4] > 0.05) & (steps[2:4] < 0.3)).all() and (steps[4:] < 1e-6).all(), "white, smooth, one number a window"
    assert float(noise[:, 4:, 0, 0].std()) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("player, moves", [("sub", "sub"), ("warm", "generator"), ("difference", "generator"), ("critic", "critic")])
def test_each_player_moves_its_own(player: str, moves: str, method: DifferenceGan, batch_of: Batches) -> None:
    assert list(method.modules_of(player)) == [getattr(method, moves)]
    if player == "difference":
        assert method.critic is not None
        method.critic.requires_grad_(False)
    method.losses(batch_of(healthy=(False, True, False)), player=player, rng=streams())["loss"].backward()
    assert [name for name in ("sub", "generator", "critic") if has_gradient(getattr(method, name))] == [moves]


def test_warm_up_is_the_l1_to_what_was_there(method: DifferenceGan, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a generator that says nothing: the mean of |r_0| on the support, in units of its RMS, of lesions alone."""
    batch = batch_of(healthy=(False, True, False))
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    shouting(method, monkeypatch, 0.0)
    r0 = ((batch.x - batch.x_ph).abs() / torch.tensor([2.0, 0.5]).view(1, 2, 1, 1) * batch.D).sum(dim=(1, 2, 3)) / (2 * batch.D.sum(dim=(1, 2, 3)))
    terms = method.losses(batch, player="warm", rng=streams())
    assert terms["low"].item() == pytest.approx(terms["nothing"].item()) and terms["nothing"].item() > 0.1
    assert terms["loss"].item() == pytest.approx(((r0[0] + r0[2]) / 3).item(), rel=1e-5)


def test_the_critic_compares_lesions_with_draws_and_draws_on_healthy_tissue(method: DifferenceGan, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, seen = batch_of(healthy=(False, True, False), present=[[1, 1], [1, 1], [1, 0]]), []
    monkeypatch.setattr(method, "_shifts", lambda some: torch.zeros(len(some), 2, dtype=torch.long))
    assert method.critic is not None
    original = method.critic.forward
    monkeypatch.setattr(method.critic, "forward", lambda *given: (seen.append(given), original(*given))[1])
    terms = method.losses(batch, player="critic", rng=streams())
    (fake, m_hat, S_hat, _), (real, m, S, flags) = seen  # noqa: N806
    lesions = [0, 2]
    assert torch.equal(real, batch.x[lesions]) and torch.equal(m, batch.m[lesions]) and torch.equal(S, batch.S[lesions])
    assert torch.equal(m_hat, batch.m) and torch.equal(S_hat, batch.S) and torch.equal(flags[1, :, 0, 0], torch.tensor([1.0, 0.0]))
    outside = (batch.S == 0).expand_as(fake)
    assert torch.equal(fake[outside], batch.x[outside]) and not torch.allclose(fake[~outside], batch.x[~outside], atol=1e-2)
    scored = zip(original(real, m, S, flags), original(*seen[0]), strict=True)
    patch, whole = (losses.critic_loss(of_real, of_fake).item() for of_real, of_fake in scored)
    x = real.clone().requires_grad_()
    patches, wholes = original(x * flags, m, S, flags)
    slopes = [torch.autograd.grad(score.sum(), x, retain_graph=True)[0].square().sum(dim=(1, 2, 3)) for score in (patches, wholes)]
    slope = (slopes[0] / avg_pool2d((S > 0).float(), 4).sum(dim=(1, 2, 3)) + slopes[1]).mean().item()
    found = [terms[k].item() for k in ("critic_patch", "critic_whole", "slope", "loss")]
    assert slope > 0 and found == pytest.approx([patch, whole, slope, patch + whole + 0.5 * slope], rel=1e-4)


def test_the_critic_sees_windows_moved_alike(method: DifferenceGan, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """By up to seven pixels, another way for each: a dot at a fixed place of the critic's grid gains nothing."""
    shifts, batch, seen = method._shifts(streams(64)), batch_of(2), []
    assert shifts.amin(dim=0).tolist() == [0, 0] and shifts.amax(dim=0).tolist() == [7, 7] and len({tuple(s) for s in shifts.tolist()}) > 20
    assert method.critic is not None
    monkeypatch.setattr(method.critic, "forward", lambda *given: seen.append(given))
    method._scores(batch.x, batch.m, batch.S, torch.ones(2, 2, 1, 1), torch.tensor([[0, 0], [2, 5]]))
    for field, moved in zip((batch.x, batch.m, batch.S), seen[0], strict=False):
        assert torch.equal(moved[0], field[0]) and torch.equal(moved[1], field[1].roll((2, 5), dims=(1, 2)))


def test_a_batch_of_holes_alone_has_nothing_real_to_show(method: DifferenceGan, batch_of: Batches) -> None:
    for player in ("critic", "difference", "warm"):
        terms = method.losses(batch_of(healthy=(True, True, True)), player=player, rng=streams())
        assert all(bool(value.isfinite()) for value in terms.values()), player
    assert terms["loss"].item() == 0.0


def test_the_generators_terms_are_weighed_as_the_settings_say(method: DifferenceGan, batch_of: Batches) -> None:
    terms = {k: v.item() for k, v in method.losses(batch_of(), player="difference", rng=streams()).items()}
    assert 0 < terms["spread"] < 0.3
    assert terms["loss"] == pytest.approx(terms["adversary"] + 0.5 * terms["low"] + 0.3 - terms["spread"], rel=1e-4)
    plain = make()
    assert "slope" not in plain.losses(batch_of(), player="critic", rng=streams())
    terms = {k: v.item() for k, v in plain.losses(batch_of(), player="difference", rng=streams()).items()}
    assert terms["loss"] == pytest.approx(terms["adversary"], rel=1e-5), "by default the critic's word alone"


def test_seeking_modes_parts_the_draws_of_a_generator_that_was_deaf(batch_of: Batches) -> None:
    """A few steps on the mode-seeking term alone."""
    method, batch = make(seek=1.0, apart=0.3, adversary=0.0, anchor=0.0), batch_of(1)
    with torch.no_grad():  # what the noise meets in the first layer is nearly 0
        method.generator.net.conv_in.conv.weight[:, :6] *= 0.01
    optimizer = torch.optim.Adam(method.generator.parameters(), lr=3e-3)
    spreads = []
    for step in range(16):
        terms = method.losses(batch, player="difference", rng=streams(1, step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        spreads.append(terms["spread"].item())
    assert spreads[0] < 0.03 and max(spreads[-5:]) > 5 * spreads[0]


def test_it_learns_a_lesion_by_heart(batch_of: Batches) -> None:
    """The generator's L1 to a smooth lesion falls to less than a third in 50 steps."""
    method, batch = make(), batch_of(1)
    batch = replace(batch, x=batch.x_ph + batch.m * torch.tensor([3.0, -1.0]).view(1, 2, 1, 1), x_sub=batch.x_ph)
    optimizer = torch.optim.Adam(method.generator.parameters(), lr=5e-3)
    course = []
    for _ in range(50):
        loss: Tensor = method.losses(batch, player="warm", rng=streams(1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        course.append(loss.item())
    assert course[-1] < course[0] / 3
