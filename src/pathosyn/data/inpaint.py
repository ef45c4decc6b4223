"""Inp(x, m): a hole filled from its rim, the pseudo-healthy target of Eq. 3.

harmonic    Δu = 0 in the hole: the membrane through the rim
biharmonic  Δ²u = 0: the thin plate, which also continues the rim's slope

The image's own border is reflecting. A hole that keeps off it is solved on a torus, where Δ is diagonal in Fourier space: u is the field of sources that sit
on the rim alone, so Δ^p u = 0 holds in the hole by construction, and a dense system of the rim's few hundred pixels, not one of the hole's thousands, makes u
meet the rim. No approximation is made. A hole at the border, or one with a very long rim, is one sparse system of its pixels. Either is factorised once for
all contrasts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, linalg, sparse
from scipy.sparse.linalg import splu
from threadpoolctl import ThreadpoolController

from pathosyn.data.masks import box_of, grown_box

KINDS = ("harmonic", "biharmonic")
_LONGEST_RIM = 1500
"""Pixels of rim beyond which the dense system (its cube in time, its square in memory) is no longer the cheaper one."""


def _solve(image: np.ndarray, hole: np.ndarray, power: int) -> np.ndarray:
    """`image` (C, H, W) with Δ^power u = 0 where `hole`; the equations of a hole pixel reach `power` pixels far."""
    hole = np.asarray(hole, bool)
    box = box_of(hole)
    if box is None:
        return image.copy()
    if hole.all():
        raise ValueError("the hole covers the whole image: there is no rim to fill it from")
    around = grown_box(box, (power, power), hole.shape)
    within = all(part.stop - part.start == span.stop - span.start + 2 * power for part, span in zip(around, box, strict=True))
    rim = _rim(hole[around], power)
    values = image[(slice(None), *around)].astype(np.float64)
    torus = within and np.count_nonzero(rim) <= _LONGEST_RIM
    result = image.copy()
    result[:, hole] = (_on_torus(values, hole[around], rim, power) if torus else _sparse(values, hole[around], power)).astype(image.dtype)
    return result


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """Of linear algebra: a system of a few hundred pixels is too small for several threads, which wait for each other by spinning, and `prepare` has a process
    for each core already."""
    return ThreadpoolController()


@lru_cache(maxsize=32)
def _torus(height: int, width: int, power: int) -> tuple[np.ndarray, np.ndarray]:
    """1 / λ^power in the order of `rfft2`, 0 for the constant, and its transform, the field of one source; λ are the eigenvalues of degree - neighbours."""
    y = 2 - 2 * np.cos(2 * np.pi / height * np.arange(height))
    x = 2 - 2 * np.cos(2 * np.pi / width * np.arange(width // 2 + 1))
    eigenvalues = y[:, None] + x
    eigenvalues[0, 0] = np.inf
    inverse = eigenvalues**-power
    return inverse, fft.irfft2(inverse, s=(height, width))


def _rim(hole: np.ndarray, power: int) -> np.ndarray:
    """The pixels off the hole (H, W) that its equations see: up to `power` steps to a neighbour away."""
    reached = hole
    for _ in range(power):
        before, reached = reached, reached.copy()
        reached[1:] |= before[:-1]
        reached[:-1] |= before[1:]
        reached[:, 1:] |= before[:, :-1]
        reached[:, :-1] |= before[:, 1:]
    return reached & ~hole


def _on_torus(values: np.ndarray, hole: np.ndarray, rim: np.ndarray, power: int) -> np.ndarray:
    """The hole's (C, n) from `values` (C, H, W) on the rim; the hole keeps `power` pixels off every edge."""
    # Sizes of steps of 8 transform fast, and neighbouring slices share them.
    height, width = (-(-n // 8) * 8 for n in hole.shape)
    inverse, field = _torus(height, width, power)
    rows, columns = np.nonzero(rim)
    # field[row - row', column - column'] for all pairs, both cyclic: one look-up in two copies beside and below each other.
    place = rows * (2 * width) + columns
    matrix = np.tile(field, (2, 2)).ravel().take(place[:, None] - place + (height * 2 * width + width))
    known = np.ones((len(rows), len(values) + 1))
    known[:, :-1] = values[:, rows, columns].T
    with _libraries().limit(limits=1, user_api="blas"):
        factor = linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        sources = linalg.cho_solve(factor, known, overwrite_b=True, check_finite=False)
    # A torus has no place for a net source; the constant that u is free to add takes it away.
    constant = sources[:, :-1].sum(axis=0) / sources[:, -1].sum()
    placed = np.zeros((len(values), height, width))
    placed[:, rows, columns] = (sources[:, :-1] - constant * sources[:, -1:]).T
    u = fft.irfft2(fft.rfft2(placed) * inverse, s=(height, width))[:, : hole.shape[0], : hole.shape[1]]
    return u[:, hole] + constant[:, None]


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


def _sparse(values: np.ndarray, hole: np.ndarray, power: int) -> np.ndarray:
    """The hole's (C, n) from `values` (C, H, W) around it, whose edges are the image's where the hole comes near them."""
    unknown = np.flatnonzero(hole)
    laplacian = _laplacian(*hole.shape)
    rows = laplacian[unknown]
    for _ in range(power - 1):
        rows = rows @ laplacian
    known = np.where(hole, 0, values).reshape(len(values), -1)
    # Symmetric and positive definite: no pivoting, and the ordering for symmetric matrices.
    factors = splu(rows[:, unknown].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factors.solve(-(rows @ known.T)).T


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
