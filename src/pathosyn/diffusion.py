"""Diffusion in deviation space: Eqs. 6-8, 10, 12, Alg. 2, and the solvers with fewer calls than T.

Schedule arrays are indexed 0…T with `alpha_bar[0] == 1`; `t` is always (B,) and runs 1…T as printed. Nothing here draws: noise comes in as
an argument. Coefficients are float64, fields keep their dtype. Where the print has α in Eq. 12, Alg. 1 and Alg. 2, ᾱ is meant (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from pathosyn.types import Image, Mask, Times

Prediction = Literal["eps", "v", "r0"]
Solver = Literal["ancestral", "ddim", "dpm2m", "sde-dpm2m"]
Spacing = Literal["trailing", "quadratic", "leading"]
MOST = 5.0
"""The most that an error of r_0 counts beside one at pure noise."""


@dataclass(frozen=True)
class NoiseSchedule:
    """β, α = 1 - β and ᾱ = ∏α, float64, index 0…T; entry 0 is the clean end (β₀ = 0)."""

    beta: Tensor
    alpha: Tensor
    alpha_bar: Tensor

    @property
    def T(self) -> int:  # noqa: N802 - the paper's letter
        """Number of noise levels."""
        return len(self.beta) - 1


def linear_schedule(T: int = 1000, *, start: float = 1e-4, end: float = 0.02, zero_terminal_snr: bool = False) -> NoiseSchedule:  # noqa: N803
    """β_t linear from `start` to `end`. `zero_terminal_snr` shifts and scales √ᾱ so that ᾱ_T = 0 and ᾱ_1 stays (Lin et al. 2024, Alg. 1):
    otherwise the sampler starts from noise that the training never showed."""
    beta = torch.cat([torch.zeros(1, dtype=torch.float64), torch.linspace(start, end, T, dtype=torch.float64)])
    alpha_bar = torch.cumprod(1.0 - beta, 0)
    if zero_terminal_snr:
        root = alpha_bar.sqrt()
        root[1:] = (root[1:] - root[T]) * root[1] / (root[1] - root[T])
        alpha_bar = root**2
        beta = torch.cat([beta[:1], 1.0 - alpha_bar[1:] / alpha_bar[:-1]])
    return NoiseSchedule(beta=beta, alpha=1.0 - beta, alpha_bar=alpha_bar)


def at(values: Tensor, t: Times) -> Tensor:
    """Gather schedule entries for t (B,) as (B, 1, 1, 1): the one place where time is broadcast."""
    return values.to(t.device)[t].view(-1, 1, 1, 1)


def snr_weight(t: Times, schedule: NoiseSchedule, *, most: float = MOST) -> Tensor:
    """(B,): what makes the squared error of r_0 that of v, 1/(1 - ᾱ_t) = 1 + SNR, held at `most`, beyond which only noise is left to be seen (Hang et al.
    2023)."""
    return (1.0 / (1.0 - at(schedule.alpha_bar, t))).clamp(max=most).flatten().float()


def project(r: Image, support: Mask) -> Image:
    """Eq. 8: r ⊙ support. Written as a choice, so that an infinite value outside cannot become NaN."""
    return torch.where(support > 0, r, torch.zeros((), dtype=r.dtype, device=r.device))


def noise_once(r: Image, t: Times, eps: Image, schedule: NoiseSchedule) -> Image:
    """Eq. 6, one step of the forward chain: r_t = √(1-β_t) r_{t-1} + √β_t ε."""
    beta = at(schedule.beta, t)
    return _mix(r, (1.0 - beta).sqrt(), eps, beta.sqrt())


def diffuse(r0: Image, t: Times, eps: Image, support: Mask, schedule: NoiseSchedule) -> Image:
    """Eqs. 7 and 8: r_t = (√ᾱ_t r_0 + √(1-ᾱ_t) ε) ⊙ support."""
    ab = at(schedule.alpha_bar, t)
    return project(_mix(r0, ab.sqrt(), eps, (1.0 - ab).sqrt()), support)


def target(r0: Image, eps: Image, t: Times, schedule: NoiseSchedule, *, prediction: Prediction) -> Image:
    """What the network is asked for: ε (as printed), r_0, or v = √ᾱ_t ε - √(1-ᾱ_t) r_0 (Salimans & Ho 2022)."""
    if prediction == "eps":
        return eps
    if prediction == "r0":
        return r0
    ab = at(schedule.alpha_bar, t)
    return _mix(eps, ab.sqrt(), r0, -(1.0 - ab).sqrt())


def predict_r0(r_t: Image, output: Image, t: Times, schedule: NoiseSchedule, *, prediction: Prediction = "eps") -> Image:
    """Eq. 12, with ᾱ: the estimate of r_0 from the network's output. For ε: (r_t - √(1-ᾱ_t) ε̂) / √ᾱ_t."""
    if prediction == "r0":
        return output
    ab = at(schedule.alpha_bar, t)
    if prediction == "v":
        return _mix(r_t, ab.sqrt(), output, -(1.0 - ab).sqrt())
    return _mix(r_t, ab.rsqrt(), output, -((1.0 - ab) / ab).sqrt())


