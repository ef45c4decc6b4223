"""Masked means and the printed blend map against NumPy, scikit-learn, PyTorch and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import mean_absolute_error, mean_squared_error
from torch.nn.functional import l1_loss, mse_loss

from pathosyn import decomposition, losses

DRAW = torch.Generator().manual_seed(0)
X, Y = (torch.randn(4, 2, 12, 12, generator=DRAW, dtype=torch.float64) for _ in range(2))
SOFT = torch.rand(4, 1, 12, 12, generator=DRAW, dtype=torch.float64)
HARD = (SOFT > 0.6).double()


def test_masked_mean_is_numpys_weighted_average() -> None:
    expected = np.mean([np.average(x, weights=np.broadcast_to(s, x.shape)) for x, s in zip(X.numpy(), SOFT.numpy(), strict=True)])
    assert losses.masked_mean(X, SOFT).item() == pytest.approx(expected, rel=1e-12)


def test_hard_masks_give_pytorchs_losses_on_the_picked_pixels() -> None:
    picked = [(x[h.expand_as(x) > 0], y[h.expand_as(x) > 0]) for x, y, h in zip(X, Y, HARD, strict=True)]
    squared = torch.stack([mse_loss(x, y) for x, y in picked]).mean()
    assert losses.diffusion_loss(X, Y, HARD).item() == pytest.approx(squared.item(), rel=1e-12)
    absolute = torch.stack([l1_loss(x, y) for x, y in picked]).mean()
    assert losses.synthesis_loss(X, Y, HARD).item() == pytest.approx(absolute.item(), rel=1e-12)


def test_soft_masks_give_scikit_learns_weighted_errors() -> None:
    weights = SOFT.expand_as(X).numpy().reshape(4, -1)
    x, y = X.numpy().reshape(4, -1), Y.numpy().reshape(4, -1)
    absolute = np.mean([mean_absolute_error(a, b, sample_weight=w) for a, b, w in zip(x, y, weights, strict=True)])
    squared = np.mean([mean_squared_error(a, b, sample_weight=w) for a, b, w in zip(x, y, weights, strict=True)])
    terms = losses.deviation_loss(X, Y, HARD, SOFT, 1 - HARD, lam_pat=0.0, lam_ring=1.0, lam_leak=0.0)
    assert terms["dev"].item() == pytest.approx(absolute, rel=1e-12)
    assert losses.substrate_loss(X, Y, Y, SOFT, SOFT, lam_out=0.0, lam_in=1.0).item() == pytest.approx(squared, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 3.25])
def test_printed_blend_is_scipys_gaussian_cut_at_four_sigma(sigma: float) -> None:
    expected = gaussian_filter(HARD.numpy(), (0, 0, sigma, sigma), mode="constant", radius=(0, 0, *[int(np.ceil(4 * sigma))] * 2))
    np.testing.assert_allclose(decomposition.smooth(HARD, sigma=sigma).numpy(), expected, atol=1e-12)
