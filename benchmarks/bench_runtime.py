"""How fast the three networks run on this CPU, in each backend, beside what their own layers reach one by one.

    python benchmarks/bench_runtime.py [--weights glioma] [--threads 1 2] [--windows 64x8 128x1 128x8] [--repeats 3]

Ceiling: every convolution, linear layer and attention block of a network is timed alone on the input that it really gets, contiguous and channels last
(and in onnxruntime, where that is installed), the fastest of these is taken, and these are summed: a whole call that cost nothing between its layers
would take as long. `share` is that sum over the seconds of the whole call. A draw is f_sub once, the network of coarse forms at each step and eps_theta
once, with all that `fill` and `draw` do around them; its ceiling is the sum of those networks' ceilings.

What is compared takes turns, after one call that does not count, and medians are given. With one thread seconds are the processor's own, so that other
programs on the machine count little; with more they are the clock's. Inputs are random, weights the shipped ones.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pathosyn.backends import OnnxNetwork
from pathosyn.checkpoint import load
from pathosyn.decomposition import feather
from pathosyn.errors import InputError
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import LesionBatch
from pathosyn.weights import find

CASES = ("64x8", "128x1", "128x8")
"""Side and number of windows."""
FORMS = ("coarse", "student")
DRAWN = (128, 8)
"""Of a whole draw."""
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
ATTENTION = "SABlock"


@dataclass(frozen=True)
class Measured:
    """Seconds of whole calls by backend, of the layers one by one, and GFLOP in a call; GFLOP/s of the fastest layer."""

    whole: dict[str, float]
    layers: float
    work: float
    best: float


def alternated(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each; they take turns."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if turn:
                taken[name].append(clock() - start)
    return {name: median(each) for name, each in taken.items()}


def flops(call: Callable[[], object]) -> float:
    """GFLOP, a multiplication and an addition counted as two."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def layers_of(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[nn.Module, Tensor]]:
    """Each layer that computes, as often as it is called, with its input. An attention block is one layer, its own linear ones included."""
    found: list[tuple[nn.Module, Tensor]] = []
    blocks = [name for name, module in network.named_modules() if type(module).__name__ == ATTENTION]
    hooks = []
    for name, module in network.named_modules():
        within = any(name.startswith(f"{block}.") for block in blocks)
        if name in blocks or (isinstance(module, LAYERS) and not within):
            hooks.append(module.register_forward_hook(lambda layer, given, _: found.append((layer, given[0]))))
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return found


def ceiling(network: nn.Module, inputs: tuple[Tensor, ...], others: bool, repeats: int) -> tuple[float, float]:
    """Seconds of the layers at the best setting of each, and GFLOP/s of the fastest."""
    total, best = 0.0, 0.0
    for layer, x in layers_of(network, inputs):
        plain, last = deepcopy(layer).to(memory_format=torch.contiguous_format), deepcopy(layer).to(memory_format=torch.channels_last)
        x, x_last = x.contiguous(), x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        calls: dict[str, Callable[[], object]] = {"contiguous": lambda f=plain, x=x: f(x), "last": lambda f=last, x=x_last: f(x)}
        if others and isinstance(layer, nn.Conv2d):
            onnx = OnnxNetwork(layer)
            calls["onnxruntime"] = lambda f=onnx, x=x: f(x)
        seconds = min(alternated(calls, repeats).values())
        total, best = total + seconds, max(best, flops(lambda f=plain, x=x: f(x)) / seconds)
    return total, best


