"""Varied windows: everything turns together and exactly, contrasts hide but never all, and the streams alone decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pathosyn import augment, rng
from pathosyn.types import LesionBatch

Batches = Callable[..., LesionBatch]


def streams(count: int, name: object = "varied") -> list[torch.Generator]:
    return [rng.generator(name, i) for i in range(count)]


def test_a_turn_moves_every_field_alike_and_loses_nothing(batch_of: Batches) -> None:
    batch = batch_of(12)
    batch = replace(batch, x_sub=batch.x * 2)
    made = augment.turned(batch, streams(12))
    turns = []
    for i in range(12):
        (k,) = [k for k in range(4) if torch.equal(made.x[i], batch.x[i].rot90(k, (1, 2)))]
        turns.append(k)
        for name in ("m", "S", "x_ph", "x_sub"):
            assert torch.equal(getattr(made, name)[i], getattr(batch, name)[i].rot90(k, (1, 2))), name
    assert set(turns) == {0, 1, 2, 3}
    assert augment.turned(batch_of(), streams(3)).x_sub is None and made.subject == batch.subject


def test_gains_are_one_a_contrast_and_hold_for_the_substrate_too(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "turned", lambda batch, streams: batch)
    monkeypatch.setattr(augment, "HIDE", 0.0)
    batch = replace(batch_of(40), x_sub=batch_of(40).x_ph * 3)
    made = augment.varied(batch, streams(40))
    gain = (made.x / batch.x).flatten(2)
    assert torch.allclose(gain, gain[:, :, :1].expand_as(gain), rtol=1e-4) and made.x_sub is not None and batch.x_sub is not None
    for before, after in ((batch.x_ph, made.x_ph), (batch.x_sub, made.x_sub)):
        assert torch.allclose(after, before * gain[:, :, :1, None], atol=1e-5)
    log = gain[:, :, 0].log()
    assert float(log.abs().max()) <= augment.GAIN + 1e-4 and float(log.min()) < -0.15 and float(log.max()) > 0.15
    assert not torch.allclose(log[:, 0], log[:, 1], atol=0.05)


def test_a_filled_windows_answer_is_changed_once_and_as_it_would_be_alone(batch_of: Batches) -> None:
    """It is the target, too: the thread that draws batches takes its time from the networks' where every core has a process."""
    batch = batch_of(6)
    one, two = replace(batch, x_sub=batch.x_ph), replace(batch, x_sub=batch.x_ph.clone())
    for change in (augment.varied, augment.warped):
        made, apart = change(one, streams(6)), change(two, streams(6))
        assert made.x_sub is made.x_ph and apart.x_sub is not apart.x_ph
        assert apart.x_sub is not None and torch.equal(made.x_ph, apart.x_sub) and torch.equal(made.x, apart.x)


def test_contrasts_hide_as_if_they_were_not_there_but_never_all(batch_of: Batches) -> None:
    batch = batch_of(400, present=[[1, 1], [1, 0]] * 200)
    made = augment.varied(batch, streams(400))
    assert bool(made.present.any(dim=1).all()) and bool((made.present <= batch.present).all())
    hidden = 1.0 - float(made.present[::2].float().mean())
    assert 0.1 < hidden < 0.2, "15 % of the contrasts"
    assert not made.x[~made.present].any() and not made.x_ph[~made.present].any()
    assert bool(made.present[1::2, 0].all()), "the only contrast stays"


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_contrasts_are_hidden_with_the_chance_that_is_given_and_nothing_else_changes(chance: float, batch_of: Batches) -> None:
    """All are hidden with probability chance²; then both stay."""
    batch = replace(batch_of(900), x_sub=batch_of(900).x_ph + 1)
    made = augment.hidden(batch, streams(900), chance)
    gone = 1.0 - float(made.present.float().mean())
    assert abs(gone - (chance - chance**2)) < 0.03 and bool(made.present.any(dim=1).all())
    for name in ("x", "x_ph", "x_sub"):
        assert torch.equal(getattr(made, name), getattr(batch, name) * made.present[:, :, None, None]), name
    assert torch.equal(made.m, batch.m) and torch.equal(made.S, batch.S)
    assert torch.equal(augment.hidden(replace(batch, x=batch.x * 2), streams(900), chance).present, made.present), "each on its own stream"


def test_the_streams_alone_decide(batch_of: Batches) -> None:
    batch = batch_of()
    first, again, other = (augment.varied(batch, streams(len(batch), name)) for name in ("a", "a", "b"))
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)


def test_nothing_is_warped_by_no_tilt_no_zoom_and_no_bend(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "TILT", 0.0)
    monkeypatch.setattr(augment, "BEND", 0.0)
    monkeypatch.setattr(augment, "ZOOM", (1.0, 1.0))
    batch = replace(batch_of(), x_sub=batch_of().x_ph)
    made = augment.warped(batch, streams(3))
    for name in ("x", "x_ph", "x_sub", "m", "S"):
        assert torch.allclose(getattr(made, name), getattr(batch, name), atol=1e-4), name


