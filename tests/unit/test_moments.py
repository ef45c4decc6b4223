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
