"""`RandLesion` for TorchIO, and `Lesion`, which its history holds. Need the extra `pathosyn[torchio]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pathosyn.errors import refuse
from pathosyn.transforms.axes import Axes
from pathosyn.transforms.core import Pool, Recipe, as_dtype
from pathosyn.transforms.shapes import Source

try:
    from torchio import Subject
    from torchio.transforms import Transform
    from torchio.transforms.augmentation import RandomTransform
except ImportError as error:
    raise ImportError("RandLesion needs TorchIO: pip install 'pathosyn[torchio]'") from error


class Lesion(Transform):
    """One lesion more in a subject, and in its label: the same for the same subject, seed and arguments.

    contrasts  image name → contrast, out of those that the weights know; the images lie on one grid, the label's
    label      name of the label map
    allowed    name of a map that is not 0 where a lesion may lie; None: the head, as it is found

    `severity`, `masks`, `sizes_mm`, `rim_mm`, `label_value`, `weights`, `steps`: as in `Recipe`; `pool` as in `RandLesion`. Where no place is found the
    subject stays as it is. InputError as `pathosyn.transforms.core.lesion`."""

    def __init__(
        self,
        contrasts: Mapping[str, str],
        label: str = "label",
        *,
        seed: int = 0,
        severity: tuple[float, float] = (0.7, 1.3),
        masks: Source | Sequence[np.ndarray] | None = None,
        sizes_mm: tuple[float, float] | None = None,
        rim_mm: float | None = None,
        label_value: int = 1,
        allowed: str | None = None,
        weights: str | None = None,
        steps: int | None = None,
        pool: int | Pool = 0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.contrasts, self.label, self.seed, self.severity, self.masks, self.sizes_mm = dict(contrasts), label, seed, severity, masks, sizes_mm
        self.rim_mm, self.label_value, self.allowed, self.weights, self.steps = rim_mm, label_value, allowed, weights, steps
        self._pool = pool if isinstance(pool, Pool) else Pool(pool)
        self.pool = self._pool.size
        self._recipe = Recipe(tuple(self.contrasts.values()), weights, severity, masks, sizes_mm, rim_mm, label_value, steps)
        own = ("seed", "severity", "masks", "sizes_mm", "rim_mm", "label_value", "allowed", "weights", "steps", "pool")
        self.args_names = ["contrasts", "label", *own]

    def apply_transform(self, subject: Subject) -> Subject:
        """TorchIO's name for what a transform does."""
        images = [subject[name] for name in self.contrasts]
        axes = Axes.of(images[0].affine, 3)
        if off := [name for name in (*self.contrasts, self.label) if subject[name].spatial_shape != images[0].spatial_shape]:
            raise refuse(", ".join(off), found="another grid", expected=f"that of {next(iter(self.contrasts))}", remedy="resample them to one first")
        label = subject[self.label]
        allowed = None if self.allowed is None else axes.turned(subject[self.allowed].data.numpy())
        stack = np.concatenate([axes.turned(image.data.numpy()) for image in images])
        with np.errstate(all="ignore"):  # TorchIO has every rounding of a zero raise
            result = self._pool.put(self._recipe, stack, axes.turned(label.data.numpy()), axes.spacing, self.seed, allowed=allowed)
        if result is not None:
            for image, part in zip(images, result[0], strict=True):
                image.set_data(torch.from_numpy(axes.restored(as_dtype(part[None], image.data.numpy().dtype))))
            label.set_data(torch.from_numpy(axes.restored(result[1])))
        return subject


class RandLesion(RandomTransform):
    """`Lesion` with a seed from torch's random numbers, as TorchIO's transforms take theirs, with probability `p`. Arguments as `Lesion`, without the seed.

    `pool` lesions a subject: each is drawn once in a worker and remembered; 0 draws every one anew. A subject's history holds the `Lesion`."""

    def __init__(self, contrasts: Mapping[str, str], label: str = "label", *, p: float = 0.5, pool: int = 0, **recipe: Any) -> None:
        super().__init__(p=p)
        self.contrasts, self.label, self.recipe, self.pool = dict(contrasts), label, recipe, Pool(pool)
        Lesion(contrasts, label, **recipe)  # what cannot be meant is refused here, not in a worker

    def apply_transform(self, subject: Subject) -> Subject:
        """TorchIO's name for what a transform does."""
        lesion = Lesion(self.contrasts, self.label, seed=self._get_random_seed(), pool=self.pool, **self.recipe, **self._get_base_args())
        return lesion(subject)
