"""How cost grows: with the lesion's area, with the image's size, with processes; and the peak memory of each verb.

    python benchmarks/bench_scaling.py [--weights glioma] [--rounds 3] [--only area image memory insert generate train]
                                       [--data slices.h5] [--scale tiny|small] [--scans 8]

area       f_sub and draw for a round lesion of 6 to 48 mm radius on one slice of 256 × 256: it should follow the window, which follows the lesion
image      the same lesion (12 mm) on slices of 128 to 512 pixels: it should not change
memory     peak resident size of a process that runs the verb, on built-in data; beside it a process that only imports torch (workers of `prepare`:
           bench_prepare.py)
insert     two single-threaded processes against one: `--workers 2`, three lesions in each of --scans phantoms. The written scans must be the same bytes
generate   the same (gloo, `--devices 2`) for a set on the training subjects of phantoms or of --data. It must be the same bytes
train      the same (gloo) for a training of all stages, of phantoms or of --data, in networks and batches of --scale. A process draws its batches in a thread
           beside the network's, so one keeps more than one core busy; how many is printed, for no more than two cores divided by that can be gained.
           Beside it two trainings that share nothing, each of half the batch: what the machine and the smaller batches leave for two to gain

For these three both cores should be idle; two processes gain 2.0 times at the most.

Data are made here. Seconds are the clock's and the processor's; medians, in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import timing
import torch

from pathosyn.checkpoint import Loaded, load
from pathosyn.config import scaled
from pathosyn.data.masks import blend_map
from pathosyn.data.phantom import make_phantoms
from pathosyn.scan import volume
from pathosyn.weights import find

SPACING = (5.0, 1.0, 1.0)
PARTS = ("area", "image", "memory", "insert", "generate", "train")
TOOL = str(Path(sys.executable).with_name("pathosyn"))


def target(loaded: Loaded, side: int, radius: float) -> volume.Target:
    """One slice of noise with a round lesion in its middle."""
    y, x = np.mgrid[:side, :side] - side / 2
    m = ((y**2 + x**2) <= radius**2)[None]
    scan = np.random.default_rng(0).normal(size=(1, len(loaded.config.contrasts), side, side)).astype(np.float32)
    blend = blend_map(m, SPACING, loaded.config.geometry)
    return volume.Target.of(loaded.method, scan, m, blend, np.ones(scan.shape[1], bool), 1.0)


def drawing(loaded: Loaded, one: volume.Target) -> Callable[[], object]:
    """f_sub, then a draw, on a target."""
    cpu = torch.device("cpu")

    def run() -> object:
        x_sub = volume.substrate(loaded.method, one, device=cpu)
        noise = volume.noise_field(one, SPACING[0], loaded.config.method.noise_mm, 0)
        return volume.deviation(loaded.method, one, x_sub, noise, key=(0,), steps=None, device=cpu)

    return run


def grows(loaded: Loaded, title: str, targets: dict[str, volume.Target], rounds: int) -> None:
    """A row a target; ratios to the first."""
    spent = timing.alternated({name: drawing(loaded, one) for name, one in targets.items()}, rounds)
    first = next(iter(spent.values()))
    print(f"{title} | lesion pixels | window | seconds: clock, processor | ratio, processor")
    for name, one in targets.items():
        window = ", ".join(str(w.side) for w in one.windows)
        print(f"{name} | {int(one.m.sum())} | {window} | {spent[name].clock:.3f}, {spent[name].used:.3f} | {(spent[name] / first).used:.2f}")


PEAK = "\nprint('peak', *(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
"""Of the process since it began its program; what getrusage says holds its parent's size, too."""
VERB = "import sys\nfrom pathosyn.cli import main\nassert not main(sys.argv[1:])" + PEAK


