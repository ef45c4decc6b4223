"""A run on disk: config.json, environment.json, metrics.csv, previews/, state.pt (to resume) and weights.safetensors (to use).

Every write is beside-then-rename, and the state says how long metrics.csv was, so that a kill at any moment loses only the steps since
the last checkpoint and leaves no row twice.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pathosyn.config import Config, to_dict
from pathosyn.errors import Fault, InputError, refuse
from pathosyn.writing import beside

COLUMNS = "step,stage,partition,metric,value\n"
OPENING = {"previews", "environment.json", "metrics.csv", ".environment.json.part", ".config.json.part"}
"""What a run that was killed while its folder was being made may have left."""


def package_version(name: str = "pathosyn") -> str:
    """The installed version, or 'unknown' when run from a bare source tree."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def environment() -> dict[str, Any]:
    """What a reader needs to run this again."""
    packages = ("pathosyn", "torch", "lightning-fabric", "numpy", "scipy", "nibabel", "h5py")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: package_version(name) for name in packages},
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": sys.argv,
    }


@dataclass(frozen=True)
class RunFolder:
    """Paths and writes. Only rank 0 holds one that writes."""

    path: Path

    @property
    def weights(self) -> Path:
        """The exported file."""
        return self.path / "weights.safetensors"

    @property
    def previews(self) -> Path:
        """Folder of PNGs."""
        return self.path / "previews"

    def open(self, config: Config, *, data: str, parent: str) -> None:
        """Start or continue. InputError if the folder holds a run with other settings, naming each field that differs."""
        settings = {"config": to_dict(config), "data": data, "from": parent}
        file = self.path / "config.json"
        if file.is_file():
            before = _read(file)
            changed = list(_differences(before, json.loads(json.dumps(settings))))
            if changed:
                raise InputError(
                    [
                        Fault(str(self.path), f"a run with {name} = {old}", f"{name} = {new}, as now asked", "give a new --run folder, or the old settings")
                        for name, old, new in changed
                    ]
                )
            return
        if self.path.exists() and any(not _left_by_opening(path) for path in self.path.iterdir()):
            raise refuse(self.path, found="a folder with other files", expected="a new or empty folder, or an earlier run", remedy="give another --run")
        self.previews.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "environment.json", environment())
        (self.path / "metrics.csv").write_text(COLUMNS)
        write_json(file, settings)  # last: its presence says that the folder is whole

    def log(self, step: int, stage: str, partition: str, values: dict[str, float]) -> None:
        """Append tidy rows to metrics.csv."""
        with (self.path / "metrics.csv").open("a") as file:
            file.writelines(f"{step},{stage},{partition},{name},{value:.6g}\n" for name, value in values.items())

    def save_state(self, state: dict[str, Any]) -> None:
        """Everything that resuming needs. Plain tensors and numbers: it loads with `weights_only=True`."""
        with beside(self.path / "state.pt", durable=True) as file:
            torch.save({**state, "metrics_bytes": (self.path / "metrics.csv").stat().st_size}, file)

    def load_state(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint or None; rows of metrics.csv that came after it are cut off."""
        file = self.path / "state.pt"
        if not file.is_file():
            if (self.path / "metrics.csv").is_file():
                (self.path / "metrics.csv").write_text(COLUMNS)
            return None
        try:
            state = torch.load(file, map_location=device, weights_only=True)
            rows = state["metrics_bytes"]
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
            found = f"a checkpoint that cannot be used ({why})"
            raise refuse(file, found=found, expected="the state that this run saved", remedy="put it back, or delete it to train this run anew") from error
        metrics = self.path / "metrics.csv"
        if not metrics.is_file() or metrics.stat().st_size < rows:
            remedy = "put it back, or delete state.pt to train this run anew"
            raise refuse(metrics, found="fewer rows than state.pt counts", expected="the file as the run left it", remedy=remedy)
        os.truncate(metrics, rows)
        return state


def _read(file: Path) -> dict[str, Any]:
    """An earlier run's settings."""
    try:
        before = json.loads(file.read_text())
    except ValueError:
        before = None
    if not isinstance(before, dict) or "config" not in before:
        raise refuse(file, found="no settings of a run of ours", expected="an earlier run's config.json", remedy="give another --run")
    return before


def _left_by_opening(path: Path) -> bool:
    """Other programs too keep a metrics.csv: ours has no more than its header then."""
    return path.name in OPENING and (path.name != "metrics.csv" or COLUMNS.startswith(path.read_text(errors="replace")))


def write_json(path: Path, content: Any) -> None:
    """Pretty, beside-then-rename."""
    with beside(path) as file:
        file.write((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())


def _differences(old: Any, new: Any, name: str = "") -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new
