"""How close `prepare` is to the floor: the same files loaded by two processes and the same bytes written.

    python benchmarks/bench_prepare.py [DIR… (../shared/data/tcga_lgg beside the repository, else phantoms)] [--rounds 3] [--split FILE.csv]

Floor   two processes read every file of every subject with nibabel (voxels as stored, decompressed), then the number of bytes of the finished slices file is
        written once and closed. Nothing is computed, nothing is handed between processes.
Prepare the command itself, two workers, Inp as configured.

The two alternate, `--rounds` times each, in fresh files; medians are printed. Inp is a separate, optional cost (a sparse solve a slice): its share is measured
by a third run that leaves it out, and the ratio to the floor is given with and without it. Beside the seconds on the clock, which a busy machine
lengthens, stands the processors' time of all processes; its ratio holds on a busy machine too.
Peak memory is the largest resident size of one process (workers and writer separately), from the operating system.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pathosyn.data import scene
from pathosyn.data.phantom import make_phantoms
from pathosyn.data.prepare import Summary, prepare
from pathosyn.data.subjects import find_subjects

WORKERS = 2


def load(paths: list[Path]) -> int:
    """Bytes of voxels in these files, each read whole, unscaled."""
    proxies: list[Any] = [nib.Nifti1Image.from_filename(path).dataobj for path in paths]
    return sum(np.asanyarray(proxy.get_unscaled()).nbytes for proxy in proxies)


class Spent:
    """Seconds on the clock and of the processors (this process and those that it has ended) since it was made."""

    def __init__(self) -> None:
        self.clock, self.used = time.perf_counter(), self._used()

    @staticmethod
    def _used() -> float:
        return sum(os.times()[:4])

    def __call__(self) -> tuple[float, float]:
        return time.perf_counter() - self.clock, self._used() - self.used


def floor(roots: list[Path], out: Path, size: int) -> tuple[float, float]:
    """Time to load all files with two processes and to write `size` bytes."""
    subjects = [[*files.images.values(), *([files.seg] if files.seg else [])] for root in roots for files in find_subjects(root)]
    block = np.random.default_rng(0).bytes(1 << 24)
    spent = Spent()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("fork")) as pool:
        sum(pool.map(load, subjects))
    with out.open("wb") as file:
        for left in range(size, 0, -len(block)):
            file.write(block[:left])
    return spent()


def run(roots: list[Path], out: Path, split: Path | None, *, fill: bool) -> tuple[tuple[float, float], Summary]:
    """Time of one `prepare`, and what it wrote; without `fill`, Inp is left out."""
    original = scene.fill
    if not fill:
        scene.fill = lambda kind, image, hole: image  # forked workers inherit it
    try:
        spent = Spent()
        summary = prepare(roots, out, split=split, workers=WORKERS, progress=False)
        return spent(), summary
    finally:
        scene.fill = original


def peaks(arguments: argparse.Namespace) -> tuple[float, float]:
    """Peak resident MB of the writer and of the largest worker, in a process of its own."""
    command = [sys.executable, __file__, *map(str, arguments.roots), "--peak", *(["--split", str(arguments.split)] if arguments.split else [])]
    own, workers = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(own), float(workers)


def measure_peak(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments.roots, Path(folder) / "s.h5", split=arguments.split, workers=WORKERS, progress=False)
    kilobytes = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(*(value / 1024 for value in kilobytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("roots", nargs="*", type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        measure_peak(arguments)
        return
    with tempfile.TemporaryDirectory() as phantoms:
        arguments.roots = arguments.roots or [default_root(Path(phantoms))]
        report(arguments)


def default_root(spare: Path) -> Path:
    """The real scans beside the repository, or twelve phantoms."""
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "tcga_lgg"
    if not real.is_dir():
        make_phantoms(spare / "phantoms", subjects=12, seed=0)
        return spare / "phantoms"
    return real


def report(arguments: argparse.Namespace) -> None:
    times: dict[str, list[tuple[float, float]]] = {"floor": [], "prepare": [], "without Inp": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        _, summary = run(arguments.roots, out / "warm.h5", arguments.split, fill=True)  # files into the page cache, and the size to write
        (out / "warm.h5").unlink()
        for number in range(arguments.rounds):
            times["floor"].append(floor(arguments.roots, out / "floor", summary.bytes))
            (out / "floor").unlink()
            for name, fill in (("prepare", True), ("without Inp", False)):
                path = out / f"{number}-{fill}.h5"
                spent, _ = run(arguments.roots, path, arguments.split, fill=fill)
                times[name].append(spent)
                path.unlink()
    base = np.median(times["floor"], axis=0)
    print(f"{summary.subjects} subjects, {summary.slices} slices, {summary.bytes / 1e6:.0f} MB written, load {os.getloadavg()[0]:.1f} at the end")
    for name, values in times.items():
        clock, used = np.median(values, axis=0)
        rounds = ", ".join(f"{value[0]:.1f}" for value in values)
        print(
            f"{name:12s} {clock:6.2f} s ({rounds})  {summary.slices / clock:5.0f} slices/s  {clock / base[0]:5.2f} x floor"
            f"  | processors {used:6.2f} s  {used / base[1]:5.2f} x floor"
        )
    own, workers = peaks(arguments)
    print(f"peak memory  writer {own:.0f} MB, largest worker {workers:.0f} MB")


if __name__ == "__main__":
    main()
