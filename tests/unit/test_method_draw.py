"""PathoSyn at the draw, on toy windows: Alg. 2, controls, noise, and what a draw may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from pathosyn import decomposition as dec
from pathosyn import diffusion, rng
from pathosyn.config import default, paper
from pathosyn.losses import masked_mean
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Controls, LesionBatch

BOTH = pytest.mark.parametrize("preset", ["default", "paper"])
Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
Tiny = dict[str, PathoSyn]
TRUTHS: list[dict[str, object]] = [{}, {"solver": "ancestral"}, {"prediction": "r0"}, {"composition": "paper", "prediction": "eps", "zero_terminal_snr": False}]


class Knowing(nn.Module):
    """eps_theta that knows r_0 (scaled): its answer is the true target at every t."""

    def __init__(self, r0: Tensor, method: PathoSyn) -> None:
        super().__init__()
        self.r0, self.schedule, self.prediction = r0, method.schedule, method.config.method.prediction

    def forward(self, r_t: Tensor, _: Tensor, t: Tensor) -> Tensor:
        return diffusion.target(self.r0, diffusion.predict_eps(r_t, self.r0, t, self.schedule), t, self.schedule, prediction=self.prediction)


def given(answer: Tensor) -> nn.Module:
    """A network that answers with one image."""
    network = nn.Identity()
    network.forward = lambda *_: answer  # type: ignore[method-assign]
    return network


def known_of(batch: LesionBatch) -> Tensor:
    return batch.present[:, :, None, None].float()


def shown_to_eps(method: PathoSyn, run: Callable[[], object]) -> list[Tensor]:
    """Every r_t that eps_theta is shown."""
    seen: list[Tensor] = []
    hook = method.eps.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    run()
    hook.remove()
    return seen


def test_alg_2_as_written_out(make_method: Maker, batch_of: Batches) -> None:
    """The printed loop, with ᾱ: T ancestral steps on the mask, σ² the posterior variance."""
    method, batch = make_method(paper(), solver="ancestral", timesteps=8, beta_start=0.05, beta_end=0.5, steps=8), batch_of()
    fields = [torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(k)) for k in range(8)]
    x_sub = method.substrate(batch.x, batch.m, known_of(batch)).detach()
    alpha = 1 - torch.linspace(0.05, 0.5, 8)
    ab = torch.cumprod(alpha, 0)
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


@pytest.mark.parametrize("fields", TRUTHS, ids=["default", "ancestral", "r0", "paper"])
def test_networks_that_know_the_truth_draw_the_true_lesion(
    fields: dict[str, object], make_method: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, batch = make_method(default(), clamp_quantile=0.0, steps=10, **fields), batch_of()
    method.r_scale.copy_(torch.tensor([2.0, 0.5]))
    parts, f = method.parts(batch), batch.x_ph
    r = (batch.x - f) * parts.support
    monkeypatch.setitem(method._modules, "sub", given(f))
    monkeypatch.setitem(method._modules, "eps", Knowing(r / method.r_scale.view(1, 2, 1, 1), method))
    terms = method.losses(batch, player="eps", rng=[rng.generator(i) for i in range(3)])
    drawn = method.synthesize(batch, controls=Controls())
    assert (drawn.r - r).abs().max() < 1e-2
    assert float(terms["diff"]) < 1e-6 and float(terms["pat"]) < 1e-2
    assert float(terms["std_r0"]) == pytest.approx(float(masked_mean(r**2, parts.support)) ** 0.5, rel=1e-4)
    if method.config.method.composition == "paper":
        assert torch.allclose(drawn.x_hat, f + parts.S * r, atol=1e-2)
    else:
        assert float(terms["syn"]) < 1e-2 and torch.allclose(drawn.x_hat, batch.x, atol=1e-2), "feather included"


def test_default_changes_nothing_outside_the_support_and_paper_puts_x_sub_there(tiny: Tiny, batch_of: Batches) -> None:
    batch = batch_of()
    for name, method in tiny.items():
        drawn = method.synthesize(batch, controls=Controls(seed=3), steps=2)
        outside = (method.parts(batch).S == 0).expand_as(batch.x)
        base = batch.x if name == "default" else drawn.x_sub
        assert torch.equal(drawn.x_hat[outside], base[outside]) and outside.any()
        assert not drawn.r[(method.parts(batch).support == 0).expand_as(batch.x)].any()
        assert not torch.equal(drawn.x_hat[~outside], base[~outside])


def test_context_outside_hides_the_scan_under_all_of_the_support(make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), context="outside"), batch_of()
    seen = method.condition(batch.x, torch.full_like(batch.x, 9.0), batch.m, method.parts(batch))[:, :2]
    D = batch.D.expand_as(batch.x) > 0  # noqa: N806
    assert (seen[D] == 9).all() and torch.equal(seen[~D], batch.x[~D])


@pytest.mark.parametrize("severity", [0.5, 2.0])
def test_severity_scales_the_redrawn_deviation_alone(severity: float, tiny: Tiny, batch_of: Batches) -> None:
    batch = batch_of()
    drawn = tiny["default"].synthesize(batch, controls=Controls(severity=severity, seed=1), steps=2)
    assert torch.allclose(drawn.x_hat, dec.heal(batch.x, drawn.x_sub, batch.S) + severity * batch.S * drawn.r, atol=1e-6)


def test_severity_zero_is_the_healed_scan_bit_for_bit(tiny: Tiny, batch_of: Batches) -> None:
    batch = batch_of()
    drawn = tiny["default"].synthesize(batch, controls=Controls(severity=0.0), steps=2)
    assert torch.equal(drawn.x_hat, dec.heal(batch.x, drawn.x_sub, batch.S))


def test_severity_zero_on_healthy_tissue_is_the_scan_bit_for_bit(tiny: Tiny, batch_of: Batches) -> None:
    batch = batch_of(healthy=(True, True, True))
    assert torch.equal(tiny["default"].synthesize(batch, controls=Controls(severity=0.0), steps=2).x_hat, batch.x)


@BOTH
def test_a_sample_draws_the_same_alone_and_in_a_batch(preset: str, tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny[preset], batch_of(present=[[1, 1], [1, 0], [1, 1]])
    method.r_max.fill_(3.0)
    together = method.synthesize(batch, controls=Controls(seed=1), steps=4)
    for i in range(3):
        alone = method.synthesize(batch.shard(i, 3), controls=Controls(seed=1), steps=4)
        # Unclamped, `paper` with an untrained network draws values of many hundreds.
        bound = 1e-5 * max(1.0, float(together.r[i].abs().max()))
        assert (alone.x_hat[0] - together.x_hat[i]).abs().max() <= bound
        assert (alone.r[0] - together.r[i]).abs().max() <= bound


@pytest.mark.parametrize("solver", ["dpm2m", "sde-dpm2m", "ancestral"])
def test_noise_is_keyed_by_seed_subject_and_slice(solver: str, make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default(), solver=solver, clamp_quantile=0.0), batch_of()

    def draw(b: LesionBatch, seed: int) -> Tensor:
        torch.randn(7)  # the global stream must not matter
        return method.synthesize(b, controls=Controls(seed=seed), steps=3).r

    first = draw(batch, 1)
    assert torch.equal(draw(batch, 1), first)
    for other in (draw(batch, 2), draw(replace(batch, subject=["a", "b", "c"]), 1), draw(replace(batch, z=[7, 8, 9]), 1)):
        assert all(not torch.allclose(other[i], first[i], atol=1e-3) for i in range(3))


def test_clamp_is_the_training_datas_extreme_in_units_of_the_scale(make_method: Maker, batch_of: Batches) -> None:
    method, batch = make_method(default()), batch_of()
    method.r_scale.copy_(torch.tensor([2.0, 0.5]))
    method.r_max.copy_(torch.tensor([0.3, 0.4]))
    r = method.synthesize(batch, controls=Controls(), steps=3).r
    assert r.abs().amax(dim=(0, 2, 3)).tolist() == pytest.approx([0.6, 0.2], rel=1e-4)


@BOTH
def test_missing_contrast_is_drawn_as_nothing(preset: str, tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny[preset], batch_of(present=[[1, 1], [1, 0], [0, 1]])
    method.r_max.fill_(3.0)
    drawn = method.synthesize(batch, controls=Controls(), steps=3)
    for image in (drawn.x_hat, drawn.r, drawn.x_sub):
        assert not image[~batch.present].any() and image[batch.present].any()


def test_missing_contrast_looks_the_same_in_training_and_at_the_draw(tiny: Tiny, batch_of: Batches) -> None:
    method, batch = tiny["default"], batch_of(present=[[1, 1], [1, 0], [0, 1]])
    streams = [rng.generator(i) for i in range(3)]
    trained = shown_to_eps(method, lambda: method.losses(batch, player="eps", rng=streams))
    drawn = shown_to_eps(method, lambda: method.synthesize(batch, controls=Controls(), steps=3))
    assert {bool(r[~batch.present].any()) for r in trained} == {bool(r[~batch.present].any()) for r in drawn}


def test_condition_is_the_scan_around_and_the_substrate_inside(tiny: Tiny, batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    batch = replace(batch, x=batch.x + 5.0 * (1 - known_of(batch)))
    x_sub = torch.full_like(batch.x, 9.0)
    ours, printed = (tiny[name].condition(batch.x, x_sub, batch.m, tiny[name].parts(batch)) for name in ("default", "paper"))
    assert ours.shape == printed.shape == (3, 6, 32, 32)
    S = batch.S.expand_as(batch.x)  # noqa: N806
    assert torch.allclose(ours[:, :2], (1 - S) * batch.x * known_of(batch) + S * 9, atol=1e-5)
    assert torch.equal(ours[:, :2][S == 0], (batch.x * known_of(batch))[S == 0]) and ((S > 0) & (S < 1)).any()
    assert torch.equal(ours[:, 2:3], batch.m) and torch.equal(ours[:, 3:4], batch.S)
    assert torch.equal(printed[:, :2], x_sub) and torch.equal(printed[:, 2:3], batch.m) and not printed[:, 3].any()
    for condition in (ours, printed):
        assert torch.equal(condition[:, 4:].amax(dim=(2, 3)), batch.present.float())
