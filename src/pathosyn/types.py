"""Shapes and the three records that travel between the parts.

B batch, C contrasts, H W pixels. Masks are named for what they mark: `m` is 1 on the lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:
    import torch
    from torch import Tensor as Array
else:
    # The aliases hold for NumPy arrays and tensors alike, and reading scans must not pay for importing torch.
    Array = Any

Image = Float[Array, "B C H W"]
Mask = Float[Array, "B 1 H W"]
Soft = Float[Array, "B 1 H W"]
Field = Float[Any, "..."]
"""A NumPy array or a tensor of any shape: what is pointwise works on both."""
Times = Int[Array, "B"]
Flags = Bool[Array, "B C"]
Backend = Literal["torch", "onnxruntime"]
"""What runs the networks (`backends`)."""


@dataclass(frozen=True)
class LesionBatch:
    """Windows of one side length.

    x        normalised contrasts, a missing one is 0
    m        1 on the lesion (on the hole, where `healthy`)
    S        blend map in [0, 1]; the support D is where it exceeds 0
    x_ph     pseudo-healthy target inside D: `Inp(x, m)`, or x itself where `healthy`
    present  which contrasts the subject has
    healthy  True: no lesion here, D is a hole over healthy tissue whose truth is known
    subject  subject ids; z  slice numbers
    """

    x: Image
    m: Mask
    S: Soft
    x_ph: Image
    present: Flags
    healthy: Bool[Array, "B"]
    subject: Sequence[str]
    z: Sequence[int]
    x_sub: Image | None = None
    """f_sub's answer, where a frozen f_sub gave it beforehand (`Slices.filled`)."""
    largest: Float[Array, "B"] | None = None
    """Pixels of lesion in the largest window of the same subject, where more is known than this window (`Slices.lesion`)."""

    @property
    def D(self) -> Mask:  # noqa: N802 - the paper's letter
        """The support, 1 where S > 0."""
        return (self.S > 0).to(self.x.dtype)

    def to(self, device: torch.device | str) -> LesionBatch:
        """The same batch with every tensor on `device`."""
        import torch

        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self) if isinstance(getattr(self, f.name), torch.Tensor)}
        return replace(self, **moved)

    def shard(self, rank: int, world_size: int) -> LesionBatch:
        """Every `world_size`-th sample from `rank` on: one process's share of a batch."""
        return self.some(slice(rank, None, world_size))

    def some(self, which: slice | Sequence[int]) -> LesionBatch:
        """Some of the samples, by their numbers."""
        numbers = range(len(self))[which] if isinstance(which, slice) else which
        tensors: dict[str, Any] = {f.name: getattr(self, f.name)[which] for f in fields(self) if hasattr(getattr(self, f.name), "shape")}
        return replace(self, **tensors, subject=[self.subject[i] for i in numbers], z=[self.z[i] for i in numbers])

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True)
class Controls:
    """What a user may ask of a lesion. severity ≥ 0 scales the deviation; extent and shift change the mask, in mm."""

    severity: float = 1.0
    extent_mm: float = 0.0
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0


@dataclass(frozen=True)
class Synthesis:
    """A drawn batch: x_hat the result, x_sub the substrate, r the deviation, S the blend map, m the mask, seeds one a sample."""

    x_hat: Image
    x_sub: Image
    r: Image
    S: Soft
    m: Mask
    seeds: Sequence[int]
