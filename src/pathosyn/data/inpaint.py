"""Inp(x, m): a hole filled from its rim, the pseudo-healthy target of Eq. 3.

harmonic    Δu = 0 in the hole: the membrane through the rim
biharmonic  Δ²u = 0: the thin plate, which also continues the rim's slope

Both are one sparse symmetric system a hole, factorised once for all contrasts. The image's own border is reflecting.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from pathosyn.data.masks import box_of, grown_box

KINDS = ("harmonic", "biharmonic")


def _laplacian(height: int, width: int) -> sparse.csr_array:
    """Graph Laplacian (degree - neighbours) of a grid of pixels: the 5-point stencil with reflecting borders."""
    pixel = np.arange(height * width, dtype=np.int32).reshape(height, width)
    pairs = [(pixel[:, :-1].ravel(), pixel[:, 1:].ravel()), (pixel[:-1].ravel(), pixel[1:].ravel())]
    degree = np.full((height, width), 4.0)
    for border in (degree[0], degree[-1], degree[:, 0], degree[:, -1]):
        border -= 1
    rows = np.concatenate([pixel.ravel(), *(a for a, b in pairs), *(b for a, b in pairs)])
    columns = np.concatenate([pixel.ravel(), *(b for a, b in pairs), *(a for a, b in pairs)])
    values = np.concatenate([degree.ravel(), -np.ones(rows.size - degree.size)])
    return sparse.csr_array((values, (rows, columns)), shape=(pixel.size, pixel.size))


def _solve(image: np.ndarray, hole: np.ndarray, power: int) -> np.ndarray:
    """`image` (C, H, W) with Δ^power u = 0 where `hole`; the equations of a hole pixel reach `power` pixels far."""
    hole = np.asarray(hole, bool)
    box = box_of(hole)
    if box is None:
        return image.copy()
    if hole.all():
        raise ValueError("the hole covers the whole image: there is no rim to fill it from")
    around = grown_box(box, (power, power), hole.shape)
    inner = hole[around].ravel()
    unknown = np.flatnonzero(inner)
    laplacian = _laplacian(*hole[around].shape)
    rows = laplacian[unknown]
    for _ in range(power - 1):
        rows = rows @ laplacian
    values = image[(slice(None), *around)].reshape(len(image), -1).astype(np.float64)
    values[:, unknown] = 0
    # Symmetric and positive definite: no pivoting, and the ordering for symmetric matrices.
    factors = linalg.splu(rows[:, unknown].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    result = image.copy()
    result[:, hole] = factors.solve(-(rows @ values.T)).T.astype(image.dtype)
    return result


def harmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A copy of `image` (C, H, W) with Δu = 0 where `hole` (H, W): no extremum inside, every value within the rim's range.

    Raises ValueError where the hole covers everything.
    """
    return _solve(image, hole, 1)


def biharmonic(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A copy of `image` (C, H, W) with Δ²u = 0 where `hole` (H, W), the 13-point stencil: reproduces linear ramps, may overshoot the rim's range.

    Raises ValueError where the hole covers everything.
    """
    return _solve(image, hole, 2)


def inpaint(kind: str, image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """`harmonic` or `biharmonic` by name. Raises ValueError for another name."""
    if kind not in KINDS:
        raise ValueError(f"no inpainting is called {kind!r}; there are {', '.join(KINDS)}")
    return harmonic(image, hole) if kind == "harmonic" else biharmonic(image, hole)
