"""A cohort of the paper's size on paper: hours and gigabytes of prepare, train and generate, from rates that were measured.

    python benchmarks/plan_cohort.py --prepare 40 --bytes-a-slice 331000 --train 2.7 --generate 3.5 [--volumes 369] [--slices 155] [--lesion-share 0.43]
    [--cores 2]

--prepare         slices a second on this machine (bench_prepare.py)        --bytes-a-slice  of the slices file (bench_prepare.py: bytes written over slices)
--train           lesion slices a second of one core (bench_train.py, the slowest stage)
--generate        lesion slices a second of one core (bench_sampling.py: 1 over the seconds of ours)

The GPU columns are **not measured**: no GPU was at hand. They hold what one H100 would need if it reached `--share` of its 989 TFLOP/s in bf16 (the vendor's
figure, dense) on the operations of the `full` networks, counted here; eight of them an eighth. Epochs: 300, as the paper trains; a lesion slice is seen once
an epoch. Prepare does not use a GPU: the GPU machine is taken to have eight cores a GPU.
"""

from __future__ import annotations

import argparse

import timing
import torch

from pathosyn.config import Config, default, scaled
from pathosyn.methods.pathosyn import PathoSyn

PEAK = 989e12
EPOCHS = 300
WINDOW = 128
"""Pixels of a side: the size of window that most lesion slices of BraTS need."""


def operations(scale: str) -> tuple[float, float]:
    """Of one lesion slice: a training step of eps_theta (forward and backward: three times forward), and a draw."""
    networks, train = scaled(scale)  # type: ignore[arg-type]
    method = PathoSyn(Config(method=default(), networks=networks, train=train)).eval()
    contrasts, size = len(method.config.contrasts), method.config.method.coarse

    def call(network: torch.nn.Module, side: int) -> float:
        channels = network.net.conv_in.conv.in_channels
        with torch.inference_mode():
            return timing.operations(lambda: network.net(torch.zeros(1, channels, side, side), torch.ones(1)))

    with torch.inference_mode():
        sub = timing.operations(lambda: method.sub.net(torch.zeros(1, 2 * contrasts + 1, WINDOW, WINDOW)))
    eps, form = call(method.eps, WINDOW), call(method.coarse, WINDOW // size)
    return 3 * eps, sub + eps + method.config.method.steps * form


def main() -> None:
    """A row a verb, a column a machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("prepare", "bytes-a-slice", "train", "generate"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--volumes", type=int, default=369)
    parser.add_argument("--slices", type=int, default=155)
    parser.add_argument("--lesion-share", type=float, default=0.43, help="of a volume's slices, those with a lesion (BraTS)")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.1, help="of the GPU's peak that is taken to be reached")
    given = parser.parse_args()
    slices = given.volumes * given.slices
    lesions = slices * given.lesion_share
    step, draw = operations("full")
    gpu = PEAK * given.share
    hours = {
        "prepare": (slices / given.prepare, slices / given.prepare * given.cores / 8, slices / given.prepare * given.cores / 64),
        f"train, {EPOCHS} epochs": (EPOCHS * lesions / given.train / given.cores, EPOCHS * lesions * step / gpu, EPOCHS * lesions * step / gpu / 8),
        "generate, one a lesion slice": (lesions / given.generate / given.cores, lesions * draw / gpu, lesions * draw / gpu / 8),
    }
    stored, drawn = slices * given.bytes_a_slice / 1e9, lesions * window_bytes() / 1e9
    print(f"{slices} slices, {lesions:.0f} with a lesion; slices file {stored:.1f} GB, drawn windows {drawn:.1f} GB")
    print(f"this machine: {given.cores} cores, `small` networks, measured rates")
    print(f"H100: `full` networks, {step / 1e9:.0f} GFLOP a step and slice, {draw / 1e9:.0f} a draw, at {given.share:.0%} of its peak: not measured")
    print("verb | this machine, h | one H100, h | eight, h")
    for verb, seconds in hours.items():
        print(f"{verb} | " + " | ".join(f"{s / 3600:.2f}" for s in seconds))


def window_bytes() -> int:
    """Of one drawn window in a synthetic set: x̂ and f of three contrasts, m and S, all in half precision."""
    return WINDOW * WINDOW * 2 * (2 * 3 + 2)


if __name__ == "__main__":
    main()
