"""PathoSyn in training, on toy windows: Alg. 1, who sees what, who learns from what, both columns of DESIGN §3."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pathosyn import alg1, losses, rng
from pathosyn import decomposition as dec
from pathosyn.config import Weights, default, paper
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.networks import smooth_fill
from pathosyn.types import LesionBatch

BOTH = pytest.mark.parametrize("preset", ["default", "paper"])
Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
Tiny = dict[str, PathoSyn]


def streams(keys: range) -> list[torch.Generator]:
    return [rng.generator("test", i) for i in keys]


def known_of(batch: LesionBatch) -> Tensor:
    return batch.present[:, :, None, None].float()


def has_gradient(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


class Fixed(nn.Module):
    """A network that answers with one image, whatever it is shown."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: Tensor) -> Tensor:
        return self.answer


def test_parts_are_those_of_the_composition(tiny: Tiny, batch_of: Batches) -> None:
    batch = batch_of()
    G = dec.smooth(batch.m, sigma=2.0)  # noqa: N806
    ours, printed = tiny["default"].parts(batch), tiny["paper"].parts(batch)
    assert torch.equal(tiny["default"].smoothed(batch.m), G)
    assert torch.equal(ours.support, batch.D) and torch.equal(ours.S, batch.S)
    assert torch.equal(printed.support, batch.m) and torch.equal(printed.S, G)


