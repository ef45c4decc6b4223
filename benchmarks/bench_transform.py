"""Augmentation while training: how many samples a second two loader workers give with `RandLesiond`, and how many a small U-Net takes.

    python benchmarks/bench_transform.py [--data slices.h5] [--workers 2] [--prob .5] [--steps 2] [--pool 2] [--threads N]

Samples are whole slices of training subjects (of phantoms without --data), padded or cropped to 192 × 192 after the transform; the network is MONAI's
UNet, 16 32 64 128 channels, batch 8, Dice and cross-entropy, Adam. The training has the cores that the workers leave, one at the least; on a machine with
fewer cores than workers + 1 they share, which is what the last columns show.

cost      processor milliseconds of one sample in a worker, beside those of the training; with them, how many times as many samples the workers give as the
          training takes, each with a core of its own: what an idle machine with enough cores does
loader    samples a second of the loader alone, by the clock, after an epoch (with a pool: after so many that 95 % of its lesions are drawn)
together  the loop by the clock: samples a second, and the share of its time in which the training waits for the loader
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from bench_sampling import phantoms

from pathosyn.data.slices import Slices

SIDE, BATCH = 192, 8
CONTRASTS = ("t1", "t1ce", "flair")
HEAD = 4000
"""Pixels of head that a slice has at the least."""


def samples(data: Path, count: int) -> list[dict[str, np.ndarray]]:
    """Slices spread over the training subjects that have every contrast: image (3, H, W) and label (1, H, W)."""
    slices = Slices(data, "train", contrasts=CONTRASTS, every=False)
    chosen = np.random.default_rng(0)
    able = np.flatnonzero(slices.present.all(axis=1))
    found: list[dict[str, np.ndarray]] = []
    for number in chosen.choice(able, 4 * count).tolist():
        subject = slices._subject(number)
        z = int(chosen.integers(len(subject.seg)))
        plane, head = slices.plane(number, z)
        if np.count_nonzero(head) >= HEAD and len(found) < count:
            found.append({"image": plane, "label": (np.asarray(subject.seg[z]) > 0).astype(np.uint8)[None]})
    return found


def in_a_volume(data: Path) -> str:
    """What a lesion in the training volume with the most slices costs, in words."""
    from pathosyn.transforms import Recipe, put

    slices = Slices(data, "train", contrasts=CONTRASTS, every=False)
    number = max(np.flatnonzero(slices.present.all(axis=1)).tolist(), key=lambda n: len(slices._subject(n).seg))
    stack = np.stack([slices.plane(number, z)[0] for z in range(len(slices._subject(number).seg))], axis=1)
    recipe, nothing = Recipe(CONTRASTS, sizes_mm=(30.0, 30.0)), np.zeros((1, *stack.shape[1:]), np.uint8)
    for seed in range(20):
        begun = time.process_time()
        made = put(recipe, stack, nothing, (1.0, 1.0, 1.0), seed)
        spent = time.process_time() - begun
        if made is not None:
            return f"a lesion of {made[1].sum() / 1000:.0f} ml in a volume of {' × '.join(map(str, stack.shape[1:]))} mm: {spent:.1f} processor s"
    return "no place for a lesion of 30 mm in the volume"


def loader(items: list[dict[str, np.ndarray]], given: argparse.Namespace, **fields: Any) -> Any:
    """MONAI's, two workers that stay."""
    from monai.data import DataLoader, Dataset
    from monai.transforms import Compose, EnsureTyped, ResizeWithPadOrCropd
    from monai.utils import set_determinism

    from pathosyn.transforms import RandLesiond

    set_determinism(0)
    lesion = RandLesiond("image", CONTRASTS, spacing=(1.0, 1.0), **fields)
    varied = Compose([lesion, ResizeWithPadOrCropd(["image", "label"], (SIDE, SIDE)), EnsureTyped(["image", "label"], track_meta=False)])
    workers = given.workers
    return DataLoader(Dataset(items, varied), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0)


