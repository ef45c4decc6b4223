"""Can a judge tell healed tissue from the tissue that was there? AUC of the trees on lesion-shaped holes over healthy tissue, where the truth is known.

    python benchmarks/quality_heal_texture.py --data slices.h5 --weights glioma [--learn 300] [--judge 160] [--threads N]

harmonic, f       the hole filled, smooth
…, with grain     and the scan's own grain on it (`texture.missing_grain`), as `heal` writes it

`--learn` holes of training subjects help the judge to learn, `--judge` holes of validation subjects are scored; folds by subject. .5 is
indistinguishable. Beside it PSNR inside the hole against the truth, dB, a mean over holes: grain costs some, since no noise is the truth's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import judging
import numpy as np
import torch
from judging import Seen

from pathosyn import rng
from pathosyn.checkpoint import Loaded
from pathosyn.data.inpaint import inpaint
from pathosyn.data.slices import Slices
from pathosyn.decomposition import heal
from pathosyn.evaluate import features, realism
from pathosyn.lesion import texture
from pathosyn.losses import psnr_inside
from pathosyn.training.monitor import holes
from pathosyn.types import LesionBatch


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


def rows(loaded: Loaded, data: Path, partition: str, count: int, psnr: dict[str, list[float]]) -> Iterator[Seen]:
    """The truth, named real, and each filling. `psnr` is added to on validation subjects."""
    slices = Slices(data, partition, contrasts=loaded.config.contrasts, every=False)
    for batch in holes(slices, count):
        known = batch.present[:, :, None, None].float()
        filled = fillings(loaded, batch)
        if partition == "validation":
            for name, f in filled.items():
                psnr[name] += psnr_inside(f, batch.x, batch.D * known)
        shown = {"real": batch.x, **{name: heal(batch.x, f, batch.S) for name, f in filled.items()}}
        for b, subject in enumerate(batch.subject):
            m, head = batch.m[b, 0].numpy() > 0, (batch.x[b] != batch.x[b].amin(dim=(1, 2), keepdim=True)).any(dim=0).numpy()
            if m.sum() < realism.SMALLEST:
                continue
            for name, x in shown.items():
                found = features.lesion((x * known)[b].numpy(), m, head, batch.present[b].numpy())
                yield Seen(subject, name, {f"lesion/{key}": value for key, value in found.items()}, partition == "validation")


def main() -> None:
    """Print one row a filling."""
    given = judging.arguments(__doc__, learn=300, judge=160).parse_args()
    loaded = judging.ready(given)
    psnr: dict[str, list[float]] = defaultdict(list)
    found = [row for part, count in (("train", given.learn), ("validation", given.judge)) for row in rows(loaded, given.data, part, count, psnr)]
    print("filling | PSNR, dB | holes judged | " + " | ".join(judging.REGIONS))
    for name in judging.names(found):
        print(f"{name} | {np.mean(psnr[name]):.2f} | {judging.row(judging.pairs(found, name))}", flush=True)


if __name__ == "__main__":
    main()