def memory(scratch: Path) -> None:
    """A row a verb."""
    data, file, run = scratch / "phantoms", scratch / "s.h5", scratch / "run"
    subject = next(path for path in sorted(data.iterdir()) if path.is_dir())
    generated = [scratch / "g", scratch / "h"]
    flags = ["--threads", "1"]
    commands = {
        "check": ["check", str(data)],
        "prepare": ["prepare", str(data), "--out", str(file), "--fractions", ".5", ".5", "0"],
        "train, tiny, 20 steps": ["train", "--data", str(file), "--run", str(run), "--scale", "tiny", "--train.steps", "20", *flags],
        "insert": ["insert", str(subject), "--out", str(scratch / "i"), *flags],
        "heal": ["heal", str(subject), "--out", str(scratch / "i"), *flags],
        "generate": ["generate", "--data", str(file), "--out", str(generated[0]), "--purpose", "evaluate", *flags],
        "generate, to learn from": ["generate", "--data", str(file), "--out", str(generated[1]), "--purpose", "train", "--partition", "train", *flags],
    }
    print("verb | peak, MB")
    for name, program, command in [("import torch alone", "import torch" + PEAK, []), *((name, VERB, command) for name, command in commands.items())]:
        done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, check=True, text=True)
        print(f"{name} | {int(re.findall(r'^peak ([0-9]+)$', done.stdout, re.MULTILINE)[0]) / 1024:.0f}", flush=True)


def together(*commands: list[str]) -> None:
    """Run at the same time; fails where one does."""
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(said)


