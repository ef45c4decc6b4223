"""Lesions for MR scans: put one in, take one out, train the generator on your own folder. Research only, not for diagnosis."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathosyn.checkpoint import load
    from pathosyn.config import Config
    from pathosyn.data.prepare import prepare
    from pathosyn.export import export
    from pathosyn.generate import generate
    from pathosyn.insert import heal, insert
    from pathosyn.train import fit
    from pathosyn.types import Controls

__all__ = ["Config", "Controls", "export", "fit", "generate", "heal", "insert", "load", "prepare"]

_HOME = {
    "Config": "config",
    "Controls": "types",
    "export": "export",
    "fit": "train",
    "generate": "generate",
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


class _Package(ModuleType):
    """Loading `pathosyn.insert` would bind the module to the name of its function: `from pathosyn import heal, insert` would give a module."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
