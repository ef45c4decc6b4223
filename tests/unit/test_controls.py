"""The controls: each is what it says, and none touches a pixel beyond the two supports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from pathosyn.cohort import controls
from pathosyn.cohort.controls import CONTROLS, NEEDS_DONOR, closest, correlation_sigma
from pathosyn.decomposition import heal
from pathosyn.types import Image, LesionBatch

Batches = Callable[..., LesionBatch]
SIDE = 32


@pytest.fixture
def batch(batch_of: Batches) -> LesionBatch:
    return batch_of(3, present=[[1, 1], [1, 0], [1, 1]])


@pytest.fixture
def donor(batch: LesionBatch) -> LesionBatch:
    """Other lesions elsewhere, whose supports reach beyond the batch's."""
    moved = {name: torch.roll(getattr(batch, name), (5, -4), dims=(2, 3)) for name in ("m", "S")}
    scan = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(11)) + 4.0
    return replace(batch, x=scan, **moved, subject=["a", "b", "c"], present=torch.ones(3, 2, dtype=torch.bool))


def made(name: str, batch: LesionBatch, donor: LesionBatch, seed: int = 0) -> controls.Made:
    return CONTROLS[name](batch, batch.x_ph, donor, donor.x_ph, seed)


def on(batch: LesionBatch, image: Image, b: int, c: int) -> np.ndarray:
    """Values on the support of one sample and contrast."""
    return image[b, c][batch.D[b, 0] > 0].numpy()


@pytest.mark.parametrize("name", CONTROLS)
def test_nothing_changes_beyond_the_supports(name: str, batch: LesionBatch, donor: LesionBatch) -> None:
    x_hat, m, S = made(name, batch, donor)  # noqa: N806
    allowed = ((S > 0) | (batch.S > 0)).expand_as(batch.x)
    assert torch.equal(x_hat[~allowed], batch.x[~allowed]) and (~allowed).any()
    if name != "real":
        assert not torch.equal(x_hat[allowed], batch.x[allowed])
    theirs = donor if name in NEEDS_DONOR else batch
    assert torch.equal(m, theirs.m) and torch.equal(S, theirs.S)


def test_real_is_the_scan(batch: LesionBatch, donor: LesionBatch) -> None:
    assert torch.equal(made("real", batch, donor)[0], batch.x)


def test_substrate_is_the_healed_scan(batch: LesionBatch, donor: LesionBatch) -> None:
    assert torch.equal(made("substrate", batch, donor)[0], heal(batch.x, batch.x_ph, batch.S))


