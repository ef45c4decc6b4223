"""What lies between a lesion's cells and its finest detail: how strong it is, and gathered in borders."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pathosyn.lesion import borders, tails, texture

SIDE = 64
PRESENT = torch.tensor([[True]])


def disc(radius: float = 24.0, count: int = 1) -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return ((y - 32) ** 2 + (x - 32) ** 2 <= radius**2).float().expand(count, 1, SIDE, SIDE).clone()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("period", [4, 8, 16])
def test_the_strength_of_a_wave_in_closed_form(period: int) -> None:
    """A mean over n pixels weakens a wave of frequency f by sin(n π f) / (n sin(π f)); what it is beyond three pixels off the lesion does not count."""
    m = torch.zeros(1, 1, SIDE, SIDE)
    m[:, :, 5:59, 5:59] = 1.0  # 48 pixels, whole periods, remain
    wave = torch.sin(2 * math.pi * torch.arange(SIDE) / period).expand(1, 1, SIDE, SIDE)
    weaker = [math.sin(n * math.pi / period) / (n * math.sin(math.pi / period)) for n in (3, 7)]
    assert float(borders.strength(wave + 100.0 * (1.0 - m), m)) == pytest.approx(abs(weaker[0] - weaker[1]) / math.sqrt(2), rel=1e-4)


def test_a_lesion_that_rises_at_its_outline_alone_has_none() -> None:
    m = disc()
    assert float(borders.strength(3.0 * m, m)) == pytest.approx(0.0, abs=1e-6)
    few = disc(3.0)
    assert float(borders.strength(3.0 * few, few)) > 0.1, "so few pixels count all of them"
    assert float(borders.strength(3.0 * m, torch.zeros_like(m))) == 0.0


def test_what_is_made_is_as_strong_as_is_asked_and_no_other_pixel_moves() -> None:
    x, m = noise(2, 2, SIDE, SIDE), disc(count=2)
    wanted = borders.strength(x, m) * torch.tensor([[0.8, 1.3], [2.0, 0.9]])
    made = borders.strengthened(x, m, wanted)
    assert torch.allclose(borders.strength(made, m), wanted, rtol=0.1)
    assert torch.equal(made * (1.0 - m), x * (1.0 - m))


def test_no_weaker_and_no_stronger_than_the_bounds() -> None:
    x, m = noise(1, 1, SIDE, SIDE), disc()
    now = float(borders.strength(x, m))
    weakest, strongest = (float(borders.strength(borders.strengthened(x, m, torch.full((1, 1), wanted)), m)) / now for wanted in (0.0, 99.0))
    assert strongest == pytest.approx(borders.FACTORS[1], rel=0.1)
    assert borders.FACTORS[0] <= weakest < 0.8, "beside the rim it stays, and white noise has much of it there"


def test_a_mottle_becomes_regions_with_borders() -> None:
    """Two halves under a mottle: what is made lies nearer to them and is sparser."""
    m = disc()
    halves = torch.where(torch.arange(SIDE) < 32, 0.0, 1.0).expand(1, 1, SIDE, SIDE)
    x = halves + 0.25 * texture.box_mean(noise(1, 1, SIDE, SIDE), 1) * 3.0
    made = borders.bordered(x, m, PRESENT)
    inside = m > 0

    def like(y: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([y[inside], halves[inside]]))[0, 1])

    def sparse(y: Tensor) -> float:
        return float(tails.sparseness(borders.middle(y), m))

    assert like(made) > like(x) + 0.004 and sparse(made) > sparse(x) + 0.03
    assert torch.equal(made * (1.0 - m), x * (1.0 - m))


def test_contrasts_share_their_borders() -> None:
    """A step that one contrast shows clearly keeps that of the other, which alone is lost in its mottle."""
    m = disc()
    step = torch.where(torch.arange(SIDE) < 32, 0.0, 1.0).expand(1, 1, SIDE, SIDE)
    faint = 0.4 * step + 0.5 * texture.box_mean(noise(1, 1, SIDE, SIDE), 1) * 1.5
    clear = 2.0 * step + 0.05 * noise(1, 1, SIDE, SIDE, seed=1)
    near = m * ((torch.arange(SIDE) >= 28) & (torch.arange(SIDE) < 36)).float()

    def rise(y: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([y[near > 0], step[near > 0]]))[0, 1])

    def made(x: Tensor) -> Tensor:
        present = torch.ones(1, x.shape[1], dtype=torch.bool)
        return borders.bordered(x, m, present)[:, :1]

    assert rise(made(torch.cat([faint, clear], dim=1))) > rise(made(faint)) + 0.015


def test_what_is_not_told_and_what_is_too_small_stays() -> None:
    x, m = noise(3, 2, SIDE, SIDE), disc(count=3)
    m[1] = disc(1.0)
    wanted = torch.full((3, 2), 0.1)
    wanted[0, 1] = torch.nan
    made = borders.strengthened(x, m, wanted)
    assert torch.equal(made[:2], x[:2]) and not torch.equal(made[2], x[2])
    smoothed = borders.bordered(x, m, torch.ones(3, 2, dtype=torch.bool))
    assert torch.equal(smoothed[1], x[1]) and not torch.equal(smoothed[0], x[0])
