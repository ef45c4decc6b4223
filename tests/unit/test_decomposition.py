"""Eqs. 1, 4, 5, 11, 14 and the composition of `default`, against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from pathosyn import decomposition as dec
from pathosyn.config import Geometry
from pathosyn.data.masks import blend_map

GROW, FEATHER = Geometry().grow_mm, Geometry().feather_mm
KEPT_BY_PAPER = {2: (0.33, 0.11), 3: (0.50, 0.26), 5: (0.69, 0.50), 8: (0.80, 0.67), 12: (0.87, 0.78)}
"""Radius in px: mean of S in the lesion and share of energy kept, σ = 2 px (FIELD H2)."""


def disk(radius: int, *, side: int = 64, at: tuple[int, int] | None = None) -> Tensor:
    """A lesion mask (1, 1, side, side), float64."""
    cy, cx = at or (side // 2, side // 2)
    y, x = np.mgrid[:side, :side]
    return torch.from_numpy(((y - cy) ** 2 + (x - cx) ** 2 <= radius**2).astype(float))[None, None]


def blend(m: Tensor) -> Tensor:
    """S of `default`."""
    distance = distance_transform_edt(m.numpy()[0, 0] == 0)
    return dec.feather(torch.from_numpy(distance), grow_mm=GROW, feather_mm=FEATHER)[None, None]


def field(seed: int, side: int = 64) -> Tensor:
    """Multiples of 1/64 in ±4: sums and differences of a few of them are exact."""
    return torch.randint(-256, 257, (1, 2, side, side), generator=torch.Generator().manual_seed(seed)).double() / 64


def test_the_image_is_substrate_plus_deviation() -> None:
    x, f, m = field(0), field(1), disk(9)
    r = dec.deviation(x, f, m)
    assert torch.equal(dec.add(f, r), torch.where(m > 0, x, f))
    assert not r[(m == 0).expand_as(r)].any() and r[(m > 0).expand_as(r)].any()


@pytest.mark.parametrize("delta", [0.5, 3.0])
def test_saturation_loses_what_the_closed_form_says(delta: float) -> None:
    r = torch.tensor([0.25, 1 / 3, 1.0, 2.0, 50.0], dtype=torch.float64) * delta
    lost = 1 - dec.saturate(r, delta=delta) / r
    expected = [1 - math.tanh(q) / q for q in (0.25, 1 / 3, 1.0, 2.0, 50.0)]
    assert lost.tolist() == pytest.approx(expected, abs=1e-12)
    assert lost.tolist()[:4] == pytest.approx([0.020, 0.035, 0.24, 0.52], abs=0.005)
    assert torch.equal(dec.saturate(-r, delta=delta), -dec.saturate(r, delta=delta))
    assert float(dec.saturate(r, delta=delta).max()) <= delta


def test_saturation_is_undone_below_three_delta_and_finite_beyond() -> None:
    r = torch.linspace(-6, 6, 101, dtype=torch.float64)
    assert torch.allclose(dec.unsaturate(dec.saturate(r, delta=2.0), delta=2.0), r, atol=1e-9)
    assert torch.allclose(dec.unsaturate(dec.saturate(r.float(), delta=2.0), delta=2.0), r.float(), atol=1e-4)
    assert float(dec.unsaturate(torch.tensor([2.0, 9.0]), delta=2.0).max()) == pytest.approx(2 * math.atanh(1 - 1e-6), rel=0.01)


@pytest.mark.parametrize("function", [dec.saturate, dec.unsaturate])
def test_delta_must_be_positive(function: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="delta must be positive"):
        function(torch.ones(1), delta=0.0)


def test_printed_blend_keeps_mass_ends_at_four_sigma_and_halves_at_a_straight_rim() -> None:
    m = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    m[..., 20, 20] = 1
    G = dec.smooth(m, sigma=2.0)  # noqa: N806
    assert float(G.sum()) == pytest.approx(1, abs=1e-12)
    rows = G[0, 0].sum(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (20 - 8, 20 + 8)
    edge = torch.zeros(1, 1, 41, 80, dtype=torch.float64)
    edge[..., :40] = 1
    middle = dec.smooth(edge, sigma=2.0)[0, 0, 20]
    assert float(middle[39] + middle[40]) == pytest.approx(1, abs=1e-12)
    assert float(dec.smooth(disk(25), sigma=2.0).max()) <= 1


def test_feather_is_one_on_the_grown_lesion_zero_at_its_end_and_flat_at_both() -> None:
    def s(*distance: float) -> Tensor:
        return dec.feather(torch.tensor(distance, dtype=torch.float64), grow_mm=1.5, feather_mm=3.0)

    assert s(0, 1.5, 4.5, 40).tolist() == [1, 1, 0, 0]
    assert s(3.0).item() == pytest.approx(0.5) and s(2.25).item() == pytest.approx(0.84375)
    line = s(*np.linspace(0, 6, 601))
    assert (line.diff() <= 0).all()
    h = 1e-4
    assert s(1.5 + h).item() > 1 - 1e-8 and s(4.5 - h).item() < 1e-8


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 1.1)])
def test_feather_is_the_profile_that_prepare_stores(spacing: tuple[float, float, float]) -> None:
    mask = np.zeros((7, 40, 44), bool)
    mask[3, 15:22, 18:30] = mask[2, 17, 19] = True
    distance = distance_transform_edt(~mask, sampling=spacing)
    passed = np.clip((distance - GROW) / FEATHER, 0, 1)
    expected = 1 - 3 * passed**2 + 2 * passed**3
    np.testing.assert_allclose(dec.feather(distance, grow_mm=GROW, feather_mm=FEATHER), expected, atol=1e-12)
    np.testing.assert_allclose(blend_map(mask, spacing, Geometry()), expected, atol=1e-6)


def test_ring_is_one_at_half_and_nothing_inside_or_outside() -> None:
    S = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])  # noqa: N806
    assert dec.ring(S).tolist() == [0.0, 0.75, 1.0, 0.75, 0.0]


@pytest.mark.parametrize("radius", [3, 6, 12])
def test_ring_of_default_covers_both_sides_of_the_rim_inside_the_support(radius: int) -> None:
    m = disk(radius)
    S = blend(m)  # noqa: N806
    weight = dec.ring(dec.smooth(m, sigma=2.0)) * (S > 0)
    inside, outside = float((weight * m).sum()), float((weight * (1 - m)).sum())
    assert min(inside, outside) > 0.3 * (inside + outside)
    # The ring of default's own S leaves the lesion's side of the rim out: that is why it is not used.
    assert float((dec.ring(S) * m).sum()) == 0


def test_heal_gives_the_substrate_where_s_is_one_and_x_bit_for_bit_where_it_is_zero() -> None:
    x, f, S = field(2), field(3), blend(disk(7))  # noqa: N806
    x_h = dec.heal(x, f, S)
    one, zero = (S == 1).expand_as(x), (S == 0).expand_as(x)
    assert torch.equal(x_h[one], f[one]) and torch.equal(x_h[zero], x[zero])
    between = ~one & ~zero
    assert between.any() and ((x_h - x) * (f - x) >= 0)[between].all()


def test_true_deviation_gives_the_image_back() -> None:
    x, f, m = field(4), field(5), disk(7)
    S = blend(m)  # noqa: N806
    D = (S > 0).double()  # noqa: N806
    r = dec.deviation(x, f, D)
    assert torch.equal(dec.recompose(x, f, r, S), x), "with the scan itself as base: on all of D and beyond"
    again = dec.recompose(dec.heal(x, f, S), f, r, S)
    one = (S == 1).expand_as(x)
    assert torch.equal(again[one], x[one]), "drawn anew over the healed scan: where S is 1"
    # In the feather the healed scan shows through the second blend: x̂ - x = S(1-S)(f - x), a quarter at the most.
    assert torch.allclose(again - x, S * (1 - S) * (f - x), atol=1e-12)


def test_severity_zero_gives_the_base_bit_for_bit_and_severity_is_linear() -> None:
    x, f, r = (torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(k)) for k in range(3))
    S = blend(disk(7)).float()  # noqa: N806
    assert torch.equal(dec.recompose(x, f, r, S, severity=0.0), x)
    assert torch.equal(dec.recompose(x, f, r, S, severity=0.0, kind="paper"), f)
    for kind in ("preserve", "paper"):
        base, one, two = (dec.recompose(x, f, r, S, severity=s, kind=kind) for s in (0.0, 1.0, 2.0))
        assert torch.allclose(two - one, one - base, atol=1e-5) and not torch.equal(one, base)


@pytest.mark.parametrize("kind", ["preserve", "paper"])
def test_negative_severity_is_refused(kind: Any) -> None:
    x = field(0)
    with pytest.raises(ValueError, match="severity"):
        dec.recompose(x, x, x, blend(disk(3)), severity=-0.1, kind=kind)


def test_paper_recomposes_as_printed() -> None:
    x, f, m = field(6), field(7), disk(5)
    G, r = dec.smooth(m, sigma=2.0), dec.deviation(x, f, m)  # noqa: N806
    x_hat = dec.recompose(x, f, r, G, kind="paper")
    assert torch.equal(x_hat, f + G * (x - f) * m)
    assert torch.equal(x_hat[(m == 0).expand_as(x)], f[(m == 0).expand_as(x)]), "the background is x_sub"


def test_moved_lesion_changes_nothing_outside_both_supports() -> None:
    x, f_old, f_new, r = (field(k) for k in range(4))
    S_old, S_new = blend(disk(6, at=(20, 20))), blend(disk(6, at=(36, 40)))  # noqa: N806
    x_hat = dec.recompose(dec.heal(x, f_old, S_old), f_new, r, S_new)
    outside = ((S_old == 0) & (S_new == 0)).expand_as(x)
    assert torch.equal(x_hat[outside], x[outside]) and outside.any()
    healed = ((S_old == 1) & (S_new == 0)).expand_as(x)
    drawn = (S_new == 1).expand_as(x)
    assert torch.equal(x_hat[healed], f_old[healed]) and torch.equal(x_hat[drawn], (f_new + r)[drawn])


@pytest.mark.parametrize("radius", range(2, 13))
def test_small_lesions_keep_their_deviation_under_preserve(radius: int) -> None:
    m = disk(radius)
    nothing = torch.zeros_like(m)
    x_hat = dec.recompose(nothing, nothing, m, blend(m))
    assert float((x_hat * m).sum() / m.sum()) >= 0.99


@pytest.mark.parametrize("radius", KEPT_BY_PAPER)
def test_small_lesions_lose_the_known_share_as_printed(radius: int) -> None:
    m = disk(radius)
    nothing = torch.zeros_like(m)
    kept = dec.recompose(nothing, nothing, m, dec.smooth(m, sigma=2.0), kind="paper")[m > 0]
    assert (float(kept.mean()), float((kept**2).mean())) == pytest.approx(KEPT_BY_PAPER[radius], abs=0.0055)


CALLS: list[tuple[Callable[..., Any], tuple[str, ...], dict[str, float]]] = [
    (dec.add, ("x", "f"), {}),
    (dec.deviation, ("x", "f", "m"), {}),
    (dec.saturate, ("x",), {"delta": 2.0}),
    (dec.unsaturate, ("x",), {"delta": 5.0}),
    (dec.feather, ("x",), {"grow_mm": 0.5, "feather_mm": 2.0}),
    (dec.ring, ("S",), {}),
    (dec.heal, ("x", "f", "S"), {}),
    (dec.recompose, ("x", "f", "r", "S"), {"severity": 0.7}),
]


@pytest.mark.parametrize("function, names, options", CALLS, ids=lambda value: getattr(value, "__name__", None))
def test_numpy_arrays_and_tensors_agree(function: Callable[..., Any], names: tuple[str, ...], options: dict[str, float]) -> None:
    values = {"x": field(0), "f": field(1), "r": field(2), "m": disk(6), "S": blend(disk(6))}
    tensor = function(*(values[n] for n in names), **options)
    array = function(*(values[n].numpy() for n in names), **options)
    assert isinstance(array, np.ndarray) and isinstance(tensor, Tensor)
    np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-12, atol=1e-12)


def test_types_are_checked_where_they_are_stated() -> None:
    x, m = torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8)
    smooth, deviation = (jaxtyped(typechecker=beartype)(f) for f in (dec.smooth, dec.deviation))
    assert smooth(m, sigma=2.0).shape == m.shape and deviation(x, x, m).shape == x.shape
    for wrong in (x, m[0], m.long()):
        with pytest.raises(TypeCheckError):
            smooth(wrong, sigma=2.0)
    with pytest.raises(TypeCheckError):
        deviation(x.long(), x, m)


def test_feather_of_no_width_is_a_hard_edge() -> None:
    distance = torch.tensor([0.0, 1.5, 1.6, 40.0])
    assert dec.feather(distance, grow_mm=1.5, feather_mm=0.0).tolist() == [1, 1, 0, 0]


def test_roughness_is_the_rms_of_what_the_cells_do_not_hold() -> None:
    """Chequers of amplitude a have mean 0 in every cell: all of them is lost. A smooth field loses nothing but at its own curvature."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    chequers, ramp = (1.0 - 2.0 * ((y + x) % 2))[None, None], 0.1 * y[None, None].float()
    support = torch.ones(1, 1, 32, 32)
    support[..., 16:, 18:] = 0.0
    for field, wanted in ((0.3 * chequers, 0.3), (ramp, 0.0)):
        cells, there = dec.coarsen(field * support, support, 4)
        rough = dec.roughness(field * support, cells, there, support, 4)
        assert rough[..., 2:3, 2:3].tolist() == [[[[pytest.approx(wanted, abs=1e-5)]]]]
        assert not rough[there == 0].any() and there[0, 0, 7, 4] == 1 and there[0, 0, 7, 7] == 0
    cells, there = dec.coarsen(chequers * support, support, 4)
    assert float(dec.roughness(chequers * support, cells, there, support, 4)[0, 0, 7, 4]) == pytest.approx(1.0, abs=0.05), "on the support alone"


