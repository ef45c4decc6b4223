"""How a critic is shown windows, for every method that has one (`networks.Critic`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pathosyn import rng
from pathosyn.types import Image, Mask, Soft


def shifts(streams: Sequence[torch.Generator]) -> Tensor:
    """(B, 2), each 0…7 pixels."""
    return torch.stack([rng.integers(streams, 0, 7), rng.integers(streams, 0, 7)], dim=1)


def scores(critic: nn.Module, x: Image, m: Mask, S: Soft, known: Image, moves: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803 - the paper's letter
    """The critic's scores of the patches on the support (n,) and of the windows (B,), each window moved by `moves` (B, 2) pixels: its patches lie on a
    grid, on which a generator would otherwise learn to set dots that suit them. `known` (B, C, 1, 1) is 1 on contrasts that are there. B may be 0."""
    if not len(x):
        return x.new_zeros(0), x.new_zeros(0)

    def moved(field: Image) -> Image:
        return torch.stack([one.roll((int(dy), int(dx)), dims=(1, 2)) for one, (dy, dx) in zip(field, moves.tolist(), strict=True)])

    return critic(moved(x * known), moved(m), moved(S), known.expand_as(x))
