"""Bands, directions, regions, the distance of two patch clouds in closed form, and the scan's own grain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from pathosyn.lesion import moments, texture


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def raw_value(contrasts: int, contrast: int) -> Tensor:
    """The one direction that sees a pixel's own value in one contrast."""
    filters = torch.zeros(1, texture.BANDS, contrasts, 3, 3)
    filters[0, -1, contrast, 1, 1] = 1.0
    return filters.flatten(1, 2)


def everywhere(x: Tensor) -> Tensor:
    return torch.ones_like(x[:, :1])


def gap(drawn: Tensor, real: Tensor, filters: Tensor, where: Tensor | None = None) -> Tensor:
    """The distance, in units of the spread over all of the window."""
    return texture.distance(drawn, real, [everywhere(real) if where is None else where], everywhere(real), filters)


def spread(values: Tensor) -> float:
    """1.48 MAD of every third value, as `distance` takes it."""
    some = values.flatten()[::3]
    return float(1.4826 * (some - some.median()).abs().median())


@pytest.mark.parametrize("radius", [1, 3, 7])
def test_box_mean_is_the_square_average(radius: int) -> None:
    x = noise(2, 3, 20, 24)
    assert torch.allclose(texture.box_mean(x, radius), avg_pool2d(pad(x, (radius,) * 4, mode="replicate"), 2 * radius + 1, stride=1), atol=1e-6)


def test_bands_add_up_and_a_flat_image_has_one() -> None:
    x = noise(1, 2, 32, 32)
    fine, middle, wide, raw = texture.bands(x).chunk(texture.BANDS, dim=1)
    assert torch.allclose(fine + middle + wide + texture.box_mean(x, 7), x, atol=1e-6) and torch.equal(raw, x)
    assert texture.bands(torch.full((1, 1, 32, 32), 3.0))[0, :, 16, 16].tolist() == pytest.approx([0, 0, 0, 3], abs=1e-5)


def test_directions_are_unit_vectors_of_four_kinds() -> None:
    filters = texture.directions(3, torch.Generator().manual_seed(1))
    assert torch.allclose(filters.flatten(1).norm(dim=1), torch.ones(texture.FILTERS), atol=1e-6)
    parts = filters.view(-1, texture.BANDS, 3, 9)
    used = parts.abs().amax(dim=3) > 0
    bands_seen, contrasts_seen = used.any(dim=2).sum(dim=1), used.any(dim=1).sum(dim=1)
    kind = torch.arange(texture.FILTERS) % 4
    assert torch.equal(bands_seen, torch.where(kind == 1, texture.BANDS, 1)) and torch.equal(contrasts_seen, torch.where(kind >= 2, 3, 1))
    for each in parts[kind >= 2]:
        (band,) = each.abs().sum(dim=(1, 2)).nonzero()[0].tolist()
        assert torch.linalg.matrix_rank(each[band], rtol=1e-4) == 1, "one filter for all contrasts"
    assert torch.equal(filters, texture.directions(3, torch.Generator().manual_seed(1))), "the generator alone decides"


def test_detail_that_contrasts_share_is_seen() -> None:
    """Two contrasts of the same texture each, in one case the same grain in both: every single contrast has its patches, the pair has not."""
    shared, own = noise(1, 1, 64, 64), noise(1, 1, 64, 64, seed=1)
    both, apart = torch.cat([shared, shared], 1), torch.cat([shared, own], 1)

    def mean_gap(drawn: Tensor, real: Tensor) -> float:
        return sum(float(gap(drawn, real, texture.directions(2, torch.Generator().manual_seed(k)))) for k in range(8)) / 8

    assert mean_gap(apart, both) > 4 * mean_gap(torch.cat([own, own], 1), both)


def test_regions_of_a_square() -> None:
    m, S = torch.zeros(2, 1, 1, 32, 32)  # noqa: N806
    m[..., 10:20, 10:20], S[..., 6:24, 6:24] = 1.0, 0.5
    lesion, rim, fade = texture.regions(m, S)
    assert lesion.sum() == 100 and rim.sum() == 14**2 - 6**2 and fade.sum() == 18**2 - 100
    assert not (fade * lesion).any()


