"""Lesions for MR scans: put one in, take one out, train the generator on your own folder. Research only, not for diagnosis."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathosyn.checkpoint import load
    from pathosyn.config import Config
    from pathosyn.data.prepare import prepare
    from pathosyn.insert import heal, insert
    from pathosyn.train import fit
    from pathosyn.types import Controls

__all__ = ["Config", "Controls", "fit", "heal", "insert", "load", "prepare"]

_HOME = {
    "Config": "config",
    "Controls": "types",
    "fit": "train",
    "heal": "insert",
    "insert": "insert",
    "load": "checkpoint",
    "prepare": "data.prepare",
}


def __getattr__(name: str) -> Any:
    """Each public name is imported when it is first used: `import pathosyn` does not pay for torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'pathosyn' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"pathosyn.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
