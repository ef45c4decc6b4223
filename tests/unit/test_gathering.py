"""Forms smoothed within their regions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pathosyn.lesion import gathering
from pathosyn.lesion.gathering import gathered, rms_step

BOTH = torch.tensor([[True, True]])


def field(seed: int = 0, channels: int = 4, side: int = 12) -> Tensor:
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(seed))


def lesion(side: int = 12) -> Tensor:
    share = torch.zeros(1, 1, side, side)
    share[:, :, 2:-2, 2:-2] = 1.0
    return share


def halves(noise: float) -> Tensor:
    """-1 to the left, 1 to the right, in all channels, with noise."""
    sides = torch.ones(1, 4, 12, 12)
    sides[..., :6] = -1.0
    return sides + noise * field()


def test_one_round_is_the_weighted_mean_of_the_cells_around() -> None:
    """Against loops: a normal weight of the distance over both contrasts, in root-mean-square steps."""
    form, inside = field()[0].double().numpy(), lesion()[0, 0].numpy() > 0
    pairs = [((y, x), (y + dy, x + dx)) for y in range(12) for x in range(12) for dy, dx in ((0, 1), (1, 0)) if y + dy < 12 and x + dx < 12]
    pairs = [(a, b) for a, b in pairs if inside[a] and inside[b]]
    unit = np.sqrt([np.mean([(form[c][a] - form[c][b]) ** 2 for a, b in pairs]) for c in (0, 1)])
    wanted = form.copy()
    for y, x in zip(*np.nonzero(inside), strict=True):
        total, weights = np.zeros(2), 0.0
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if inside[y + dy, x + dx]:
                    apart = np.mean(((form[:2, y + dy, x + dx] - form[:2, y, x]) / unit) ** 2)
                    weight = np.exp(-0.5 * apart / gathering.WIDTH**2) * (0.7 if dy and dx else 1.0)
                    total, weights = total + weight * form[:2, y + dy, x + dx], weights + weight
        wanted[:2, y, x] = total / weights  # roughness stays as it was drawn
    found = gathered(torch.from_numpy(form)[None], lesion().double(), BOTH, rounds=1)[0].numpy()
    assert np.allclose(found, wanted, atol=1e-9)


def test_the_unit_is_the_step_between_neighbours_of_the_lesion() -> None:
    ramp = torch.arange(12.0).expand(1, 1, 12, 12).clone()  # steps of 1 across, 0 down: as many of either
    assert float(rms_step(ramp, lesion())) == pytest.approx(0.5**0.5)
    alone = torch.zeros(1, 1, 12, 12)
    alone[..., 3, 3] = alone[..., 8, 8] = 1.0
    assert float(rms_step(ramp, alone)) == 0.0


def test_regions_lose_their_mottle_and_keep_their_border() -> None:
    before, after = halves(0.2)[:, :2], gathered(halves(0.2), lesion(), BOTH)[:, :2]
    left, right = (slice(None), slice(None), slice(2, -2), slice(2, 6)), (slice(None), slice(None), slice(2, -2), slice(6, -2))
    for half in (left, right):
        assert float(after[half].std()) < 0.5 * float(before[half].std())
    assert float(after[right].mean() - after[left].mean()) == pytest.approx(float(before[right].mean() - before[left].mean()), rel=0.05)
    border = (after[..., 2:-2, 6] - after[..., 2:-2, 5]).abs().mean()
    assert float(border) > 1.5, "the step of 2 is still one step"


def test_noise_is_smoothed() -> None:
    after = gathered(field(), lesion(), BOTH)
    assert bool((rms_step(after[:, :2], lesion()) < 0.5 * rms_step(field()[:, :2], lesion())).all())


def test_flat_and_lone_cells_stay() -> None:
    flat = torch.full((1, 4, 12, 12), 3.0)
    assert torch.allclose(gathered(flat, lesion(), BOTH), flat, atol=1e-6)
    alone = torch.zeros(1, 1, 12, 12)
    alone[..., 3, 3] = alone[..., 8, 8] = 1.0
    assert torch.allclose(gathered(field(), alone, BOTH), field(), atol=1e-6)
    assert torch.equal(gathered(field(), torch.zeros_like(alone), BOTH), field())


def test_cells_without_lesion_neither_count_nor_move() -> None:
    share = torch.where(lesion() > 0, lesion(), 0.01)
    form = field()
    other = torch.where(lesion() > 0, form, form + 9.0)
    a, b = gathered(form, share, BOTH), gathered(other, share, BOTH)
    off = (lesion() == 0).expand_as(form)
    assert torch.equal(a[off], form[off]) and torch.equal(b[off], other[off]) and torch.allclose(a[~off], b[~off], atol=1e-6)
    assert not torch.allclose(a, gathered(form, torch.where(share == 0.01, 0.03, share), BOTH))


def test_a_cell_with_hardly_any_lesion_says_nothing_to_one_that_has_a_little_more() -> None:
    """Their shares are alike enough for the filter; only one of them counts."""
    share, low = torch.zeros(1, 1, 12, 12), gathering.TOUCHED
    share[:, :, :6, 2:7], share[:, :, :6, 7:10] = 1.5 * low, 0.5 * low
    share[:, :, 8:] = 1.0  # that there is a unit
    form = field()
    other = form.clone()
    other[:, :, :6, 7:] += 0.1
    for flipped in (False, True):
        a, b, held = (each.flip(3) if flipped else each for each in (form, other, share))
        made, expected = gathered(a, held, BOTH), gathered(b, held, BOTH)
        counts = (held >= low).expand_as(made)
        assert torch.equal(made[counts], expected[counts]) and torch.equal(made[~counts], a[~counts]) and not torch.equal(made[counts], a[counts])


def test_the_rim_is_even_along_itself_and_keeps_what_it_holds() -> None:
    """Cells that are a third lesion hold a third of its value: with noise on them they become alike, and no nearer to the lesion or to what is beyond."""
    share = torch.where(lesion() > 0, lesion(), 0.0)
    share[:, :, 1, 1:-1] = 1 / 3  # one row beside the lesion
    truth = 0.6 * share.expand(1, 4, 12, 12)  # so near that values alone do not keep them apart
    before = truth + 0.3 * field()
    truth, before, after = truth[:, :2], before[:, :2], gathered(before, share, BOTH)[:, :2]
    row = (slice(None), slice(None), 1, slice(1, -1))
    assert float((after - truth)[row].std()) < 0.6 * float((before - truth)[row].std())
    assert float((after - before)[row].mean().abs()) < 0.03


def test_a_missing_contrast_has_no_vote() -> None:
    one, other = field(), field()
    other[:, 1] = field(5)[:, 1]
    first = torch.tensor([[True, False]])
    assert torch.allclose(gathered(one, lesion(), first)[:, 0], gathered(other, lesion(), first)[:, 0], atol=1e-6)
    assert not torch.allclose(gathered(one, lesion(), BOTH)[:, 0], gathered(other, lesion(), BOTH)[:, 0], atol=1e-3)


def test_contrasts_share_their_borders_and_roughness_follows() -> None:
    """A border that only the first contrast shows keeps apart what the others hold beside it; roughness has no vote."""
    form = 0.3 * field()
    form[:, 0] = halves(0.0)[:, 0] * 3
    form[:, 2] = halves(0.0)[:, 0]
    after = gathered(form, lesion(), BOTH)
    assert float((after[:, 2, 2:-2, 6:-2] - 1).abs().max()) < 0.05 and float((after[:, 2, 2:-2, 2:6] + 1).abs().max()) < 0.05
    louder = form.clone()
    louder[:, 3] *= 100
    assert torch.allclose(gathered(louder, lesion(), BOTH)[:, :3], after[:, :3], atol=1e-6)


def test_units_and_turns_do_not_matter() -> None:
    scale, shift = torch.tensor([2.0, 0.1, 1.0, 1.0]).view(1, 4, 1, 1), torch.tensor([1.0, -3.0, 0.0, 0.0]).view(1, 4, 1, 1)
    after = gathered(field(), lesion(), BOTH)
    assert torch.allclose(gathered(field() * scale + shift, lesion(), BOTH), after * scale + shift, atol=1e-4)
    assert torch.allclose(gathered(field().rot90(1, (2, 3)), lesion(), BOTH), after.rot90(1, (2, 3)), atol=1e-5)


def test_a_window_does_not_feel_its_batch() -> None:
    two = torch.cat([field(), 5 * field(3)])
    together = gathered(two, lesion().expand(2, -1, -1, -1), BOTH.expand(2, -1))
    assert torch.allclose(together[:1], gathered(field(), lesion(), BOTH), atol=1e-6)