def test_the_same_patches_in_another_order_are_at_distance_0() -> None:
    tile = noise(1, 2, 8, 8).repeat(1, 1, 8, 8)
    where = torch.zeros(1, 1, 64, 64)
    where[..., 16:48, 16:48] = 1.0
    filters = texture.directions(2, torch.Generator().manual_seed(0))
    assert float(gap(tile.roll((3, 5), dims=(2, 3)), tile, filters, where)) == pytest.approx(0.0, abs=1e-5)
    assert float(gap(tile + 0.5 * noise(1, 2, 64, 64, seed=1), tile, filters, where)) > 0.05


@pytest.mark.parametrize("shift", [0.25, -1.0])
def test_a_constant_offset_in_closed_form(shift: float) -> None:
    """W1 of a distribution and itself moved by a is |a|; in units of the spread |a| / σ."""
    x = 2.0 * noise(2, 2, 32, 32)
    wanted = sum(abs(shift) / spread(one) for one in x[:, 1]) / 2
    assert float(gap(x + shift, x, raw_value(2, 1))) == pytest.approx(wanted, rel=1e-4)


def test_a_factor_in_closed_form_up_and_down_alike() -> None:
    """W1 of a distribution that is symmetric in itself and k times it is |k - 1| E|x|: too smooth costs what too rough does."""
    x = noise(1, 1, 32, 32)
    x = torch.cat([x, -x], dim=3)
    for k in (0.6, 1.4):
        assert float(gap(k * x, x, raw_value(1, 0))) == pytest.approx(0.4 * float(x.abs().mean()) / spread(x), rel=1e-3)


def test_the_unit_is_taken_around_the_lesion_alone() -> None:
    x, S = noise(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)  # noqa: N806
    S[..., 8:24, 8:24] = 0.5
    rough = torch.where(S > 0, 5.0 * x, x)
    near = texture.around(rough, S)
    assert not near[S > 0].any() and torch.equal(near[S == 0] > 0, rough[S == 0].abs() < texture.TISSUE)
    made = texture.distance(rough + 1.0, rough, [(S > 0).float()], near, raw_value(1, 0))
    assert float(made) == pytest.approx(1.0 / spread(rough[near > 0]), rel=1e-4)


def test_a_mixture_of_contrasts_hears_each_in_the_unit_of_its_quiet_tissue() -> None:
    """However loud the lesion is in one of them."""
    x, S = noise(1, 2, 48, 48), torch.zeros(1, 1, 48, 48)  # noqa: N806
    S[..., 4:44, 4:44] = 0.5
    x[:, 0] = torch.where(S[:, 0] > 0, 9.0 * x[:, 0], 0.3 * x[:, 0])
    near, filters = texture.around(x, S), (raw_value(2, 0) + raw_value(2, 1)) / 2**0.5
    units = [spread(x[:, c][near[:, 0] > 0]) for c in range(2)]
    mixed = spread(((x[:, 0] / units[0] + x[:, 1] / units[1]) / 2**0.5)[near[:, 0] > 0])
    made = texture.distance(x + torch.tensor([0.5, 0.0]).view(1, 2, 1, 1), x, [(S > 0).float()], near, filters)
    assert float(made) == pytest.approx(0.5 / units[0] / 2**0.5 / mixed, rel=1e-3)


def test_a_window_without_quiet_tissue_is_its_own_measure() -> None:
    x = torch.full((1, 1, 32, 32), 5.0)
    assert bool((texture.around(x, torch.zeros(1, 1, 32, 32)) == 1).all())


def test_small_regions_and_missing_contrasts_count_for_nothing() -> None:
    x = noise(1, 2, 32, 32) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    speck = torch.zeros(1, 1, 32, 32)
    speck[..., :3, :5] = 1.0
    assert int(speck.sum()) < texture.LEAST
    assert float(gap(x + 1.0, x, raw_value(2, 0), speck)) == 0.0
    assert float(gap(x, x, raw_value(2, 1))) == 0.0
    drawn = x.clone().requires_grad_()
    gap(drawn, x.roll(1, 2), texture.directions(2, torch.Generator())).backward()
    assert drawn.grad is not None and bool(drawn.grad.isfinite().all())


