"""What channels share, against numpy, and lists of it as matrices. The map between covariances: test_appearance.py."""

from __future__ import annotations

import numpy as np
import torch

from pathosyn.lesion import moments


def test_covariance_and_correlations_are_numpys_on_the_pixels_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(2, 3, 12, 9, generator=generator)
    field[:, 2] += 0.8 * field[:, 0] + 5.0
    where = (torch.rand(2, 1, 12, 9, generator=generator) > 0.4).float()
    found, listed = moments.covariance(field, where), moments.correlations(field, where)
    for b in range(2):
        inside = field[b].numpy()[:, where[b, 0].numpy() > 0]
        assert np.allclose(found[b], np.cov(inside, bias=True), atol=1e-5)
        assert np.allclose(listed[b], np.corrcoef(inside)[[0, 0, 1], [1, 2, 2]], atol=1e-5)
    assert torch.allclose(moments.matrix(listed, 3)[0], torch.from_numpy(np.corrcoef(field[0].numpy()[:, where[0, 0].numpy() > 0])).float(), atol=1e-5)


def test_a_channel_without_variance_shares_nothing_and_one_channel_has_no_pairs() -> None:
    field = torch.randn(1, 2, 8, 8)
    field[:, 1] = 3.0
    field.requires_grad_()
    listed = moments.correlations(field, torch.ones(1, 1, 8, 8))
    listed.sum().backward()
    assert not listed.any() and field.grad is not None and field.grad.isfinite().all()
    assert moments.correlations(field[:, :1], torch.ones(1, 1, 8, 8)).shape == (1, 0) and torch.equal(moments.matrix(torch.zeros(2, 0), 1), torch.ones(2, 1, 1))
    assert moments.matrix(torch.tensor([[3.0]]), 2)[0, 0, 1] == 1.0


def third(field: torch.Tensor, where: torch.Tensor) -> np.ndarray:
    """(B, C): the third central moment over `where`, numpy's."""
    inside = [field[b].numpy()[:, where[b, 0].numpy() > 0] for b in range(len(field))]
    return np.array([((values - values.mean(axis=1, keepdims=True)) ** 3).mean(axis=1) for values in inside])


def test_a_bent_field_has_the_third_moments_that_were_asked_and_keeps_its_order() -> None:
    generator = torch.Generator().manual_seed(0)
    field, where = torch.randn(2, 3, 24, 24, generator=generator), (torch.rand(2, 1, 24, 24, generator=generator) > 0.3).float()
    wanted = torch.tensor([[0.0, 0.4, -0.4], [0.2, -0.1, 0.5]])
    once = moments.skewed(field, where, wanted)
    assert np.abs(third(once, where) - wanted.numpy()).max() < np.abs(third(field, where) - wanted.numpy()).max() / 3
    bent = field
    for _ in range(6):
        bent = moments.skewed(bent, where, wanted)
    assert np.allclose(third(bent, where), wanted, atol=0.02)
    for b in range(2):
        for c in range(3):
            assert torch.equal(once[b, c].flatten().argsort(), field[b, c].flatten().argsort()), "no pixel overtakes another"
    far = moments.skewed(field, where, torch.full((2, 3), 1e6))
    ranks = field[0, 0].flatten().argsort()
    assert far.isfinite().all() and bool((far[0, 0].flatten()[ranks].diff() >= -1e-5).all()), "however much is asked"


def test_a_field_that_has_its_third_moments_or_none_stays() -> None:
    field = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    field[:, 1] = 3.0
    where = torch.ones(1, 1, 8, 8)
    own = torch.from_numpy(third(field, where)).float()
    assert torch.allclose(moments.skewed(field, where, own), field, atol=1e-5)
    bent = moments.skewed(field, where, torch.ones(1, 2))
    assert torch.equal(bent[:, 1], field[:, 1]) and not torch.allclose(bent[:, 0], field[:, 0], atol=0.01)
    assert torch.equal(moments.skewed(field, 0.0 * where, torch.ones(1, 2)).isfinite(), torch.ones(1, 2, 8, 8, dtype=torch.bool))