@pytest.mark.parametrize("zoom", [0.8, 1.1])
def test_a_zoom_takes_all_fields_along(zoom: float, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Areas go with its square, S stays 1 on the lesion, and an image that shows the mask still does."""
    monkeypatch.setattr(augment, "ZOOM", (zoom, zoom))
    monkeypatch.setattr(augment, "BEND", 0.0)
    batch = batch_of(8)
    shown = batch.m.expand(-1, 2, -1, -1)
    made = augment.warped(replace(batch, x=shown, x_ph=2 * shown, x_sub=3 * shown), streams(8))
    assert torch.allclose(made.m.sum(dim=(1, 2, 3))[3:], zoom**2 * batch.m.sum(dim=(1, 2, 3))[3:], rtol=0.12)
    assert set(made.m.unique().tolist()) == {0.0, 1.0} and float(made.S[made.m > 0].min()) > 0.9
    assert torch.allclose(made.x_ph, 2 * made.x, atol=1e-5) and made.x_sub is not None and torch.allclose(made.x_sub, 3 * made.x, atol=1e-5)
    assert float(((made.x[:, :1] > 0.5) == (made.m > 0)).float().mean()) > 0.98


def test_tilts_go_both_ways_as_far_as_they_may(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "ZOOM", (1.0, 1.0))
    monkeypatch.setattr(augment, "BEND", 0.0)
    ramp = torch.arange(32.0).sub(15.5).view(1, 1, 1, 32).expand(200, 2, 32, 32)
    batch = batch_of(200)
    made = augment.warped(replace(batch, x=ramp), streams(200)).x[:, 0]
    degrees = torch.rad2deg(torch.atan2(made[:, 17, 16] - made[:, 15, 16], made[:, 16, 17] - made[:, 16, 15]))
    assert 18 < float(degrees.max()) <= 20.1 and -20.1 <= float(degrees.min()) < -18
    assert torch.equal(made[:5], augment.warped(replace(batch_of(5), x=ramp[:5]), streams(5)).x[:, 0]), "each on its own stream"


def test_a_bend_is_smooth_and_as_wide_as_it_says(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "TILT", 0.0)
    monkeypatch.setattr(augment, "ZOOM", (1.0, 1.0))
    monkeypatch.setattr(augment, "BEND", 2.0)
    batch = batch_of(300)
    # Where each pixel comes from, row and column, read off two ramps.
    here = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")).expand(300, 2, 32, 32)
    moved = (augment.warped(replace(batch, x=here), streams(300)).x - here)[:, :, 8:24, 8:24]
    assert 0.8 < float(moved[:, :, 7:9, 7:9].std()) / (2.0 * 1.0) < 1.2, "a knot lies in the middle"
    assert abs(float(torch.corrcoef(moved[:, :, 8, 8].T)[0, 1])) < 0.2, "rows and columns by themselves"
    steps = torch.cat([moved.diff(dim=2).flatten(), moved.diff(dim=3).flatten()])
    assert float(steps.abs().max()) < 1.0, "nothing is folded"
    assert torch.equal(moved[:3], (augment.warped(replace(batch_of(3), x=here[:3]), streams(3)).x - here[:3])[:, :, 8:24, 8:24]), "each on its own stream"


@pytest.mark.parametrize("name", range(8))
def test_bent_or_not_a_lesion_lies_where_its_blend_map_is_1(batch_of: Batches, name: int) -> None:
    batch = batch_of(5)
    grown = torch.nn.functional.max_pool2d(batch.m, 7, 1, 3)  # as every S is: 1 on the lesion and around it
    made = augment.warped(replace(batch, S=grown), streams(5, name))
    inside = (made.m > 0)[:, :, 2:-2, 2:-2]  # beyond a window there is no lesion
    assert float(made.S[:, :, 2:-2, 2:-2][inside].min()) == pytest.approx(1.0, abs=1e-5)


def test_a_mirrored_window_is_mirrored_in_every_field_and_half_of_them_are(batch_of: Batches) -> None:
    batch = batch_of(40)
    batch = replace(batch, x_sub=batch.x * 2)
    made = augment.mirrored(batch, streams(40))
    flips = [torch.equal(made.x[i], batch.x[i].flip(-1)) for i in range(40)]
    assert 10 < sum(flips) < 30
    for i, flip in enumerate(flips):
        for name in ("x", "m", "S", "x_ph", "x_sub"):
            before = getattr(batch, name)[i]
            assert torch.equal(getattr(made, name)[i], before.flip(-1) if flip else before), name
