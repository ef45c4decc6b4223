"""PathoSyn on toy windows: Alg. 1 and 2, who sees what, who learns from what, both columns of DESIGN §3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pathosyn import decomposition as dec
from pathosyn import diffusion, rng
from pathosyn.config import Config, Method, Networks, Weights, default, paper
from pathosyn.losses import masked_mean
from pathosyn.methods import build
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Controls, LesionBatch

SIDE = 32
BOTH = pytest.mark.parametrize("preset", ["default", "paper"])


def make(method: Method, **fields: object) -> PathoSyn:
    """A tiny method; the layers that start at 0 get weights, so that every input counts."""
    torch.manual_seed(0)
    config = Config(contrasts=("t1", "flair"), networks=Networks(sub=(8, 8, 8, 8, 8), eps=(8, 16)), method=replace(method, **fields))  # type: ignore[arg-type]
    built = build(config)
    for parameter in built.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return built


@pytest.fixture(scope="module")
def tiny() -> dict[str, PathoSyn]:
    return {"default": make(default()), "paper": make(paper())}


@pytest.fixture(autouse=True)
def _as_new(tiny: dict[str, PathoSyn]) -> Iterator[None]:
    yield
    for method in tiny.values():
        method.zero_grad(set_to_none=True)


def batch_of(count: int = 3, *, healthy: tuple[bool, ...] | None = None, present: list[list[int]] | None = None) -> LesionBatch:
    """Windows with disks of different size; a missing contrast is 0."""
    draw = torch.Generator().manual_seed(5)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = torch.stack([((y - 15) ** 2 + (x - 16) ** 2).float().sqrt() - 3 - i for i in range(count)])[:, None].clip(min=0)
    known = torch.tensor(present).bool() if present else torch.ones(count, 2, dtype=torch.bool)
    scan = torch.randn(count, 2, SIDE, SIDE, generator=draw) * known[:, :, None, None]
    target = torch.randn(count, 2, SIDE, SIDE, generator=draw) * known[:, :, None, None]
    return LesionBatch(
        x=scan,
        m=(distance == 0).float(),
        S=dec.feather(distance, grow_mm=1.5, feather_mm=3.0),
        x_ph=target,
        present=known,
        healthy=torch.tensor(healthy or (False,) * count),
        subject=[f"s{i}" for i in range(count)],
        z=list(range(count)),
    )


def streams(keys: range) -> list[torch.Generator]:
    return [rng.generator("test", i) for i in keys]


def some(batch: LesionBatch, i: int) -> LesionBatch:
    return batch.shard(i, len(batch))


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


class Knowing(nn.Module):
    """eps_theta that knows r_0: its answer is the true target at every t."""

    def __init__(self, r0: Tensor, method: PathoSyn) -> None:
        super().__init__()
        self.r0, self.schedule, self.prediction = r0, method.schedule, method.config.method.prediction

    def forward(self, r_t: Tensor, _: Tensor, t: Tensor) -> Tensor:
        return diffusion.target(self.r0, diffusion.predict_eps(r_t, self.r0, t, self.schedule), t, self.schedule, prediction=self.prediction)


def test_parts_are_those_of_the_composition(tiny: dict[str, PathoSyn]) -> None:
    batch = batch_of()
    G = dec.smooth(batch.m, sigma=2.0)  # noqa: N806
    ours, printed = tiny["default"].parts(batch), tiny["paper"].parts(batch)
    assert torch.equal(ours.support, batch.D) and torch.equal(ours.S, batch.S) and torch.equal(ours.G, G)
    assert torch.equal(printed.support, batch.m) and torch.equal(printed.S, G) and torch.equal(printed.G, G)


@BOTH
def test_f_sub_never_sees_what_lies_under_the_support(preset: str, tiny: dict[str, PathoSyn]) -> None:
    method, batch = tiny[preset], batch_of()
    hidden = method.parts(batch).support
    f = method.substrate(batch.x, hidden, known_of(batch))
    for under in (9.0, torch.inf, torch.nan):
        assert torch.equal(method.substrate(torch.where(hidden > 0, under, batch.x), hidden, known_of(batch)), f)
    assert not torch.equal(method.substrate(batch.x + 0.1 * (1 - hidden), hidden, known_of(batch)), f)


@BOTH
def test_staged_players_leave_each_other_alone(preset: str, tiny: dict[str, PathoSyn]) -> None:
    method, batch = tiny[preset], batch_of()
    method.losses(batch, player="eps", rng=streams(range(3)))["loss"].backward()
    assert has_gradient(method.eps) and not has_gradient(method.sub)
    method.zero_grad(set_to_none=True)
    method.losses(batch, player="sub", rng=streams(range(3)))["loss"].backward()
    assert has_gradient(method.sub) and not has_gradient(method.eps)


def test_joint_training_reaches_f_sub_through_r0_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """L_diff for a constant output depends on f_sub through r_0 only: v = √ᾱ ε - √(1-ᾱ) r_0."""
    method, batch = make(default(), joint=True, weights=Weights(out=0, inside=0, diff=1, dev=0, syn=0)), batch_of()
    monkeypatch.setattr(method, "eps", Fixed(torch.zeros_like(batch.x)))
    method.losses(batch, player="both", rng=streams(range(3)))["loss"].backward()
    assert has_gradient(method.sub)


@BOTH
@pytest.mark.parametrize("player", ["sub", "eps", "both"])
def test_batch_is_the_mean_of_its_samples(preset: str, player: str, tiny: dict[str, PathoSyn]) -> None:
    method, batch = tiny[preset], batch_of(present=[[1, 1], [1, 0], [1, 1]])
    with torch.no_grad():
        together = method.losses(batch, player=player, rng=streams(range(3)))
        alone = [method.losses(some(batch, i), player=player, rng=streams(range(i, i + 1))) for i in range(3)]
    assert set(together) >= {"loss"}
    for name, value in together.items():
        single = torch.stack([terms[name] for terms in alone])
        expected = single.square().mean().sqrt() if name == "std_r0" else single.mean()
        assert value.item() == pytest.approx(expected.item(), rel=2e-4), name


@BOTH
def test_alg_1_as_written_out(preset: str, tiny: dict[str, PathoSyn]) -> None:
    """Both columns against a transcription of Alg. 1, with ᾱ, sample by sample."""
    method, batch, config = tiny[preset], batch_of(), tiny[preset].config.method
    printed, lam = preset == "paper", config.weights
    with torch.no_grad():
        terms = method.losses(batch, player="both", rng=streams(range(3)))
    sums = dict.fromkeys(("sub", "diff", "pat", "ring", "syn"), 0.0)
    for i, stream in enumerate(streams(range(3))):
        t = int(torch.randint(1, 1001, (1,), generator=stream))
        eps = torch.randn(2, SIDE, SIDE, generator=stream)
        x, m, S, x_ph = batch.x[i], batch.m[i, 0], batch.S[i, 0], batch.x_ph[i]  # noqa: N806
        G, ab = dec.smooth(batch.m[i : i + 1], sigma=2.0)[0, 0], float(method.schedule.alpha_bar[t])  # noqa: N806
        D, S = (m, G) if printed else ((S > 0).float(), S)  # noqa: N806
        flags = torch.ones_like(x)
        with torch.no_grad():
            x_sub = method.sub(torch.cat([x * (1 - D), (1 - D)[None], flags])[None])[0]
            r0 = (x - x_sub) * D
            r0 = config.tanh_delta * torch.tanh(r0 / config.tanh_delta) if printed else r0
            r_t = (ab**0.5 * r0 + (1 - ab) ** 0.5 * eps) * D
            shown = [x_sub, m[None], 0 * m[None], flags] if printed else [torch.where(D > 0, x_sub, x), m[None], S[None], flags]
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
        sums["syn"] += float(((x_hat - x) * S * D).abs().sum() / (2 * (S * D).sum())) / 3
    assert {name: float(terms[name]) for name in sums} == pytest.approx(sums, rel=2e-3)


def test_alg_2_as_written_out() -> None:
    """The printed loop, with ᾱ: T ancestral steps on the mask, σ² the posterior variance."""
    method, batch = make(paper(), solver="ancestral", timesteps=8, beta_start=0.05, beta_end=0.5, steps=8), batch_of()
    fields = [torch.randn(3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(k)) for k in range(9)]
    x_sub = method.substrate(batch.x, batch.m, known_of(batch)).detach()
    beta = torch.linspace(0.05, 0.5, 8)
    alpha, ab = 1 - beta, torch.cumprod(1 - beta, 0)
    condition = torch.cat([x_sub, batch.m, 0 * batch.m, torch.ones_like(batch.x)], 1)
    r = fields[0] * batch.m
    for t in range(8, 0, -1):
        a, b, before = alpha[t - 1], ab[t - 1], ab[t - 2] if t > 1 else torch.tensor(1.0)
        with torch.no_grad():
            eps_hat = method.eps(r, condition, torch.full((3,), t))
        z = fields[9 - t] if t > 1 else 0.0
        r = (r - (1 - a) / (1 - b).sqrt() * eps_hat) / a.sqrt() + ((1 - a) * (1 - before) / (1 - b)).sqrt() * z
        r = r * batch.m
    assert torch.allclose(method.draw(batch, x_sub, fields.__getitem__), r, atol=2e-4)


@pytest.mark.parametrize("fields", [{}, {"solver": "ancestral"}, {"prediction": "r0"}, {"composition": "paper", "prediction": "eps", "zero_terminal_snr": False}])
def test_networks_that_know_the_truth_draw_the_true_lesion(fields: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make(default(), clamp_quantile=0.0, steps=10, **fields), batch_of()
    method.r_scale.copy_(torch.tensor([2.0, 0.5]))
    parts, f = method.parts(batch), batch.x_ph
    r = (batch.x - f) * parts.support
    monkeypatch.setattr(method, "sub", Fixed(f))
    monkeypatch.setattr(method, "eps", Knowing(r / method.r_scale.view(1, 2, 1, 1), method))
    terms = method.losses(batch, player="eps", rng=streams(range(3)))
    drawn = method.synthesize(batch, controls=Controls())
    assert (drawn.r - r).abs().max() < 1e-2
    assert float(terms["diff"]) < 1e-6 and float(terms["pat"]) < 1e-2
    assert float(terms["std_r0"]) == pytest.approx(float(masked_mean(r**2, parts.support)) ** 0.5, rel=1e-4)
    if method.config.method.composition == "paper":
        assert torch.allclose(drawn.x_hat, f + parts.S * r, atol=1e-2)
    else:
        assert float(terms["syn"]) < 1e-2
        one = (batch.S == 1).expand_as(batch.x)
        assert torch.allclose(drawn.x_hat[one], batch.x[one], atol=1e-2)
