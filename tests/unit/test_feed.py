"""What a stage asks of its windows is done to them, each on its own stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from pathosyn.augment import HIDE_SUBSTRATE
from pathosyn.config import Train
from pathosyn.data.slices import Slices
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.protocol import Stage
from pathosyn.training import feed
from pathosyn.types import LesionBatch

Batches = Callable[..., LesionBatch]


class Same:
    """Slices that draw the same windows at every step; a process gets its share of them."""

    def __init__(self, batch: LesionBatch) -> None:
        self.batch = batch

    def draw(self, step: int, *, rank: int, world_size: int, **_: Any) -> LesionBatch:
        fields = {name: getattr(self.batch, name)[rank::world_size] for name in ("x", "m", "S", "x_ph", "present", "healthy", "subject", "z")}
        return LesionBatch(**fields)

    def batch_size(self, *_: int) -> int:
        return len(self.batch)


def turns(batch: LesionBatch, stage: Stage, *, steps: int = 1, rank: int = 0, world: int = 1) -> list[feed.Turn]:
    return list(feed.batches(cast(Slices, Same(batch)), stage, Train(seed=3), 0, 0, steps, rank=rank, world=world))


@pytest.mark.parametrize("method", ["default", "paper"])
def test_contrasts_are_hidden_while_f_sub_learns_alone(method: str, tiny: dict[str, PathoSyn], batch_of: Batches) -> None:
    """`paper` learns all at once, as printed."""
    first = tiny[method].stages[0]
    (turn,) = turns(batch_of(900), first)
    gone = 1.0 - float(turn.batch.present.float().mean())
    assert abs(gone - (HIDE_SUBSTRATE - HIDE_SUBSTRATE**2 if first.name == "substrate" else 0.0)) < 0.03


def test_a_stage_that_asks_for_nothing_gets_the_windows_as_they_are(batch_of: Batches) -> None:
    batch = batch_of(8)
    (turn,) = turns(batch, Stage("any", ("any",), 1.0, lambda _: 0.0))
    assert torch.equal(turn.batch.x, batch.x) and torch.equal(turn.batch.present, batch.present)


def test_a_batch_that_is_too_small_for_all_processes_is_told() -> None:
    sizes = {64: 8, 128: 2, 160: 1}
    slices = cast(Slices, SimpleNamespace(sides=dict.fromkeys(sizes, 9), batch_size=lambda side, _: sizes[side]))
    assert feed.grown(slices, Train(), 1) == ""
    assert feed.grown(slices, Train(), 2).startswith("a batch of windows of 160 pixels has 1 by one process and 2 by 2")
    for world in (2, 3, 5):
        asked = int(feed.grown(slices, Train(), world).split("--train.batch-pixels ")[1].split()[0])
        assert Slices.batch_size(slices, 160, asked) == Slices.batch_size(slices, 160, asked, world) >= world, "what is named is enough"


@pytest.mark.parametrize("asked", [{"hide": 0.5}, {"varied": True}, {"warped": True}])
def test_processes_see_together_what_one_sees(asked: dict[str, Any], batch_of: Batches) -> None:
    batch = batch_of(9)
    stage = replace(Stage("any", ("any",), 1.0, lambda _: 0.0), **asked)
    whole = turns(batch, stage, steps=2)
    for rank in range(2):
        for one, all_of_them in zip(turns(batch, stage, steps=2, rank=rank, world=2), whole, strict=True):
            assert one.weight == (5, 4)[rank] / 9 and all_of_them.weight == 1.0, "its share of the batch"
            assert torch.equal(one.batch.x, all_of_them.batch.x[rank::2]) and torch.equal(one.batch.present, all_of_them.batch.present[rank::2])
    assert not torch.equal(whole[0].batch.x, whole[1].batch.x), "another step, another draw"
