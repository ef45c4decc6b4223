"""Windows a second in sampling and training on a GPU: our network as it can run there, against a plain PyTorch loop with the same network.

    python benchmarks/bench_gpu.py [--weights glioma] [--scale small|full] [--device cuda] [--windows 64] [--side 128] [--rounds 10]

plain     32 bit, contiguous, one window after the other in sampling; in training the same batch as ours
ours      bf16 autocast, channels_last, all windows in one batch; then the same through `torch.compile` (whose first call is not counted), and, in sampling,
          replayed as a CUDA graph
ceiling   every convolution and linear layer of the network alone, on the shapes that it sees, each in the better of two memory formats, in bf16; the sum of
          their times is the least that these layers can take one by one, and the share is that sum over the time of the whole call
Peak memory is the allocator's. Medians, all ways in turn. Ready for one command on a GPU; with --device cpu it runs the same ways, small, to be sure that it
runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext

import timing
import torch
from torch import Tensor, nn

from pathosyn.checkpoint import load
from pathosyn.config import Config, default, scaled
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.weights import find

Run = Callable[[], object]


def networks(given: argparse.Namespace) -> PathoSyn:
    """The shipped weights, or fresh ones of a larger scale."""
    if given.scale == "small":
        return load(find(given.weights), device=given.device).method
    sizes, train = scaled("full")
    return PathoSyn(Config(method=default(), networks=sizes, train=train)).to(given.device).eval().requires_grad_(False)


def inputs(method: PathoSyn, windows: int, side: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """r_t, what eps_theta sees beside it, and t, at full resolution."""
    contrasts = len(method.config.contrasts)
    seen = method.eps.net.conv_in.conv.in_channels - contrasts
    g = torch.Generator().manual_seed(0)
    r, condition = (torch.randn(windows, channels, side, side, generator=g).to(device) for channels in (contrasts, seen))
    return r, condition, torch.full((windows,), 60, device=device)


def half(device: str) -> torch.autocast:
    """bf16."""
    return torch.autocast(device, torch.bfloat16)


def graph(call: Run, device: str) -> Run | None:
    """The call captured as a CUDA graph; None without CUDA."""
    if device != "cuda":
        return None
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        call()
    return captured.replay


def sampling(method: PathoSyn, given: argparse.Namespace) -> dict[str, Run]:
    """One call of eps_theta on all windows."""
    r, condition, t = inputs(method, given.windows, given.side, given.device)
    quick = [field.to(memory_format=torch.channels_last) for field in (r, condition)]
    plain, ours = method.eps, network_like(method).to(given.device, memory_format=torch.channels_last)

    def batch(network: nn.Module) -> Run:
        def run() -> object:
            with half(given.device):
                return network(*quick, t)

        return run

    ways: dict[str, Run | None] = {
        "plain": lambda: [plain(r[i : i + 1], condition[i : i + 1], t[i : i + 1]) for i in range(len(r))],
        "ours": batch(ours),
        "ours, compiled": batch(torch.compile(ours)) if given.compile else None,
        "ours, as a CUDA graph": graph(batch(ours), given.device),
    }
    return {name: run for name, run in ways.items() if run is not None}


def network_like(method: PathoSyn) -> nn.Module:
    """A second eps_theta of the same sizes: cost does not depend on the weights."""
    return PathoSyn(method.config).eps.eval().requires_grad_(False)


def training(method: PathoSyn, given: argparse.Namespace) -> dict[str, Run]:
    """One optimiser step of eps_theta on all windows, by a squared error."""
    r, condition, t = inputs(method, given.windows, given.side, given.device)

    def step(*, quick: bool, compiled: bool) -> Run:
        form = torch.channels_last if quick else torch.contiguous_format
        network = network_like(method).to(given.device, memory_format=form).train().requires_grad_(True)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=quick and given.device == "cuda")
        shown = [field.to(memory_format=form) for field in (r, condition)]
        call = torch.compile(network) if compiled else network

        def run() -> object:
            with half(given.device) if quick else nullcontext():
                loss = (call(*shown, t).float() - r).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss

        return run

    ways = {"plain": step(quick=False, compiled=False), "ours": step(quick=True, compiled=False)}
    return ways | ({"ours, compiled": step(quick=True, compiled=True)} if given.compile else {})


def layers(method: PathoSyn, given: argparse.Namespace) -> float:
    """Seconds of all convolutions and linear layers of eps_theta, one by one, each at its better format."""
    network, seen = network_like(method).to(given.device), []
    hooks = [
        layer.register_forward_hook(lambda layer, x, _: seen.append((layer, x[0].detach().clone())))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        network(*inputs(method, given.windows, given.side, given.device))
    for hook in hooks:
        hook.remove()
    total = 0.0
    for layer, x in seen:
        runs: dict[str, Run] = {}
        for name, form in (("rows", torch.contiguous_format), ("channels", torch.channels_last)):
            if x.ndim == 4:
                inside = layer.to(memory_format=form, dtype=torch.bfloat16), x.to(torch.bfloat16, memory_format=form)
            else:
                inside = layer.to(torch.bfloat16), x.to(torch.bfloat16)
            runs[name] = lambda inside=inside: inside[0](inside[1])
        with torch.no_grad():
            total += min(spent.clock for spent in timing.alternated(runs, given.rounds).values())
    return total


def main() -> None:
    """Sampling, training, and the share of the ceiling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--scale", choices=("small", "full"), default="small")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--windows", type=int, default=64 if torch.cuda.is_available() else 2)
    parser.add_argument("--side", type=int, default=128 if torch.cuda.is_available() else 64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    given = parser.parse_args()
    method = networks(given)
    name = torch.cuda.get_device_name() if given.device == "cuda" else "no GPU: to see that it runs, no figure of a GPU"
    print(timing.machine(), f"\n{name}; {given.scale} networks, {given.windows} windows of {given.side} pixels")
    print("what | way | windows a second | ratio to plain | peak memory, MB")
    for what, make in (("sampling, one call", sampling), ("training, one step", training)):
        with torch.inference_mode(what.startswith("sampling")):
            runs = make(method, given)
            spent = timing.alternated(runs, given.rounds, warm=3)
            for way, run in runs.items():
                peak = peak_memory(run, given.device)
                print(f"{what} | {way} | {given.windows / spent[way].clock:.1f} | {spent['plain'].clock / spent[way].clock:.2f} | {peak}", flush=True)
        if what.startswith("sampling"):
            best = min(one.clock for way, one in spent.items() if way != "plain")
    alone = layers(method, given)
    print(f"layers one by one {alone:.4f} s, the best whole call {best:.4f} s: {alone / best:.0%} of the per-layer ceiling")


def peak_memory(run: Run, device: str) -> str:
    """Of one call."""
    if device != "cuda":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return f"{torch.cuda.max_memory_allocated() / 1e6:.0f}"


if __name__ == "__main__":
    main()
