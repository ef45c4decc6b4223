"""The optimisation's own small rules: learning rate, running averages, precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from pathosyn.config import Train


def averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose decay grows as (1 + n) / (10 + n) up to `decay`: with the full decay from the start, the first weights
    would still make up a third of the average after 1,000 steps at 0.999."""

    @torch.no_grad()
    def update(averages: Any, current: Any, n: Any) -> None:
        keep = min(decay, (1.0 + float(n)) / (10.0 + float(n)))
        for average, now in zip(averages, current, strict=True):
            average.lerp_(now.to(average.dtype), 1.0 - keep)

    return update


def learning_rate(step: int, total: int, train: Train) -> float:
    """Linear warm-up, then half a cosine down to 0 at `total`."""
    ramp = min(1.0, (step + 1) / max(1, train.lr_warmup))
    return train.lr * ramp * 0.5 * (1.0 + math.cos(math.pi * step / total))


def precision(settings: Train, accelerator: str) -> Literal["32-true", "bf16-mixed"]:
    """bf16 where the processor has it in hardware: elsewhere it is emulated and slower than 32 bit."""
    if settings.precision != "auto":
        return settings.precision
    fast = torch.cuda.is_bf16_supported() if accelerator == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"
