"""Pairs of pictures, for tools that read nothing else.

    images/CASE_CONTRAST.png   16-bit grey, LIMITS of the normalised units black and white, the same for all
    masks/CASE.png             1-bit, white on lesion
    pairs.csv, export.json     where each comes from; the limits

16 bits, since 256 steps over the whole range would be coarser than the noise of a scan: a network would learn to see the rounding. Anterior is up, the
patient's left at the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathosyn.data.normalise import CLIP
from pathosyn.export.slices import Case, Picture

LIMITS = (-CLIP, CLIP)
"""All that a slices file holds: nothing is cut off."""
WHITE = 65535
BYTES = 1.1
"""About what a packed pixel takes."""


class Layout:
    """Writes into `part`."""

    def __init__(self, part: Path, cases: Sequence[Case], contrasts: Sequence[str], *, about: dict[str, Any]) -> None:
        self.part, self.contrasts = part, contrasts
        about["images"] = {
            "bits": 16,
            "black": LIMITS[0],
            "white": LIMITS[1],
            "units": "normalised: (scan - center) / scale",
            "value": "black + pixel / 65535 * (white - black)",
        }
        about["orientation"] = "anterior up, the patient's left at the left"
        for name in ("images", "masks"):
            (part / name).mkdir()

    @staticmethod
    def files(case: Case, contrasts: Sequence[str]) -> tuple[int, float]:
        """Number and bytes."""
        height, width = case.source.shape(case.number)
        return len(contrasts) + 1, len(contrasts) * height * width * BYTES

    def add(self, case: Case, picture: Picture) -> None:
        """One case; an absent contrast has no file."""
        from PIL import Image

        for contrast, plane in zip(self.contrasts, picture.image, strict=True):
            if contrast in case.contrasts(self.contrasts):
                Image.fromarray(as_grey(plane)).save(self.part / "images" / f"{case.name}_{contrast}.png")
        Image.fromarray(np.ascontiguousarray(picture.label[::-1])).save(self.part / "masks" / f"{case.name}.png")

    def finish(self) -> None:
        """Nothing more: table and limits are written beside every layout."""


def as_grey(plane: np.ndarray) -> np.ndarray:
    """(H, W) normalised → uint16, anterior up."""
    share = (np.clip(plane, *LIMITS) - LIMITS[0]) / (LIMITS[1] - LIMITS[0])
    return np.ascontiguousarray(np.rint(WHITE * share.astype(np.float64)).astype(np.uint16)[::-1])
