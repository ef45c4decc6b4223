"""How well f_sub fills holes over healthy tissue, whose truth is known, beside harmonic and biharmonic inpainting.

    python benchmarks/quality_substrate.py --data slices.h5 --weights runs/lgg/weights.safetensors [--partition validation] [--holes 200]
        [--alone t1] [--csv FILE]

Holes have the outlines of real lesions of the same partition and lie where no lesion is. Inside each hole and contrast: PSNR (peak = range of the
window between its 0.5 and 99.5 percentiles), MSE (normalised units), and SSIM (scikit-image, 7×7, same range) averaged over the hole's pixels.
Means over subjects of means over a subject's holes, with 95 % bootstrap intervals over subjects (2,000 resamples); the paired rows are f_sub
minus the other method. With `--alone` f_sub is given that contrast and no other.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from skimage.metrics import structural_similarity

from pathosyn.checkpoint import load, read_config
from pathosyn.data.inpaint import inpaint
from pathosyn.data.slices import Slices
from pathosyn.training.monitor import holes


def one_hole(truth: np.ndarray, estimate: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """PSNR, MSE and SSIM of one plane (H, W) on `inside`."""
    low, high = np.percentile(truth, [0.5, 99.5])
    mse = float(((truth - estimate)[inside] ** 2).mean())
    _, similarity = structural_similarity(truth, estimate, data_range=float(high - low), full=True)
    return {"psnr": float(10 * np.log10((high - low) ** 2 / max(mse, 1e-12))), "mse": mse, "ssim": float(similarity[inside].mean())}


@torch.inference_mode()
def measure(data: Path, weights: Path, partition: str, count: int, alone: str | None = None) -> pd.DataFrame:
    """Tidy rows: subject, contrast, method, metric, value; one for each hole."""
    loaded = load(weights)
    slices = Slices(data, partition, contrasts=loaded.config.contrasts)
    rows = []
    only = torch.tensor([alone in (None, contrast) for contrast in loaded.config.contrasts])
    for batch in holes(slices, count):
        batch = replace(batch, present=batch.present & only)
        known = batch.present[:, :, None, None].float()
        filled = loaded.method.substrate(batch.x, batch.D, known)
        for b, subject in enumerate(batch.subject):
            inside = batch.D[b, 0].numpy() > 0
            x = batch.x[b].numpy()
            estimates = {"f_sub": np.where(inside, filled[b].numpy(), x), **{kind: inpaint(kind, x, inside) for kind in ("harmonic", "biharmonic")}}
            for c, contrast in enumerate(loaded.config.contrasts):
                if batch.present[b, c] and np.ptp(x[c]) > 0:
                    for name, estimate in estimates.items():
                        values = one_hole(x[c], estimate[c], inside)
                        rows += [{"subject": subject, "contrast": contrast, "method": name, "metric": k, "value": v} for k, v in values.items()]
    return pd.DataFrame(rows)


def interval(values: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile bootstrap over subjects."""
    means = rng.choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def table(rows: pd.DataFrame) -> str:
    """Each metric and method, over subjects, and f_sub minus the others, paired."""
    by_subject = rows.groupby(["metric", "method", "subject"])["value"].mean().unstack("method")
    lines = []
    for metric in ("psnr", "ssim", "mse"):
        values, rng = by_subject.loc[metric], np.random.default_rng(0)
        columns = {name: values[name].to_numpy() for name in ("f_sub", "harmonic", "biharmonic")}
        columns |= {f"f_sub - {name}": columns["f_sub"] - columns[name] for name in ("harmonic", "biharmonic")}
        for name, each in columns.items():
            low, high = interval(each, rng)
            lines.append(f"{metric:5} {name:18} {each.mean():8.4f}  [{low:.4f}, {high:.4f}]")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--partition", default="validation")
    parser.add_argument("--holes", type=int, default=200)
    parser.add_argument("--alone", help="give f_sub this contrast alone")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    contrasts = read_config(given.weights).contrasts
    if given.alone not in (None, *contrasts):
        parser.error(f"--alone: found {given.alone}; expected one of {', '.join(contrasts)}")
    rows = measure(given.data, given.weights, given.partition, given.holes, given.alone)
    if given.csv:
        rows.to_csv(given.csv, index=False)
    print(f"{given.partition}: {rows.subject.nunique()} subjects, {len(rows) // 9} holes x contrasts")
    print(table(rows))


if __name__ == "__main__":
    main()
