"""Random streams with names: the same key gives the same numbers in any batch, worker or rank."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def seed_of(*key: object) -> int:
    """A 63-bit seed from any printable key, the same on every machine (Python's own hash is salted)."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: object) -> torch.Generator:
    """A CPU generator for this key. Noise is drawn on the CPU everywhere, so that a GPU draws the same lesion."""
    import torch

    return torch.Generator().manual_seed(seed_of(*key))


def normal(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Unit noise (B, *shape), sample i from generator i."""
    import torch

    return torch.stack([torch.randn(shape, generator=g) for g in generators])


def integers(generators: Sequence[torch.Generator], low: int, high: int) -> Tensor:
    """Integers (B,), uniform on low…high inclusive, sample i from generator i."""
    import torch

    return torch.cat([torch.randint(low, high + 1, (1,), generator=g) for g in generators])


def uniform(generators: Sequence[torch.Generator]) -> Tensor:
    """Numbers (B,), uniform on 0…1, sample i from generator i."""
    import torch

    return torch.cat([torch.rand(1, generator=g) for g in generators])
