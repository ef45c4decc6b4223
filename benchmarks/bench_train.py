"""Training: lesion slices a second in each stage of `default`, against a straightforward loop over MONAI's parts on whole slices with the same network.

    python benchmarks/bench_train.py [--data slices.h5] [--scale small] [--rounds 5] [--threads 1] [--batch-pixels 65536]

ours      what `fit` does in a step: windows drawn ahead by its own thread, the stage's losses, backward, clipping, AdamW, running average
MONAI     a `DataLoader` over a `CacheDataset` of whole slices that hold a lesion (read and normalised beforehand, padded to one side, flipped and scaled by
          MONAI's transforms), MONAI's `DiffusionModelUNet` (for f_sub: `BasicUNet`) of the same widths, its `DDPMScheduler`, a masked squared error,
          backward, AdamW
fed       the share of a step of ours in which the network waits for its batch (the loader is the bottleneck where this is large)

A sample is one slice with its lesion, in ours and in MONAI's loop; ours sees its window. The stage `structure` trains the network on the coarse grid, which
the other loop does not have; it is compared with the loop that a diffusion without coarse grid needs. All stages and both loops take their turn in each
round; medians.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timing
import torch
from bench_sampling import STRIDE, phantoms
from torch import nn
from torch.optim.swa_utils import AveragedModel

from pathosyn import rng
from pathosyn.config import Config, default, scaled
from pathosyn.data.slices import Slices
from pathosyn.data.store import read_header
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.networks import GROUPS
from pathosyn.optim import averaging
from pathosyn.protocol import Stage
from pathosyn.training import feed

CACHED = 64
"""Whole slices that the other loop has in memory."""
SLICES = 4
"""And takes in one step."""
FIRST = 10_000
"""Far beyond what a stage's first steps are: no warm-up of any kind."""


@dataclass
class Ours:
    """One stage of `fit`, a step at a time."""

    method: PathoSyn
    stage: Stage
    batches: Iterator[Any]

    def __post_init__(self) -> None:
        self.modules = nn.ModuleList(self.method.modules_of(self.stage.players[-1]))
        self.optimizer = torch.optim.AdamW(self.modules.parameters(), lr=1e-6)
        self.average = AveragedModel(self.modules, multi_avg_fn=averaging(0.999))
        self.waited = 0.0

    def __call__(self) -> int:
        """One step; how many slices it saw."""
        self.method.requires_grad_(False)
        self.modules.requires_grad_(True)
        begun = time.perf_counter()
        turn = next(self.batches)
        batch = turn.batch
        self.waited = time.perf_counter() - begun
        streams = [rng.generator(0, "noise", turn.step, i) for i in turn.samples]
        self.method.losses(batch, player=self.stage.players[-1], rng=streams)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.modules)
        return len(batch)