def test_descending_the_distance_gives_a_smooth_image_the_grain_of_a_rough_one() -> None:
    rough = noise(1, 1, 48, 48)
    drawn = (0.05 * noise(1, 1, 48, 48, seed=1)).requires_grad_()
    optimizer = torch.optim.Adam([drawn], lr=0.05)
    for k in range(40):
        optimizer.zero_grad()
        gap(drawn, rough, texture.directions(1, torch.Generator().manual_seed(k))).backward()
        optimizer.step()
    made, wanted = texture.bands(drawn.detach())[:, 0].std(), texture.bands(rough)[:, 0].std()
    assert float(made / wanted) == pytest.approx(1.0, abs=0.15)
    assert float((drawn.detach() - rough).square().mean()) > 1.0, "the grain, not the picture"


# -- the scan's own grain -----------------------------------------------------------------------------------------------------------


def scan(seed: int = 0) -> Tensor:
    """Two contrasts with grain of 0.1 and 0.3 that is correlated between them and along rows."""
    shared, own = noise(2, 4, 1, 96, 96, seed=seed)
    both = torch.cat([0.1 * shared, 0.3 * (0.8 * shared + 0.6 * own)], dim=1)
    return both + 0.6 * both.roll(1, dims=3)


def test_grain_has_the_scans_amplitude_and_correlations() -> None:
    x = scan()
    visible = torch.ones(4, 1, 96, 96)
    grain = texture.own_grain(x, visible, noise(4, 2, 96, 96, seed=3))
    real = x - texture.box_mean(x, 3)
    assert torch.allclose(grain.std(dim=(0, 2, 3)) / real.std(dim=(0, 2, 3)), torch.ones(2), atol=0.1)

    def correlation(a: Tensor, b: Tensor) -> float:
        return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())

    assert correlation(grain[:, 0], grain[:, 1]) == pytest.approx(correlation(real[:, 0], real[:, 1]), abs=0.08)
    # Real grain runs along its rows; drawn grain has no direction, and the mean over them.
    along, across = (correlation(real, real.roll(1, dims=dim)) for dim in (3, 2))
    assert along > across + 0.3
    for dim in (2, 3):
        assert correlation(grain, grain.roll(1, dims=dim)) == pytest.approx((along + across) / 2, abs=0.08)


def test_what_contrasts_share_at_each_scale_is_in_the_grain() -> None:
    """Two contrasts that share what is coarse and not what is fine, and a third that is missing."""
    coarse, first, second = (noise(2, 1, 128, 128, seed=seed) for seed in (1, 2, 3))
    coarse = texture.box_mean(coarse, 2) * 5.0
    first, second = (each - texture.box_mean(each, 1) for each in (first, second))
    x = 0.2 * torch.cat([coarse + first, coarse + second, torch.zeros_like(coarse)], dim=1)
    grain = texture.own_grain(x, torch.ones(2, 1, 128, 128), noise(2, 3, 128, 128, seed=4))
    real, _ = texture.own_detail(x, torch.ones(2, 1, 128, 128))

    def shared(field: Tensor) -> tuple[float, float]:
        smooth = texture.box_mean(field, 1)
        parts = (field - smooth, smooth)
        return tuple(float((p[:, 0] * p[:, 1]).mean() / (p[:, 0].std() * p[:, 1].std())) for p in parts)  # type: ignore[return-value]

    assert shared(grain) == pytest.approx(shared(real), abs=0.08) and shared(real)[1] > shared(real)[0] + 0.4
    assert not grain[:, 2].any()


def test_grain_uses_nothing_of_the_hole() -> None:
    x, visible, white = scan(), torch.ones(4, 1, 96, 96), noise(4, 2, 96, 96, seed=3)
    visible[..., 30:60, 30:60] = 0.0
    other = torch.where(visible > 0, x, torch.nan)
    assert torch.equal(texture.own_grain(x, visible, white), texture.own_grain(other, visible, white))


