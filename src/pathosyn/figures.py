"""Pictures of slices: grey values, signed differences, outlines, and a labelled mosaic. NumPy and Pillow only, so that a preview costs milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathosyn.writing import beside

Plane = NDArray[np.floating]
Rgb = NDArray[np.uint8]

GAP = 4
TITLE = 16


def grey(plane: Plane, low: float, high: float) -> Rgb:
    """(H, W) → (H, W, 3) uint8, `low` black and `high` white."""
    scaled = np.clip((plane - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat((255 * scaled).astype(np.uint8)[..., None], 3, axis=-1)


def signed(plane: Plane, limit: float) -> Rgb:
    """(H, W) → (H, W, 3): 0 white, +limit red, -limit blue. Exact zeros stay pure white, so that "no change" can be seen."""
    u = np.clip(plane / max(limit, 1e-9), -1, 1)
    fade = 1 - np.abs(u)
    red = np.where(u >= 0, 1.0, fade)
    blue = np.where(u <= 0, 1.0, fade)
    return (255 * np.stack([red, fade, blue], axis=-1)).astype(np.uint8)


def outline(picture: Rgb, mask: NDArray[np.bool_], colour: tuple[int, int, int] = (255, 196, 0)) -> Rgb:
    """The picture with the one-pixel inner border of `mask` drawn in."""
    from scipy.ndimage import binary_erosion

    drawn = picture.copy()
    drawn[mask & ~binary_erosion(mask)] = colour
    return drawn


def window_limits(plane: Plane) -> tuple[float, float]:
    """Grey limits for display: the 0.5 and 99.5 percentiles."""
    low, high = np.percentile(plane, [0.5, 99.5])
    return float(low), float(high)


def mosaic(rows: Sequence[Sequence[Rgb]], path: Path, *, columns: Sequence[str] = (), labels: Sequence[str] = (), zoom: int = 1, flip: bool = True) -> None:
    """Save a table of equally sized pictures with column titles and row labels as PNG. `flip` puts anterior up for (y, x) planes in RAS."""
    from PIL import Image, ImageDraw

    height, width = (zoom * side for side in rows[0][0].shape[:2])
    left = 10 + 6 * max((len(label) for label in labels), default=0)
    sheet = Image.new("RGB", (left + len(rows[0]) * (width + GAP), TITLE + len(rows) * (height + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for c, title in enumerate(columns):
        pen.text((left + c * (width + GAP), 2), title, fill="black")
    for r, row in enumerate(rows):
        top = TITLE + r * (height + GAP)
        if labels:
            pen.text((4, top + height // 2 - 6), labels[r], fill="black")
        for c, picture in enumerate(row):
            tile = Image.fromarray(np.ascontiguousarray(picture[::-1] if flip else picture))
            sheet.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left + c * (width + GAP), top))
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as file:
        sheet.save(file, format="PNG")
