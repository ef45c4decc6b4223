"""What holds for any mask, time, size and dtype in decomposition, diffusion and losses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from pathosyn import decomposition as dec
from pathosyn import diffusion as diff
from pathosyn.losses import masked_mean
from pathosyn.rng import generator, integers, normal

QUICK = settings(max_examples=30, deadline=None)
SCHEDULES = [diff.linear_schedule(), diff.linear_schedule(zero_terminal_snr=True)]
SEEDS = st.integers(0, 2**31)
SEVERITIES = st.floats(0.0, 3.0)


def scene(seed: int, *, count: int = 2, side: int = 10, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, x_sub, r (count, 2, side, side) and a blend map (count, 1, side, side) that is 0 and 1 in places."""
    draw = torch.Generator().manual_seed(seed)
    x, f, r = (torch.randn(count, 2, side, side, generator=draw, dtype=torch.float64) for _ in range(3))
    S = (2 * torch.rand(count, 1, side, side, generator=draw, dtype=torch.float64) - 0.5).clip(0, 1)  # noqa: N806
    return x.to(dtype), f.to(dtype), r.to(dtype), S.to(dtype)


@QUICK
@given(SEEDS, SEVERITIES, st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_preserve_touches_the_support_only_and_keeps_the_dtype(seed: int, severity: float, dtype: torch.dtype) -> None:
    x, f, r, S = scene(seed, dtype=dtype)  # noqa: N806
    x_hat = dec.recompose(dec.heal(x, f, S), f, r, S, severity=severity)
    outside = (S == 0).expand_as(x)
    assert x_hat.dtype == dtype and torch.equal(x_hat[outside], x[outside])
    assert torch.equal(dec.recompose(x, f, r, S, severity=0.0), x)


@QUICK
@given(SEEDS, SEVERITIES)
def test_what_is_added_grows_with_severity(seed: int, severity: float) -> None:
    x, f, r, S = scene(seed)  # noqa: N806
    one, more = (dec.recompose(x, f, r, S, severity=s) - x for s in (1.0, severity))
    assert torch.allclose(more, severity * one, atol=1e-9)


@QUICK
@given(SEEDS, st.sampled_from([(-1,), (-2,), (-2, -1)]))
def test_flips_commute_with_the_composition(seed: int, axes: tuple[int, ...]) -> None:
    x, f, r, S = scene(seed)  # noqa: N806
    flipped = [v.flip(axes) for v in (x, f, r, S)]
    assert torch.equal(dec.recompose(*flipped), dec.recompose(x, f, r, S).flip(axes))
    m = (S > 0.5).double()
    assert torch.allclose(dec.smooth(m.flip(axes), sigma=1.3), dec.smooth(m, sigma=1.3).flip(axes), atol=1e-12)


@QUICK
@given(SEEDS, st.floats(0.3, 4.0))
def test_printed_blend_lies_between_zero_and_one_and_grows_with_the_mask(seed: int, sigma: float) -> None:
    S = scene(seed, side=16)[3]  # noqa: N806
    small, large = (S > 0.8).double(), (S > 0.2).double()
    G_small, G_large = dec.smooth(small, sigma=sigma), dec.smooth(large, sigma=sigma)  # noqa: N806
    assert (G_small >= 0).all() and (G_large <= 1).all() and (G_large - G_small >= -1e-12).all()


@QUICK
@given(st.floats(-3.0, 3.0), st.floats(0.1, 20.0))
def test_saturation_round_trip(ratio: float, delta: float) -> None:
    r = np.array([ratio * delta])
    bounded = dec.saturate(r, delta=delta)
    assert abs(bounded[0]) < delta
    np.testing.assert_allclose(dec.unsaturate(bounded, delta=delta), r, atol=1e-6 * delta)


@QUICK
@given(SEEDS, st.lists(st.integers(1, 1000), min_size=3, max_size=3), st.sampled_from(["eps", "v", "r0"]))
def test_a_batch_of_times_is_its_samples_one_by_one(seed: int, times: list[int], prediction: Any) -> None:
    r0, eps, z, S = scene(seed, count=3)  # noqa: N806
    t, schedule = torch.tensor(times), SCHEDULES[0]
    s = t // 3

    def run(i: slice) -> Tensor:
        r_t = diff.diffuse(r0[i], t[i], eps[i], S[i], schedule)
        output = diff.target(r0[i], eps[i], t[i], schedule, prediction=prediction)
        r0_hat = diff.predict_r0(r_t, output, t[i], schedule, prediction=prediction)
        return torch.stack([diff.ancestral_step(r_t, r0_hat, t[i], s[i], z[i], schedule), diff.ddim_step(r_t, r0_hat, t[i], s[i], z[i], schedule, eta=0.4)], 1)

    together = run(slice(None))
    for i in range(3):
        assert torch.allclose(run(slice(i, i + 1)), together[i : i + 1], rtol=1e-10, atol=1e-10)


@QUICK
@given(SEEDS, st.integers(1, 1000), st.data(), st.sampled_from(SCHEDULES))
def test_ddim_with_all_its_noise_is_ancestral(seed: int, t: int, data: st.DataObject, schedule: diff.NoiseSchedule) -> None:
    s = data.draw(st.integers(0, t - 1))
    r_t, r0_hat, z, _ = scene(seed)
    times = torch.full((2,), t), torch.full((2,), s)
    assert torch.allclose(diff.ddim_step(r_t, r0_hat, *times, z, schedule, eta=1.0), diff.ancestral_step(r_t, r0_hat, *times, z, schedule), atol=1e-9)


@QUICK
@given(SEEDS, st.integers(1, 999), st.data())
def test_reverse_step_from_the_truth_has_the_forward_law(seed: int, t: int, data: st.DataObject) -> None:
    """With r̂_0 = r_0 the posterior step takes q(r_t | r_0) to q(r_s | r_0): mean √ᾱ_s r_0, variance 1 - ᾱ_s."""
    s, schedule = data.draw(st.integers(0, t - 1)), SCHEDULES[0]
    zero, one = torch.zeros(1, 1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, 1, dtype=torch.float64)
    t_b, s_b = torch.tensor([t]), torch.tensor([s])
    on_r0, on_rt, on_z = (diff.ancestral_step(a, b, t_b, s_b, z, schedule) for a, b, z in ((zero, one, zero), (one, zero, zero), (zero, zero, one)))
    ab_t, ab_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    assert (on_r0 + on_rt * ab_t**0.5).item() == pytest.approx(ab_s**0.5, abs=1e-9)
    assert (on_rt**2 * (1 - ab_t) + on_z**2).item() == pytest.approx(1 - ab_s, abs=1e-9)


@QUICK
@given(
    SEEDS,
    st.sampled_from(["ancestral", "ddim", "dpm2m", "sde-dpm2m"]),
    st.floats(0, 1),
    st.integers(1, 12),
    st.sampled_from(["trailing", "quadratic", "leading"]),
    st.sampled_from(SCHEDULES),
)
def test_draws_stay_on_the_support_and_finite(seed: int, solver: Any, eta: float, steps: int, spacing: Any, schedule: diff.NoiseSchedule) -> None:
    S = scene(seed, dtype=torch.float32)[3]  # noqa: N806
    outside, seen = (S == 0).expand(2, 2, 10, 10), []

    def denoise(r: Tensor, t: Tensor) -> Tensor:
        seen.append(r)
        return torch.where(outside, torch.inf, torch.tanh(r) + 0.1)

    def noise(k: int) -> Tensor:
        return torch.where(outside, torch.nan, torch.randn(2, 2, 10, 10, generator=generator(seed, k)))

    times = diff.sampling_times(1000, steps, spacing=spacing)
    seen.append(diff.sample_deviation(denoise, noise, S, schedule, times, solver=solver, eta=eta, clamp=torch.tensor(0.7)))
    assert len(seen) == steps + 1 and seen[-1].dtype == torch.float32
    for r in seen:
        assert (r[outside] == 0).all() and r.isfinite().all()
    assert float(seen[-1].abs().max()) <= 0.7 + 1e-5


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 1500), st.data(), st.sampled_from(["trailing", "quadratic", "leading"]))
def test_sampling_times_fall_strictly_to_zero(T: int, data: st.DataObject, spacing: Any) -> None:  # noqa: N803
    n = data.draw(st.integers(1, T))
    times = diff.sampling_times(T, n, spacing=spacing)
    assert len(times) == n + 1 and times[-1] == 0
    assert all(isinstance(t, int) for t in times) and all(a > b for a, b in pairwise(times))
    assert 1 <= times[0] <= T and (times[0] == T or spacing == "leading")
    if n == T:
        assert times == list(range(T, -1, -1))


