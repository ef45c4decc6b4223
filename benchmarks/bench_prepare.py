"""How close `prepare` is to the floor: the same files loaded by two processes and the same bytes written.

    python benchmarks/bench_prepare.py [DIR… (../shared/data/tcga_lgg beside the repository, else phantoms)] [--rounds 3] [--split FILE.csv]

Floor   two processes read every file of every subject with nibabel (voxels as stored, decompressed), then the number of bytes of the finished slices file is
        written once and closed. Nothing is computed, nothing is handed between processes. nibabel inflates with zlib; prepare with isal where installed.
Prepare the command itself, two workers, Inp as configured.

The two alternate, `--rounds` times each, in fresh files; medians are printed. Inp is a separate, optional cost (a solve a slice): its share is measured
by a third run that leaves it out, and the ratio to the floor is given with and without it. Beside the seconds on the clock, which a busy machine
lengthens, stands the processors' time of all processes; its ratio holds on a busy machine too.
Inp's time a slice is measured apart, in one process, for each kind: on up to `--slices` slices with support, spread over the file that was written,
all contrasts of a slice at once.
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

import h5py
import nibabel as nib
import numpy as np

from pathosyn.data import scene
from pathosyn.data.inflate import GzipFile
from pathosyn.data.inpaint import KINDS, inpaint
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


def holes(path: Path, most: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Up to `most` slices with support, spread over a slices file: the image (C, H, W) float32 of the contrasts that are there, and the hole (H, W)."""
    found = []
    with h5py.File(path, "r") as file:
        where = []
        for name, group in file["subjects"].items():
            depth, _, height, width = group["image"].shape
            where += [(name, int(z)) for z in np.unique(group["support_index"][()] // (height * width))]
        for name, z in where[:: max(1, len(where) // most)][:most]:
            group = file["subjects"][name]
            depth, _, height, width = group["image"].shape
            support = np.zeros((depth, height, width), bool)
            support.reshape(-1)[group["support_index"][()]] = True
            found.append((group["image"][z][group.attrs["present"]].astype(np.float32), support[z].copy()))
    return found


def inp_times(slices: list[tuple[np.ndarray, np.ndarray]], rounds: int) -> dict[str, tuple[float, float]]:
    """Kind → mean and greatest milliseconds of the processor a slice; of each slice the median of its rounds, the kinds in turn."""
    used: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for image, hole in slices:
        spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            for kind in KINDS:
                start = time.process_time()
                inpaint(kind, image, hole)
                spent[kind].append(time.process_time() - start)
        for kind in KINDS:
            used[kind].append(spent[kind])
    medians = {kind: 1e3 * np.median(values, axis=1) for kind, values in used.items()}
    return {kind: (float(values.mean()), float(values.max())) for kind, values in medians.items()}


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
    parser.add_argument("--slices", type=int, default=200, help="slices on which Inp is timed")
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
        kept = (out / "warm.h5").rename(out / "kept.h5")
        for number in range(arguments.rounds):
            times["floor"].append(floor(arguments.roots, out / "floor", summary.bytes))
            (out / "floor").unlink()
            for name, fill in (("prepare", True), ("without Inp", False)):
                path = out / f"{number}-{fill}.h5"
                spent, _ = run(arguments.roots, path, arguments.split, fill=fill)
                times[name].append(spent)
                path.unlink()
        own, workers = peaks(arguments)  # before anything large is in memory here: a process inherits the peak of the one that starts it
        slices = holes(kept, arguments.slices)
    base = np.median(times["floor"], axis=0)
    print(f"prepare reads gzip with {GzipFile.__module__}; the floor reads it with nibabel, that is with Python's own gzip")
    print(f"{summary.subjects} subjects, {summary.slices} slices, {summary.bytes / 1e6:.0f} MB written, load {os.getloadavg()[0]:.1f} at the end")
    for name, values in times.items():
        clock, used = np.median(values, axis=0)
        rounds = ", ".join(f"{value[0]:.1f}" for value in values)
        print(
            f"{name:12s} {clock:6.2f} s ({rounds})  {summary.slices / clock:5.0f} slices/s  {clock / base[0]:5.2f} x floor"
            f"  | processors {used:6.2f} s  {used / base[1]:5.2f} x floor"
        )
    pixels = np.mean([hole.sum() for _, hole in slices])
    for kind, (mean, most) in inp_times(slices, arguments.rounds).items():
        print(f"Inp {kind:10s} {mean:5.2f} ms a slice, at most {most:.1f} ms  ({len(slices)} slices, {pixels:.0f} pixels of support on average)")
    print(f"peak memory  writer {own:.0f} MB, largest worker {workers:.0f} MB")


if __name__ == "__main__":
    main()