def predict_eps(r_t: Image, r0_hat: Image, t: Times, schedule: NoiseSchedule) -> Image:
    """The noise that goes with an estimate of r_0 (Eq. 7 solved for ε)."""
    ab = at(schedule.alpha_bar, t)
    return _mix(r_t, (1.0 - ab).rsqrt(), r0_hat, -(ab / (1.0 - ab)).sqrt())


def ancestral_step(r_t: Image, r0_hat: Image, t: Times, s: Times, z: Image, schedule: NoiseSchedule) -> Image:
    """Eq. 10 from t to s < t: the mean of q(r_s | r_t, r̂_0) plus σ z. For s = t-1 and the ε̂ of r̂_0 the mean is the printed one.

    σ² is the posterior variance β̃ = β (1-ᾱ_s)/(1-ᾱ_t), 0 at s = 0 as printed (z = 0 for t = 1); β belongs to the step t → s."""
    ab_t, ab_s = at(schedule.alpha_bar, t), at(schedule.alpha_bar, s)
    alpha = ab_t / ab_s
    mean = _mix(r0_hat, ab_s.sqrt() * (1.0 - alpha) / (1.0 - ab_t), r_t, alpha.sqrt() * (1.0 - ab_s) / (1.0 - ab_t))
    sigma = ((1.0 - alpha) * (1.0 - ab_s) / (1.0 - ab_t)).sqrt()
    return mean + sigma.to(mean.dtype) * z


def ddim_step(r_t: Image, r0_hat: Image, t: Times, s: Times, z: Image, schedule: NoiseSchedule, *, eta: float = 0.0) -> Image:
    """DDIM (Song et al. 2021, Eqs. 12 and 16) from t to s < t: √ᾱ_s r̂_0 + √(1-ᾱ_s-σ²) ε̂ + σ z. η = 1 is `ancestral_step`."""
    ab_t, ab_s = at(schedule.alpha_bar, t), at(schedule.alpha_bar, s)
    variance = eta**2 * (1.0 - ab_s) / (1.0 - ab_t) * (1.0 - ab_t / ab_s)
    eps_hat = predict_eps(r_t, r0_hat, t, schedule)
    mean = _mix(r0_hat, ab_s.sqrt(), eps_hat, (1.0 - ab_s - variance).clamp(min=0.0).sqrt())
    return mean + variance.sqrt().to(mean.dtype) * z


def dpm2m_step(
    r_t: Image,
    r0_hat: Image,
    r0_before: Image | None,
    times: tuple[int, int, int],
    z: Image | None,
    schedule: NoiseSchedule,
) -> Image:
    """DPM-Solver++(2M) in data prediction (Lu et al. 2022, Eq. 20); with `z` its stochastic form, SDE-DPM-Solver++(2M).

    `times` = (time of `r0_before`, t, s). Two estimates of r_0 are extrapolated linearly in λ = ln(√ᾱ/√(1-ᾱ)). The first step, the last (s = 0)
    and the one after a start at zero SNR have no finite λ on one side and are first order."""
    before, t, s = times
    a_t, a_s = (float(schedule.alpha_bar[i]) ** 0.5 for i in (t, s))
    sig_t, sig_s = (float(1.0 - schedule.alpha_bar[i]) ** 0.5 for i in (t, s))
    shrink = (a_t * sig_s) / (a_s * sig_t)  # e^{-h}, finite also where λ is not
    estimate = r0_hat
    if r0_before is not None and s > 0 and a_t > 0 and float(schedule.alpha_bar[before]) > 0:
        lam_before, lam_t, lam_s = (_log_snr(schedule, i) for i in times)
        inverse_2r = 0.5 * (lam_s - lam_t) / (lam_t - lam_before)
        estimate = (1.0 + inverse_2r) * r0_hat - inverse_2r * r0_before
    if z is None:
        return (sig_s / sig_t) * r_t + a_s * (1.0 - shrink) * estimate
    fresh = 1.0 - shrink**2
    return (sig_s / sig_t) * shrink * r_t + a_s * fresh * estimate + sig_s * fresh**0.5 * z


