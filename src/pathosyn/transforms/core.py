"""One lesion into one array, image and label together: what the MONAI and the TorchIO transform share, without either.

Arrays are in slices order: image (C, D, H, W) or (C, H, W), label (1, D, H, W) or (1, H, W); rows run from back to front, columns from side to side.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import floor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pathosyn import rng
from pathosyn.checkpoint import Loaded, load
from pathosyn.data.masks import back, box_of, in_plane
from pathosyn.data.normalise import CLIP
from pathosyn.data.scene import IMAGE_ORDER, grid_spacing
from pathosyn.data.tissue import on_tissue, solid
from pathosyn.decomposition import recompose
from pathosyn.errors import refuse
from pathosyn.scan import volume
from pathosyn.scan.job import blend
from pathosyn.scan.volume import Target
from pathosyn.transforms import shapes
from pathosyn.transforms.scan import Mask, Scan
from pathosyn.transforms.shapes import Source
from pathosyn.weights import find

Field = NDArray[np.float32]

SEVERE = 100.0
"""As `insert` holds it."""
POOL_BYTES = 2**30
"""What a pool may hold in one process."""
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Recipe:
    """What is drawn.

    contrasts    what the image's channels are, in order, out of those that the weights know; those that are not named are missing ones to the networks
    weights      a name, a file, or None for the shipped default; loaded when a process first draws
    severity     the least and the most, > 0; 1 is as trained
    masks        where lesions come from: a source of masks (`shapes`), a list of masks of lesions, or None for blobs
    sizes_mm     the least and largest diameter of blobs; None: as the weights' training lesions have
    rim_mm       how far a lesion stays from the head's edge; None: 15 where skull and skin are in the picture, 0 where a tool cut the brain out
    label_value  what the label is where the new lesion is, ≥ 1
    steps        network calls of the diffusion; None: as the weights say
    """

    contrasts: tuple[str, ...]
    weights: str | None = None
    severity: tuple[float, float] = (0.7, 1.3)
    masks: Source | Sequence[np.ndarray] | None = None
    sizes_mm: tuple[float, float] | None = None
    rim_mm: float | None = None
    label_value: int = 1
    steps: int | None = None

    def __post_init__(self) -> None:
        low, high = self.severity
        if not 0 < low <= high <= SEVERE:
            remedy = "give (least, most), 1 is as trained"
            raise refuse("severity", found=f"{low:g} to {high:g}", expected=f"a range above 0, up to {SEVERE:g}", remedy=remedy)
        if self.sizes_mm is not None and not 0 < self.sizes_mm[0] <= self.sizes_mm[1] < np.inf:
            raise refuse("sizes_mm", found=str(self.sizes_mm), expected="two diameters in mm, the smaller first", remedy="give (least, largest)")
        if self.sizes_mm is not None and self.masks is not None:
            raise refuse("sizes_mm", found="sizes beside masks, which have their own", expected="one of the two", remedy="leave sizes_mm out")
        if self.rim_mm is not None and not self.rim_mm >= 0:
            raise refuse("rim_mm", found=f"{self.rim_mm:g}", expected="0 or more", remedy="leave it out to have it found")
        if self.label_value < 1:
            raise refuse("label_value", found=str(self.label_value), expected="1 or more", remedy="0 is where there is no lesion")
        if self.steps is not None and self.steps < 1:
            raise refuse("steps", found=str(self.steps), expected="1 or more", remedy="leave it out for the weights' own")

    def source(self, *, flat: bool) -> Source:
        """Where masks come from, for slices (`flat`) or volumes."""
        if callable(self.masks):
            return self.masks
        if self.masks is not None:
            return self._outlines
        return shapes.Blobs(self.sizes_mm or shapes.sizes_of(self.loaded().provenance.population, flat=flat))

    @cached_property
    def _outlines(self) -> shapes.Outlines:
        assert self.masks is not None and not callable(self.masks)
        return shapes.Outlines(self.masks)

    def loaded(self) -> Loaded:
        """The weights, once a process. InputError for a contrast that they do not know: without the lesion beside others with it, it would be false."""
        loaded = weights_of(self.weights)
        if unknown := [name for name in self.contrasts if name not in loaded.config.contrasts]:
            expected = f"contrasts out of {', '.join(loaded.config.contrasts)}"
            remedy = "take these channels out of the image, or use weights that know them"
            raise refuse("contrasts", found=f"{', '.join(unknown)}, not known to these weights", expected=expected, remedy=remedy)
        if len(set(self.contrasts)) != len(self.contrasts) or not self.contrasts:
            raise refuse("contrasts", found=str(self.contrasts), expected="each once, at least one", remedy="name the image's channels in order")
        return loaded


@dataclass(frozen=True)
class Change:
    """What a lesion changes in an image: `where` (n,) are places in a flattened (D, H, W), `values` (C, n) what stands there then; `lesion` (k,) the places of
    the label that take its value."""

    where: NDArray[np.int64]
    values: np.ndarray
    lesion: NDArray[np.int64]

    def applied(self, image: np.ndarray, label: np.ndarray, label_value: int) -> tuple[np.ndarray, np.ndarray]:
        """New arrays."""
        new_image, new_label = image.copy(order="C"), label.copy(order="C")
        new_image.reshape(len(image), -1)[:, self.where] = self.values
        new_label.reshape(-1)[self.lesion] = label_value
        return new_image, new_label

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self.where.nbytes + self.values.nbytes + self.lesion.nbytes


class Pool:
    """`size` lesions for each scan: which one is asked for is all that chance decides. Each is drawn when a process first needs it, and remembered, the
    last used first, in up to `POOL_BYTES`. A pool that is pickled or copied is empty again. Size 0: no pool, every lesion is a new one."""

    def __init__(self, size: int) -> None:
        if size < 0:
            raise refuse("pool", found=str(size), expected="0 or more", remedy="0 draws every lesion anew")
        self.size, self.drawn = size, 0
        self._kept: OrderedDict[tuple[bytes, int], Change | None] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "drawn": 0, "_kept": OrderedDict()}

    def put(
        self, recipe: Recipe, image: np.ndarray, label: np.ndarray, spacing: Sequence[float], seed: int, *, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """`put` with the seed's lesion of this scan's."""
        change = self.lesion(recipe, image, label, spacing, seed, allowed=allowed)
        return None if change is None else change.applied(image, label, recipe.label_value)

    def lesion(self, recipe: Recipe, image: np.ndarray, label: np.ndarray, spacing: Sequence[float], seed: int, *, allowed: np.ndarray | None) -> Change | None:
        """`lesion`, of a new one or of the pool's."""
        if not self.size:
            self.drawn += 1
            return lesion(recipe, image, label, spacing, seed, allowed=allowed)
        key = _digest(spacing, image, label, allowed), seed % self.size
        if key not in self._kept:
            self.drawn += 1
            own = rng.seed_of(key[0].hex(), key[1])
            self._kept[key] = lesion(recipe, image, label, spacing, own, allowed=allowed)
            while len(self._kept) > 1 and sum(change.bytes for change in self._kept.values() if change) > POOL_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