def test_the_printed_blend_map_keeps_its_precision_under_autocast() -> None:
    m = torch.zeros(1, 1, 32, 32)
    m[..., 10:20, 8:24] = 1.0
    with torch.autocast("cpu", torch.bfloat16):
        found = dec.smooth(m, sigma=2.0)
    assert found.dtype == torch.float32 and torch.equal(found, dec.smooth(m, sigma=2.0))


def test_a_smooth_cells_roughness_has_a_finite_slope() -> None:
    field, support = torch.zeros(1, 1, 16, 16, requires_grad=True), torch.ones(1, 1, 16, 16)
    cells, there = dec.coarsen(field, support, 4)
    dec.roughness(field, cells, there, support, 4).sum().backward()
    assert field.grad is not None and bool(field.grad.isfinite().all())


def test_coarse_and_back() -> None:
    """The mean over a cell's pixels of the support alone; a constant comes back exactly, also at a ragged rim; nothing outside."""
    draw = torch.Generator().manual_seed(3)
    support = torch.zeros(1, 1, 32, 32)
    support[..., 5:23, 6:19] = 1
    field = torch.randn(1, 2, 32, 32, generator=draw)
    coarse, there = dec.coarsen(field, support, 4)
    assert coarse.shape == (1, 2, 8, 8) and there.sum() == 5 * 4
    assert coarse[0, 1, 1, 1] == pytest.approx(float(field[0, 1, 5:8, 6:8].mean()), abs=1e-5), "three rows and two columns of the support lie in this cell"
    assert not coarse[:, :, there[0, 0] == 0].any()
    flat = dec.refine(*dec.coarsen(torch.full_like(field, 2.5), support, 4), support, 4)
    assert torch.allclose(flat, 2.5 * support.expand_as(flat), atol=1e-5)
    assert not dec.refine(coarse, there, support, 4)[:, :, support[0, 0] == 0].any()
