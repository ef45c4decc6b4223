"""What every generative method offers, and the one place where a name becomes a method (DESIGN §8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from pathosyn.config import Config
from pathosyn.errors import refuse
from pathosyn.types import Controls, Image, LesionBatch, Synthesis

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn


@dataclass(frozen=True)
class Stage:
    """A stretch of training: who learns (the last one's loss is the one that is shown), its share of the optimiser steps, how many of its windows are
    healthy holes at progress 0…1, and Adam's betas."""

    name: str
    players: tuple[str, ...]
    share: float
    healthy: Callable[[float], float]
    betas: tuple[float, float] = (0.9, 0.999)
    filled: bool = False
    """f_sub does not move any more, and its answer for each window is made once, before the first step."""
    windows: int = 1
    """A batch holds so many times the windows that `batch_pixels` asks for."""
    varied: bool = False
    """Windows are turned by quarters, brightened and robbed of contrasts (`augment.varied`)."""
    warped: bool = False
    """And tilted and zoomed (`augment.warped`), where fine detail is not what is learned."""


class Method(Protocol):
    """`fit` trains any of these without knowing which. A player is a set of modules that one optimiser moves; a GAN has two."""

    config: Config
    stages: Sequence[Stage]

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """The modules that this player's optimiser moves."""

    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Called once when a stage starts, with training batches for statistics, which may be gone through more than once; returns what to log."""

    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Loss terms; `loss` is minimised, the others are logged. One generator a sample, so that a result does not depend on the batch."""

    def fill(self, batch: LesionBatch) -> Image:
        """f_sub's answer, (B, C, H, W)."""

    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Draw a lesion in each window."""


METHODS = ("pathosyn",)


def build(config: Config) -> PathoSyn:
    """The method that `config.name` names, with fresh weights. InputError for a name that we do not have."""
    if config.name == "pathosyn":
        from pathosyn.methods.pathosyn import PathoSyn

        return PathoSyn(config)
    raise refuse("--method", found=f"'{config.name}'", expected=f"one of {', '.join(METHODS)}", remedy="choose one of these")
