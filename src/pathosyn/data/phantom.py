"""Phantom subjects: drawn gliomas in real human anatomy, for the demo, the tests and every measurement that needs the truth.

The anatomy is the ICBM 152 average (MNI 2009a, 1 mm) that the `nilearn` package carries. Each subject bends it with a displacement of its own,
gives its tissues contrasts of their own, and grows a lesion through its white matter. Nothing here is a patient; nothing here is a measured lesion.

Arrays inside this module are (X, Y, Z), RAS. "Voxel" lengths are those of the phantom's grid, "mm" those of the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric

from pathosyn.config import CONTRASTS
from pathosyn.errors import Fault, InputError

Field = np.ndarray
"""A float32 array over the phantom's grid."""

NCR, ED, ET = 1, 2, 4
"""The labels of BraTS 2020: necrotic core, oedema, enhancing rim."""

_VIEW_MM = (168.0, 204.0)
"""In-plane field of view: the bent template's brain with a rim of background, mm."""
_CENTRE = np.array([98.0, 117.0, 92.0])
"""The template voxel in the middle of the slab: mid-plane, and the height of the lateral ventricles."""

# Signal relative to white matter, in the order CSF, grey, NCR, ED, ET; spin-echo behaviour at 1.5-3 T, rounded.
_SIGNAL = {
    "t1": (0.28, 0.74, 0.50, 0.70, 0.76),
    "t1ce": (0.28, 0.77, 0.46, 0.70, 1.75),
    "t2": (2.40, 1.45, 2.15, 1.95, 1.60),
    "flair": (0.22, 1.22, 1.25, 2.00, 1.65),
}


@dataclass(frozen=True)
class _Anatomy:
    """Tissue fractions in [0, 1] that sum to 1 inside `brain`, and what the real T1 adds to them: `texture`, relative, about 0."""

    csf: Field
    gm: Field
    wm: Field
    texture: Field
    brain: np.ndarray


@dataclass(frozen=True)
class _Lesion:
    """A lesion inside the sub-grid `box`: labels 0/1/2/4, and `wane` in (0, 1], 1 at the seed and less where growth arrived late."""

    box: tuple[slice, ...]
    labels: np.ndarray
    wane: Field


def make_phantoms(
    out: Path,
    *,
    subjects: int,
    seed: int,
    slices: int = 40,
    size_px: tuple[int, int] = (168, 204),
    healthy: int = 0,
    contrasts: Sequence[str] = CONTRASTS,
) -> list[Path]:
    """Write `subjects` phantoms with a lesion (`phantom_000`, …) and `healthy` ones without (`healthy_000`, …, no `seg` file) into `out`.

    A subject is a folder with `<name>_t1 _t1ce _t2 _flair _seg .nii.gz`, of the contrasts those asked for: int16, 1 mm, stored
    left-posterior-superior as BraTS is, exact 0
    outside the brain, labels 0, 1 NCR, 2 ED, 4 ET, none on the slab's first and last slice. The grid is `size_px` (right-left, back-front; at
    least 32) by `slices` (at least 5, axial, about the lateral ventricles) and always shows the whole head: fewer pixels make a smaller head,
    not coarser voxels. The files depend on the seed and on a subject's own number only, not on how many are made.

    Returns the subject folders. Raises InputError for counts or sizes out of range.
    """
    _check_sizes(subjects, healthy, slices, size_px)
    shape = (*size_px, slices)
    folders = []
    for kind, count in (("phantom", subjects), ("healthy", healthy)):
        for number in range(count):
            rng = np.random.default_rng([seed, number, kind == "healthy"])
            images, labels = _subject(rng, shape, lesion=kind == "phantom")
            folders.append(_write(Path(out) / f"{kind}_{number:03d}", {name: images[name] for name in contrasts}, labels))
    return folders


def _check_sizes(subjects: int, healthy: int, slices: int, size_px: tuple[int, int]) -> None:
    limits = (("subjects", subjects, 0), ("healthy", healthy, 0), ("slices", slices, 5), ("size_px[0]", size_px[0], 32), ("size_px[1]", size_px[1], 32))
    faults = [Fault(name, str(value), f"at least {low}", f"give {low} or more") for name, value, low in limits if value < low]
    if faults:
        raise InputError(faults)