def inputs_of(network: nn.Module, side: int, count: int, *, coarse: int, timed: bool) -> tuple[Tensor, ...]:
    """Random windows, and times where the network is told them."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    x = torch.randn(count, first.in_channels, side // coarse, side // coarse)
    return (x, torch.full((count,), 60)) if timed else (x,)


def measured(methods: dict[str, PathoSyn], name: str, side: int, count: int, repeats: int) -> Measured:
    """One network on one size of batch."""
    network = getattr(methods["torch"], name).net
    coarse = methods["torch"].config.method.coarse if name in FORMS else 1
    given = inputs_of(network, side, count, coarse=coarse, timed=name != "sub")
    networks = {backend: getattr(method, name).net for backend, method in methods.items()}
    calls = {backend: lambda f=each: f(*given) for backend, each in networks.items()}
    layers, best = ceiling(network, given, "onnxruntime" in methods, repeats)
    return Measured(alternated(calls, repeats), layers, flops(lambda: network(*given)), best)


def windows(method: PathoSyn, side: int, count: int) -> LesionBatch:
    """Random windows with a round lesion of a quarter of their side across."""
    contrasts, geometry = len(method.config.contrasts), method.config.geometry
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    distance = (((y - side / 2) ** 2 + (x - side / 2) ** 2).float().sqrt() - side / 8).clip(min=0).expand(count, 1, side, side)
    scan, known = torch.randn(count, contrasts, side, side), torch.ones(count, contrasts, dtype=torch.bool)
    blend = feather(distance, grow_mm=geometry.grow_mm, feather_mm=geometry.feather_mm)
    return LesionBatch(scan, (distance == 0).float(), blend, scan, known, torch.zeros(count, dtype=torch.bool), ["s"] * count, list(range(count)))


def drawn(methods: dict[str, PathoSyn], repeats: int) -> dict[str, float]:
    """Seconds of f_sub and a draw in each backend."""
    batch, noise = windows(methods["torch"], *DRAWN), {}

    def field(k: int) -> Tensor:
        return noise.setdefault(k, torch.randn_like(batch.x))

    return alternated({name: lambda m=method: m.draw(batch, m.fill(batch), field, look=m.look(batch, 0)) for name, method in methods.items()}, repeats)


def loaded(weights: str) -> dict[str, PathoSyn]:
    """The method by backend: torch as it comes, contiguous, and onnxruntime where it is installed."""
    plain = load(find(weights)).method.to(memory_format=torch.contiguous_format)
    methods = {"torch contiguous": plain, "torch": load(find(weights)).method}
    try:
        return methods | {"onnxruntime": load(find(weights), backend="onnxruntime").method}
    except InputError:
        print("onnxruntime: not installed")
        return methods


def row(what: str, whole: dict[str, float], layers: float, work: float) -> str:
    """One line of the table."""
    cells = [f"{seconds:7.3f} s {work / seconds:5.1f} {layers / seconds:6.0%}" for seconds in whole.values()]
    return f"{what:22s} {work:8.2f} {layers:8.3f} s {work / layers:5.1f} | " + " | ".join(cells)


def main() -> None:
    """One table a number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="glioma")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--windows", nargs="+", default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.manual_seed(0)
    cores = len(os.sched_getaffinity(0))
    for threads in given.threads:
        if threads > cores:
            print(f"{threads} threads: not measured, this process may use {cores} core(s)")
            continue
        torch.set_num_threads(threads)
        with torch.inference_mode():
            table(loaded(given.weights), threads, [tuple(map(int, case.split("x"))) for case in given.windows], given.repeats)


def table(methods: dict[str, PathoSyn], threads: int, cases: list[tuple[int, ...]], repeats: int) -> None:
    """Each network at each size, then a draw."""
    a, b = torch.randn(2, 2048, 2048)
    product = alternated({"product": lambda: a @ b}, repeats)["product"]
    print(f"{threads} thread(s); product of two 2048 × 2048 matrices: {2 * 2048**3 / product / 1e9:.1f} GFLOP/s")
    print("network, windows         GFLOP   layers alone GFLOP/s | " + " | ".join(f"{name}: s, GFLOP/s, share" for name in methods))
    best, of_draw, work = 0.0, 0.0, 0.0
    steps = methods["torch"].calls()
    for name in ("sub", "eps", "student" if methods["torch"].one_call else "coarse"):
        for side, count in cases:
            found = measured(methods, name, side, count, repeats)
            best = max(best, found.best)
            print(row(f"{name:6s} {side:3d} × {side:3d} × {count:2d}", found.whole, found.layers, found.work), flush=True)
            if (side, count) == DRAWN:
                times = steps if name in FORMS else 1
                of_draw, work = of_draw + times * found.layers, work + times * found.work
    if of_draw:
        print(row(f"a draw {DRAWN[0]:3d} × {DRAWN[0]:3d} × {DRAWN[1]:2d}", drawn(methods, repeats), of_draw, work))
    print(f"fastest single layer: {best:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
