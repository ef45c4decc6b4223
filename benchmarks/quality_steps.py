"""Steps against quality: how far drawn lesions are from real ones in intensity and texture, for each solver and number of calls.

    python benchmarks/quality_steps.py --data slices.h5 --weights runs/lgg/weights.safetensors [--windows 48] [--calls 1 2 4 10 20 50]

On validation subjects, lesions are drawn anew on their own masks. For each contrast eight features of the lesion (mean, standard deviation,
skewness, kurtosis, gradient energy, Laplacian energy, autocorrelation at lags 1 and 2) are compared between drawn and real lesions: the mean over
features and contrasts of the 1-Wasserstein distance divided by the real lesions' standard deviation. 0 is the same distribution. The first row,
real against real (windows split in two by subject), is what 0 looks like with so few lesions; `texture` is the ratio of drawn to real Laplacian
energy (median), 1 is right.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kurtosis, skew, wasserstein_distance

from pathosyn.checkpoint import load
from pathosyn.data.slices import Slices
from pathosyn.monitor import evenly
from pathosyn.networks import bf16_pays
from pathosyn.types import Controls, LesionBatch

FEATURES = ("mean", "std", "skewness", "kurtosis", "gradient", "laplacian", "lag 1", "lag 2")


def features(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """(8,) of one plane on its lesion."""
    values = x[m]
    gy, gx = np.gradient(x)
    laplacian = 4 * x - sum(np.roll(x, s, axis) for s in (-1, 1) for axis in (0, 1))
    lags = []
    for lag in (1, 2):
        both = m[:, lag:] & m[:, :-lag]
        a, b = x[:, lag:][both], x[:, :-lag][both]
        lags.append(float(np.corrcoef(a, b)[0, 1]) if len(a) > 3 and a.std() > 0 and b.std() > 0 else 0.0)
    energy = [float(np.sqrt((gy**2 + gx**2)[m].mean())), float(np.sqrt((laplacian**2)[m].mean()))]
    return np.array([values.mean(), values.std(), skew(values), kurtosis(values), *energy, *lags])


def of_batches(batches: list[LesionBatch], images: list[torch.Tensor]) -> dict[int, np.ndarray]:
    """Contrast channel → (n, 9): subject's number, then features; lesions of at least 40 pixels."""
    rows: dict[int, list[np.ndarray]] = {}
    names = sorted({s for b in batches for s in b.subject})
    for batch, x in zip(batches, images, strict=True):
        for b in range(len(batch)):
            m = batch.m[b, 0].numpy() > 0
            if m.sum() < 40:
                continue
            for c in torch.nonzero(batch.present[b]).flatten().tolist():
                rows.setdefault(c, []).append(np.r_[names.index(batch.subject[b]), features(x[b, c].numpy(), m)])
    return {c: np.array(r) for c, r in rows.items()}


def distance(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> float:
    """Mean over contrasts and features of W1 in units of b's standard deviation."""
    each = [wasserstein_distance(a[c][:, f], b[c][:, f]) / b[c][:, f].std() for c in b for f in range(1, 1 + len(FEATURES))]
    return float(np.mean(each))


def main() -> None:
    """Print one row a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 2, 4, 10, 20, 50])
    given = parser.parse_args()
    loaded = load(given.weights)
    slices = Slices(given.data, "validation", contrasts=loaded.config.contrasts)
    batches = list(evenly(slices, given.windows))
    real = of_batches(batches, [b.x for b in batches])
    halves = [{c: r[r[:, 0] % 2 == h] for c, r in real.items()} for h in (0, 1)]
    print("solver,spacing,calls,distance,texture,seconds a window")
    print(f"real against real (halves by subject),,,{distance(*halves):.3f},1.00,")
    base = loaded.method.config
    count = sum(map(len, batches))
    for solver, spacing in (("ddim", "trailing"), ("ddim", "quadratic"), ("ancestral", "quadratic"), ("dpm2m", "quadratic"), ("sde-dpm2m", "quadratic")):
        loaded.method.config = replace(base, method=replace(base.method, solver=solver, spacing=spacing))
        for calls in given.calls:
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays("cpu")):
                drawn = [loaded.method.synthesize(b, controls=Controls(seed=0), steps=calls).x_hat.float() for b in batches]
            spent = (time.perf_counter() - start) / count
            fake = of_batches(batches, drawn)
            texture = np.median([np.median(fake[c][:, 6] / real[c][:, 6]) for c in real])
            print(f"{solver},{spacing},{calls},{distance(fake, real):.3f},{texture:.2f},{spent:.2f}", flush=True)


if __name__ == "__main__":
    main()