def _subject(rng: np.random.Generator, shape: tuple[int, int, int], *, lesion: bool) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """One subject: int16 images by contrast, and its labels."""
    mm = float(np.mean([view / size for view, size in zip(_VIEW_MM, shape, strict=False)]))
    anatomy = _anatomy(rng, shape, mm)
    grown = _grow(rng, anatomy, mm) if lesion else None
    vessels = _vessels(rng, anatomy, mm)
    images = {}
    for contrast in CONTRASTS:
        signal = _healthy_signal(rng, anatomy, contrast)
        if contrast == "t1ce":
            signal += vessels
        if grown is not None:
            _add_lesion(rng, signal, anatomy, grown, contrast, mm)
        images[contrast] = _acquire(rng, signal, anatomy.brain, mm)
    if grown is None:
        return images, None
    labels = np.zeros(shape, np.uint8)
    labels[grown.box] = grown.labels
    return images, labels


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], step: float) -> Field:
    """A Gaussian random field of mean 0 and variance 1 at every point, correlated over about `step` voxels; blobs of unit variance on a coarse lattice."""
    weights = []
    for size in shape:
        knots = np.arange(-2, size / step + 2, dtype=np.float32)
        bells = np.exp(-0.5 * ((np.arange(size, dtype=np.float32)[:, None] / step - knots) / 0.8) ** 2)
        weights.append(bells / np.sqrt((bells**2).sum(1, keepdims=True)))
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for weight in weights:
        field = np.tensordot(field, weight, axes=(0, 1))  # contracts the first axis and appends the fine one: after three turns the order is back
    return field


@lru_cache(maxsize=2)
def _template(blur: float) -> dict[str, Field]:
    """The template's T1, grey and white matter, 0…1 float32, smoothed by `blur` voxels (against aliasing in small heads)."""
    maps = {}
    for name in ("t1", "gm", "wm"):
        source = resources.files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        with resources.as_file(source) as path:
            values = np.asarray(nib.load(path).dataobj, np.float32) / 255  # type: ignore[attr-defined]
        maps[name] = ndimage.gaussian_filter(values, blur) if blur else values
    return maps


def _coordinates(rng: np.random.Generator, shape: tuple[int, int, int], mm: float) -> Field:
    """Template voxel (3, X, Y, Z) shown by each phantom voxel: a turn of a few degrees, ±4 % of size, and a smooth displacement of a few mm.

    The displacement's gradient is about 0.1, so that the map keeps its orientation.
    """
    grid = np.meshgrid(*((np.arange(size, dtype=np.float32) - (size - 1) / 2) * mm for size in shape), indexing="ij")
    turn, tilt = rng.normal(0, np.deg2rad(2.0), 2)
    size = 1 / rng.uniform(0.95, 1.03, 3)
    x = size[0] * (np.cos(turn) * grid[0] - np.sin(turn) * grid[1])
    y = size[1] * (np.sin(turn) * grid[0] + np.cos(turn) * grid[1])
    z = size[2] * (grid[2] + np.sin(tilt) * grid[1]) + rng.uniform(-4, 4)
    where = np.stack([x, y, z])
    for axis in range(3):
        for step, amount in ((32.0, 2.5), (9.0, 0.8)):
            where[axis] += amount * _smooth_noise(rng, shape, step / mm)
        where[axis] += _CENTRE[axis]
    return where.astype(np.float32)


