"""Can a judge tell healed tissue from the tissue that was there? AUC of the trees on lesion-shaped holes over healthy tissue, where the truth is known.

    python benchmarks/quality_heal_texture.py --data slices.h5 --weights glioma [--learn 300] [--judge 160] [--threads N]

harmonic, f       the hole filled, smooth
…, with grain     and the scan's own grain on it (`texture.missing_grain`), as `heal` writes it

`--learn` holes of training subjects help the judge to learn, `--judge` holes of validation subjects are scored; folds by subject. .5 is
indistinguishable. Beside it PSNR inside the hole against the truth, dB, a mean over holes: grain costs some, since no noise is the truth's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pathosyn import rng, texture
from pathosyn.checkpoint import Loaded, load
from pathosyn.data.inpaint import inpaint
from pathosyn.data.slices import Slices
from pathosyn.decomposition import heal
from pathosyn.evaluate import features, realism
from pathosyn.monitor import holes, psnr_inside
from pathosyn.types import LesionBatch
from pathosyn.weights import find

REGIONS = ("lesion", "lesion, intensity", "lesion, texture", "lesion, rim")


@torch.inference_mode()
def fillings(loaded: Loaded, batch: LesionBatch) -> dict[str, torch.Tensor]:
    """Name → (B, C, H, W) filling of the hole."""
    known = batch.present[:, :, None, None].to(batch.x.dtype)
    kind = loaded.config.method.inpaint
    plain = {
        kind: torch.from_numpy(np.stack([inpaint(kind, x.numpy(), d[0].numpy() > 0) for x, d in zip(batch.x, batch.D, strict=True)])),
        "f": loaded.method.substrate(batch.x, batch.D, known),
    }
    streams = [rng.generator("heal", s, z) for s, z in zip(batch.subject, batch.z, strict=True)]
    white = rng.normal(streams, (1, *batch.x.shape[2:]))
    return plain | {f"{name}, with grain": f + texture.missing_grain(f, batch.x * known, batch.D, white) for name, f in plain.items()}


def rows(loaded: Loaded, data: Path, partition: str, count: int, psnr: dict[str, list[float]]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(subject, filling or "truth", features of the hole). `psnr` is added to on validation subjects."""
    slices = Slices(data, partition, contrasts=loaded.config.contrasts, every=False)
    for batch in holes(slices, count):
        known = batch.present[:, :, None, None].float()
        filled = fillings(loaded, batch)
        if partition == "validation":
            for name, f in filled.items():
                psnr[name] += psnr_inside(f, batch.x, batch.D * known)
        shown = {"truth": batch.x, **{name: heal(batch.x, f, batch.S) for name, f in filled.items()}}
        for b, subject in enumerate(batch.subject):
            m, head = batch.m[b, 0].numpy() > 0, (batch.x[b] != batch.x[b].amin(dim=(1, 2), keepdim=True)).any(dim=0).numpy()
            if m.sum() < realism.SMALLEST:
                continue
            for name, x in shown.items():
                found = features.lesion((x * known)[b].numpy(), m, head, batch.present[b].numpy())
                yield subject, name, {f"lesion/{key}": value for key, value in found.items()}


def main() -> None:
    """Print one row a filling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", default=None)
    parser.add_argument("--learn", type=int, default=300)
    parser.add_argument("--judge", type=int, default=160)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    loaded = load(find(given.weights))
    psnr: dict[str, list[float]] = defaultdict(list)
    found = [(*row, part) for part, count in (("train", given.learn), ("validation", given.judge)) for row in rows(loaded, given.data, part, count, psnr)]
    print("filling | holes judged | PSNR, dB | " + " | ".join(REGIONS))
    for name in dict.fromkeys(row[1] for row in found if row[1] != "truth"):
        some = [row for row in found if row[1] in ("truth", name)]
        pairs = realism.Pairs(
            pd.DataFrame([row[2] for row in some]),
            np.array([row[0] for row in some]),
            np.array([row[3] == "validation" for row in some]),
            np.array([row[1] == name for row in some]),
        )
        figures = " | ".join(str(realism.trees(pairs, region)[0]) for region in REGIONS)
        print(f"{name} | {int(pairs.judged.sum() // 2)} | {np.mean(psnr[name]):.2f} | {figures}", flush=True)


if __name__ == "__main__":
    main()
