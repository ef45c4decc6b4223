"""MaskDiff-Inpaint: what of the slice is seen, what of it is kept, and the blend of the code at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pathosyn import diffusion, rng
from pathosyn.checkpoint import Provenance, save_weights
from pathosyn.compared import Compared
from pathosyn.framework.latents import LatentMethod, seen
from pathosyn.methods.inpaint import MaskDiff
from pathosyn.training.start import beginning
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., LatentMethod]


@pytest.fixture(scope="module")
def method(make_latent: Maker) -> MaskDiff:
    made = make_latent("maskdiff-inpaint")
    assert isinstance(made, MaskDiff)
    return made


@pytest.fixture
def resampling(make_latent: Maker) -> MaskDiff:
    made = make_latent("maskdiff-inpaint", resample=2)
    assert isinstance(made, MaskDiff)
    return made


def keys(batch: LesionBatch) -> list[torch.Generator]:
    return [rng.generator("paint", s) for s in batch.subject]


def test_outside_the_support_the_slice_is_kept_bit_for_bit_and_inside_it_nothing_of_it_is_seen(method: MaskDiff, batch_of: Batches) -> None:
    batch = batch_of(2)
    drawn = method.synthesize(batch, controls=Controls())
    assert torch.equal(torch.where(batch.D > 0, 0.0, drawn.x_hat), torch.where(batch.D > 0, 0.0, batch.x)) and not (drawn.r * (1 - batch.D)).any()
    other = method.synthesize(replace(batch, x=batch.x + 5.0 * batch.D), controls=Controls())
    core = (batch.S == 1).expand_as(batch.x)
    assert torch.allclose(other.x_hat[core], drawn.x_hat[core], atol=1e-4) and torch.allclose(other.x_sub[core], drawn.x_sub[core], atol=1e-4)
    assert (drawn.x_hat - batch.x)[core].abs().max() > 0.1, "or the test sees no difference"


def test_severity_scales_the_deviation_and_a_healthy_slice_without_it_stays_as_it_is(method: MaskDiff, batch_of: Batches) -> None:
    batch = batch_of(2, healthy=(True, False))
    none, one, two = (method.synthesize(batch, controls=Controls(severity=s)) for s in (0.0, 1.0, 2.0))
    assert torch.equal(none.x_hat[0], batch.x[0]) and torch.allclose(none.x_hat[1], none.x_sub[1])
    assert torch.allclose(two.x_hat[1], one.x_sub[1] + 2 * batch.S[1] * one.r[1], atol=1e-5)
    assert torch.allclose(one.x_hat, one.x_sub + batch.S * one.r, atol=1e-5), "at 1 a healthy slice and a diseased one are composed alike"


def test_without_paste_the_decoded_slice_is_everywhere(make_latent: Maker, batch_of: Batches) -> None:
    batch = batch_of(1)
    made = make_latent("maskdiff-inpaint", paste=False)
    assert isinstance(made, MaskDiff)
    drawn = made.synthesize(batch, controls=Controls())
    background = made.background(batch)
    code = made.paint(batch, background, made.streams(batch, Controls()), made.times(None))
    known = seen(batch)[1]
    assert torch.allclose(drawn.x_hat, made.decode(code, known), atol=1e-5) and torch.allclose(drawn.x_sub, made.decode(background, known), atol=1e-5)


def test_the_blend_is_a_draw_whose_estimate_is_the_given_code_in_the_background(method: MaskDiff, batch_of: Batches) -> None:
    """The background's noise is the start's, so DDIM from the given code is the noised given code at every step."""
    batch, times = batch_of(2), method.times(5)
    background, where = method.background(batch), method.foreground(batch)
    condition, start = method.condition(batch, background), rng.normal(keys(batch), tuple(background.shape[1:]))
    wanted = diffusion.sample_deviation(
        lambda code, t: torch.where(where > 0, method.estimate(code, condition, t), background),
        lambda _: start,
        torch.ones_like(where),
        method.schedule,
        times,
    )
    painted = method.paint(batch, background, keys(batch), times)
    assert torch.allclose(painted, wanted, atol=1e-4) and 0 < where.mean() < 1
    assert torch.equal(torch.where(where > 0, 0.0, painted), torch.where(where > 0, 0.0, background))


@pytest.mark.parametrize("kind", ["method", "resampling"])
def test_a_perfect_denoiser_paints_the_truth(kind: str, request: pytest.FixtureRequest, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method: MaskDiff = request.getfixturevalue(kind)
    batch, calls = batch_of(2), []
    background, where = method.background(batch), method.foreground(batch)
    truth = torch.randn_like(background)

    def estimate(code: torch.Tensor, condition: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(int(t[0]))
        return truth

    monkeypatch.setattr(method, "estimate", estimate)
    painted = method.paint(batch, background, keys(batch), method.times(4))
    assert torch.allclose(painted, torch.where(where > 0, truth, background), atol=1e-5)
    assert calls == ([1000, 750, 500, 250] if kind == "method" else [1000] * 3 + [750] * 3 + [500] * 3 + [250])


def test_a_step_that_is_taken_back_has_the_noise_of_its_start(resampling: MaskDiff, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known clean code 0: what the denoiser is shown at t is noise of variance 1 - ᾱ_t, at first and anew."""
    batch = batch_of(3)
    shown: list[float] = []

    def estimate(code: torch.Tensor, condition: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        shown.append(float(code.square().mean() / (1 - resampling.schedule.alpha_bar[int(t[0])])))
        return torch.zeros_like(code)

    monkeypatch.setattr(resampling, "estimate", estimate)
    resampling.paint(batch, torch.zeros(3, 4, 8, 8), keys(batch), resampling.times(10))
    assert len(shown) == 28 and shown == pytest.approx([1.0] * 28, abs=0.2)


def test_training_shows_what_the_draw_shows(method: MaskDiff, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background the code to be learned is the background's; in the foreground the slice's own, which counts `1 / background` times as much."""
    batch, given = batch_of(2), []
    monkeypatch.setattr(method, "noised_terms", lambda code, condition, streams, counts: given.append((code, condition, counts)) or {})
    method.diffusion_terms(batch, keys(batch))
    code, condition, counts = given[0]
    where, background = method.foreground(batch) > 0, method.background(batch)
    assert torch.allclose(code, torch.where(where, method.encode(*seen(batch)), background), atol=1e-5)
    assert torch.allclose(condition, method.condition(batch, background), atol=1e-5)
    assert torch.equal(counts[where], torch.ones_like(counts[where])) and counts[~where].unique().tolist() == pytest.approx([method.settings.background])


def test_another_support_hides_something_else(method: MaskDiff, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, given = batch_of(2), []
    monkeypatch.setattr(method, "noised_terms", lambda code, condition, streams, counts: given.append(condition) or {})
    moved = replace(batch, S=batch.S.roll(5, -1))
    for each in (batch, moved):
        method.diffusion_terms(each, keys(each))
    assert torch.allclose(given[1], method.condition(moved, method.background(moved)), atol=1e-5)


def test_a_draw_does_not_depend_on_the_batch_and_a_missing_contrast_stays_0(resampling: MaskDiff, batch_of: Batches) -> None:
    batch = batch_of(3, present=[[1, 1], [1, 0], [1, 1]])
    drawn, alone = resampling.synthesize(batch, controls=Controls(seed=4)), resampling.synthesize(batch.shard(1, 3), controls=Controls(seed=4))
    assert torch.allclose(alone.x_hat, drawn.x_hat[1:2], atol=1e-4) and not drawn.x_hat[1, 1].any() and not drawn.x_sub[1, 1].any()
    assert (resampling.synthesize(batch.shard(1, 3), controls=Controls(seed=5)).x_hat - alone.x_hat).abs().max() > 1e-2


def test_brain_ldm_lends_its_autoencoder(make_latent: Maker, batch_of: Batches, tmp_path: Path) -> None:
    lender, settings = make_latent("brain-ldm"), {"autoencoder_share": 0.0, "widths": (8, 8)}
    save_weights(tmp_path / "ldm.safetensors", lender, Provenance())
    mine = make_latent("maskdiff-inpaint", **settings).config
    begun = beginning(mine, tmp_path / "ldm.safetensors")
    assert isinstance(begun, MaskDiff) and [stage.name for stage in begun.stages] == ["diffusion"]
    assert begun.settings.widths == (8, 16), "the lender's, whose autoencoder it is"
    assert torch.allclose(begun.reconstruct(batch_of(2)), lender.reconstruct(batch_of(2)), atol=1e-5)


def test_a_part_that_is_built_otherwise_is_not_lent(make_latent: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lender = make_latent("brain-ldm")
    save_weights(tmp_path / "ldm.safetensors", lender, Provenance())
    mine = make_latent("maskdiff-inpaint", widths=(8, 8)).config
    monkeypatch.setattr("pathosyn.training.start.kept", lambda theirs, asked: Compared(latent=asked.latent))
    begun = beginning(mine, tmp_path / "ldm.safetensors")
    assert isinstance(begun, MaskDiff) and begun.settings.widths == (8, 8)


def test_a_tiny_network_learns_the_foreground_of_two_slices(make_latent: Maker, batch_of: Batches) -> None:
    method, batch = make_latent("maskdiff-inpaint", denoiser=(16, 16)), batch_of(2)
    method.begin("diffusion", [batch])
    optimizer = torch.optim.Adam(method.eps.parameters(), lr=5e-3)
    values = []
    for _ in range(30):
        loss = method.losses(batch, player="eps", rng=keys(batch))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]
