"""Lesions that a judge must see through, or cannot: the controls beside which a method's figures are read.

Each takes windows with their real lesion (`batch`), their substrate f, and where it needs one a real lesion of another subject (`donor`, windows of the
same side), and returns the composed windows with the mask that holds for them: (x_hat, m, S).

    real          the scan itself
    blurred       the real lesion, blurred with σ = 0.8 px on the support: a judge that cannot see this sees no texture
    gaussian      f plus a Gaussian field with the real deviation's mean, variance and correlation length, contrast by contrast
    permuted      f plus the deviation of the donor's lesion
    copy-paste    the donor's lesion itself, intensities and all, through the same blend (CarveMix's way, on a healed scan)
    substrate     f alone: the healed scan
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pathosyn import decomposition, rng
from pathosyn.types import Image, LesionBatch, Mask, Soft

BLUR_PX = 0.8
Made = tuple[Image, Mask, Soft]
Maker = Callable[[LesionBatch, Image, "LesionBatch | None", Image | None, int], Made]
"""(batch, f, donor, the donor's f, seed) → (x_hat, m, S)."""


def real(batch: LesionBatch, x_sub: Image, donor: LesionBatch | None, donor_sub: Image | None, seed: int) -> Made:
    """The scan itself."""
    return batch.x, batch.m, batch.S


def substrate(batch: LesionBatch, x_sub: Image, donor: LesionBatch | None, donor_sub: Image | None, seed: int) -> Made:
    """The healed scan."""
    return decomposition.heal(batch.x, x_sub, batch.S), batch.m, batch.S


def blurred(batch: LesionBatch, x_sub: Image, donor: LesionBatch | None, donor_sub: Image | None, seed: int) -> Made:
    """The real lesion without its finest detail."""
    soft = torch.from_numpy(ndimage.gaussian_filter(batch.x.numpy(), (0, 0, BLUR_PX, BLUR_PX), mode="nearest"))
    return decomposition.heal(batch.x, soft, batch.S), batch.m, batch.S


def gaussian(batch: LesionBatch, x_sub: Image, donor: LesionBatch | None, donor_sub: Image | None, seed: int) -> Made:
    """A field that has the real deviation's first two moments and correlation length, and nothing else of it."""
    r = decomposition.deviation(batch.x, x_sub, batch.D).numpy()
    support = batch.D[:, 0].numpy() > 0
    drawn = np.zeros_like(r)
    for b in range(len(batch)):
        white = rng.normal([rng.generator(seed, batch.subject[b], batch.z[b], "gaussian")], tuple(r.shape[1:]))[0].numpy()
        for c in range(r.shape[1]):
            values = r[b, c][support[b]]
            sigma = correlation_sigma(r[b, c], support[b])
            field = ndimage.gaussian_filter(white[c], sigma, mode="wrap") if sigma > 0 else white[c]
            field = (field - field[support[b]].mean()) / max(float(field[support[b]].std()), 1e-6)
            drawn[b, c] = np.where(support[b], values.mean() + values.std() * field, 0.0)
    return decomposition.recompose(batch.x, x_sub, torch.from_numpy(drawn), batch.S), batch.m, batch.S


def permuted(batch: LesionBatch, x_sub: Image, donor: LesionBatch | None, donor_sub: Image | None, seed: int) -> Made:
    """Another subject's deviation on this subject's substrate, in the donor's shape."""
    assert donor is not None and donor_sub is not None
    healed = decomposition.heal(batch.x, x_sub, batch.S)
    # The donor's support may reach beyond this lesion's: there f is the scan, which has no lesion.
    f = torch.where(batch.S > 0, x_sub, batch.x)
    r = decomposition.deviation(donor.x, donor_sub, donor.D)
    return decomposition.recompose(healed, f, r, donor.S), donor.m, donor.S


def copy_paste(batch: LesionBatch, x_sub: Image, donor: LesionBatch | None, donor_sub: Image | None, seed: int) -> Made:
    """Another subject's lesion, pasted."""
    assert donor is not None
    healed = decomposition.heal(batch.x, x_sub, batch.S)
    return decomposition.heal(healed, donor.x, donor.S), donor.m, donor.S


CONTROLS: dict[str, Maker] = {
    "real": real,
    "substrate": substrate,
    "blurred": blurred,
    "gaussian": gaussian,
    "permuted": permuted,
    "copy-paste": copy_paste,
}
NEEDS_DONOR = ("permuted", "copy-paste")


def correlation_sigma(r: np.ndarray, inside: np.ndarray) -> float:
    """σ in pixels of the Gaussian whose field has the same correlation between neighbours as r on `inside`: ρ(1) = exp(-1/(4σ²)); 0 for white noise."""
    values = r - r[inside].mean()
    products, squares = [], (values[inside] ** 2).mean()
    for axis in (0, 1):
        a, b = [np.take(v, range(1, v.shape[axis]), axis) for v in (values, inside)], [np.take(v, range(v.shape[axis] - 1), axis) for v in (values, inside)]
        both = a[1] & b[1]
        if both.any():
            products.append(float((a[0] * b[0])[both].mean()))
    rho = float(np.mean(products)) / float(squares) if products and squares > 0 else 0.0
    rho = min(max(rho, 0.0), 0.999)
    return float(np.sqrt(-1.0 / (4.0 * np.log(rho)))) if rho > 0.02 else 0.0


def closest(mask: Tensor, candidates: Tensor) -> int:
    """The candidate (n, 1, H, W) with the largest Dice to `mask` (1, H, W)."""
    overlap = (candidates * mask).sum(dim=(1, 2, 3))
    return int((2 * overlap / (candidates.sum(dim=(1, 2, 3)) + mask.sum()).clamp(min=1e-6)).argmax())
