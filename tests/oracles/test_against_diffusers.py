"""Our schedule and steps against diffusers'. Their time index is ours minus 1, and what they call the previous time of the last step is our 0.

Every option that differs from their default is set, and so is every default that matters here (no clipping of r_0, the posterior variance).
They work in float32.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from pathosyn import diffusion as diff

diffusers = pytest.importorskip("diffusers")

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
THEIR_NAME = {"eps": "epsilon", "v": "v_prediction", "r0": "sample"}
OURS = diff.linear_schedule()
OURS_ZERO = diff.linear_schedule(zero_terminal_snr=True)


def ddpm(prediction: str = "eps") -> Any:
    return diffusers.DDPMScheduler(**BETAS, prediction_type=THEIR_NAME[prediction], variance_type="fixed_small", clip_sample=False, thresholding=False)


def ddim(prediction: str, *, zero: bool = False) -> Any:
    return diffusers.DDIMScheduler(
        **BETAS,
        prediction_type=THEIR_NAME[prediction],
        clip_sample=False,
        thresholding=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=zero,
    )


def dpm(algorithm: str) -> Any:
    return diffusers.DPMSolverMultistepScheduler(
        **BETAS,
        prediction_type="sample",
        algorithm_type=algorithm,
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=True,
        euler_at_final=False,
        final_sigmas_type="zero",
        use_karras_sigmas=False,
        thresholding=False,
    )


def draw(seed: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def estimate(r: Tensor, t: int) -> Tensor:
    """Some nonlinear estimate of r_0 that moves with t."""
    return torch.tanh(0.7 * r) + 0.1 * t / 1000


def assert_close(ours: Tensor, theirs: Tensor, bound: float = 2e-5) -> None:
    assert float((ours - theirs).abs().max()) <= bound * max(1.0, float(theirs.abs().max()))


def test_linear_schedule() -> None:
    assert_close(OURS.alpha_bar[1:].float(), ddpm().alphas_cumprod, 1e-6)
    assert_close(OURS.beta[1:].float(), ddpm().betas, 1e-7)


def test_zero_terminal_snr_schedule() -> None:
    theirs = ddim("v", zero=True)
    assert_close(OURS_ZERO.alpha_bar[1:].float(), theirs.alphas_cumprod, 1e-6)
    assert_close(OURS_ZERO.beta[1:].float(), theirs.betas, 1e-5)


def test_forward_process_and_v_target() -> None:
    r0, eps, t = draw(0, 5), draw(1, 5), torch.tensor([1, 17, 500, 999, 1000])
    assert_close(diff.diffuse(r0, t, eps, torch.ones(5, 1, 6, 6), OURS), ddpm().add_noise(r0, eps, t - 1))
    assert_close(diff.target(r0, eps, t, OURS, prediction="v"), ddpm().get_velocity(r0, eps, t - 1))


@pytest.mark.parametrize("prediction", ["eps", "v", "r0"])
@pytest.mark.parametrize("times, bound", [([1000, 999, 998], 2e-5), ([1000, 750, 40, 0], 2e-5), ([900, 20, 0], 2e-5), ([2, 1, 0], 3e-4)])
def test_ancestral_step(prediction: Any, times: list[int], bound: float) -> None:
    """At t = 2 their float32 holds 1 - ᾱ to three digits only."""
    theirs = ddpm(prediction)
    theirs.set_timesteps(timesteps=[t - 1 for t in times if t > 0])
    for t, s in pairwise(times):
        r_t, output = draw(t), draw(t + 1)
        expected = theirs.step(output, t - 1, r_t, generator=torch.Generator().manual_seed(7)).prev_sample
        z = torch.randn(r_t.shape, generator=torch.Generator().manual_seed(7))
        t_b, s_b = torch.full((2,), t), torch.full((2,), s)
        r0_hat = diff.predict_r0(r_t, output, t_b, OURS, prediction=prediction)
        assert_close(diff.ancestral_step(r_t, r0_hat, t_b, s_b, z, OURS), expected, bound)


@pytest.mark.parametrize("prediction", ["eps", "v", "r0"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_steps(prediction: Any, eta: float, steps: int) -> None:
    theirs = ddim(prediction)
    theirs.set_timesteps(steps)
    times = diff.sampling_times(1000, steps)
    assert (theirs.timesteps + 1).tolist() == times[:-1]
    for t, s in list(pairwise(times))[:: max(1, steps // 10)] + [(times[-2], 0)]:
        r_t, output, z = draw(t), draw(t + 1), draw(t + 2)
        expected = theirs.step(output, t - 1, r_t, eta=eta, variance_noise=z).prev_sample
        t_b, s_b = torch.full((2,), t), torch.full((2,), s)
        r0_hat = diff.predict_r0(r_t, output, t_b, OURS, prediction=prediction)
        assert_close(diff.ddim_step(r_t, r0_hat, t_b, s_b, z, OURS, eta=eta), expected)


def test_ddim_from_zero_terminal_snr() -> None:
    theirs, times = ddim("v", zero=True), diff.sampling_times(1000, 8)
    theirs.set_timesteps(8)

    def denoise(r: Tensor, t: Tensor) -> Tensor:
        return diff.predict_r0(r, torch.tanh(r), t, OURS_ZERO, prediction="v")

    expected = draw(3)
    for t in theirs.timesteps:
        expected = theirs.step(torch.tanh(expected), t, expected, eta=0.0).prev_sample
    assert_close(diff.sample_deviation(denoise, lambda k: draw(3), torch.ones(2, 1, 6, 6), OURS_ZERO, times, solver="ddim"), expected, 1e-4)


@pytest.mark.parametrize("solver, algorithm", [("dpm2m", "dpmsolver++"), ("sde-dpm2m", "sde-dpmsolver++")])
@pytest.mark.parametrize("spacing", ["trailing", "quadratic"])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpm_solver_trajectories(solver: Any, algorithm: str, spacing: Any, steps: int) -> None:
    theirs, times = dpm(algorithm), diff.sampling_times(1000, steps, spacing=spacing)
    theirs.set_timesteps(timesteps=[t - 1 for t in times[:-1]])
    expected, on_the_way = draw(0), []
    for k, t in enumerate(times[:-1]):
        expected = theirs.step(estimate(expected, t), t - 1, expected, variance_noise=draw(k + 1)).prev_sample
        on_the_way.append(expected)
    seen = []

    def denoise(r: Tensor, t: Tensor) -> Tensor:
        seen.append(r)
        return estimate(r, int(t[0]))

    seen.append(diff.sample_deviation(denoise, draw, torch.ones(2, 1, 6, 6), OURS, times, solver=solver))
    for ours, want in zip(seen[1:], on_the_way, strict=True):
        assert_close(ours, want, 1e-4)


@pytest.mark.parametrize("steps", [4, 10, 25])
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_sampling_times(steps: int, spacing: Any) -> None:
    theirs = diffusers.DDPMScheduler(**BETAS, timestep_spacing=spacing, steps_offset=0)
    theirs.set_timesteps(steps)
    assert (theirs.timesteps + 1).tolist() == diff.sampling_times(1000, steps, spacing=spacing)[:-1]
