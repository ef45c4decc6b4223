"""The one place where a name becomes a method."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from pathosyn.config import Config
from pathosyn.errors import refuse
from pathosyn.protocol import Method, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["METHODS", "Method", "Stage", "build"]

METHODS = {
    "pathosyn": "pathosyn:PathoSyn",
    "vaegan": "vaegan:VaeGan",
    "brain-ldm": "latent:BrainLdm",
    "maskdiff-inpaint": "inpaint:MaskDiff",
    "meta-auto": "metamorphic:MetaAuto",
    "difference-gan": "difference:DifferenceGan",
}
"""Name on the command line → module and class. Each is imported when it is asked for."""
LATENT = "deviation_latent:LatentPathoSyn"
"""PathoSyn with `space` latent."""


def build(config: Config) -> Method:
    """The method that `config.name` names, with fresh weights. InputError for a name that we do not have."""
    if config.name not in METHODS:
        raise refuse("--method", found=f"'{config.name}'", expected=f"one of {', '.join(METHODS)}", remedy="choose one of these")
    latent = config.name == "pathosyn" and config.method.space == "latent"
    module, _, name = (LATENT if latent else METHODS[config.name]).partition(":")
    made = cast("Callable[[Config], Method]", getattr(import_module(f"pathosyn.methods.{module}"), name))
    return made(config)