def written(folder: Path) -> dict[str, str]:
    """Every scan below `folder`: its name and its bytes' checksum."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.nii.gz"))}


def inserting_by_two(scratch: Path, rounds: int) -> None:
    """`insert` on many scans by two single-threaded processes and by one."""
    subjects = [str(path) for path in sorted((scratch / "phantoms").iterdir()) if path.is_dir()]
    number = iter(range(1000))
    places: dict[int, Path] = {}

    def inserting(workers: int) -> Callable[[], object]:
        def run() -> None:
            places[workers] = scratch / f"many-{next(number)}"
            together([TOOL, "insert", *subjects, "--out", str(places[workers]), "--replicates", "3", "--threads", "1", "--workers", str(workers)])

        return run

    runs = {"one": inserting(1), "two": inserting(2)}
    spent = timing.alternated(runs, rounds, warm=0)
    same = written(places[1]) == written(places[2])
    one, two = (spent[name].clock for name in ("one", "two"))
    print(f"insert, {len(subjects)} scans, 3 lesions each: one process {one:.1f} s, two {two:.1f} s: {one / two:.2f} times; same bytes: {same}")


def generating_by_two(scratch: Path, data: Path, rounds: int) -> None:
    """`generate` by two single-threaded processes and by one: with start-up, and beyond it by the difference of a large set and a small one."""
    number = iter(range(1000))
    made: dict[str, Path] = {}

    def generating(devices: int, per_subject: int) -> Callable[[], object]:
        def run() -> None:
            made[f"{devices} {per_subject}"] = out = scratch / f"set-{next(number)}"
            flags = ["--purpose", "train", "--per-subject", str(per_subject), "--devices", str(devices), "--threads", "1"]
            together([TOOL, "generate", "--data", str(data), "--out", str(out), *flags])

        return run

    few, many = 1, 8
    spent = timing.alternated({f"{devices} {count}": generating(devices, count) for devices in (1, 2) for count in (few, many)}, rounds, warm=0)
    windows = {count: len((made[f"1 {count}"] / "rows.csv").read_text().splitlines()) - 1 for count in (few, many)}
    same = all((made[f"1 {many}"] / name).read_bytes() == (made[f"2 {many}"] / name).read_bytes() for name in ("windows.h5", "rows.csv"))
    one, two = (spent[f"{devices} {many}"].clock for devices in (1, 2))
    print(f"generate, {windows[many]} windows with start-up: one process {one:.1f} s, two {two:.1f} s: {one / two:.2f} times; same bytes: {same}")
    rate = [(windows[many] - windows[few]) / (spent[f"{devices} {many}"].clock - spent[f"{devices} {few}"].clock) for devices in (1, 2)]
    print(f"generate, windows a second beyond it: one process {rate[0]:.2f}, two {rate[1]:.2f}: {rate[1] / rate[0]:.2f} times")


def training_by_two(scratch: Path, data: Path, scale: Literal["tiny", "small"], rounds: int) -> None:
    """Training by two single-threaded processes and by one."""
    number, pixels = iter(range(1000)), scaled(scale)[1].batch_pixels
    processor: dict[int, list[float]] = {}

    def training(way: str, steps: int) -> Callable[[], object]:
        devices, apart = (1, 2) if way == "apart" else (int(way), 1)

        def run() -> None:
            flags = ["--scale", scale, "--threads", "1", "--device", "cpu", "--train.devices", str(devices), "--train.substrate-share", "0.2"]
            flags += ["--train.validate-every", "100000", "--train.steps", str(steps), "--train.batch-pixels", str(pixels // apart)]
            before = timing.ended()
            together(*([TOOL, "train", "--data", str(data), "--run", str(scratch / f"run-{next(number)}"), *flags] for _ in range(apart)))
            if way == "1":
                processor.setdefault(steps, []).append(timing.ended() - before)

        return run

    few, many = (60, 260) if scale == "tiny" else (20, 70)
    spent = timing.alternated({f"{way} {n}": training(way, n) for way in ("1", "2", "apart") for n in (few, many)}, rounds, warm=0)
    first = {way: spent[f"{way} {few}"].clock for way in ("1", "2", "apart")}
    rate = {way: (many - few) / (spent[f"{way} {many}"].clock - first[way]) for way in first}
    print(f"train ({scale}), {few} steps with start-up: one process {first['1']:.1f} s, two {first['2']:.1f} s: {first['1'] / first['2']:.2f} times")
    # Of one process only: the second one of two is not this one's to wait for, so its seconds are not known here.
    busy = (median(processor[few]) - median(processor[many])) / (first["1"] - spent[f"1 {many}"].clock)
    print(f"train ({scale}), steps a second beyond them: one process {rate['1']:.2f}, two {rate['2']:.2f}: {rate['2'] / rate['1']:.2f} times")
    print(f"train ({scale}), two that share nothing, half the batch each: {rate['apart']:.2f}: {rate['apart'] / rate['1']:.2f} times")
    print(f"train ({scale}), cores that the one process kept busy meanwhile: {busy:.2f}")


def main() -> None:
    """What `--only` names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None, help="slices to train and draw on, in place of phantoms'")
    parser.add_argument("--scans", type=int, default=8, help="phantoms to insert into")
    parser.add_argument("--scale", choices=("tiny", "small"), default="tiny", help="networks and batches of the training")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load(find(given.weights))
    print(timing.machine())
    if "area" in given.only:
        grows(loaded, "radius, mm", {str(radius): target(loaded, 256, radius) for radius in (6, 12, 18, 24, 36, 48)}, given.rounds)
    if "image" in given.only:
        grows(loaded, "image, pixels", {str(side): target(loaded, side, 12) for side in (128, 192, 256, 384, 512)}, given.rounds)
    if {"memory", "insert", "generate", "train"} & set(given.only):
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            make_phantoms(scratch / "phantoms", subjects=given.scans, seed=0)
            if "memory" in given.only:
                memory(scratch)
            if "insert" in given.only:
                inserting_by_two(scratch, given.rounds)
            made = scratch / "s.h5"
            if {"generate", "train"} & set(given.only) and given.data is None and not made.exists():
                together([TOOL, "prepare", str(scratch / "phantoms"), "--out", str(made), "--fractions", ".5", ".5", "0"])
            if "generate" in given.only:
                generating_by_two(scratch, given.data or made, given.rounds)
            if "train" in given.only:
                training_by_two(scratch, given.data or made, given.scale, given.rounds)


if __name__ == "__main__":
    main()