def _anatomy(rng: np.random.Generator, shape: tuple[int, int, int], mm: float) -> _Anatomy:
    """The template bent into one subject.

    The average's tissue maps know no narrow sulci, its T1 does: grey matter darker than grey matter should be is counted as CSF, and all three
    fractions are sharpened, since an average of 152 heads is softer than one head.
    """
    template = _template(0.4 * mm if mm > 1.5 else 0.0)
    where = _coordinates(rng, shape, mm)
    t1, gm, wm = (ndimage.map_coordinates(template[name], where, order=1) for name in ("t1", "gm", "wm"))
    brain = ndimage.binary_opening(t1 > 0.15, iterations=1)
    depth = rng.uniform(0.45, 0.62)  # how wide the sulci open: older or younger
    csf = np.maximum(1 - gm - wm, np.clip((depth - t1) / 0.22, 0, 1))
    gm, wm = gm * (1 - csf), wm * (1 - csf)
    fractions = np.stack([csf, gm, wm]) ** 1.8 + 1e-6
    fractions /= fractions.sum(0)
    csf, gm, wm = (np.where(brain, fraction, 0).astype(np.float32) for fraction in fractions)
    expected = 0.25 * csf + 0.66 * gm + 0.87 * wm
    texture = np.where(brain, np.clip(t1 / np.maximum(expected, 0.2) - 1, -0.25, 0.25), 0)
    return _Anatomy(csf, gm, wm, texture.astype(np.float32), brain)


def _vessels(rng: np.random.Generator, anatomy: _Anatomy, mm: float) -> Field:
    """Bright threads in the CSF of the contrast-enhanced T1: where two random fields are both near 0, which is a set of curves."""
    shape = anatomy.brain.shape
    first, second = (_smooth_noise(rng, shape, 9 / mm) for _ in range(2))
    return 0.8 * np.exp(-(first**2 + second**2) / 0.04) * np.clip(anatomy.csf + 0.4 * anatomy.gm, 0, 1) * anatomy.brain


def _grow(rng: np.random.Generator, anatomy: _Anatomy, mm: float) -> _Lesion:
    """A lesion by front propagation: fast in white matter, a third as fast in grey, stopped by CSF, uneven by a random field.

    The arrival time (in voxels of white matter) below a drawn radius is the lesion; nearer the seed lies the core, whose outer shell enhances.
    One lesion in five enhances nowhere.
    """
    seed_point = _seed_point(rng, anatomy, mm)
    radius = max(float(np.exp(rng.uniform(np.log(15), np.log(34)))) / mm, 5.0)
    reach = int(np.ceil(1.5 * radius))
    box = tuple(slice(max(0, p - reach), min(n, p + reach + 1)) for p, n in zip(seed_point, anatomy.brain.shape, strict=True))
    csf, wm = anatomy.csf[box], anatomy.wm[box]
    uneven = _smooth_noise(rng, csf.shape, max(6 / mm, 1.5))
    tissue = anatomy.brain[box] & (csf < 0.4)
    cost = np.where(tissue, (2.8 - 1.8 * wm + 3 * csf) * np.exp(0.5 * uneven), -1.0)  # negative: forbidden
    local = tuple(p - b.start for p, b in zip(seed_point, box, strict=True))
    arrival = MCP_Geometric(cost).find_costs([local])[0]
    offsets = np.meshgrid(*(np.arange(n) - p for n, p in zip(csf.shape, local, strict=True)), indexing="ij")
    straight = np.sqrt(sum(o.astype(np.float32) ** 2 for o in offsets))
    # Growth slows towards the slab's ends and the box's sides, so that the lesion closes inside them as a whole lesion would.
    room = min(seed_point[2], anatomy.brain.shape[2] - 1 - seed_point[2])
    flat = (offsets[0] ** 2 + offsets[1] ** 2) / (1.5 * radius) ** 2
    closing = np.sqrt(np.clip(1 - (offsets[2] / room) ** 2 - flat, 1e-6, None))
    arrival, straight = arrival / closing, straight / closing
    pieces, _ = ndimage.label(arrival < radius, structure=np.ones((3, 3, 3)))  # closing can cut off an arm that went round by a middle slice
    whole = pieces == pieces[local]
    core_radius = rng.uniform(0.3, 0.65) * radius
    depth = core_radius - (0.35 * arrival + 0.65 * straight + 0.2 * core_radius * _smooth_noise(rng, csf.shape, max(5 / mm, 1.5)))
    core = whole & (depth > 0) & (arrival < 0.9 * radius)
    shell = max(2.6 / mm, 1.2) * np.clip(np.exp(0.45 * _smooth_noise(rng, csf.shape, max(6 / mm, 1.5))), 0.75, 2)
    rim = core & (depth < shell) if rng.random() > 0.2 else np.zeros_like(core)
    labels = np.where(rim, ET, np.where(core, NCR, np.where(whole, ED, 0))).astype(np.uint8)
    wane = (1 - 0.35 * np.clip(arrival / radius, 0, 1) ** 2).astype(np.float32)
    return _Lesion(box, labels, wane)