@BOTH
def test_f_sub_never_sees_what_lies_under_the_support(preset: str, tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny[preset], batch_of()
    hidden = method.parts(batch).support
    f = method.substrate(batch.x, hidden, known_of(batch))
    for under in (9.0, torch.inf, torch.nan):
        assert torch.equal(method.substrate(torch.where(hidden > 0, under, batch.x), hidden, known_of(batch)), f)
    assert not torch.equal(method.substrate(batch.x + 0.1 * (1 - hidden), hidden, known_of(batch)), f)


@BOTH
def test_staged_players_leave_each_other_alone(preset: str, tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny[preset], batch_of()
    method.losses(batch, player="eps", rng=streams(range(3)))["loss"].backward()
    assert has_gradient(method.eps) and not has_gradient(method.sub)
    method.zero_grad(set_to_none=True)
    method.losses(batch, player="sub", rng=streams(range(3)))["loss"].backward()
    assert has_gradient(method.sub) and not has_gradient(method.eps)


def test_joint_training_reaches_f_sub_through_r0(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a constant output L_diff depends on f_sub through r_0 alone: v = √ᾱ ε - √(1-ᾱ) r_0."""
    method, batch = make_method(default(), joint=True, weights=Weights(out=0, inside=0, diff=1, dev=0, syn=0)), batch_of()
    monkeypatch.setitem(method._modules, "eps", Fixed(torch.zeros_like(batch.x)))
    method.losses(batch, player="both", rng=streams(range(3)))["loss"].backward()
    assert has_gradient(method.sub)


@BOTH
@pytest.mark.parametrize("player", ["sub", "eps", "both"])
def test_batch_is_the_mean_of_its_samples(preset: str, player: str, tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny[preset], batch_of(present=[[1, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        together = method.losses(batch, player=player, rng=streams(range(3)))
        alone = [method.losses(batch.shard(i, 3), player=player, rng=streams(range(i, i + 1))) for i in range(3)]
    for name, value in together.items():
        single = torch.stack([terms[name] for terms in alone])
        expected = single.square().mean().sqrt() if name == "std_r0" else single.mean()
        assert value.item() == pytest.approx(expected.item(), rel=2e-4), name


@BOTH
def test_alg_1_as_written_out(preset: str, tiny: Tiny, make_method: Maker, batch_of: Batches) -> None:
    """Both columns against a transcription of Alg. 1, with ᾱ, sample by sample. L_syn of `paper` has a test of its own; `default` with the diffusion on
    the pixels, as Alg. 1 has it."""
    printed = preset == "paper"
    method, batch = tiny["paper"] if printed else make_method(default(), coarse=1, grain=False), batch_of()
    config, lam = method.config.method, method.config.method.weights
    with torch.no_grad():
        terms = method.losses(batch, player="both", rng=streams(range(3)))
    sums = dict.fromkeys(("sub", "diff", "pat", "ring", "leak", "syn"), 0.0)
    for i, stream in enumerate(streams(range(3))):
        u = int(torch.randint(1, 1001, (1,), generator=stream))
        t = u if printed else math.ceil(u**2 / 1000)
        eps = torch.randn(2, 32, 32, generator=stream)
        x, m, S, x_ph = batch.x[i], batch.m[i, 0], batch.S[i, 0], batch.x_ph[i]  # noqa: N806
        G, ab = dec.smooth(batch.m[i : i + 1], sigma=2.0)[0, 0], float(method.schedule.alpha_bar[t])  # noqa: N806
        D, S = (m, G) if printed else ((S > 0).float(), S)  # noqa: N806
        flags = torch.ones_like(x)
        with torch.no_grad():
            start = x * (1 - D) if printed else smooth_fill(x[None], (1 - D)[None, None])[0]
            x_sub = method.sub.net(torch.cat([start, (1 - D)[None], flags])[None])[0] + (0 if printed else start)
            r0 = (x - x_sub) * D
            r0 = config.tanh_delta * torch.tanh(r0 / config.tanh_delta) if printed else r0
            r_t = (ab**0.5 * r0 + (1 - ab) ** 0.5 * eps) * D
            shown = [x_sub, m[None], 0 * m[None], flags] if printed else [(1 - S) * x + S * x_sub, m[None], S[None], flags]
            output = method.eps(r_t[None], torch.cat(shown)[None], torch.tensor([t]))[0]
        wanted = eps if printed else ab**0.5 * eps - (1 - ab) ** 0.5 * r0
        r0_hat = (r_t - (1 - ab) ** 0.5 * output) / ab**0.5 if printed else ab**0.5 * r_t - (1 - ab) ** 0.5 * output
        x_hat = x_sub + S * r0_hat * D if printed else x + S * (x_sub + r0_hat - x)
        ring = 4 * G * (1 - G) * (1 if printed else D)
        outside = (((x_sub - x) * (1 - D)) ** 2).sum() / (2 * (1 - D).sum())
        inside = (((x_sub - x_ph) * D) ** 2).sum() / (2 * D.sum())
        sums["sub"] += float(lam.out * outside + lam.inside * inside) / 3
        sums["diff"] += float((((wanted - output) * D) ** 2).sum() / (2 * D.sum())) / 3
        sums["pat"] += float(((r0_hat - r0) * D).abs().sum() / (2 * D.sum())) / 3
        sums["ring"] += float(((r0_hat - r0) * ring).abs().sum() / (2 * ring.sum())) / 3
        sums["leak"] += float((r0_hat * (1 - D)).abs().sum() / (2 * (1 - D).sum())) / 3
        sums["syn"] += float(((x_hat - x) * S).abs().sum() / (2 * S.sum())) / 3
    if printed:
        del sums["syn"]
    else:
        dev = lam.pat * sums["pat"] + lam.ring * sums["ring"] + lam.leak * sums["leak"]
        sums["loss"] = sums["sub"] + lam.diff * sums["diff"] + lam.dev * dev + lam.syn * sums["syn"]
    assert {name: float(terms[name]) for name in sums} == pytest.approx(sums, rel=2e-3)


def test_l_syn_of_paper_counts_the_whole_blend_map(tiny: Tiny, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = tiny["paper"], batch_of()
    monkeypatch.setitem(method._modules, "sub", Fixed(batch.x_ph))
    monkeypatch.setitem(method._modules, "eps", Fixed(torch.zeros_like(batch.x)))
    with torch.no_grad():
        given = method.losses(batch, player="both", rng=streams(range(3)))["syn"]
    x_hat = []
    for i, stream in enumerate(streams(range(3))):
        t = torch.randint(1, 1001, (1,), generator=stream)
        eps, ab = torch.randn(2, 32, 32, generator=stream), method.schedule.alpha_bar[t].float()
        r0 = dec.saturate((batch.x[i] - batch.x_ph[i]) * batch.m[i], delta=3.0)
        x_hat.append(batch.x_ph[i] + dec.smooth(batch.m, sigma=2.0)[i] * (r0 + ((1 - ab) / ab).sqrt() * eps) * batch.m[i])
    expected = losses.synthesis_loss(torch.stack(x_hat), batch.x, dec.smooth(batch.m, sigma=2.0))
    assert float(given) == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("prediction, weighted", [("eps", True), ("v", False), ("r0", False)])
def test_no_time_dominates_the_deviation_loss(prediction: str, weighted: bool, make_method: Maker) -> None:
    method = make_method(default(), prediction=prediction, zero_terminal_snr=False)
    weight = alg1._time_weight(method, torch.tensor([1, 500, 1000]))
    assert (weight is not None) == weighted
    if weight is not None:
        assert weight.tolist() == pytest.approx(method.schedule.alpha_bar[[1, 500, 1000]].sqrt().tolist(), rel=1e-5)


def test_healthy_holes_teach_f_sub_only(make_method: Maker, batch_of: Batches) -> None:
    method = make_method(default(), joint=True)
    mixed, lesions = batch_of(healthy=(False, True, False)), batch_of()
    with torch.no_grad():
        terms = method.losses(mixed, player="both", rng=streams(range(3)))
        alone = [method.losses(lesions.shard(i, 3), player="both", rng=streams(range(i, i + 1))) for i in (0, 2)]
        nothing = method.losses(batch_of(healthy=(True, True, True)), player="eps", rng=streams(range(3)))
    for name in ("diff", "pat", "ring", "syn"):
        assert float(terms[name]) == pytest.approx(sum(float(t[name]) for t in alone) / 3, rel=1e-3)
        assert float(nothing[name]) == 0.0


@BOTH
@pytest.mark.parametrize("player", ["sub", "eps"])
def test_missing_contrast_stays_out_of_the_losses(preset: str, player: str, tiny: Tiny, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the networks answer on a missing contrast costs nothing."""
    method, batch, draw = tiny[preset], batch_of(present=[[1, 1], [1, 0], [0, 1]]), torch.Generator().manual_seed(1)
    f, output, junk = (torch.randn(batch.x.shape, generator=draw) for _ in range(3))
    values = []
    for extra in (0.0, 50.0 * junk * (1 - known_of(batch))):
        monkeypatch.setitem(method._modules, "sub", Fixed(f + extra))
        monkeypatch.setitem(method._modules, "eps", Fixed(output + extra))
        terms = method.losses(batch, player=player, rng=streams(range(3)))
        values.append({name: float(value) for name, value in terms.items()})
    assert values[0] == values[1]


def test_substrate_loss_is_a_mean_over_the_contrasts_that_are_there(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make_method(default(), weights=Weights(out=2.0, inside=3.0)), batch_of(1, present=[[1, 0]])
    f = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(1))
    monkeypatch.setitem(method._modules, "sub", Fixed(f))
    outside, inside = ((f - batch.x)[0, 0] ** 2)[batch.D[0, 0] == 0], ((f - batch.x_ph)[0, 0] ** 2)[batch.D[0, 0] > 0]
    given = method.losses(batch, player="sub", rng=streams(range(1)))["sub"]
    assert float(given) == pytest.approx(float(2 * outside.mean() + 3 * inside.mean()), rel=1e-5)


@BOTH
def test_values_of_a_missing_contrast_change_nothing(preset: str, tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny[preset], batch_of(present=[[1, 1], [1, 0], [0, 1]])
    hidden, known = method.parts(batch).support, known_of(batch)
    given = method.substrate(batch.x + 7.0 * (1 - known), hidden, known)
    assert torch.equal(given, method.substrate(batch.x, hidden, known)) and not given[~batch.present].any()


@pytest.mark.parametrize("joint", [False, True])
def test_begin_measures_rms_and_extreme_on_the_support(joint: bool, make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    # Looks, which are measured too, have f of each batch; this f is of all three windows.
    method, batch = make_method(default(), clamp_quantile=1.0, appearance=not joint), batch_of(present=[[1, 1], [1, 0], [1, 1]])
    f = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(9))
    monkeypatch.setitem(method._modules, "sub", Fixed(f))
    logged = method.begin("joint" if joint else "deviation", [batch.shard(0, 2), batch.shard(1, 2)] if joint else [batch])
    for c in range(2):
        residual = (batch.x - (batch.x_ph if joint else f))[:, c][(batch.D[:, 0] > 0) & batch.present[:, c, None, None]]
        rms = float(residual.square().mean().sqrt())
        assert logged["r_scale"][c] == float(method.r_scale[c]) == pytest.approx(rms, rel=1e-5)
        assert float(method.r_max[c]) == pytest.approx(float(residual.abs().max()) / rms, rel=1e-5)
    scaled = method.to_scaled(batch.x)
    assert torch.allclose(method.from_scaled(scaled), batch.x, atol=1e-6)


def test_begin_leaves_the_scale_alone_where_it_is_not_asked_for(tiny: Tiny, batch_of: Batches) -> None:
    assert tiny["paper"].begin("joint", [batch_of()]) == {} and tiny["default"].begin("substrate", [batch_of()]) == {}
    assert tiny["paper"].r_scale.tolist() == tiny["default"].r_scale.tolist() == [1.0, 1.0]


def test_begin_can_set_the_clamp_without_the_scale(make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make_method(default(), scale_residual=False, clamp_quantile=1.0), batch_of()
    monkeypatch.setitem(method._modules, "sub", Fixed(torch.zeros_like(batch.x)))
    method.begin("deviation", [batch])
    assert method.r_scale.tolist() == [1.0, 1.0]
    assert method.r_max.tolist() == pytest.approx((batch.x * batch.D).abs().amax(dim=(0, 2, 3)).tolist())


def test_paper_saturates_and_never_undoes_it(tiny: Tiny) -> None:
    r = torch.full((1, 2, 4, 4), 3.0)
    assert torch.allclose(tiny["paper"].from_scaled(tiny["paper"].to_scaled(r)), 0.7616 * r, atol=1e-3)
    assert torch.equal(tiny["default"].from_scaled(tiny["default"].to_scaled(r)), r)


def test_stages(tiny: Tiny) -> None:
    substrate, structure, deviation, sharpen = stages = tiny["default"].stages
    assert [stage.players for stage in stages] == [("sub",), ("coarse",), ("eps",), ("critic", "sharp")]
    settings = tiny["default"].config.train
    assert [substrate.share, structure.share, sharpen.share] == [settings.substrate_share, settings.structure_share, settings.sharpen_share]
    assert sum(stage.share for stage in stages) == pytest.approx(1.0) and deviation.share > 0
    assert sharpen.betas == (0.5, 0.99) and substrate.betas == structure.betas == deviation.betas == (0.9, 0.999)
    assert [substrate.healthy(p) for p in (0.0, 0.05, 0.1, 1.0)] == pytest.approx([0.5, 0.75, 1.0, 1.0]), "λ_in fades out over the warm-up"
    assert structure.healthy(0.3) == deviation.healthy(0.3) == sharpen.healthy(0.3) == 0.0
    (joint,) = tiny["paper"].stages
    assert joint.players == ("both",) and joint.healthy(0.5) == 0.0, "as printed there are no healthy holes"


def test_epsilon_prediction_cannot_start_at_zero_snr(make_method: Maker) -> None:
    with pytest.raises(ValueError, match="zero SNR"):
        make_method(paper(), zero_terminal_snr=True)
