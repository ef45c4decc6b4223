"""Lesions drawn while a network trains: `RandLesiond` for MONAI, `RandLesion` and `Lesion` for TorchIO, `put` for plain arrays."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathosyn.transforms.core import Recipe, put
    from pathosyn.transforms.monai import RandLesiond
    from pathosyn.transforms.shapes import Blobs, Outlines
    from pathosyn.transforms.torchio import Lesion, RandLesion

__all__ = ["Blobs", "Lesion", "Outlines", "RandLesion", "RandLesiond", "Recipe", "put"]

_HOME = {"Blobs": "shapes", "Lesion": "torchio", "Outlines": "shapes", "RandLesion": "torchio", "RandLesiond": "monai", "Recipe": "core", "put": "core"}


def __getattr__(name: str) -> Any:
    """Each name is imported when it is first used: neither MONAI nor TorchIO has to be there for the other."""
    if name not in _HOME:
        raise AttributeError(f"module 'pathosyn.transforms' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"pathosyn.transforms.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
