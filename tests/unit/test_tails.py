"""How sparse detail is, in closed form, and detail made so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pathosyn.lesion import tails, texture


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("share", [1 / 4, 1 / 16, 1 / 64])
def test_how_sparse_detail_is_in_closed_form(share: float) -> None:
    """The kurtosis of a Bernoulli variable of probability p is 1 / (p (1 - p)) - 3, of signs 1, whatever height and mean; nothing off `where` counts."""
    x, where = torch.zeros(1, 2, 16, 16), torch.zeros(1, 1, 16, 16)
    where[..., :8] = 1.0
    lit = torch.arange(128).view(16, 8) < 128 * share
    x[0, 0, :, :8] = 5.0 * lit - 2.0
    x[0, 1, :, :8] = torch.where(torch.arange(128).view(16, 8) % 2 == 0, 0.3, -0.3)
    x[..., 8:] = 100.0
    assert (1.8 * tails.sparseness(x, where)[0].exp()).tolist() == pytest.approx([1 / (share * (1 - share)) - 3, 1.8], rel=1e-4), "not below uniform noise"
    assert tails.sparseness(torch.ones_like(x), where).tolist() == [[0.0, 0.0]], "no detail"
    assert float(tails.sparseness(noise(1, 1, 400, 400), torch.ones(1, 1, 400, 400)).exp()) == pytest.approx(3.0 / 1.8, abs=0.03), "normal noise"


@pytest.mark.parametrize("power", [-0.3, 0.0, 0.7])
def test_detail_is_made_stronger_by_the_power_that_makes_it_as_sparse_as_is_asked(power: float) -> None:
    """And stays as strong as it is; asked for what a power of its own strength gives, it is that."""
    detail, where = 0.2 * noise(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    where[:, :, 4:28, 4:28] = 1.0
    wanted = detail * texture.box_mean(detail.square(), 1).sqrt() ** power
    made = tails.sparser(detail, where, tails.sparseness(wanted, where))
    inside = where > 0
    assert torch.equal(made[~inside], detail[~inside])
    for b in range(2):
        ours, theirs = made[b][inside[b]], wanted[b][inside[b]]
        assert torch.allclose(ours / ours.square().mean().sqrt(), theirs / theirs.square().mean().sqrt(), atol=5e-3)
        assert float(ours.square().mean()) == pytest.approx(float(detail[b][inside[b]].square().mean()), rel=1e-4)


def test_no_pixel_grows_beyond_those_beside_it() -> None:
    """Pixels of many heights in detail that is as strong everywhere stay what they are; where it is stronger, all of it grows."""
    heights = torch.tensor([[1.0, -2.0, 0.5], [-0.5, 3.0, -1.0], [2.0, -0.2, -1.8]]).repeat(10, 10)[None, None]
    where = torch.zeros_like(heights)
    where[..., 3:27, 3:27] = 1.0
    assert torch.allclose(tails.sparser(heights, where, torch.full((1, 1), 3.0)), heights, atol=1e-4)
    uneven = heights * torch.where(torch.arange(30) < 15, 1.0, 2.0)
    grown = tails.sparser(uneven, where, torch.full((1, 1), 1.2)) / uneven
    assert torch.allclose(grown[..., 5:25, 5:12], grown[..., 5:6, 5:6].expand(-1, -1, 20, 7), rtol=1e-3)
    assert float(grown[..., 5, 20]) > 1.0 > float(grown[..., 5, 8])


def test_less_sparse_than_uniform_noise_is_asked_for_as_that() -> None:
    """The number ends at 0, the search does not: what is asked as 0 gets the kurtosis of uniform noise and no less."""
    signs = 1.0 - 2.0 * (torch.arange(64)[:, None] % 2)  # of strength 1 and a² on half of the pixels each the power -1/2 makes 1 and a, whose kurtosis is 1.8
    detail, where = (signs * torch.where(torch.arange(64) < 32, 1.0, 4.236**2))[None, None], torch.ones(1, 1, 64, 64)
    made = tails.sparser(detail, where, torch.zeros(1, 1))
    kurtosis = made.square().square().mean() / made.square().mean().square()
    assert float(kurtosis) == pytest.approx(tails.UNIFORM, rel=0.01) and float(tails.sparseness(made.sign(), where)) == 0.0


def test_what_no_power_gives_is_come_near_to_and_what_is_not_told_stays() -> None:
    detail, where = noise(1, 2, 32, 32), torch.ones(1, 1, 32, 32)
    before = tails.sparseness(detail, where)[0, 0]
    made = tails.sparser(detail, where, torch.tensor([[20.0, torch.nan]]))
    assert torch.equal(made[:, 1], detail[:, 1]) and tails.sparseness(made, where)[0, 0] > before + 1
    few = torch.zeros_like(where)
    few[..., 0, : texture.LEAST - 1] = 1.0
    assert torch.equal(tails.sparser(detail, few, torch.full((1, 2), 2.0)), detail), "of so few pixels it is chance"
    flat = torch.zeros_like(detail)
    assert torch.equal(tails.sparser(flat, where, torch.full((1, 2), 2.0)), flat)
