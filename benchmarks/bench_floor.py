"""The floor of each verb, and what stands between: operations over what the processor can do, bytes over what it can move, and where the time goes.

    python benchmarks/bench_floor.py [SUBJECT_DIR (a BraTS subject beside the repository, else a phantom)] [--data slices.h5] [--weights glioma] [--rounds 3]
    [--threads 1]

Ceilings: operations a second of a large matrix product and of the best of a few 3×3 convolutions, bytes a second of a copy that does not fit the caches;
gzip's own speed is no ceiling of the machine, but it is what reading and writing .nii.gz costs, so it stands beside them (the subject's files, inflated and
deflated once, as the verbs do).
floor     counted operations of all networks (convolutions, products, attention) over the ceiling of products, plus bytes of the files inflated and deflated
measured  processor seconds of the verb, medians, all verbs in turn; then the share of each part of `insert`
`prepare` has its own (bench_prepare.py), and so have training (bench_train.py) and start-up (bench_start.py).
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timing
import torch
from bench_sampling import phantoms
from bench_start import default_subject

from pathosyn.checkpoint import Loaded, load
from pathosyn.data.subjects import find_subject
from pathosyn.generate import generate
from pathosyn.insert import heal, insert
from pathosyn.weights import find

PARTS = {
    "read": "pathosyn.scan.job.read_scan",
    "normalise, head, S": "pathosyn.scan.job.scene_of",
    "f_sub": "pathosyn.scan.volume.substrate",
    "draw": "pathosyn.scan.volume.deviation",
    "compose": "pathosyn.scan.native.composed",
    "write, preview": "pathosyn.scan.output.write_result",
}


@contextmanager
def watched(spent: dict[str, float]) -> Iterator[None]:
    """Processor seconds of each of `PARTS` are added to `spent`."""

    def timed(name: str, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        begun = time.process_time()
        try:
            return function(*given, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - begun

    with ExitStack() as stack:
        for name, where in PARTS.items():
            module, _, attribute = where.rpartition(".")
            original = getattr(__import__(module, fromlist=[attribute]), attribute)
            stack.enter_context(patch(where, partial(timed, name, original)))
        yield


def ceilings() -> dict[str, float]:
    """Operations a second of products and of convolutions, bytes a second of copies."""
    runs: dict[str, timing.Run] = {"product": timing.product()}
    work = {"product": 2.0 * 1024**3}
    for width in (32, 64, 128):
        layer, x = torch.nn.Conv2d(width, width, 3, padding=1), torch.randn(4, width, 64, 64)
        for name, form in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
            inside = layer.to(memory_format=form), x.to(memory_format=form)
            runs[f"convolution {width}{name}"] = lambda inside=inside: inside[0](inside[1])
            work[f"convolution {width}{name}"] = 2.0 * 4 * 64 * 64 * width * width * 9
    source, target = torch.ones(2, 1 << 26)
    runs["copy"], work["copy"] = lambda: target.copy_(source), 2.0 * 4 * (1 << 26)
    found = {name: work[name] / spent.used for name, spent in timing.alternated(runs, 5).items()}
    best = max((name for name in found if name.startswith("convolution")), key=lambda name: found[name])
    print(f"ceilings: product {found['product'] / 1e9:.1f} GFLOP/s, {best} {found[best] / 1e9:.1f} GFLOP/s, copy {found['copy'] / 1e9:.1f} GB/s")
    return found


def gzip_seconds(read: list[Path], written: list[Path]) -> tuple[float, float]:
    """Processor seconds to inflate `read` and to deflate what `written` hold, at level 1 as the verbs do."""
    begun = time.process_time()
    for path in read:
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    between = time.process_time()
    for path in written:
        if path.suffix == ".gz":
            gzip.compress(gzip.decompress(path.read_bytes()), 1)
    after = time.process_time()
    inflated = time.process_time()
    for path in written:
        if path.suffix == ".gz":
            gzip.decompress(path.read_bytes())
    return between - begun, max(0.0, (after - between) - (time.process_time() - inflated))


def main() -> None:
    """Ceilings, a row a verb, then the parts of `insert`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", nargs="?", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        report(given, load(find(given.weights)), given.subject or default_subject(scratch), given.data or phantoms(scratch), scratch)


def report(given: argparse.Namespace, loaded: Loaded, subject: Path, data: Path, scratch: Path) -> None:
    print(timing.machine())
    most = ceilings()
    number = iter(range(1000))
    runs: dict[str, Callable[[], Path]] = {
        "insert": lambda: insert(subject, scratch / str(next(number)), loaded)[0],
        "heal": lambda: heal(subject, scratch / str(next(number)), loaded),
        "generate, 4 windows a subject": lambda: generate(data, scratch / str(next(number)), loaded, per_subject=4, progress=False),
    }
    results: dict[str, Path] = {}
    counted = {name: timing.operations(lambda name=name, run=run: results.update({name: run()})) for name, run in runs.items()}
    parts: dict[str, float] = {}
    with watched(parts):
        whole = timing.once(runs["insert"]).used
    spent = timing.alternated(runs, given.rounds, warm=0)
    files = find_subject(subject)
    read = [*files.images.values(), *([files.seg] if files.seg else [])]
    print("verb | GFLOP | at the products' ceiling, s | gzip, s | floor, s | measured, s | measured / floor")
    for name, one in spent.items():
        written = sorted(results[name].iterdir()) if results[name].is_dir() else [results[name]]
        unzip, zipped = gzip_seconds(read, written) if name in ("insert", "heal") else (0.0, 0.0)
        networks = counted[name] / most["product"]
        floor = networks + unzip + zipped
        print(f"{name} | {counted[name] / 1e9:.1f} | {networks:.2f} | {unzip + zipped:.2f} | {floor:.2f} | {one.used:.2f} | {one.used / floor:.2f}")
    print(f"insert, {whole:.2f} s: " + ", ".join(f"{name} {seconds:.2f} ({seconds / whole:.0%})" for name, seconds in parts.items()))


if __name__ == "__main__":
    main()