@dataclass
class Training:
    """A small U-Net, a step at a time."""

    def __post_init__(self) -> None:
        from monai.losses import DiceCELoss
        from monai.networks.nets import UNet

        torch.manual_seed(0)
        self.network = UNet(2, len(CONTRASTS), 2, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2)
        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        """Forward, backward, update."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.network(batch["image"]), batch["label"]).backward()
        self.optimizer.step()


def epochs(source: Any, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of `count` epochs."""
    for _ in range(count):
        yield from source


def alone(source: Any, warm: int) -> float:
    """Samples a second of the loader in the epoch after `warm` others."""
    for _ in epochs(source, warm):
        pass
    begun, seen = time.perf_counter(), 0
    for batch in source:
        seen += len(batch["image"])
    return seen / (time.perf_counter() - begun)


def cost(data: Any, rounds: int) -> float:
    """Processor seconds of one sample in this process, in the last of `rounds` rounds through the data."""
    for number in range(rounds):
        begun = time.process_time()
        for item in range(len(data)):
            data[item]
        if number == rounds - 1:
            return (time.process_time() - begun) / len(data)
    raise ValueError("at least one round")


def together(source: Any, training: Training) -> tuple[float, float]:
    """Samples a second of one epoch of the whole loop, and the share of it that was spent waiting for a batch."""
    begun, seen, waited = time.perf_counter(), 0, 0.0
    batches = iter(source)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        training.step(batch)
        seen += len(batch["image"])
    spent = time.perf_counter() - begun
    return seen / spent, waited / spent


def main() -> None:
    """A row a way to use the transform."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--prob", type=float, default=0.5)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pool", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report(given, given.data or phantoms(Path(scratch)))


def report(given: argparse.Namespace, data: Path) -> None:
    import os

    cores = os.cpu_count() or 1
    threads = given.threads or max(1, cores - given.workers)
    torch.set_num_threads(threads)
    items, training = samples(data, given.slices), Training()
    batch = next(iter(loader(items, argparse.Namespace(workers=0), prob=0.0)))
    step = timing.alternated({"step": lambda: training.step(batch)}, 10, warm=3)["step"]
    print(timing.machine(), f"\n{len(items)} slices, {given.workers} workers, batch {BATCH}, prob {given.prob:g}")
    print(f"the training alone: {BATCH / step.clock:.1f} samples a second by the clock, {1000 * step.used / BATCH:.0f} processor ms a sample")
    if cores < given.workers + 1:
        print(f"{given.workers} workers and the training share {cores} cores")
    print("transform | cost, ms | loader / training, by cost | loader alone, samples a second | together, samples a second | waiting for the loader")
    ways: dict[str, dict[str, Any]] = {
        "none": {"prob": 0.0},
        "as it is": {"prob": given.prob},
        f"steps={given.steps}": {"prob": given.prob, "steps": given.steps},
        f"pool={given.pool}, when drawn": {"prob": given.prob, "pool": given.pool},
    }
    for name, fields in ways.items():
        source = loader(items, given, **fields)
        # A lesion of a pool is drawn at its first use in a worker, and used once in pool / prob rounds, or in as many times workers epochs.
        rounds = round(3 * given.pool / given.prob) if "pool" in fields else 1
        torch.set_num_threads(1)  # as in a worker
        sample = cost(source.dataset, rounds + 1)
        torch.set_num_threads(threads)
        rate = alone(source, warm=rounds * given.workers if "pool" in fields else 1)
        loop, waited = together(source, training)
        fed = given.workers / sample * step.used / threads / BATCH
        print(f"{name} | {1000 * sample:.0f} | {fed:.2f} | {rate:.1f} | {loop:.1f} | {waited:.0%}", flush=True)
    torch.set_num_threads(1)
    print(in_a_volume(data))


if __name__ == "__main__":
    main()
