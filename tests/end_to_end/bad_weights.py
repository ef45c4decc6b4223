"""Bad weights, to insert with and to start a training from."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bad_world import CONTRASTS, SHAPE, Case, Place, make_slices, make_weights, save


def _with_header(change: Callable[[dict], object]) -> Callable[[Place], list[str]]:
    """insert with weights whose header was changed."""

    def build(place: Place) -> list[str]:
        from safetensors import safe_open
        from safetensors.torch import save_file

        with safe_open(place.world.weights, framework="pt") as file:
            header = json.loads(file.metadata()["pathosyn-weights"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        changed = change(header)
        path = place.root / "weights.safetensors"
        save_file(tensors, path, {"pathosyn-weights": changed if isinstance(changed, str) else json.dumps(header)})
        return _weights(place, path)

    return build


def _weights(place: Place, path: Path | str) -> list[str]:
    argv = place.insert()
    argv[argv.index("--weights") + 1] = str(path)
    return argv


def _foreign(place: Place) -> list[str]:
    import torch
    from safetensors.torch import save_file

    save_file({"layer.weight": torch.zeros(3)}, place.root / "sd.safetensors")
    return _weights(place, place.root / "sd.safetensors")


def _not_finite(place: Place) -> list[str]:
    import torch

    from pathosyn.checkpoint import Provenance, load, save_weights

    method = load(place.world.weights).method
    with torch.no_grad():
        next(method.parameters()).fill_(torch.nan)
    save_weights(place.root / "nan.safetensors", method, Provenance())
    return _weights(place, place.root / "nan.safetensors")


def _checkpoint(place: Place) -> list[str]:
    import torch

    torch.save({"step": 1}, place.root / "state.pt")
    return _weights(place, place.root / "state.pt")


def _t2_slices(place: Place) -> Path:
    folder = place.subject()
    for contrast in CONTRASTS:
        place.scan(contrast).rename(folder / f"s1_{contrast}x.nii.gz")
    save(folder / "s1_t2.nii.gz", np.random.default_rng(0).normal(300, 30, SHAPE).astype(np.float32))
    return make_slices(place.root / "data.h5", [folder])


CASES = [
    Case("weights are missing", lambda p: _weights(p, p.root / "w.safetensors"), ("w.safetensors", "no such file", "pathosyn train")),
    Case("weights are a folder", lambda p: _weights(p, p.world.cohort), ("a folder", "weights.safetensors")),
    Case("weights cut short", lambda p: _weights(p, p.text("w.safetensors", p.world.weights.read_bytes()[:-999])), ("w.safetensors", "copy it again")),
    Case("weights are empty", lambda p: _weights(p, p.text("w.safetensors", b"")), ("w.safetensors", "copy it again")),
    Case("weights of another program", _foreign, ("without pathosyn's header", "the run's weights.safetensors")),
    Case("weights are a pickle", lambda p: _weights(p, p.text("w.pt", pickle.dumps({"a": 1}))), ("w.pt", "safetensors")),
    Case("weights are a checkpoint", _checkpoint, ("state.pt", "weights.safetensors")),
    Case("weights of another version", _with_header(lambda h: h.update(version="20")), ("format 19", "the pathosyn version that wrote them")),
    Case("weights with an unknown setting", _with_header(lambda h: h["config"]["method"].update(magic=1)), ("magic", "version that wrote them")),
    Case("weights with another size", _with_header(lambda h: h["config"]["networks"].update(eps=[16, 16])), ("do not fit", "version that wrote them")),
    Case("weights without a version", _with_header(lambda h: h.clear()), ("weights.safetensors", "version that wrote them")),
    Case("weights without a config", _with_header(lambda h: h.pop("config")), ("weights.safetensors", "version that wrote them")),
    Case("weights with a foreign provenance", _with_header(lambda h: h.update(provenance={"who": "me"})), ("weights.safetensors", "version that wrote them")),
    Case("weights with a broken header", _with_header(lambda h: "{"), ("weights.safetensors", "version that wrote them")),
    Case("weights that diverged", _not_finite, ("nan.safetensors", "NaN", "train")),
    Case("fine-tuning from nothing", lambda p: p.train("--from", p.root / "w.safetensors"), ("w.safetensors", "no such file", "pathosyn train")),
    Case("fine-tuning without its contrasts", lambda p: p.train("--from", p.world.weights, data=_t2_slices(p)), ("no t1, t1ce, flair", "data that has them")),
    Case(
        "fine-tuning with another Inp",
        lambda p: p.train("--from", make_weights(p.root / "w.safetensors", inpaint="biharmonic")),
        ("harmonic Inp", "--inpaint biharmonic"),
    ),
]
