"""How a lesion's detail lies: local energies, the way it runs, whether contrasts agree, its spectrum, and how far two lesions are apart in it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pathosyn.lesion import lay
from pathosyn.lesion.texture import box_mean

SIDE = 48
ALL = torch.ones(1, 1, SIDE, SIDE)
INNER = (slice(None), slice(None), slice(12, -12), slice(12, -12))
"""Where no mean reaches the window's edge."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def along(contrasts: int, count: int = 1) -> Tensor:
    return torch.stack([lay.directions(contrasts, torch.Generator().manual_seed(k)) for k in range(count)])


def apart(drawn: Tensor, real: Tensor, *places: Tensor) -> float:
    return float(lay.distance(drawn, real, places or (ALL.expand(len(real), -1, -1, -1),), along(real.shape[1], len(real))))


def stripes(angle: float, period: float = 8.0) -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIDE).float(), torch.arange(SIDE).float(), indexing="ij")
    return torch.sin(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / period)[None, None]


@pytest.mark.parametrize("amplitude", [0.1, 1.0])
def test_the_energy_of_a_chequerboard_in_closed_form(amplitude: float) -> None:
    """Of ± a, pixel by pixel, the 3×3 mean leaves ± a/9: the finest band has 8/9 of it; nothing comes from the wider ones but the same in ninths and 49ths."""
    sign = 1.0 - 2.0 * ((torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2).float()
    fine = lay.measures(amplitude * sign[None, None])[:, :1][INNER] * lay.STRENGTH
    assert torch.allclose(fine, torch.full_like(fine, math.log(math.hypot(8 / 9 * amplitude, lay.FAINT / 2))), atol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2])
def test_stripes_run_one_way_and_noise_does_not(angle: float) -> None:
    (of_stripes, *_), (of_noise, *_) = (lay.measures(x)[:, 3:4][INNER][0] * lay.COHERENCE for x in (stripes(angle), noise(1, 1, SIDE, SIDE)))
    assert float(of_stripes.mean()) > 0.98 and float(of_noise.mean()) < 0.6
    assert float(of_noise.min()) >= 0.0 and float(of_stripes.max()) <= 1.0 + 1e-5


@pytest.mark.parametrize(("second", "expected"), [(0.3, 1.0), (0.3 + math.pi / 2, -1.0), (0.3 + math.pi / 4, 0.0)])
def test_contrasts_agree_by_the_cosine_of_twice_the_angle_between_them(second: float, expected: float) -> None:
    """Whatever their signs and strengths."""
    x = torch.cat([stripes(0.3, 20.0), -2.0 * stripes(second, 20.0)], dim=1)
    found = lay.measures(x)[:, [8, 11]][INNER] * lay.AGREEMENT
    assert found.shape[1] == 2 and torch.allclose(found.mean(dim=(2, 3)), torch.full((1, 2), expected), atol=0.05)


@pytest.mark.parametrize("period", [4, 8, 16])
def test_the_grain_and_the_bend_of_a_wave_in_closed_form(period: int) -> None:
    """Of a wave along one axis, w = 2π / period: its Laplacian is 2 (1 - cos w) of it, its 3×3 mean leaves (2 - 2 cos w) / 3, and pixels k apart differ by
    2 |sin(k w / 2)| of it, in one axis of the two. Strong, so that FAINT is nothing."""
    w = 2 * math.pi / period
    x = 100.0 * torch.sin(w * (torch.arange(SIDE).float() + 0.3)).expand(1, 1, SIDE, SIDE)
    assert float(lay.grain(x)[INNER].mean()) == pytest.approx(math.log(3.0), abs=0.01)
    two, one, three = (math.log(abs(math.sin(k * w / 2))) for k in (2, 1, 3))
    assert float(lay.bend(x)[INNER].mean()) == pytest.approx(two - 0.5 * (one + three), abs=0.02)
    count = x.shape[1]
    assert torch.allclose(lay.measures(x)[:, -2 * count :], torch.cat([lay.grain(x) / lay.GRAIN, lay.bend(x) / lay.BEND], dim=1))


def test_grain_tells_white_noise_from_blurred() -> None:
    """Of white noise the Laplacian has 20 times the variance, x less its 3×3 mean 8/9 of it."""
    x = 100.0 * noise(1, 1, SIDE, SIDE)
    assert float(lay.grain(x)[INNER].mean()) == pytest.approx(0.5 * math.log(20.0 * 9.0 / 8.0), abs=0.03)
    assert float(lay.grain(box_mean(x, 1))[INNER].mean()) < float(lay.grain(x)[INNER].mean()) - 0.1


