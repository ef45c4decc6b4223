"""Weights, config, statistics and provenance in one safetensors file: nothing in it can run code."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pathosyn.config import Config, from_dict, to_dict
from pathosyn.errors import InputError, refuse
from pathosyn.types import Backend
from pathosyn.writing import beside

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn
    from pathosyn.protocol import Method

FORMAT = "pathosyn-weights"
VERSION = "19"
_EIGHTEENTH: dict[str, Any] = {"anatomy": 0.0}
_SEVENTEENTH = _EIGHTEENTH | {"lay": 0.0}
_SIXTEENTH = _SEVENTEENTH | {"borders": False}
_FIFTEENTH = _SIXTEENTH | {"distilled": False}
_FOURTEENTH = _FIFTEENTH | {"skew": False}
_TWELFTH = _FOURTEENTH | {"tails": False}
_ELEVENTH = _TWELFTH | {"rough_of": "cells"}
_TENTH = _ELEVENTH | {"log_spreads": False}
_NINTH = _TENTH | {"shared_grain": False, "shared": 0.0, "fisher_z": False}
_EIGHTH = _NINTH | {"drawn_forms": 0.0}
_SEVENTH = _EIGHTH | {"space": "pixel"}
_SIXTH = _SEVENTH | {"coarse_prediction": "v"}
_FIFTH = _SIXTH | {"stop_at_fluid": False}
_FOURTH = _FIFTH | {"gather": False, "attune": False}
_THIRD = _FOURTH | {"appearance": False, "hold": False}
_SECOND = _THIRD | {"grain": False, "roughness": False, "cells": "deviation", "patches": 0.0}
_FIRST = _SECOND | {"times": "uniform", "context": "outside", "coarse": 1, "adversary": 0.0}
BEFORE: dict[str, dict[str, Any]] = {
    "1": _FIRST,
    "2": _SECOND,
    "3": _THIRD,
    "4": _FOURTH,
    "5": _FIFTH,
    "6": _SIXTH,
    "7": _SEVENTH,
    "8": _EIGHTH,
    "9": _NINTH,
    "10": _TENTH,
    "11": _ELEVENTH,
    "12": _TWELFTH,
    "14": _FOURTEENTH,
    "15": _FIFTEENTH,
    "16": _SIXTEENTH,
    "17": _SEVENTEENTH,
    "18": _EIGHTEENTH,
}
"""Older formats that are still read: what their methods did, in the fields that they did not have."""
CRITIC = "critic."
"""What the training needs and the drawing does not: these tensors stay in the run's state and are not shipped."""


@dataclass(frozen=True)
class Provenance:
    """What the weights have seen. `subjects` maps a partition to ids; `population` holds the statistics that `insert` compares a scan with,
    `parent` the checksums of the weights that these went on from."""

    data: str = ""
    subjects: dict[str, list[str]] = field(default_factory=dict)
    population: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    parent: str = ""
    pathosyn: str = ""


@dataclass(frozen=True)
class Loaded:
    """A method ready to draw, and where it came from. `sha256` is the file's; `backend` runs the networks."""

    any_method: Method
    config: Config
    provenance: Provenance
    path: Path
    sha256: str
    backend: Backend = "torch"

    @property
    def method(self) -> PathoSyn:
        """The method as PathoSyn, which insert and heal are written for, and whose f_sub the controls need; in latent space, which draws alike. InputError
        for weights of another."""
        only(self, "pathosyn")
        return cast("PathoSyn", self.any_method)


def only(loaded: Loaded, method: str) -> Loaded:
    """The same. InputError for weights of another method than `method`."""
    if (found := loaded.config.name) != method:
        remedy = f"give weights that `pathosyn train --method {method}` made; sets are drawn by any method with `pathosyn generate`"
        raise refuse(loaded.path, found=f"weights of {found}", expected=f"weights of {method}", remedy=remedy)
    return loaded