def _digest(spacing: Sequence[float], *arrays: np.ndarray | None) -> bytes:
    digest = hashlib.blake2b(repr([float(step) for step in spacing]).encode(), digest_size=16)
    for array in arrays:
        if array is not None:
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


@cache
def weights_of(name: str | None) -> Loaded:
    """Loaded once a process; forked workers share what was there before them."""
    return load(find(name))


def lesion(recipe: Recipe, image: np.ndarray, label: np.ndarray, spacing: Sequence[float], seed: int, *, allowed: np.ndarray | None = None) -> Change | None:
    """One lesion more, a function of its arguments alone; None where no place for it was found.

    `spacing` is mm along the array's axes (for a slice two numbers); `allowed`, of the label's shape, is not 0 where the lesion may lie. Channels of one
    value throughout are missing contrasts. InputError: shapes that do not fit, contrasts that the weights do not know."""
    loaded = recipe.loaded()
    _check(recipe, image, label, spacing, allowed)
    flat, chance = image.ndim == 3, np.random.default_rng(seed)
    stack, old = (image[:, None], label) if flat else (image, label[0])
    steps = (1.0, *spacing) if flat else tuple(spacing)
    scan = Scan.of(recipe.contrasts, loaded.config.geometry, stack, old != 0, steps)  # type: ignore[arg-type]
    if scan is None:
        return None
    free = scan.free(recipe.rim_mm)
    if allowed is not None:
        free &= allowed.reshape(free.shape) != 0
    mask = shapes.found(recipe.source(flat=flat), free, scan.near, scan.spacing, chance)
    return None if mask is None else _drawn(recipe, loaded, scan, mask, float(chance.uniform(*recipe.severity)), int(chance.integers(2**63)))