def test_noise_in_a_box_gives_as_much_grain_as_noise_everywhere() -> None:
    x, visible, white = scan(), torch.ones(4, 1, 96, 96), noise(4, 2, 96, 96, seed=3)
    box = torch.zeros(4, 1, 96, 96)
    box[..., 20:70, 10:80] = 1.0
    inside = texture.own_grain(x, visible, white * box)[..., 30:60, 20:70]
    assert float(inside.std() / texture.own_grain(x, visible, white)[..., 30:60, 20:70].std()) == pytest.approx(1.0, abs=0.15)


def test_a_flat_scan_has_no_grain_and_air_lends_none() -> None:
    flat, white = torch.zeros(1, 1, 64, 64), noise(1, 1, 64, 64)
    assert not texture.own_grain(flat, torch.ones(1, 1, 64, 64), white).any()
    half = torch.full((1, 1, 64, 64), -9.0)
    half[..., :32, :] = 0.2 * noise(1, 1, 32, 64, seed=2)
    grain = texture.own_grain(half, torch.ones(1, 1, 64, 64), white)
    assert float(grain.std()) == pytest.approx(0.2, rel=0.2)


def scene(side: int = 96) -> tuple[Tensor, Tensor, Tensor]:
    """Scans whose grain is white with spreads of .3 and .6, a support in the middle, and noise to make grain of."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(2, 2, side, side, generator=draw) * torch.tensor([0.3, 0.6]).view(1, 2, 1, 1)
    support = torch.zeros(2, 1, side, side)
    support[:, :, 30:66, 30:66] = 1.0
    return x, support, torch.randn(2, 2, side, side, generator=draw)


def test_grain_is_mixed_until_its_contrasts_share_what_is_asked() -> None:
    """Each as strong as before, whatever it shared; one that is told nothing stays, and a contrast that is missing too."""
    generator = torch.Generator().manual_seed(3)
    grain = torch.randn(3, 3, 64, 64, generator=generator) * torch.tensor([0.1, 1.0, 3.0]).view(1, 3, 1, 1)
    grain[:, 1] += 4.0 * grain[:, 0]
    grain[2, 2] = 0.0
    where = torch.zeros(3, 1, 64, 64)
    where[..., 8:40, 8:50] = 1.0
    wanted = torch.tensor([[-0.5, 0.3, 0.0], [torch.nan] * 3, [0.6, 0.0, 0.0]])
    mixed = texture.sharing(grain, where, wanted)
    assert torch.allclose(texture.shared(mixed, where)[[0, 2]], wanted[[0, 2]], atol=0.02) and texture.shared(grain, where)[0, 0] > 0.2
    fine = [moments.covariance(each - texture.box_mean(each, 1), where).diagonal(dim1=1, dim2=2).sqrt() for each in (grain, mixed)]
    assert torch.allclose(*fine, rtol=0.02, atol=1e-3)
    assert torch.equal(mixed[1], grain[1]) and mixed[2, 2].abs().max() < 1e-3
    few = torch.zeros_like(where)
    few[..., 8, 8:10] = 1.0  # two pixels correlate fully, whatever they are, and to undo that would take any strength
    assert torch.equal(texture.sharing(grain, few, wanted), grain)


def test_how_far_apart_what_is_shared_lies() -> None:
    """0 for the same image, 2 for one contrast turned over where both are the same, half of that where the other sample has no lesion to speak of."""
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(4)).repeat(1, 2, 1, 1)
    m = torch.zeros(2, 1, 32, 32)
    m[..., 8:24, 8:24] = 1.0
    turned = x * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    assert texture.shared_distance(x, x, m) == 0.0 and float(texture.shared_distance(turned, x, m)) == pytest.approx(2.0, abs=1e-4)
    m[1] = 0.0
    m[1, :, 8:11, 8:13] = 1.0
    assert m[1].sum() < texture.LEAST and float(texture.shared_distance(turned, x, m)) == pytest.approx(1.0, abs=1e-4)
    coarse = torch.nn.functional.interpolate(x[:, :, ::3, ::3], size=32, mode="bilinear")
    coarse[:, 1] *= -1.0
    fine, next_one = (texture.shared(coarse, m, radius=radius)[0, 0] for radius in (1, 3))
    assert fine < -0.99 and next_one < -0.99
    y = torch.arange(32.0).view(1, 1, 32, 1).expand(2, 1, 32, 32)
    quick, slow = x[:, :1], 2.0 * torch.sin(y)
    alike, unlike = torch.cat([quick + slow, quick + slow], dim=1), torch.cat([quick + slow, quick - slow], dim=1)
    apart = [(texture.shared(unlike, m, radius=radius) - 1.0).abs()[0].item() for radius in (1, 3)]
    m[1] = m[0]
    wanted = sum((texture.shared(unlike, m, radius=radius) - 1.0).abs().mean().item() for radius in (1, 3)) / 2
    assert apart[1] > 2 * apart[0] and float(texture.shared_distance(unlike, alike, m)) == pytest.approx(wanted, abs=1e-4), "both details count"


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_a_filling_gets_what_it_lacks_of_the_grain(share: float) -> None:
    """Powers add. Of white noise the lower quartile of the RMS over 7×7 pixels is about .89 of its spread."""
    x, support, white = scene()
    f = torch.where(support > 0, share * x.flip(0), x)
    made = texture.missing_grain(f, x, support, white)
    assert not made[:, :, support[0, 0] == 0].any()
    inside = support.expand_as(made) > 0
    found = torch.stack([made[:, c][inside[:, c]].std() for c in range(2)])
    assert torch.allclose(found, torch.tensor([0.3, 0.6]) * max(0.89**2 - share**2, 0.0) ** 0.5, rtol=0.07)


def test_the_missing_grain_sees_nothing_under_the_support() -> None:
    x, support, white = scene()
    f = torch.zeros_like(x)
    assert torch.equal(texture.missing_grain(f, x, support, white), texture.missing_grain(f, torch.where(support > 0, torch.nan, x), support, white))
    none = texture.missing_grain(f, torch.zeros_like(x), support, white)
    assert not none.any(), "a scan without grain, or a contrast that is missing, lends none"


def test_the_finest_detail_in_closed_form() -> None:
    """White noise of spread σ keeps √(8/9) σ of it; a pixel of height h on nothing keeps 8/9 h; a rise over many pixels has none."""
    x = 0.5 * noise(2, 3, 96, 96)
    found = texture.finest(x, everywhere(x), clip=100.0)
    assert float(found.std()) == pytest.approx(0.5 * (8 / 9) ** 0.5, rel=0.02)
    where = everywhere(x)
    where[:, :, :48] = 0.0
    half = texture.finest(x, where, clip=100.0)
    assert not half[:, :, :48].any() and torch.allclose(half[:, :, 48:], found[:, :, 48:])
    one = 1e-3 * noise(1, 1, 9, 9)
    one[0, 0, 4, 4] = 3.0
    assert float(texture.finest(one, everywhere(one), clip=1e6)[0, 0, 4, 4]) == pytest.approx(3.0 * 8 / 9, abs=0.01)
    ramp = torch.arange(96.0).expand(1, 1, 96, 96)
    assert texture.finest(ramp, everywhere(ramp))[:, :, 1:-1, 1:-1].abs().max() < 1e-4


def test_what_is_far_from_usual_is_held() -> None:
    x = 0.1 * noise(1, 1, 64, 64)
    x[..., 32:] += 5.0
    found = texture.finest(x, everywhere(x))
    typical = found.abs().median()
    assert float(found.abs().max()) == pytest.approx(float(4.0 * typical), rel=1e-4) and 4.0 * typical < 0.5


def test_the_scans_own_finest_spread_uses_nothing_that_is_hidden() -> None:
    x, visible = 0.3 * noise(2, 2, 64, 64), torch.ones(2, 1, 64, 64)
    visible[:, :, 20:40, 20:40] = 0.0
    other = torch.where(visible > 0, x, 50.0)
    first, second = (texture.finest_spread(each, visible, visible) for each in (x, other))
    assert torch.equal(first, second) and torch.allclose(first, torch.full_like(first, 0.3 * (8 / 9) ** 0.5), rtol=0.05)
    assert not texture.finest_spread(x, 0 * visible, 0 * visible).any()