def _seed_point(rng: np.random.Generator, anatomy: _Anatomy, mm: float) -> tuple[int, ...]:
    """A random voxel of deep white matter in the middle third of the slab."""
    slices = anatomy.brain.shape[2]
    first, last = slices // 3, slices - slices // 3
    wm = anatomy.wm[:, :, first:last]
    deep = ndimage.uniform_filter(wm, max(1, round(5 / mm))) * (wm > 0.6)
    candidates = np.argwhere(deep > min(0.75, 0.8 * float(deep.max())))
    x, y, z = candidates[rng.integers(len(candidates))]
    return int(x), int(y), int(z) + first


def _healthy_signal(rng: np.random.Generator, anatomy: _Anatomy, contrast: str) -> Field:
    """Signal of the healthy tissue relative to white matter; the real texture enters with the sign that the contrast gives to myelin."""
    csf, gm = (value * rng.uniform(0.94, 1.06) for value in _SIGNAL[contrast][:2])
    sign = 1.0 if contrast.startswith("t1") else -0.8
    return (csf * anatomy.csf + gm * anatomy.gm + anatomy.wm) * (1 + sign * anatomy.texture * (1 - anatomy.csf))


def _add_lesion(rng: np.random.Generator, signal: Field, anatomy: _Anatomy, lesion: _Lesion, contrast: str, mm: float) -> None:
    """Mix the lesion's signal into `signal`, in place: partial volume at its borders, texture inside, no part of it in CSF."""
    shape = lesion.labels.shape
    tissue = np.clip(1 - anatomy.csf[lesion.box], 0, 1)
    coarse, fine = _smooth_noise(rng, shape, max(6 / mm, 1.2)), _smooth_noise(rng, shape, max(2.5 / mm, 1.0))
    texture = np.clip(1 + 0.09 * coarse + 0.07 * fine, 0.6, 1.4)
    patch = signal[lesion.box]
    mixed = patch.copy()
    for label, value, blur, share in zip((NCR, ED, ET), _SIGNAL[contrast][2:], (0.7, 1.0, 0.45), (0.95, 0.85, 1.0), strict=True):
        fraction = ndimage.gaussian_filter((lesion.labels == label).astype(np.float32), blur) * tissue * share
        if label == ED:
            fraction = fraction * lesion.wane
        mixed += fraction * (value * rng.uniform(0.92, 1.08) * texture - patch)
    signal[lesion.box] = mixed


def _acquire(rng: np.random.Generator, signal: Field, brain: np.ndarray, mm: float) -> np.ndarray:
    """What a scanner makes of it: a coil's smooth bias, Rician noise of 2-3.5 % of white matter, an arbitrary scale; int16, at least 1 in the brain."""
    bias = np.exp(0.06 * _smooth_noise(rng, brain.shape, 70 / mm))
    noise = rng.uniform(0.02, 0.035)
    real, imaginary = (rng.standard_normal(brain.shape, dtype=np.float32) * noise for _ in range(2))
    measured = np.hypot(signal * bias + real, imaginary) * np.exp(rng.uniform(np.log(200), np.log(900)))
    return np.where(brain, np.clip(np.rint(measured), 1, 32767), 0).astype(np.int16)


def _write(folder: Path, images: dict[str, np.ndarray], labels: np.ndarray | None) -> Path:
    """Write one subject folder, left-posterior-superior."""
    folder.mkdir(parents=True, exist_ok=True)
    files = images if labels is None else {**images, "seg": labels.astype(np.int16)}
    for name, values in files.items():
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[:3, 3] = np.array([1, 1, -1]) * (np.array(values.shape) - 1) / 2
        image = nib.Nifti1Image(np.ascontiguousarray(values[::-1, ::-1]), affine)
        image.header.set_xyzt_units("mm")
        image.header["descrip"] = b"pathosyn phantom, synthetic"
        nib.save(image, folder / f"{folder.name}_{name}.nii.gz")  # type: ignore[attr-defined]
    return folder