def test_blurred_keeps_a_smooth_lesion_and_takes_the_grain_of_another(batch: LesionBatch, donor: LesionBatch) -> None:
    """A plane is its own blur; a chequerboard of ±1 keeps exp(-σ²π²) of its height along both axes."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    ramp, board = (0.1 * y + 0.2 * x).float(), 1.0 - 2.0 * ((y + x) % 2)
    for plane, rest in ((ramp, ramp), (board, 0.0 * board)):
        scan = replace(batch, x=plane.expand_as(batch.x).contiguous())
        one = (batch.S == 1).expand_as(batch.x)
        assert torch.allclose(made("blurred", scan, donor)[0][one], rest.expand_as(batch.x)[one], atol=0.02)


def test_gaussian_has_the_deviations_mean_and_spread_on_the_support(batch: LesionBatch, donor: LesionBatch) -> None:
    whole = replace(batch, S=batch.D)  # a hard edge shows the drawn deviation itself
    x_hat = made("gaussian", whole, donor)[0]
    for b, c in ((0, 0), (1, 0), (2, 1)):
        drawn, true = on(whole, x_hat - whole.x_ph, b, c), on(whole, whole.x - whole.x_ph, b, c)
        assert drawn.mean() == pytest.approx(true.mean(), abs=1e-4) and drawn.std() == pytest.approx(true.std(), rel=1e-4)
        assert abs(np.corrcoef(drawn, true)[0, 1]) < 0.5, "nothing else of it"


def test_gaussian_is_keyed_by_seed_subject_and_slice(batch: LesionBatch, donor: LesionBatch) -> None:
    first = made("gaussian", batch, donor)[0]
    assert torch.equal(first, made("gaussian", batch, donor)[0])
    alone = made("gaussian", batch.shard(1, 3), donor)[0]
    assert torch.allclose(alone[0], first[1], atol=1e-6), "the same in any batch"
    for other in (made("gaussian", batch, donor, 1)[0], made("gaussian", replace(batch, z=[7, 8, 9]), donor)[0]):
        assert all(not torch.allclose(other[b], first[b], atol=1e-2) for b in range(3))


def test_gaussian_of_a_missing_contrast_is_the_substrate(batch: LesionBatch, donor: LesionBatch) -> None:
    blank = replace(batch, x_ph=batch.x_ph * batch.present[:, :, None, None])
    assert not made("gaussian", blank, donor)[0][1, 1].any()


def test_permuted_puts_the_donors_deviation_on_this_substrate(batch: LesionBatch, donor: LesionBatch) -> None:
    x_hat = made("permuted", batch, donor)[0]
    both, theirs = ((batch.S == 1) & (donor.S == 1)).expand_as(batch.x), ((batch.S == 0) & (donor.S == 1)).expand_as(batch.x)
    r = donor.x - donor.x_ph
    assert both.any() and theirs.any()
    assert torch.allclose(x_hat[both], (batch.x_ph + r)[both], atol=1e-5) and torch.allclose(x_hat[theirs], (batch.x + r)[theirs], atol=1e-5)
    own = ((batch.S > 0) & (donor.S == 0)).expand_as(batch.x)
    assert torch.allclose(x_hat[own], heal(batch.x, batch.x_ph, batch.S)[own], atol=1e-6), "its own lesion is gone"


def test_copy_paste_puts_the_donors_pixels(batch: LesionBatch, donor: LesionBatch) -> None:
    x_hat = made("copy-paste", batch, donor)[0]
    inside, own = (donor.S == 1).expand_as(batch.x), ((batch.S > 0) & (donor.S == 0)).expand_as(batch.x)
    assert torch.allclose(x_hat[inside], donor.x[inside], atol=1e-5)
    assert torch.allclose(x_hat[own], heal(batch.x, batch.x_ph, batch.S)[own], atol=1e-6)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.5, 2.5])
def test_correlation_sigma_finds_the_filter(sigma: float) -> None:
    white = np.random.default_rng(1).normal(size=(256, 256))
    inside = np.zeros((256, 256), bool)
    inside[20:230, 30:220] = True
    assert correlation_sigma(ndimage.gaussian_filter(white, sigma, mode="wrap"), inside) == pytest.approx(sigma, rel=0.15)


def test_correlation_sigma_of_white_noise_is_nothing_nor_is_that_of_a_chequerboard_or_a_constant() -> None:
    inside = np.ones((256, 256), bool)
    board = 1.0 - 2.0 * (np.indices((256, 256)).sum(axis=0) % 2)
    for field in (np.random.default_rng(2).normal(size=(256, 256)), board, np.full((256, 256), 3.0)):
        assert correlation_sigma(field, inside) == 0.0


def test_correlation_sigma_looks_at_the_support_alone() -> None:
    inside = np.zeros((64, 64), bool)
    inside[10:40, 12:50] = True
    field = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(64, 64)), 1.0)
    assert correlation_sigma(np.where(inside, field, 99.0), inside) == pytest.approx(correlation_sigma(field, inside), rel=1e-9)


def test_closest_has_the_largest_dice() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, 4:10, 4:10] = 1
    candidates = torch.zeros(4, 1, 16, 16)
    candidates[0] = 1  # holds all of it and much more
    candidates[1, :, 4:7, 4:7] = 1  # a part of it
    candidates[2, :, 5:11, 4:10] = 1  # moved by one: Dice 5/6
    dice = [2 * float((c * mask).sum()) / float(c.sum() + mask.sum()) for c in candidates]
    assert closest(mask, candidates) == int(np.argmax(dice)) == 2
    assert closest(mask, torch.cat([candidates, mask[None]])) == 4
