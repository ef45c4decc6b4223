"""What runs the networks when lesions are drawn or taken out: torch, or onnxruntime, which needs less time for the same 32-bit sums on a CPU.

onnxruntime keeps its tensors in the blocks that its convolutions read, from the first layer to the last; torch brings them there and back at each.
docs/decisions.md has the figures, and those of what was left out.
"""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from pathosyn.errors import refuse
from pathosyn.types import Backend

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn

BACKENDS = get_args(Backend)
PACKAGES = {"onnxruntime": ("onnxruntime", "onnx")}
"""What the extra of a backend's name installs; onnx is what torch writes a network with."""
TOLERANCE = 1e-4
"""How far apart two backends' outputs of one network may lie, relative to the largest value (measured: below 1e-5): the order of sums differs."""
EXAMPLE_SIDE, OPSET = 32, 18
"""What a network is traced with. The side is not kept: batch, height and width stay open."""


def check(backend: str, device: str) -> None:
    """InputError for a backend that there is not, that is not installed, or that has no `device` ("cpu", "cuda", "auto")."""
    if backend not in BACKENDS:
        raise refuse("--backend", found=f"'{backend}'", expected=f"one of {', '.join(BACKENDS)}", remedy="choose one of these")
    if backend == "torch":
        return
    if device.startswith("cuda"):
        remedy = "use --device cpu, or leave --backend out"
        raise refuse("--backend", found=f"{backend} with --device {device}", expected="a CPU: this backend has no other device", remedy=remedy)
    if absent := [package for package in PACKAGES[backend] if find_spec(package) is None]:
        remedy = f"run pip install 'pathosyn[{backend}]', or leave --backend out"
        expected = f"the packages {' and '.join(PACKAGES[backend])}"
        raise refuse("--backend", found=f"{backend} without {' and '.join(absent)}, not installed here", expected=expected, remedy=remedy)


def use(method: PathoSyn, backend: Backend) -> None:
    """Let `backend` run the networks of `method` from now on. Each is translated at its first call, once: what is never called costs nothing."""
    if backend == "onnxruntime":
        # of f_sub the U-Net alone: its filling of the hole depends on what the hole holds
        for network in (method.sub, method.eps, method.coarse, method.student):
            if network is not None:
                network.net = OnnxNetwork(network.net)


class OnnxNetwork(nn.Module):
    """A network as onnxruntime runs it: the same inputs and outputs, float32, any batch, height and width that the network itself takes.

    CPU threads: as many as torch has at the first call. No gradients."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.session: Any = None

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """x (B, C, H, W); t (B,) for networks that are told the time."""
        if self.session is None:
            self.session = _session(self.network, channels=x.shape[1], timed=t is not None)
        given = {"x": x.float().contiguous().numpy()} if t is None else {"x": x.float().contiguous().numpy(), "t": t.contiguous().numpy()}
        return torch.from_numpy(self.session.run(None, given)[0])


def _session(network: nn.Module, *, channels: int, timed: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait for the next network by spinning would take the cores from torch, which works between the calls.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(_translated(network, channels=channels, timed=timed), options, providers=["CPUExecutionProvider"])


def _translated(network: nn.Module, *, channels: int, timed: bool) -> bytes:
    """The network as ONNX. By torch's older exporter: the newer one needs a further package."""
    example = (torch.zeros(2, channels, EXAMPLE_SIDE, EXAMPLE_SIDE), *([torch.ones(2, dtype=torch.long)] if timed else []))
    open_axes = {"x": {0: "batch", 2: "height", 3: "width"}, "t": {0: "batch"}}
    names = ["x", "t"][: len(example)]
    file = io.BytesIO()
    # A draw is in inference mode, and on some processors in bf16: neither may be traced.
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")  # that the exporter is the older one, and that constants of a shape are constants
        axes = {name: open_axes[name] for name in names}
        torch.onnx.export(network, example, file, dynamo=False, input_names=names, dynamic_axes=axes, opset_version=OPSET)  # type: ignore[arg-type]
    return file.getvalue()
