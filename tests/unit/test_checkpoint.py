"""Weight files: what goes in comes out, the same weights are the same bytes, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pathosyn.checkpoint import CRITIC, FORMAT, Provenance, load, save_weights
from pathosyn.errors import InputError

SEEN = Provenance(data="d" * 64, subjects={"train": ["a", "b"], "test": ["ü"]}, population={"area_mm2": [1.5, 20.0]}, steps=7, parent="p", pathosyn="0")


@pytest.fixture
def path(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    save_weights(tmp_path / "w.safetensors", tiny["default"], SEEN)
    return tmp_path / "w.safetensors"


def shipped(method: Any) -> dict[str, torch.Tensor]:
    """All but the critic, which only the training needs."""
    return {name: value for name, value in method.state_dict().items() if not name.startswith("critic.")}


def header_of(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    return json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    held = json.loads(header_of(path)["__metadata__"][FORMAT])
    change(held)
    save_file(load_file(path), path, {FORMAT: json.dumps(held)})
    return path


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_everything_comes_back(tmp_path: Path, tiny: dict[str, Any], preset: str) -> None:
    method = tiny[preset]
    method.r_scale.copy_(torch.tensor([0.5, 1.7]))
    method.r_max.copy_(torch.tensor([3.0, 4.0]))
    save_weights(tmp_path / "w.safetensors", method, SEEN)
    loaded = load(tmp_path / "w.safetensors")
    assert loaded.config == method.config and loaded.provenance == SEEN
    state, expected = loaded.method.state_dict(), shipped(method)
    assert loaded.method.critic is None and (method.critic is None) == (preset == "paper")
    assert state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)
    assert "r_scale" in state and "r_max" in state
    assert loaded.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert not loaded.method.training and not any(p.requires_grad for p in loaded.method.parameters())


def test_a_loaded_method_draws_what_the_saved_one_draws(path: Path, tiny: dict[str, Any], batch_of: Callable[..., Any]) -> None:
    from pathosyn.types import Controls

    batch = batch_of(2)
    ours, theirs = (m.eval().synthesize(batch, controls=Controls(seed=3), steps=2).x_hat for m in (tiny["default"], load(path).method))
    # what is loaded convolves with channels last: the same sums in another order
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_loading_leaves_torchs_random_numbers_alone(path: Path, tiny: dict[str, Any]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    load(path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_same_weights_are_the_same_bytes(path: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    save_weights(tmp_path / "again.safetensors", tiny["default"], SEEN)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    loaded = load(path)
    save_weights(tmp_path / "third.safetensors", loaded.method, loaded.provenance)
    assert (tmp_path / "third.safetensors").read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_the_header_is_plain_json_and_the_rest_are_numbers(path: Path, tiny: dict[str, Any]) -> None:
    """Nothing in the file can run code: it is a JSON header and tensors, all of them in 32 bit."""
    header = header_of(path)
    told = json.loads(header.pop("__metadata__")[FORMAT])
    assert told["config"]["method"]["composition"] == "preserve" and told["provenance"]["subjects"]["train"] == ["a", "b"]
    assert {entry["dtype"] for entry in header.values()} == {"F32"} and set(header) == set(shipped(tiny["default"]))
    assert not [name for name in header if name.startswith(CRITIC)] and len(header) < len(tiny["default"].state_dict())


def test_a_failed_save_keeps_the_file_before_it(path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        save_weights(path, tiny["paper"], SEEN)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda p: p.unlink(), "no such file"),
        (lambda p: p.write_bytes(b"PK\x03\x04 a pickle in a zip"), "unreadable"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1000]), "unreadable"),
        (lambda p: p.write_bytes(b""), "unreadable"),
        (lambda p: save_file({"w": torch.zeros(2)}, p), "without pathosyn's header"),
        (lambda p: rewritten(p, lambda h: h.update(version="99")), "format 99"),
        (lambda p: rewritten(p, lambda h: h["config"]["method"].update(warp=1)), "no field warp"),
        (lambda p: rewritten(p, lambda h: h["config"]["networks"].update(sub=[16] * 5)), "do not fit"),
        (lambda p: rewritten(p, lambda h: h["config"].update(contrasts=["t1", "t2", "flair"])), "do not fit"),
    ],
)
def test_what_is_not_ours_is_refused_with_its_name(path: Path, spoil: Callable[[Path], Any], told: str) -> None:
    spoil(path)
    with pytest.raises(InputError) as caught:
        load(path)
    (fault,) = caught.value.faults
    assert fault.where == str(path) and told in fault.found and "\n" not in str(fault)


def test_older_weights_draw_as_they_did(path: Path) -> None:
    def before(held: dict[str, Any]) -> None:
        held.update(version="5")
        del held["config"]["method"]["stop_at_fluid"]

    assert load(path).config.method.stop_at_fluid and not load(rewritten(path, before)).config.method.stop_at_fluid


def test_weights_from_before_anatomy_was_kept_keep_none(path: Path) -> None:
    def before(held: dict[str, Any]) -> None:
        held.update(version="18")
        del held["config"]["method"]["anatomy"]

    assert load(path).config.method.anatomy > 0
    assert load(rewritten(path, before)).config.method.anatomy == 0


def test_a_folder_is_not_a_weight_file(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load(tmp_path)
