"""What every generative method offers to the one training loop, to `generate` and to the monitor (DESIGN §8)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pathosyn.config import Config
from pathosyn.errors import refuse
from pathosyn.types import Controls, Image, LesionBatch, Synthesis


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
    hide: float = 0.0
    """Probability that a contrast is hidden where windows are not `varied` (`augment.hidden`)."""
    warped: bool = False
    """And tilted and zoomed (`augment.warped`), where fine detail is not what is learned."""
    plain: bool = False
    """Windows are given as they are, neither mirrored nor brightened: what a method computes of one may be kept."""


class Method(nn.Module, ABC):
    """`fit` trains any of these without knowing which. A player is a set of modules that one optimiser moves; a GAN has two, and calls the one that does
    not travel with the weights `critic`. Statistics of the data are buffers."""

    critic: nn.Module | None
    whole: int = 0
    """0: works on lesion windows. Else on whole slices, padded to so many pixels square."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.critic = None

    @property
    @abstractmethod
    def stages(self) -> Sequence[Stage]:
        """In order; the shares sum to 1."""

    @abstractmethod
    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """The modules that this player's optimiser moves."""

    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Called once when a stage starts, with training batches for statistics, which may be gone through more than once; returns what to log."""
        return {}

    @abstractmethod
    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Loss terms; `loss` is minimised, the others are logged. One generator a sample, so that a result does not depend on the batch."""

    def reconstruct(self, batch: LesionBatch) -> Image | Synthesis:
        """The given windows (or slices) through the method's own code and back; InputError where it has none."""
        raise refuse("--reconstruct", found=f"{self.config.name}", expected="a method that codes what it is given", remedy="leave --reconstruct out")

    @abstractmethod
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Draw one lesion a window (or slice). Noise is keyed by (seed, subject, z), so a window draws the same lesion in any batch."""
