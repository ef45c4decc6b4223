"""Another backend gives what torch gives, is really the one that runs, and is refused with what to do where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pathosyn import backends
from pathosyn.checkpoint import Loaded, Provenance, load, opened, save_weights
from pathosyn.errors import InputError
from pathosyn.types import Controls

installed = pytest.mark.skipif(any(find_spec(name) is None for name in backends.PACKAGES["onnxruntime"]), reason="the extra onnxruntime is not installed")


@pytest.fixture
def path(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    tiny["default"].r_max.fill_(4.0)
    save_weights(tmp_path / "w.safetensors", tiny["default"], Provenance())
    return tmp_path / "w.safetensors"


def called(loaded: Loaded, count: int, side: int) -> list[torch.Tensor]:
    """What the three networks put out for random windows."""
    method, draw = loaded.method, torch.Generator().manual_seed(count + side)
    assert method.coarse is not None
    first = [getattr(network, "network", network) for network in (method.eps.net, method.coarse.net)]
    timed = [torch.randn(count, network.conv_in.conv.in_channels, side, side, generator=draw) for network in first]
    t = torch.arange(1, count + 1) * 7
    with torch.inference_mode():
        fill = method.sub.net(torch.randn(count, 5, side, side, generator=draw))
        return [fill, method.eps.net(timed[0], t), method.coarse.net(timed[1], t)]


@installed
@pytest.mark.parametrize("count, side", [(3, 64), (1, 32), (2, 96)])
def test_every_network_agrees_with_torch_for_any_side_and_batch(path: Path, count: int, side: int) -> None:
    ours, truth = (called(load(path, backend=backend), count, side) for backend in ("onnxruntime", "torch"))
    for mine, right in zip(ours, truth, strict=True):
        assert mine.shape == right.shape and mine.dtype == torch.float32
        assert (mine - right).abs().max() <= backends.TOLERANCE * right.abs().max()


@installed
def test_one_translation_serves_all_shapes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, translated = [], backends._translated
    monkeypatch.setattr(backends, "_translated", lambda *args, **fields: made.append(1) or translated(*args, **fields))
    loaded = load(path, backend="onnxruntime")
    assert made == []  # nothing before the first call: `heal` does not pay for the diffusion's networks
    called(loaded, 1, 32)
    called(loaded, 3, 64)
    assert len(made) == 3


@installed
def test_a_draw_agrees_with_torch_and_is_made_by_the_other_backend(path: Path, batch_of: Callable[..., Any]) -> None:
    batch = batch_of()
    right = load(path).method.synthesize(batch, controls=Controls(seed=3), steps=3)
    loaded = load(path, backend="onnxruntime")
    mine = loaded.method.synthesize(batch, controls=Controls(seed=3), steps=3)
    assert loaded.backend == "onnxruntime"
    assert all(network.net.session is not None for network in (loaded.method.sub, loaded.method.eps, loaded.method.coarse))
    torch.testing.assert_close(mine.x_hat, right.x_hat, atol=1e-3, rtol=1e-3)
    for network in (loaded.method.sub, loaded.method.eps, loaded.method.coarse):
        network.net.session = _Zeros()
    assert not torch.allclose(loaded.method.synthesize(batch, controls=Controls(seed=3), steps=3).x_hat, right.x_hat, atol=1e-2)


class _Zeros:
    """A session whose networks put out nothing: a draw that does not change with it never asked."""

    def run(self, _: None, given: dict[str, Any]) -> list[Any]:
        import numpy as np

        batch, _channels, height, width = given["x"].shape
        several = 4 if height < 32 else 2  # the coarse form holds a mean and a roughness of each of two contrasts
        return [np.zeros((batch, several, height, width), np.float32)]


def test_without_the_extra_it_is_refused_with_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--backend: found onnxruntime without onnxruntime and onnx, .*pip install 'pathosyn\[onnxruntime\]'"):
        load(path, backend="onnxruntime")
    assert load(path).backend == "torch"


@pytest.mark.parametrize("backend, device, words", [("onnxruntime", "cuda", "--device cpu"), ("openvino", "cpu", "one of torch, onnxruntime")])
def test_what_cannot_run_is_refused(path: Path, backend: Any, device: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load(path, device=device, backend=backend)


def test_loaded_weights_do_not_change_their_backend_unseen(path: Path) -> None:
    loaded = load(path)
    assert opened(loaded, "cpu", None) is loaded and opened(loaded, "cpu", "torch") is loaded
    with pytest.raises(InputError, match="loaded for torch"):
        opened(loaded, "cpu", "onnxruntime")


def test_on_a_cpu_the_convolutions_are_channels_last(path: Path) -> None:
    kernels = [p for p in load(path).method.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
