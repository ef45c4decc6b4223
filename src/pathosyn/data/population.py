"""What the training data looks like, in a few numbers that travel with the weights, so that `insert` can say where a scan is unlike it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathosyn.data.slices import Slices

PERCENTILES = (1, 5, 25, 75, 95, 99)
"""Of normalised intensity over the healthy foreground; the median is 0 by the normalisation."""
FEATURES = (*(f"p{p}" for p in PERCENTILES), "sharpness")
MANY_SIGMA = 4.0


def fingerprint(slices: Slices) -> str:
    """SHA-256 over the names and checksums of the subjects in use and the contrasts: the same for the same training data, wherever the file lies."""
    digest = hashlib.sha256(repr((slices.contrasts, slices.partitions)).encode())
    with h5py.File(slices.path, "r") as file:
        for name in slices.subjects:
            digest.update(f"{name}:{int(file['subjects'][name].attrs['checksum'])};".encode())
    return digest.hexdigest()


def describe(planes: np.ndarray, inside: np.ndarray) -> list[float]:
    """The `FEATURES` of one contrast: planes (Z, H, W) normalised, `inside` the healthy foreground.

    Sharpness is the mean in-plane |Laplacian| over the foreground: noise and resolution of this scan."""
    values = planes[inside]
    laplacian = 4 * planes[:, 1:-1, 1:-1] - planes[:, :-2, 1:-1] - planes[:, 2:, 1:-1] - planes[:, 1:-1, :-2] - planes[:, 1:-1, 2:]
    sharp = np.abs(laplacian)[inside[:, 1:-1, 1:-1]]
    return [*(float(v) for v in np.percentile(values, PERCENTILES)), float(sharp.mean()) if sharp.size else 0.0]


def population(slices: Slices) -> dict[str, Any]:
    """For each contrast mean and standard deviation over subjects of each feature; range of lesion area and volume; range of slice spacing."""
    rows: dict[str, list[list[float]]] = {name: [] for name in slices.contrasts}
    volumes, spacings = [], []
    with h5py.File(slices.path, "r") as file:
        channels = [slices.header.contrasts.index(name) for name in slices.contrasts]
        for name in slices.subjects:
            group = file["subjects"][name]
            inside = group["foreground"][()] > 0
            inside.reshape(-1)[group["support_index"][()]] = False
            for contrast, channel in zip(slices.contrasts, channels, strict=True):
                if group.attrs["present"][channel] and inside.any():
                    rows[contrast].append(describe(group["image"][:, channel].astype(np.float32), inside))
            z, y, x = (float(v) for v in group.attrs["spacing"])
            spacings.append(z)
            if voxels := int((group["seg"][()] > 0).sum()):
                volumes.append(voxels * x * y * z / 1000)
    areas = slices.windows["lesion_pixels"][slices.windows["lesion_pixels"] > 0] * slices.geometry.grid_mm**2
    return {
        "intensity": {
            name: {"mean": np.mean(values, axis=0).tolist(), "std": np.std(values, axis=0).tolist(), "subjects": len(values)}
            for name, values in rows.items()
            if values
        },
        "area_mm2": [float(areas.min()), float(areas.max())] if len(areas) else [],
        "volume_ml": [min(volumes), max(volumes)] if volumes else [],
        "spacing_z_mm": [min(spacings), max(spacings)],
    }


def unlike(known: dict[str, Any], contrast: str, features: Sequence[float]) -> list[str]:
    """Sentences on each feature further than four standard deviations (and 0.2) from the training subjects' mean; empty if the scan is like them."""
    reference = known.get("intensity", {}).get(contrast)
    if not reference or reference["subjects"] < 3:
        return []
    found = []
    for name, value, mean, std in zip(FEATURES, features, reference["mean"], reference["std"], strict=True):
        if abs(value - mean) > max(MANY_SIGMA * std, 0.2):
            found.append(f"{contrast} is unlike the training data: {name} of the normalised intensity is {value:.2f}, there {mean:.2f} ± {std:.2f}")
    return found