def test_sampling_times_fall_strictly_for_every_small_case() -> None:
    for T in range(1, 41):  # noqa: N806
        for n in range(1, T + 1):
            for spacing in ("trailing", "quadratic"):
                times = diff.sampling_times(T, n, spacing=spacing)
                assert times[0] == T and len(times) == n + 1 and (np.diff(times) < 0).all()


@QUICK
@given(SEEDS, st.tuples(*[st.integers(0, 9)] * 4), st.floats(0.01, 100.0), st.integers(1, 5))
def test_masked_mean_ignores_padding_the_masks_scale_and_repetition(seed: int, margins: tuple[int, ...], scale: float, times: int) -> None:
    error, _, _, S = scene(seed)  # noqa: N806
    value = masked_mean(error, S).item()
    assert masked_mean(pad(error, margins, value=1e6), pad(S, margins)).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert masked_mean(error, scale * S).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert masked_mean(error.repeat(times, 1, 1, 1), S.repeat(times, 1, 1, 1)).item() == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert masked_mean(error.flip(-1), S.flip(-1)).item() == pytest.approx(value, rel=1e-9, abs=1e-12)


@QUICK
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), SEEDS)
def test_named_noise_does_not_depend_on_its_neighbours(keys: list[int], seed: int) -> None:
    together = normal([generator(seed, k) for k in keys], (2, 3, 3))
    for i, key in enumerate(keys):
        assert torch.equal(together[i], normal([generator(seed, key)], (2, 3, 3))[0])
    drawn = integers([generator(seed, k) for k in keys], 1, 4)
    assert drawn.shape == (len(keys),) and ((drawn >= 1) & (drawn <= 4)).all()
