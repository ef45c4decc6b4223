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


def test_contrasts_hide_as_if_they_were_not_there_but_never_all(batch_of: Batches) -> None:
    batch = batch_of(400, present=[[1, 1], [1, 0]] * 200)
    made = augment.varied(batch, streams(400))
    assert bool(made.present.any(dim=1).all()) and bool((made.present <= batch.present).all())
    hidden = 1.0 - float(made.present[::2].float().mean())
    assert 0.1 < hidden < 0.2, "15 % of the contrasts"
    assert not made.x[~made.present].any() and not made.x_ph[~made.present].any()
    assert bool(made.present[1::2, 0].all()), "the only contrast stays"


def test_the_streams_alone_decide(batch_of: Batches) -> None:
    batch = batch_of()
    first, again, other = (augment.varied(batch, streams(len(batch), name)) for name in ("a", "a", "b"))
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
