"""Does a lesion segmenter still find a lesion where one was healed?

    python benchmarks/quality_heal.py --data slices.h5 --weights runs/lgg/weights.safetensors [--steps 600] [--windows 160] [--segmenter FILE]

A small U-Net (MONAI BasicUNet, 0.5 M weights) learns to segment on lesion and lesion-free windows of the training subjects. Then, on lesion
windows of validation subjects that neither network has trained on: Dice on the scan as it is, and the share of the mask that it still calls lesion in the
scan, after healing by f_sub, after harmonic filling, and, as the floor, under the same outlines laid over healthy tissue. By subject, with 95 %
bootstrap intervals.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from quality_substrate import interval
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pathosyn.checkpoint import load
from pathosyn.data.slices import Slices
from pathosyn.decomposition import heal
from pathosyn.training.monitor import evenly, holes
from pathosyn.types import LesionBatch


def network(contrasts: int) -> nn.Module:
    """(B, 2C, H, W), the scan and which contrasts it has, → (B, 1, H, W) logits."""
    from monai.networks.nets.basic_unet import BasicUNet

    return BasicUNet(spatial_dims=2, in_channels=2 * contrasts, out_channels=1, features=(16, 24, 32, 48, 64, 16), norm=("group", {"num_groups": 8}))


def seen(x: Tensor, batch: LesionBatch) -> Tensor:
    """What the segmenter gets."""
    flags = batch.present[:, :, None, None].float().expand_as(x)
    return torch.cat([x * flags, flags], dim=1)


def train(slices: Slices, steps: int) -> nn.Module:
    """Binary cross-entropy + soft Dice; half of the windows have no lesion."""
    torch.manual_seed(0)
    net = network(len(slices.contrasts))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        batch = slices.draw(step, seed=1, batch_pixels=65536, healthy=0.5)
        truth = batch.m * (~batch.healthy).float()[:, None, None, None]
        logits = net(seen(batch.x, batch))
        p = logits.sigmoid()
        dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
        loss = binary_cross_entropy_with_logits(logits, truth) + dice
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.inference_mode()
def measure(net: nn.Module, slices: Slices, method: nn.Module, windows: int) -> dict[str, dict[str, list[float]]]:
    """kind → subject → one value a window."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for batch in evenly(slices, windows):
        known = batch.present[:, :, None, None].float()
        images = {
            "scan": batch.x,
            "healed, f_sub": heal(batch.x, method.substrate(batch.x, batch.D, known), batch.S),
            "healed, harmonic": heal(batch.x, batch.x_ph, batch.S),
        }
        for kind, x in images.items():
            p = net(seen(x, batch)).sigmoid() > 0.5
            share = (p & (batch.m > 0)).sum((1, 2, 3)) / (batch.m > 0).sum((1, 2, 3)).clamp(min=1)
            for b, subject in enumerate(batch.subject):
                if batch.m[b].any():
                    found[f"share found: {kind}"][subject].append(float(share[b]))
            if kind == "scan":
                dice = 2 * (p & (batch.m > 0)).sum((1, 2, 3)) / (p.sum((1, 2, 3)) + (batch.m > 0).sum((1, 2, 3))).clamp(min=1)
                for b, subject in enumerate(batch.subject):
                    if batch.m[b].any():
                        found["Dice: scan"][subject].append(float(dice[b]))
    for batch in holes(slices, windows):
        p = net(seen(batch.x, batch)).sigmoid() > 0.5
        share = (p & (batch.m > 0)).sum((1, 2, 3)) / (batch.m > 0).sum((1, 2, 3)).clamp(min=1)
        for b, subject in enumerate(batch.subject):
            if batch.m[b].any():
                found["share found: healthy tissue, same outlines"][subject].append(float(share[b]))
    return found


def main() -> None:
    """Train the segmenter, or load it where --segmenter exists; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--windows", type=int, default=160)
    parser.add_argument("--segmenter", type=Path, help="keep the segmenter here and use it again")
    given = parser.parse_args()
    loaded = load(given.weights)
    contrasts = loaded.config.contrasts
    if given.segmenter and given.segmenter.exists():
        net = network(len(contrasts)).eval()
        net.load_state_dict(torch.load(given.segmenter, weights_only=True))
    else:
        net = train(Slices(given.data, "train", contrasts=contrasts), given.steps)
        if given.segmenter:
            torch.save(net.state_dict(), given.segmenter)
    held_out = Slices(given.data, "validation", contrasts=loaded.config.contrasts)
    rng = np.random.default_rng(0)
    for kind, subjects in measure(net, held_out, loaded.method, given.windows).items():
        values = np.array([np.mean(v) for v in subjects.values()])
        low, high = interval(values, rng)
        print(f"{kind:45} {values.mean():.3f}  [{low:.3f}, {high:.3f}]  {len(values)} subjects")


if __name__ == "__main__":
    main()
