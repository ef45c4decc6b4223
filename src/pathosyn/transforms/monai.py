"""`RandLesiond`, a dictionary transform for MONAI. Needs the extra `pathosyn[monai]`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pathosyn.errors import refuse
from pathosyn.transforms.axes import Axes
from pathosyn.transforms.core import Pool, Recipe, as_dtype
from pathosyn.transforms.shapes import Source

try:
    from monai.data import MetaTensor
    from monai.transforms import MapTransform, RandomizableTransform
except ImportError as error:
    raise ImportError("RandLesiond needs MONAI: pip install 'pathosyn[monai]'") from error


class RandLesiond(RandomizableTransform, MapTransform):
    """With probability `prob` one lesion more in an image, 2-D or 3-D, and in its label; elsewhere both stay what they were, bit for bit.

    keys         one key of an image (C, …) whose channels are `contrasts`, or one key a contrast, each (1, …), in that order
    contrasts    their names, out of those that the weights know ("t1", "t1ce", "flair" for the shipped ones)
    label_key    a label (1, …) of whole numbers; not 0 where a lesion is already, none is put there
    allowed_key  a mask (1, …), not 0 where a lesion may lie, such as the brain's; None: the head, as it is found
    spacing      mm along the axes of arrays in slices order (…, D, H, W) or (…, H, W); None: spacing and axes by the affine of a MetaTensor
    pool         lesions a scan: each is drawn once in a worker and remembered; 0 draws every one anew

    `severity`, `masks`, `sizes_mm`, `rim_mm`, `label_value`, `weights`, `steps`: as in `Recipe`. Where no place is found the sample passes unchanged.
    Place it before what changes an image's geometry or contrast at random. InputError as `lesion`, and for a tensor without spacing."""

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        contrasts: Sequence[str],
        label_key: Hashable = "label",
        *,
        prob: float = 0.5,
        severity: tuple[float, float] = (0.7, 1.3),
        masks: Source | Sequence[np.ndarray] | None = None,
        sizes_mm: tuple[float, float] | None = None,
        rim_mm: float | None = None,
        label_value: int = 1,
        allowed_key: Hashable | None = None,
        spacing: Sequence[float] | None = None,
        weights: str | None = None,
        steps: int | None = None,
        pool: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if len(self.keys) not in (1, len(contrasts)):
            expected = f"1, or one for each of {', '.join(contrasts)}"
            raise refuse("keys", found=f"{len(self.keys)} keys", expected=expected, remedy="give the image's key, or a key a contrast in that order")
        self.recipe = Recipe(tuple(contrasts), weights, severity, masks, sizes_mm, rim_mm, label_value, steps)
        self.label_key, self.allowed_key, self.spacing, self.pool = label_key, allowed_key, spacing, Pool(pool)
        self._seed = 0

    def randomize(self, data: Any = None) -> None:
        """Whether, and which."""
        super().randomize(data)
        self._seed = int(self.R.randint(2**31))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary; the arrays in `data` are not changed."""
        made = dict(data)
        self.randomize()
        if not self._do_transform:
            return made
        axes = self._axes(made[self.keys[0]])
        images = [axes.turned(_array(made[key])) for key in self.keys]
        label = axes.turned(_array(made[self.label_key]))
        allowed = None if self.allowed_key is None else axes.turned(_array(made[self.allowed_key]))
        image = images[0] if len(images) == 1 else np.concatenate(images)
        result = self.pool.put(self.recipe, image, label, axes.spacing, self._seed, allowed=allowed)
        if result is None:
            return made
        parts = [result[0]] if len(images) == 1 else [result[0][c : c + 1] for c in range(len(images))]
        for key, part in zip((*self.keys, self.label_key), (*parts, result[1]), strict=True):
            made[key] = _like(axes.restored(as_dtype(part, _array(made[key]).dtype)), made[key])
        return made

    def _axes(self, image: Any) -> Axes:
        if self.spacing is not None:
            return Axes.plain(self.spacing)
        if not isinstance(image, MetaTensor):
            raise refuse("image", found="no affine", expected="a MetaTensor, as LoadImaged gives it", remedy="give spacing= in mm")
        return Axes.of(image.affine.cpu().numpy(), image.ndim - 1)


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _like(array: np.ndarray, model: Any) -> Any:
    """`array` as what `model` is: an array, or a tensor with its metadata on its device."""
    if not isinstance(model, torch.Tensor):
        return array
    made = model.detach().clone()
    made.copy_(torch.from_numpy(array))
    return made
