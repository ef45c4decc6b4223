"""Drawing a lesion on a slice: our draw against the alternatives, on the same lesions and the same machine.

    python benchmarks/bench_sampling.py [--data slices.h5] [--weights glioma] [--windows 6] [--rounds 3] [--threads 1]

ours      the method of the weights on the lesion's window: its calls on the coarse grid, one at full resolution, and all that surrounds them
window    (a) a diffusion on pixels by a network of the same widths on the same window, 50 DDIM calls
image     (b) the same on the whole slice, 50 DDIM calls
RePaint   (c) the same network on the whole slice by RePaint's published settings (Lugmayr et al. 2022: 250 times, jumps of 10, 10 passes: 2,410 calls)
LeFusion  (d) the same network on a crop of one size that holds nine lesions of ten, by LeFusion's scheme (Zhang et al. 2024: 300 times, jumps of 2, 2 passes)

f_sub runs once in ours, (a) and (b), and is part of their time; (c) and (d) have none, and keep what lies outside the mask by noising it in every call, whose
time is not counted. (c) and (d) are timed for `--few` calls and multiplied. Every network has the widths of the weights, so their own, larger ones would be
slower still. The weights of (a) to (d) are fresh: cost does not depend on them; what quality costs, quality_steps.py and quality_ablations.py say.

`operations` is the part of a ratio that is arithmetic (fewer pixels, fewer calls), counted in the convolutions and products; what is left of the ratio of
seconds is engineering: below 1 it says what ours loses beside its networks. Without --data, phantoms are made and prepared.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import timing
import torch
from torch.nn.functional import pad

from pathosyn.checkpoint import load
from pathosyn.data.phantom import make_phantoms
from pathosyn.data.prepare import prepare
from pathosyn.data.slices import Slices
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Image, LesionBatch
from pathosyn.weights import find

STRIDE = 32


@dataclass(frozen=True)
class Way:
    """One way to draw: what is timed, how many times that is in a whole draw, and over how many pixels a full-resolution call goes."""

    run: Callable[[], object]
    times: float
    pixels: int


def resampled_calls(times: int, jump: int, passes: int) -> int:
    """Calls of the network in RePaint's walk over `times` noise levels, which at every `jump`-th level but the first goes back by `jump` and comes
    again, `passes` - 1 times. (Its published count, 4,570 for 250, 10, 10, is of all moves: the 2,160 ways back need no network.)"""
    return times + len(range(0, times - jump, jump)) * (passes - 1) * jump


REPAINT, LEFUSION = resampled_calls(250, 10, 10), resampled_calls(300, 2, 2)


def on_pixels(method: PathoSyn) -> PathoSyn:
    """A diffusion of r_0 on pixels by networks of the same widths, 50 DDIM calls."""
    plain = replace(method.config.method, coarse=1, steps=50, roughness=False, appearance=False, hold=False, gather=False, solver="ddim", eta=0.0)
    return PathoSyn(replace(method.config, method=plain)).eval().requires_grad_(False)


def enlarged(batch: LesionBatch, side: int) -> LesionBatch:
    """The same lesion in a window of `side` pixels, 0 around it."""
    more = side - batch.x.shape[-1]

    def image(field: Image) -> Image:
        return pad(field, (0, more, 0, more)) if more >= 0 else field[..., :side, :side].contiguous()

    return replace(batch, x=image(batch.x), x_ph=image(batch.x_ph), m=image(batch.m), S=image(batch.S))


def draw(method: PathoSyn, batch: LesionBatch) -> Image:
    """f_sub and the whole draw."""
    parts = method.parts(batch)
    x_sub = method.substrate(batch.x, parts.support, parts.known)
    noise = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0))
    return method.draw(batch, x_sub, lambda _: noise, look=method.look(batch, 0))


def calls(method: PathoSyn, batch: LesionBatch, few: int) -> Callable[[], object]:
    """`few` calls of eps_theta on the batch."""
    parts = method.parts(batch)
    shown = method.condition(batch.x, batch.x, batch.m, parts)
    seen = torch.cat([shown, batch.x], dim=1) if method.config.method.grain else shown
    t = torch.full((len(batch),), 500)
    return lambda: [method.eps(batch.x, seen, t) for _ in range(few)]


def ways(method: PathoSyn, plain: PathoSyn, batch: LesionBatch, whole: int, crop: int, few: int) -> dict[str, Way]:
    """What is compared on one lesion."""
    image, fixed, own = enlarged(batch, whole), enlarged(batch, crop), batch.x.shape[-1] ** 2
    return {
        "ours": Way(lambda: draw(method, batch), 1.0, own),
        "(a) window, 50 DDIM": Way(lambda: draw(plain, batch), 1.0, own),
        "(b) image, 50 DDIM": Way(lambda: draw(plain, image), 1.0, whole**2),
        "(c) image, RePaint": Way(calls(plain, image, few), REPAINT / few, whole**2),
        "(d) crop, LeFusion": Way(calls(plain, fixed, few), LEFUSION / few, crop**2),
    }


def main() -> None:
    """A row a lesion, then the medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--few", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        report(given, given.data or phantoms(Path(scratch)))