def training_times(uniform: Times, T: int, *, times: Literal["uniform", "quadratic"]) -> Times:  # noqa: N803
    """Uniform integers 1…T as they are, or moved to ⌈T (t/T)²⌉: P(t ≤ τ) becomes √(τ/T), so that small noise is seen more often."""
    return uniform if times == "uniform" else (uniform**2 + T - 1) // T


def sampling_times(T: int, n: int, *, spacing: Spacing = "trailing") -> list[int]:  # noqa: N803
    """n + 1 falling times, the first T and the last 0.

    trailing: evenly spaced. quadratic: t ∝ u², denser towards the clean end, where fine texture is decided; with few calls even steps
    stop at a noise level above it and the draw comes out too smooth (benchmarks/bench_solvers.py). leading, for comparison only, never sees T."""
    if not 1 <= n <= T:
        raise ValueError(f"steps must lie in 1…{T}, got {n}")
    if spacing == "leading":
        return [(T // n) * k + 1 for k in range(n - 1, -1, -1)] + [0]
    if spacing == "trailing":
        return [round(T * (n - k) / n) for k in range(n + 1)]
    # max: many calls would round neighbours onto one time; T - k is the densest grid there is
    return [max(round(T * ((n - k) / n) ** 2), n - k) for k in range(n + 1)]


Denoiser = Callable[[Image, Times], Image]


def sample_deviation(
    denoise: Denoiser,
    noise: Callable[[int], Image],
    support: Mask,
    schedule: NoiseSchedule,
    times: Sequence[int],
    *,
    solver: Solver = "ddim",
    eta: float = 0.0,
    clamp: Tensor | None = None,
) -> Image:
    """Alg. 2, step 2. `denoise(r_t, t)` returns the estimate of r_0; `noise(k)` the k-th field of unit noise (0 is r_T).

    After every step the field is projected on the support (Eq. 8), and the estimate of r_0 is held within ±`clamp` (broadcastable, scaled units)
    at every step: the abstract's "inference-time stabilization", which the paper does not specify (DESIGN §3, 18)."""
    r = project(noise(0), support)
    before: tuple[int, Image] | None = None
    for k, (t, s) in enumerate(pairwise(times)):
        t_b = torch.full((len(r),), t, device=r.device)
        s_b = torch.full_like(t_b, s)
        r0_hat = denoise(r, t_b)
        if clamp is not None:
            r0_hat = r0_hat.clamp(-clamp, clamp)
        if solver == "ancestral" or solver == "ddim":
            share = 1.0 if solver == "ancestral" else eta
            z = noise(k + 1) if s > 0 and share > 0 else torch.zeros_like(r)
            r = ddim_step(r, r0_hat, t_b, s_b, z, schedule, eta=share) if solver == "ddim" else ancestral_step(r, r0_hat, t_b, s_b, z, schedule)
        elif solver not in ("dpm2m", "sde-dpm2m"):
            raise ValueError(f"no solver is called {solver}")
        else:
            fresh = noise(k + 1) if solver == "sde-dpm2m" and s > 0 else None
            last_time, last = before if before is not None else (t, None)
            r = dpm2m_step(r, r0_hat, last, (last_time, t, s), fresh, schedule)
            before = (t, r0_hat)
        r = project(r, support)
    return r


def _mix(a: Image, ca: Tensor, b: Image, cb: Tensor) -> Image:
    return ca.to(a.dtype) * a + cb.to(b.dtype) * b


def _log_snr(schedule: NoiseSchedule, t: int) -> float:
    ab = schedule.alpha_bar[t]
    return float(0.5 * torch.log(ab / (1.0 - ab)))
