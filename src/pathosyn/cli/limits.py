"""The numbers that a flag may have. The parser knows types only; what lies outside these ranges would fail late, or never and be wrong."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pathosyn.config import Config, Geometry
from pathosyn.errors import Fault

_COUNT = (1, math.inf)
_SHARE = (0, 1)
_ABOVE_0 = (1e-12, math.inf)  # what a user means by "positive"
_NOT_NEGATIVE = (0, math.inf)

RANGES: dict[str, tuple[float, float]] = {
    "geometry.grid_mm": (0.1, 10),
    "geometry.grow_mm": (0, 100),
    "geometry.feather_mm": (0.1, 100),
    "geometry.margin_mm": (0, 100),
    "train.steps": _COUNT,
    "train.substrate_share": _SHARE,
    "train.structure_share": _SHARE,
    "train.distil_share": _SHARE,
    "train.sharpen_share": _SHARE,
    "train.batch_pixels": (1, 1 << 30),
    "train.lr": (1e-12, 1),
    "train.critic_lr": (1e-12, 1),
    "train.lr_warmup": _NOT_NEGATIVE,
    "train.weight_decay": (0, 1),
    "train.ema": (0, 0.999999),
    "train.clip_norm": _ABOVE_0,
    "train.seed": (0, (1 << 63) - 1),
    "train.validate_every": _COUNT,
    "train.checkpoint_every": _COUNT,
    "train.devices": _COUNT,
    "train.nodes": _COUNT,
    "m.timesteps": (2, 100_000),
    "m.beta_start": (1e-12, 0.999),
    "m.beta_end": (1e-12, 0.999),
    "m.eta": _SHARE,
    "m.steps": _COUNT,
    "m.clamp_quantile": _SHARE,
    "m.tanh_delta": _NOT_NEGATIVE,
    "m.sigma_px": (0.1, 100),
    "m.warmup": _SHARE,
    "m.noise_mm": (0, 100),
    "m.anatomy": _NOT_NEGATIVE,
    "m.adversary": _NOT_NEGATIVE,
    "m.low": _NOT_NEGATIVE,
    "m.patches": _NOT_NEGATIVE,
    "m.anchor": _NOT_NEGATIVE,
    "m.coarse": (1, 16),
    "m.level": _COUNT,
    "networks.blocks": (1, 16),
    "compared.vaegan.latent": (1, 1024),
    "compared.vaegan.kl": _NOT_NEGATIVE,
    "compared.vaegan.adversary": _NOT_NEGATIVE,
    "compared.vaegan.adversary_share": _SHARE,
    **{f"m.weights.{name}": _NOT_NEGATIVE for name in ("out", "inside", "diff", "pat", "ring", "leak", "dev", "syn")},
    "compared.difference.warm_up": _SHARE,
    "compared.difference.healthy": _SHARE,
    **{f"compared.difference.{name}": _NOT_NEGATIVE for name in ("adversary", "anchor", "seek", "apart")},
    "threads": (0, 1024),
    "workers": (0, 1024),
    "seed": _NOT_NEGATIVE,
    "per_lesion": (1, 1000),
    "per_subject": _NOT_NEGATIVE,
    "severity": (0, 5),
    "devices": (1, 1024),
    "nodes": (1, 1024),
    "real_per_subject": _NOT_NEGATIVE,
    "healthy": _NOT_NEGATIVE,
}
"""By flag, `_` for `-`; ends included."""


def flag(name: str) -> str:
    """As it is typed."""
    return f"--{name.replace('_', '-')}"


def outside(name: str, value: Any) -> list[Fault]:
    """Faults of one number, or of every number in a config, called `name`, that has a range and lies outside it. NaN and infinity do, everywhere."""
    if dataclasses.is_dataclass(value):
        return [fault for f in dataclasses.fields(value) for fault in outside(f"{name}.{f.name}", getattr(value, f.name))]
    if name not in RANGES or value is None:
        return []
    low, high = RANGES[name]
    if low <= value <= high and math.isfinite(value):
        return []
    asked = "above 0" if low == _ABOVE_0[0] else f"at least {low:g}"
    expected = asked if math.isinf(high) else f"{asked}, at most {high:g}" if low == _ABOVE_0[0] else f"{low:g}…{high:g}"
    return [Fault(flag(name), f"{value:g}", expected, f"give a number in this range{_default(name)}")]


def _default(name: str) -> str:
    """The default of a setting, as a hint."""
    head, _, rest = name.partition(".")
    whole = Config()
    config: Any = {"geometry": Geometry(), "train": whole.train, "m": whole.method, "networks": whole.networks, "compared": whole.compared}.get(head)
    if config is None:
        return ""
    for part in rest.split("."):
        config = getattr(config, part)
    return f", {config:g} is the default"


def bad_geometry(geometry: Geometry) -> list[Fault]:
    """Window sides are whole windows of both networks."""
    faults = outside("geometry", geometry)
    sides = geometry.buckets
    if not sides or any(side < 32 or side % 32 for side in sides) or list(sides) != sorted(set(sides)):
        found = " ".join(map(str, sides)) or "no side"
        faults.append(Fault("--geometry.buckets", found, "rising multiples of 32", "give window sides in pixels, 64 96 128 say"))
    return faults