def phantoms(folder: Path) -> Path:
    """A slices file of built-in data."""
    make_phantoms(folder / "phantoms", subjects=8, seed=0)
    prepare([folder / "phantoms"], folder / "s.h5", fractions=(0.25, 0.75, 0.0), progress=False)
    return folder / "s.h5"


@torch.inference_mode()
def report(given: argparse.Namespace, data: Path) -> None:
    method = load(find(given.weights)).method
    plain = on_pixels(method)
    slices = Slices(data, "validation", contrasts=method.config.contrasts, every=False)
    by_area = np.argsort(slices.windows["lesion_pixels"], kind="stable")
    rows = by_area[np.unique(np.linspace(0, len(by_area) - 1, given.windows).round().astype(int))]
    crop = int(np.quantile(slices.windows["side"], 0.9))
    print(timing.machine())
    print(f"{len(rows)} validation windows from the smallest lesion to the largest, crop {crop}")
    print(f"calls: ours {method.calls()} coarse + 1, (c) {REPAINT}, (d) {LEFUSION}")
    print("window | way | seconds a slice: clock, processor | ratio to ours: clock, processor | operations | pixels | engineering")
    found: dict[str, list[tuple[timing.Spent, float]]] = {}
    for row in rows:
        batch = slices.lesion([int(row)])
        number = int(slices.windows["subject"][row])
        whole = -(-max(slices.full[number]) // STRIDE) * STRIDE
        compared = ways(method, plain, batch, whole, crop, given.few)
        spent = {name: one * compared[name].times for name, one in timing.alternated({n: w.run for n, w in compared.items()}, given.rounds).items()}
        counted = {name: timing.operations(way.run) * way.times for name, way in compared.items()}
        for name, way in compared.items():
            ratio, arithmetic = spent[name] / spent["ours"], counted[name] / counted["ours"]
            found.setdefault(name, []).append((ratio, arithmetic))
            seconds = f"{spent[name].clock:.2f}, {spent[name].used:.2f} | {ratio.clock:.1f}, {ratio.used:.1f}"
            pixels = way.pixels / compared["ours"].pixels
            print(f"{batch.x.shape[-1]} | {name} | {seconds} | {arithmetic:.1f} | {pixels:.1f} | {ratio.used / arithmetic:.2f}", flush=True)
    print("medians of the ratios to ours: clock, processor, operations")
    for name, each in found.items():
        clock, used, arithmetic = (median(values) for values in zip(*((r.clock, r.used, a) for r, a in each), strict=True))
        print(f"{name} | {clock:.1f} | {used:.1f} | {arithmetic:.1f}")


if __name__ == "__main__":
    main()