@pytest.mark.parametrize("contrasts", [1, 2, 3])
def test_there_are_as_many_measures_and_directions_as_is_said(contrasts: int) -> None:
    count = 7 * contrasts + contrasts * (contrasts - 1)
    assert lay.measures(noise(2, contrasts, SIDE, SIDE)).shape == (2, count, SIDE, SIDE)
    w = along(contrasts)[0]
    assert w.shape == (lay.DIRECTIONS, count) and torch.allclose(w.norm(dim=1), torch.ones(lay.DIRECTIONS))
    assert ((w != 0).sum(dim=1) == 1).sum() == lay.DIRECTIONS // 2


def test_the_same_and_a_turned_lesion_are_at_distance_0() -> None:
    x = noise(2, 2, SIDE, SIDE)
    assert apart(x, x) == 0.0
    assert apart(x.rot90(1, dims=(2, 3)), x) == pytest.approx(0.0, abs=1e-4), "which way a lesion runs is its own affair"
    assert apart(x, 2.0 * x) == pytest.approx(apart(2.0 * x, x)) and apart(x, 2.0 * x) > 0.1


def test_an_offset_is_not_seen() -> None:
    x = noise(1, 2, SIDE, SIDE)
    assert apart(x + 3.0, x) == pytest.approx(0.0, abs=1e-4)


def test_edges_and_a_mottle_of_the_same_strength_are_farther_apart_than_two_mottles() -> None:
    mottle, other = (box_mean(noise(1, 1, SIDE, SIDE, seed=seed), 1) for seed in (1, 2))
    edges = (stripes(0.4, 24.0) > 0).float()
    edges = edges * float((box_mean(mottle, 1) - box_mean(mottle, 3)).std() / (box_mean(edges, 1) - box_mean(edges, 3)).std())
    assert apart(edges, mottle) > 3.0 * apart(other, mottle)


def test_detail_is_compared_where_it_lies() -> None:
    """Strong to the left, or to the right: on the whole the same, half by half not."""
    left = (torch.arange(SIDE) < SIDE // 2).float().expand(1, 1, SIDE, SIDE)
    x = noise(1, 1, SIDE, SIDE)
    x = x + x.flip(3)
    drawn, real = x * (0.2 + left), x * (1.2 - left)
    assert apart(drawn, real) == pytest.approx(0.0, abs=1e-3) and apart(drawn, real, left, 1.0 - left) > 0.3


def test_samples_count_alike_and_one_too_small_not() -> None:
    x, y = noise(2, 1, SIDE, SIDE), noise(2, 1, SIDE, SIDE, seed=1) * 2.0
    few = torch.zeros(2, 1, SIDE, SIDE)
    few[0] = 1.0
    few[1, :, :3, :5] = 1.0
    assert apart(x, y, few) == pytest.approx(apart(x[:1], y[:1]) / 2, rel=1e-5)
    assert apart(x, y, torch.zeros_like(few)) == 0.0
    assert apart(x, y, few, few) == pytest.approx(apart(x, y, few)), "the mean over the places"


@pytest.mark.parametrize("side", [1, 6, 9, 30])
def test_zones_are_the_lesion_cut_by_depth(side: int) -> None:
    m = torch.zeros(1, 1, SIDE, SIDE)
    m[..., 5 : 5 + side, 5 : 5 + side] = 1.0
    zones = lay.zones(m)
    assert torch.equal(sum(zones, torch.zeros_like(m)), m) and all(((zone == 0) | (zone == 1)).all() for zone in zones)
    within = [max(0, side - 2 * sum(lay.DEPTHS[:k])) ** 2 for k in range(len(lay.DEPTHS) + 1)]
    assert [int(zone.sum()) for zone in zones] == [a - b for a, b in zip(within, [*within[1:], 0], strict=True)]


def test_gradients_are_finite_also_where_nothing_is() -> None:
    for start in (torch.zeros(1, 2, SIDE, SIDE), noise(1, 2, SIDE, SIDE)):
        x = start.clone().requires_grad_()
        lay.distance(x, noise(1, 2, SIDE, SIDE, seed=5), (ALL,), along(2)).backward()
        assert x.grad is not None and x.grad.isfinite().all()
    assert x.grad.any()
