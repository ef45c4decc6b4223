"""The optimisation's own small rules: learning rate, running averages, precision, and where it runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from pathosyn.config import Train
from pathosyn.errors import refuse
from pathosyn.networks import bf16_pays

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """Exponential moving average whose decay grows as (1 + n) / (10 + n) up to `decay`: with the full decay from the start, the first weights
    would still make up a third of the average after 1,000 steps at 0.999."""

    @torch.no_grad()
    def update(averages: Any, current: Any, n: Any) -> None:
        keep = min(decay, (1.0 + float(n)) / (10.0 + float(n)))
        torch._foreach_lerp_(averages, [now.to(average.dtype) for average, now in zip(averages, current, strict=True)], 1.0 - keep)

    return update


def learning_rate(step: int, total: int, train: Train, *, player: str = "") -> float:
    """Linear warm-up, then half a cosine down to 0 at `total`."""
    ramp = min(1.0, (step + 1) / max(1, train.lr_warmup))
    return (train.critic_lr if player == "critic" else train.lr) * ramp * 0.5 * (1.0 + math.cos(math.pi * step / total))


def precision(settings: Train, accelerator: str) -> Literal["32-true", "bf16-mixed"]:
    """As asked for; `auto`: bf16 where it pays."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16-mixed" if bf16_pays(accelerator) else "32-true"


def first_process() -> bool:
    """Whether this is the only one of its kind, or the first of those that work together: the one that speaks."""
    import torch.distributed as together

    return not (together.is_available() and together.is_initialized()) or together.get_rank() == 0


def fabric_for(settings: Train, device: str, *, flag: str = "--train.devices") -> Fabric:
    """Processes, device and precision, launched. InputError for a device, or a number of them (which `flag` gave), that is not there."""
    from lightning_fabric import Fabric

    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise refuse("--device", found="cuda, but torch sees no GPU", expected="a CUDA device", remedy="use --device cpu or auto")
    accelerator = "cuda" if cuda and device != "cpu" else "cpu"
    if accelerator == "cuda" and settings.devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise refuse(flag, found=str(settings.devices), expected=f"at most the {there} GPUs that torch sees", remedy="give fewer")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision, which environment.json and config.json say
    several = settings.devices * settings.nodes > 1
    fabric = Fabric(
        accelerator=accelerator,
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy="ddp" if several else "auto",
        precision=precision(settings, accelerator),
    )
    if several:
        fabric.launch()
    return fabric