def save_weights(path: Path, method: Method, provenance: Provenance, *, half: bool = False) -> None:
    """Write beside, then rename. Keys sorted: the same weights give the same bytes. 32 bit; `half`: 16, but for the few statistics."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(method.state_dict().items()) if not name.startswith(CRITIC)}
    if half:
        statistics = {name for name, _ in method.named_buffers()}
        tensors = {name: value if name in statistics else value.half() for name, value in tensors.items()}
    # One entry: safetensors keeps several in no particular order, and the same weights must give the same bytes.
    header = json.dumps({"format": FORMAT, "version": VERSION, "config": to_dict(method.config), "provenance": to_dict(provenance)}, sort_keys=True)
    with beside(path, durable=True) as file:
        file.write(save(tensors, {FORMAT: header}))


def read_config(weights: str | Path) -> Config:
    """The config alone. InputError as `load`, as far as the header goes."""
    return _read(Path(weights), tensors=False)[0]


def load(weights: str | Path, *, device: str = "cpu", backend: Backend = "torch") -> Loaded:
    """Read a weight file; the tensors are mapped, not copied, until they reach the device. InputError if it is not one of ours, or for a backend that
    is not installed or does not run on `device`."""
    import torch

    from pathosyn import backends
    from pathosyn.data.nifti import file_sha256
    from pathosyn.methods import build

    backends.check(backend, device)
    path = Path(weights)
    config, provenance, tensors = _read(path)
    sha256 = file_sha256(path)
    try:
        with torch.random.fork_rng(devices=[]):  # networks begin at random, and whoever loads weights may count on their own numbers
            method = build(config)
        method.critic = None
        method.load_state_dict(tensors)
    except (ValueError, RuntimeError) as error:
        raise _misfit(path, error) from None
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        remedy = "use an earlier copy, or train anew with a smaller --train.lr"
        raise refuse(path, found=f"NaN or infinity in {bad[0]}", expected="finite weights", remedy=remedy)
    if backend != "torch" and (config.name != "pathosyn" or config.method.space == "latent"):
        found = f"{backend} with weights of {config.name}" + (" in latent space" if config.method.space == "latent" else "")
        raise refuse("--backend", found=found, expected="torch", remedy="leave --backend out")
    method.eval().requires_grad_(False).to(device)
    if device == "cpu":  # with channels last torch needs 5 to 27 % less time there (benchmarks/bench_runtime.py): the same sums in another order
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loaded = Loaded(method, method.config, provenance, path, sha256, backend)
    if backend != "torch":
        backends.use(loaded.method, backend)
    return loaded


def opened(weights: Loaded | str | Path, device: str, backend: Backend | None) -> Loaded:
    """Weights that may be loaded already; then they have their backend. InputError where that is not the one that is asked for."""
    if not isinstance(weights, Loaded):
        return load(weights, device=device, backend=backend or "torch")
    if backend not in (None, weights.backend):
        found, remedy = f"{backend} with weights that were loaded for {weights.backend}", "give backend= to load, or leave it out here"
        raise refuse("backend", found=found, expected=weights.backend, remedy=remedy)
    return weights


def _read(path: Path, *, tensors: bool = True) -> tuple[Config, Provenance, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise refuse(path, found=found, expected="a weight file (.safetensors)", remedy="give the weights.safetensors that `pathosyn train` wrote")
    try:
        with safe_open(path, framework="pt") as file:
            raw = (file.metadata() or {}).get(FORMAT)
            values = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        remedy = "give the run's weights.safetensors; if this is it, copy it again"
        raise refuse(path, found=f"an unreadable file ({error})", expected="safetensors", remedy=remedy) from None
    if raw is None:
        raise refuse(path, found="safetensors without pathosyn's header", expected="weights that pathosyn wrote", remedy="give the run's weights.safetensors")
    try:
        header = json.loads(raw)
        if header["version"] in BEFORE:
            header["config"]["method"] = BEFORE[header["version"]] | header["config"]["method"]
        elif header["version"] != VERSION:
            raise refuse(path, found=f"weights of format {header['version']}", expected=f"format {VERSION}", remedy="use the pathosyn version that wrote them")
        return from_dict(Config, header["config"]), from_dict(Provenance, header["provenance"]), values
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a header that another version, or another hand, wrote
        raise _misfit(path, error) from None


def _misfit(path: Path, error: Exception) -> InputError:
    found = f"settings that do not fit ({type(error).__name__}: {str(error).splitlines()[0]})"
    return refuse(path, found=found, expected="weights of this version", remedy="use the pathosyn version that wrote them")
