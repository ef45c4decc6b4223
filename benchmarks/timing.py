"""What the benchmarks that measure speed share: A and B in turn, medians, operations counted, and what this machine can do at the most.

Two clocks. `clock` is what a user waits for, and a busy machine lengthens it. `used` is the time of the processors that this process got, which other work
disturbs far less; on one thread the two are the same on an idle machine. Ratios are given in both.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], object]


@dataclass(frozen=True)
class Spent:
    """Seconds."""

    clock: float
    used: float

    def __truediv__(self, other: Spent) -> Spent:
        return Spent(self.clock / other.clock, self.used / other.used)

    def __mul__(self, factor: float) -> Spent:
        return Spent(self.clock * factor, self.used * factor)


def once(run: Run) -> Spent:
    """One call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    clock, used = time.perf_counter(), time.process_time()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Spent(time.perf_counter() - clock, time.process_time() - used)


def ended() -> float:
    """Processor seconds of the processes that this one started and that have ended."""
    return sum(os.times()[2:4])


def alternated(runs: Mapping[str, Run], rounds: int, *, warm: int = 1) -> dict[str, Spent]:
    """Each run's medians over `rounds` rounds, in each of which every run has its turn; `warm` rounds before are not counted."""
    found: dict[str, list[Spent]] = {name: [] for name in runs}
    for number in range(-warm, rounds):
        for name, run in runs.items():
            spent = once(run)
            if number >= 0:
                found[name].append(spent)
    return {name: Spent(median(s.clock for s in each), median(s.used for s in each)) for name, each in found.items()}


def operations(run: Run) -> float:
    """Floating-point operations of the convolutions, matrix products and attentions in one call (a multiplication and an addition are two)."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def product(size: int = 1024) -> Run:
    """A matrix product of 2·size³ operations: near the most that these threads can do."""
    a, b = torch.randn(2, size, size)
    return lambda: a @ b


def machine() -> str:
    """One line that belongs above every table of seconds."""
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used, torch {torch.__version__}, {load}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