def stages(data: Path, config: Config) -> Iterator[Ours]:
    """Each stage of a staged training, its players ready."""
    train = feed.training_slices(data, config)
    method = PathoSyn(config)
    few = replace(config.train, steps=1)
    filled = train.filled(train.fills(lambda batch: method.fill(batch).numpy(), batch_pixels=config.train.batch_pixels))
    for stage in method.stages:
        own = copy.deepcopy(method)
        own.begin(stage.name, [train.lesion([row]) for row in range(0, len(train.windows), max(1, len(train.windows) // 8))])
        slices = filled if stage.filled else train
        yield Ours(own, stage, feed.batches(slices, stage, few, FIRST, FIRST, 2 * FIRST, rank=0, world=1))


def whole_slices(slices: Slices, side: int, limit: int) -> list[dict[str, torch.Tensor]]:
    """Slices with lesion, image and mask, padded to `side`."""
    rows = slices.windows[np.unique(np.linspace(0, len(slices.windows) - 1, limit).round().astype(int))]
    found = []
    for row in rows:
        plane, head = slices.plane(int(row["subject"]), int(row["z"]))
        image, mask = np.zeros((len(plane), side, side), np.float32), np.zeros((1, side, side), np.float32)
        image[:, : head.shape[0], : head.shape[1]] = plane
        mask[0, row["y"] : row["y"] + row["side"] // 2, row["x"] : row["x"] + row["side"] // 2] = 1  # its shape costs nothing
        found.append({"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)})
    return found


class Monai:
    """The loop that one writes on an afternoon."""

    def __init__(self, data: list[dict[str, torch.Tensor]], network: nn.Module, *, diffusion: bool) -> None:
        from monai.data import CacheDataset, DataLoader
        from monai.networks.schedulers.ddpm import DDPMScheduler
        from monai.transforms import Compose, RandFlipd, RandScaleIntensityd

        varied = Compose([RandFlipd(["image", "mask"], prob=0.5, spatial_axis=1), RandScaleIntensityd(["image"], factors=0.1, prob=1.0)])
        self.loader = DataLoader(CacheDataset(data, varied, progress=False), batch_size=SLICES, shuffle=True)
        self.network, self.diffusion, self.scheduler = network, diffusion, DDPMScheduler(num_train_timesteps=1000)
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
        self.batches = iter(self.loader)

    def __call__(self) -> int:
        """One step; how many slices it saw."""
        try:
            batch = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        x, m = (batch[name].as_tensor() if hasattr(batch[name], "as_tensor") else batch[name] for name in ("image", "mask"))
        if self.diffusion:
            t, noise = torch.randint(0, 1000, (len(x),)), torch.randn_like(x)
            noised = self.scheduler.add_noise(original_samples=x * m, noise=noise, timesteps=t)
            loss = ((self.network(torch.cat([noised, x * (1 - m), m], dim=1), t) - noise).square() * m).sum() / m.sum().clamp(min=1)
        else:
            flags = torch.ones_like(x)
            loss = (self.network(torch.cat([x * (1 - m), 1 - m, flags], dim=1)) - x).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return len(x)


def theirs(config: Config, data: Path) -> dict[str, Callable[[], int]]:
    """The two loops on whole slices."""
    from monai.networks.nets.basic_unet import BasicUNet
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    slices = Slices(data, "train", contrasts=config.contrasts)
    side = -(-max(max(shape) for shape in slices.full) // STRIDE) * STRIDE
    whole, contrasts, sizes = whole_slices(slices, side, CACHED), len(config.contrasts), config.networks
    eps = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=2 * contrasts + 1,
        out_channels=contrasts,
        channels=sizes.eps,
        attention_levels=[False] * (len(sizes.eps) - 1) + [True],
        num_res_blocks=sizes.blocks,
        num_head_channels=32 if sizes.eps[-1] % 32 == 0 else 16,
        norm_num_groups=GROUPS,
    )
    sub = BasicUNet(2, 2 * contrasts + 1, contrasts, (*sizes.sub, sizes.sub[0]), norm=("group", {"num_groups": GROUPS}))
    return {"MONAI, eps_theta": Monai(whole, eps, diffusion=True), "MONAI, f_sub": Monai(whole, sub, diffusion=False)}


def main() -> None:
    """A row a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--scale", choices=("tiny", "small", "full"), default="small")
    parser.add_argument("--contrasts", nargs="+", default=["t1", "t1ce", "flair"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-pixels", type=int, default=65536)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        report(given, given.data or phantoms(Path(scratch)))


def report(given: argparse.Namespace, data: Path) -> None:
    networks, train = scaled(given.scale)
    config = Config(tuple(given.contrasts), read_header(data).geometry, default(), networks, replace(train, batch_pixels=given.batch_pixels))
    runs: dict[str, Callable[[], int]] = {one.stage.name: one for one in stages(data, config)}
    runs |= theirs(config, data)
    seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
    for number in range(given.rounds + 1):
        for name, run in runs.items():
            counted: list[int] = []
            spent = timing.once(lambda run=run, counted=counted: counted.append(run()))
            if number:
                waited = run.waited / spent.clock if isinstance(run, Ours) else 0.0
                seen[name].append((counted[0] / spent.clock, counted[0] / spent.used, waited))
    found = {name: [median(values) for values in zip(*each, strict=True)] for name, each in seen.items()}
    print(timing.machine(), f"\n{given.scale} networks, {given.batch_pixels} window pixels a step, MONAI {SLICES} whole slices a step")
    print("loop | slices a second: clock, processor | ratio to MONAI's loop: clock, processor | waits for its batch")
    for name, (clock, used, waited) in found.items():
        beside = found["MONAI, f_sub" if name == "substrate" else "MONAI, eps_theta"]
        ratio = f"{clock / beside[0]:.1f}, {used / beside[1]:.1f} | {waited:.0%}" if not name.startswith("MONAI") else "1 | "
        print(f"{name} | {clock:.2f}, {used:.2f} | {ratio}")


if __name__ == "__main__":
    main()
