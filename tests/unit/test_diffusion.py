"""Eqs. 6-8, 10, 12, Alg. 2 and the solvers, against closed forms. A Gaussian N(μ, s²) has an exact denoiser, and so has a point mass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

from pathosyn import diffusion as diff
from pathosyn.diffusion import NoiseSchedule

MU, VAR = 0.2, 0.09
LINEAR = diff.linear_schedule()
ZERO_SNR = diff.linear_schedule(zero_terminal_snr=True)
EVERY_T = torch.arange(1, 1001)
SOLVERS: list[tuple[str, float]] = [("ancestral", 0.0), ("ddim", 0.0), ("ddim", 1.0), ("dpm2m", 0.0), ("sde-dpm2m", 0.0)]
ONE = torch.ones(1, 1, 1, 1, dtype=torch.float64)


def gaussian_eps(r: Tensor, t: Tensor, schedule: NoiseSchedule, var: float = VAR) -> Tensor:
    """E[ε | r_t] where r_0 ~ N(MU, var)."""
    ab = diff.at(schedule.alpha_bar, t)
    return (1 - ab).sqrt() * (r - ab.sqrt() * MU) / (ab * var + 1 - ab)


def gaussian_r0(schedule: NoiseSchedule, var: float = VAR) -> diff.Denoiser:
    """E[r_0 | r_t], finite also at zero SNR."""

    def denoise(r: Tensor, t: Tensor) -> Tensor:
        ab = diff.at(schedule.alpha_bar, t)
        return (ab.sqrt() * var * r + (1 - ab) * MU) / (ab * var + 1 - ab)

    return denoise


def law(run: Callable[[Callable[[int], Tensor], Tensor], Tensor], fields: int) -> tuple[float, float]:
    """Mean and variance that a sampler returns, exactly. With a linear denoiser a draw is c + Σ A_k noise_k: pixel k is given 1 for its own noise
    field and 0 for every other, the last pixel none at all."""

    def noise(k: int) -> Tensor:
        impulse = torch.zeros(1, 1, 1, fields + 1, dtype=torch.float64)
        impulse[..., k] = 1
        return impulse

    response = run(noise, torch.ones(1, 1, 1, fields + 1, dtype=torch.float64)).flatten()
    return float(response[-1]), float(((response[:-1] - response[-1]) ** 2).sum())


def sampled_law(schedule: NoiseSchedule, times: list[int], solver: Any, eta: float = 0.0) -> tuple[float, float]:
    denoise = gaussian_r0(schedule)
    return law(lambda noise, D: diff.sample_deviation(denoise, noise, D, schedule, times, solver=solver, eta=eta), len(times) - 1)  # noqa: N803


@pytest.mark.parametrize("schedule", [LINEAR, ZERO_SNR])
def test_schedule_is_consistent(schedule: NoiseSchedule) -> None:
    assert schedule.T == 1000 and {len(v) for v in (schedule.beta, schedule.alpha, schedule.alpha_bar)} == {1001}
    assert float(schedule.alpha_bar[0]) == 1.0 and float(schedule.beta[0]) == 0.0
    assert torch.allclose(torch.cumprod(schedule.alpha, 0), schedule.alpha_bar, atol=1e-12)
    assert (schedule.alpha_bar.diff() < 0).all()


def test_linear_schedule_is_linear_and_ends_where_the_field_says() -> None:
    assert torch.allclose(LINEAR.beta[1:].diff(), torch.full((999,), 0.0199 / 999, dtype=torch.float64), atol=1e-15)
    assert (float(LINEAR.beta[1]), float(LINEAR.beta[1000])) == (1e-4, 0.02)
    assert float(LINEAR.alpha_bar[1000]) == pytest.approx(4.04e-5, rel=2e-3)


def test_zero_terminal_snr_moves_only_the_end() -> None:
    assert float(ZERO_SNR.alpha_bar[1000]) == 0.0
    assert float(ZERO_SNR.alpha_bar[1]) == pytest.approx(float(LINEAR.alpha_bar[1]), abs=1e-15)
    gain = ZERO_SNR.alpha_bar[1:].sqrt().diff() / LINEAR.alpha_bar[1:].sqrt().diff()
    assert torch.allclose(gain, gain[:1]), "√ᾱ is shifted and scaled, nothing else"


def test_forward_steps_compose_to_the_closed_form() -> None:
    mean, var = ONE.clone(), torch.zeros_like(ONE)
    for t in range(1, 1001):
        step = torch.tensor([t])
        mean = diff.noise_once(mean, step, torch.zeros_like(ONE), LINEAR)
        gain, fresh = diff.noise_once(ONE, step, torch.zeros_like(ONE), LINEAR), diff.noise_once(torch.zeros_like(ONE), step, ONE, LINEAR)
        var = gain**2 * var + fresh**2
        closed_mean = diff.diffuse(ONE, step, torch.zeros_like(ONE), ONE, LINEAR)
        closed_std = diff.diffuse(torch.zeros_like(ONE), step, ONE, ONE, LINEAR)
        assert (mean.item(), var.item()) == pytest.approx((closed_mean.item(), closed_std.item() ** 2), rel=1e-9)


@pytest.mark.parametrize("prediction", ["eps", "v", "r0"])
def test_true_output_gives_r0_back_at_every_t(prediction: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    r0, eps = (torch.randn(1000, 2, 3, 3, dtype=torch.float64, generator=draw) for _ in range(2))
    r_t = diff.diffuse(r0, EVERY_T, eps, ONE, LINEAR)
    output = diff.target(r0, eps, EVERY_T, LINEAR, prediction=prediction)
    assert torch.allclose(diff.predict_r0(r_t, output, EVERY_T, LINEAR, prediction=prediction), r0, atol=1e-10)
    assert torch.allclose(diff.predict_eps(r_t, r0, EVERY_T, LINEAR), eps, atol=1e-9)


def test_equation_12_as_printed_does_not_invert_the_forward_process() -> None:
    printed = NoiseSchedule(beta=LINEAR.beta, alpha=LINEAR.alpha, alpha_bar=LINEAR.alpha)
    r0, eps = 0.3 * ONE, ONE
    r_t = diff.diffuse(r0, EVERY_T[-1:], eps, ONE, LINEAR)
    assert abs(diff.predict_r0(r_t, eps, EVERY_T[-1:], printed).item() - 0.3) > 0.4
    assert diff.predict_r0(r_t, eps, EVERY_T[-1:], LINEAR).item() == pytest.approx(0.3)


def test_reverse_step_is_the_printed_mean_and_the_posterior_variance() -> None:
    draw = torch.Generator().manual_seed(1)
    r_t, eps_hat, z = (torch.randn(1000, 1, 2, 2, dtype=torch.float64, generator=draw) for _ in range(3))
    r0_hat = diff.predict_r0(r_t, eps_hat, EVERY_T, LINEAR)
    alpha, ab, before = (diff.at(values, t) for values, t in ((LINEAR.alpha, EVERY_T), (LINEAR.alpha_bar, EVERY_T), (LINEAR.alpha_bar, EVERY_T - 1)))
    sigma = ((1 - alpha) * (1 - before) / (1 - ab)).sqrt()
    printed = (r_t - (1 - alpha) / (1 - ab).sqrt() * eps_hat) / alpha.sqrt() + sigma * z
    step = diff.ancestral_step(r_t, r0_hat, EVERY_T, EVERY_T - 1, z, LINEAR)
    assert torch.allclose(step, printed, atol=1e-9)
    assert torch.allclose(step[0], r0_hat[0], atol=1e-9), "t = 1: no noise, and the estimate itself"


def test_every_step_to_zero_ignores_its_noise() -> None:
    r, r0, loud = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4), torch.full((1, 1, 4, 4), 1e9)
    t, s = torch.tensor([40]), torch.tensor([0])
    assert torch.allclose(diff.ancestral_step(r, r0, t, s, loud, LINEAR), r0, atol=1e-6)
    assert torch.allclose(diff.ddim_step(r, r0, t, s, loud, LINEAR, eta=1.0), r0, atol=1e-6)
    assert torch.allclose(diff.dpm2m_step(r, r0, 5 * r0, (90, 40, 0), loud, LINEAR), r0, atol=1e-6)


@pytest.mark.parametrize("solver, eta", [("ancestral", 0.0), ("ddim", 1.0)])
def test_ancestral_sampling_returns_the_gaussian(solver: str, eta: float) -> None:
    bias = []
    for T in (1000, 2000):  # noqa: N806
        schedule = diff.linear_schedule(T, start=0.1 / T, end=20 / T)
        mean, var = sampled_law(schedule, diff.sampling_times(T, T), solver, eta)
        assert mean == pytest.approx(MU, abs=0.001) and var == pytest.approx(VAR, rel=0.03)
        bias.append(VAR - var)
    assert bias[1] == pytest.approx(bias[0] / 2, rel=0.1), "what is missing is the step's length, first order in 1/T"


def test_alg_2_as_printed_does_not_return_the_gaussian() -> None:
    def printed(noise: Callable[[int], Tensor], _: Tensor) -> Tensor:
        r = noise(0)
        for k, t in enumerate(range(1000, 0, -1)):
            a, beta = LINEAR.alpha[t], LINEAR.beta[t]
            r = (r - (1 - a) / (1 - a).sqrt() * gaussian_eps(r, torch.tensor([t]), LINEAR)) / a.sqrt()
            r = r + (beta.sqrt() * noise(k + 1) if t > 1 else 0)
        return r

    assert law(printed, 1000)[1] == pytest.approx(0.014, abs=0.001)


@pytest.mark.parametrize("solver, eta, steps, within", [("ddim", 0.0, 250, 0.06), ("dpm2m", 0.0, 20, 0.07), ("sde-dpm2m", 0.0, 50, 0.06)])
@pytest.mark.parametrize("schedule", [LINEAR, ZERO_SNR], ids=["linear", "zero-snr"])
def test_few_steps_come_near_the_gaussian(schedule: NoiseSchedule, solver: str, eta: float, steps: int, within: float) -> None:
    mean, var = sampled_law(schedule, diff.sampling_times(1000, steps, spacing="quadratic"), solver, eta)
    assert mean == pytest.approx(MU, abs=0.001) and var == pytest.approx(VAR, rel=within)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("solver, eta", SOLVERS)
def test_a_point_mass_comes_back_in_any_number_of_steps(solver: Any, eta: float, steps: int) -> None:
    draw = torch.Generator().manual_seed(steps)
    truth = torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=draw)

    def denoise(r: Tensor, t: Tensor) -> Tensor:
        return diff.predict_r0(r, diff.predict_eps(r, truth, t, LINEAR), t, LINEAR)

    fields = [torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=draw) for _ in range(steps)]
    times = diff.sampling_times(1000, steps)
    r = diff.sample_deviation(denoise, fields.__getitem__, ONE, LINEAR, times, solver=solver, eta=eta)
    assert torch.allclose(r, truth, atol=1e-9)


@pytest.mark.parametrize("t, s", [(1000, 999), (1000, 1), (700, 300), (2, 1)])
def test_deterministic_steps_stay_on_the_path_of_a_point_mass(t: int, s: int) -> None:
    truth, eps = (torch.randn(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (3, 4))
    now, then = (diff.diffuse(truth, torch.tensor([i]), eps, ONE, LINEAR) for i in (t, s))
    assert torch.allclose(diff.ddim_step(now, truth, torch.tensor([t]), torch.tensor([s]), eps, LINEAR), then, atol=1e-10)
    assert torch.allclose(diff.dpm2m_step(now, truth, None, (t, t, s), None, LINEAR), then, atol=1e-10)
    if t < 1000:
        assert torch.allclose(diff.dpm2m_step(now, truth, truth, (t + 1, t, s), None, LINEAR), then, atol=1e-10)


def log_snr_schedule(n: int, *, low: float = -2.0, high: float = 3.0) -> NoiseSchedule:
    """n + 1 levels even in λ = ½ ln(ᾱ/(1-ᾱ)); the noisiest is the last."""
    ab = torch.cat([torch.ones(1, dtype=torch.float64), torch.sigmoid(2 * torch.linspace(high, low, n + 1, dtype=torch.float64))])
    alpha = torch.cat([ab[:1], ab[1:] / ab[:-1]])
    return NoiseSchedule(beta=1 - alpha, alpha=alpha, alpha_bar=ab)


def flow_error(n: int, order: int) -> float:
    """Distance to the exact solution of the probability flow of N(MU, VAR), along which (r - √ᾱ μ)/√(ᾱ s² + 1 - ᾱ) is constant."""
    schedule, w = log_snr_schedule(n), 1.3
    denoise = gaussian_r0(schedule)
    exact = [math.sqrt(ab) * MU + math.sqrt(ab * VAR + 1 - ab) * w for ab in schedule.alpha_bar.tolist()]
    r, before = exact[n + 1] * ONE, None
    for t in range(n + 1, 1, -1):
        r0_hat = denoise(r, torch.tensor([t]))
        if order == 1:
            r = diff.ddim_step(r, r0_hat, torch.tensor([t]), torch.tensor([t - 1]), ONE, schedule)
        else:
            r, before = diff.dpm2m_step(r, r0_hat, before, (min(t + 1, n + 1), t, t - 1), None, schedule), r0_hat
    return abs(r.item() - exact[1])


@pytest.mark.parametrize("order", [1, 2])
def test_solvers_converge_at_their_order(order: int) -> None:
    steps = [16, 32, 64, 128, 256]
    slope = np.polyfit(np.log([1 / n for n in steps]), np.log([flow_error(n, order) for n in steps]), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("solver, eta", SOLVERS)
def test_nothing_leaves_the_support_at_any_step(solver: Any, eta: float) -> None:
    D = torch.zeros(2, 1, 6, 6)  # noqa: N806
    D[:, :, 2:4, 1:5] = 1
    outside = (D == 0).expand(2, 3, 6, 6)
    seen = []

    def denoise(r: Tensor, t: Tensor) -> Tensor:
        seen.append(r.clone())
        return torch.where(outside, math.nan, 0.5 * r)

    def noise(k: int) -> Tensor:
        field = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(k))
        return torch.where(outside, math.inf, field)

    seen.append(diff.sample_deviation(denoise, noise, D, LINEAR, diff.sampling_times(1000, 7), solver=solver, eta=eta))
    assert len(seen) == 8
    for r in seen:
        assert (r[outside] == 0).all() and r[~outside].isfinite().all() and r[~outside].any()


def test_projection_of_infinities_is_zero() -> None:
    r, D = torch.full((1, 2, 3, 3), math.inf), torch.zeros(1, 1, 3, 3)  # noqa: N806
    assert not diff.project(r, D).any()
    assert not diff.diffuse(torch.zeros(1, 2, 3, 3), torch.tensor([9]), r, D, LINEAR).any()


@pytest.mark.parametrize("solver, eta, fields", [("ancestral", 0.0, 5), ("ddim", 0.0, 1), ("ddim", 0.5, 5), ("dpm2m", 0.0, 1), ("sde-dpm2m", 0.0, 5)])
def test_noise_is_asked_for_once_a_level_and_never_for_the_clean_end(solver: Any, eta: float, fields: int) -> None:
    asked: list[int] = []

    def noise(k: int) -> Tensor:
        asked.append(k)
        return ONE

    diff.sample_deviation(lambda r, t: 0.5 * r, noise, ONE, LINEAR, diff.sampling_times(1000, 5), solver=solver, eta=eta)
    assert asked == list(range(fields))


@pytest.mark.parametrize("solver, eta", SOLVERS)
def test_estimate_is_held_within_the_clamp(solver: Any, eta: float) -> None:
    limit = torch.tensor([0.5, 2.0]).view(1, 2, 1, 1)
    far, noise, D = torch.full((1, 2, 3, 3), 100.0), torch.ones(1, 2, 3, 3), torch.ones(1, 1, 3, 3)  # noqa: N806
    r = diff.sample_deviation(lambda r, t: far, lambda k: noise, D, LINEAR, [1000, 500, 0], solver=solver, eta=eta, clamp=limit)
    assert torch.allclose(r, limit.expand_as(r), atol=1e-5)


def test_uniform_training_times_stay() -> None:
    assert torch.equal(diff.training_times(EVERY_T, 1000, times="uniform"), EVERY_T)


@pytest.mark.parametrize("T", [1, 7, 10, 1000])
def test_quadratic_training_times_have_the_law_they_state(T: int) -> None:  # noqa: N803
    """Over all uniform times: 1…T, and at most τ exactly as often as u ≤ √(τT)."""
    t = diff.training_times(torch.arange(1, T + 1), T, times="quadratic")
    assert t.dtype == torch.int64 and (int(t.min()), int(t.max())) == (1, T) and (t.diff() >= 0).all()
    for tau in range(1, T + 1):
        share = float((t <= tau).sum()) / T
        assert share == math.isqrt(tau * T) / T and abs(share - math.sqrt(tau / T)) < 1 / T


def test_half_of_the_quadratic_times_lie_in_the_first_quarter() -> None:
    t = diff.training_times(EVERY_T, 1000, times="quadratic")
    assert int((t <= 250).sum()) == 500 and [int(t[u - 1]) for u in (1, 31, 32, 100, 1000)] == [1, 1, 2, 10, 1000]


def test_sampling_times_known_values() -> None:
    assert diff.sampling_times(1000, 4) == [1000, 750, 500, 250, 0]
    assert diff.sampling_times(1000, 4, spacing="quadratic") == [1000, 562, 250, 62, 0]
    assert diff.sampling_times(1000, 10, spacing="leading")[0] == 901, "leading never sees T"
    assert diff.sampling_times(5, 5, spacing="quadratic") == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("steps", [0, 11])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="steps must lie in 1…10"):
        diff.sampling_times(10, steps)


def test_shapes_are_what_the_types_say() -> None:
    x, t = torch.zeros(2, 3, 8, 8), torch.tensor([1, 2])
    checked = jaxtyped(typechecker=beartype)(diff.diffuse)
    assert checked(x, t, x, x[:, :1], LINEAR).shape == x.shape
    for wrong in (t[:1].expand(3), t[:, None], t.float()):
        with pytest.raises(TypeCheckError):
            checked(x, wrong, x, x[:, :1], LINEAR)
    with pytest.raises(TypeCheckError):
        checked(x, t, x, x, LINEAR)