def put(
    recipe: Recipe, image: np.ndarray, label: np.ndarray, spacing: Sequence[float], seed: int, *, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """A new image and a new label with one lesion more, as `lesion` says; None where no place was found. The arrays given are not changed.

    Outside the lesion's support every value is the image's own, bit for bit; dtype and units stay."""
    change = lesion(recipe, image, label, spacing, seed, allowed=allowed)
    return None if change is None else change.applied(image, label, recipe.label_value)


def _check(recipe: Recipe, image: np.ndarray, label: np.ndarray, spacing: Sequence[float], allowed: np.ndarray | None) -> None:
    if image.ndim not in (3, 4) or len(image) != len(recipe.contrasts):
        expected = f"({len(recipe.contrasts)}, H, W) or ({len(recipe.contrasts)}, D, H, W): {', '.join(recipe.contrasts)}"
        raise refuse("image", found=f"shape {image.shape}", expected=expected, remedy="name one contrast a channel")
    for name, array in (("label", label), ("where lesions may lie", allowed)):
        if array is not None and array.shape != (1, *image.shape[1:]):
            raise refuse(name, found=f"shape {array.shape}", expected=f"{(1, *image.shape[1:])}, one channel of numbers", remedy="give it on the image's grid")
    if len(spacing) != image.ndim - 1 or not all(0 < step < np.inf for step in spacing):
        raise refuse("spacing", found=str(tuple(spacing)), expected=f"{image.ndim - 1} distances in mm", remedy="one an axis, as the axes are")


def _drawn(recipe: Recipe, loaded: Loaded, scan: Scan, mask: Mask, severity: float, key: int) -> Change | None:
    """Draw on `mask` (Z, H, W). None where nothing is left of the mask on the working grid."""
    geometry, method = loaded.config.geometry, loaded.config.method
    (depth, *_), reach = box_of(mask) or (slice(0),), floor((geometry.grow_mm + geometry.feather_mm) / scan.spacing[0])
    slab = slice(max(depth.start - reach, 0), depth.stop + reach)  # the windows are slices: nothing farther off plays a part
    target = _target(loaded, scan, mask, slab)
    if not target.m.any():
        return None
    f = volume.substrate(loaded.method, target, device=_CPU)
    noise = volume.noise_field(target, scan.spacing[0], method.noise_mm, key)
    r = volume.deviation(loaded.method, target, f, noise, key=(key,), steps=recipe.steps, device=_CPU)
    S, where, share = _support(loaded, scan, mask, slab)  # noqa: N806 - the paper's letter
    values = scan.stack[:, slab][:, where]
    for c, normaliser in scan.normalisers.items():
        channel = loaded.config.contrasts.index(scan.names[c])
        f_native, r_native = (back(field[:, channel], S.shape, scan.spacing, geometry.grid_mm, order=1)[where] for field in (f, r))
        wide = values[c].astype(np.result_type(values.dtype, np.float32))
        drawn = recompose(wide, normaliser.invert(f_native), r_native * np.float32(normaliser.scale), S[where], severity=severity, kind=method.composition)
        signal = np.where(scan.blank(c, slab)[where], np.float32(0), share)
        values[c] = as_dtype(on_tissue(wide, drawn, signal), values.dtype)
    return Change(np.flatnonzero(where) + slab.start * where[0].size, values, np.flatnonzero(mask))


def _target(loaded: Loaded, scan: Scan, mask: Mask, slab: slice) -> Target:
    """The slab on the working grid, normalised, its channels those of the weights."""
    grid = loaded.config.geometry.grid_mm
    m, head = (in_plane(part[slab], scan.spacing, grid, order=0) for part in (mask, scan.head))
    x = np.zeros((len(m), len(loaded.config.contrasts), *m.shape[1:]), np.float32)
    present = np.zeros(x.shape[1], bool)
    for c, normaliser in scan.normalisers.items():
        channel = loaded.config.contrasts.index(scan.names[c])
        present[channel] = True
        x[:, channel] = np.clip(in_plane(normaliser.apply(scan.stack[c, slab]), scan.spacing, grid, order=IMAGE_ORDER), -CLIP, CLIP)
    spacing = grid_spacing(scan.spacing[::-1], grid)
    S = np.where(head | m, blend(loaded.config.method, m, spacing, loaded), np.float32(0))  # noqa: N806
    return Target.of(loaded.method, x, m, S, present, spacing[1], healthy=True)


def _support(loaded: Loaded, scan: Scan, mask: Mask, slab: slice) -> tuple[Field, Mask, Field]:
    """On the slab's own grid: S, the voxels that may change, and of these how far each may: 1 on the lesion, beyond it as far as it is tissue."""
    m = mask[slab]
    S = np.where(scan.head[slab] | m, blend(loaded.config.method, m, scan.spacing, loaded), np.float32(0))  # noqa: N806
    where = S > 0
    share: Any = np.float32(1)
    if loaded.config.method.stop_at_fluid:
        share = solid({scan.names[c]: normaliser.apply(scan.stack[c, slab][where]) for c, normaliser in scan.normalisers.items()})
    return S, where, np.where(m[where], np.float32(1), share).astype(np.float32)


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and held within the limits where `dtype` is of whole numbers."""
    if values.dtype == dtype or dtype.kind not in "iu":
        return values.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
