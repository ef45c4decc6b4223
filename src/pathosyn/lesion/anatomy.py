"""The scan's own anatomy under a lesion that is drawn where there was none.

f is what can be foretold of the tissue under the support: its level, not its gyri, vessels and ventricles, and the form that is drawn on the lesion undoes even
that level. Where a lesion was, nobody knows what it grew into. Where none was, the scan shows it, and an infiltrating tumour leaves much of it in sight.

Pure functions of a model and a batch's fields, as `coarse` is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pathosyn import decomposition
from pathosyn.lesion import coarse
from pathosyn.types import Image, LesionBatch

if TYPE_CHECKING:
    from pathosyn.framework.base import Parts
    from pathosyn.methods.pathosyn import PathoSyn


def through(model: PathoSyn, r0: Image, batch: LesionBatch, x_sub: Image, parts: Parts) -> Image:
    """r_0 (B, C, H, W; scaled) + `anatomy` · (x - b) on the support of the windows whose tissue there is healthy (`LesionBatch.healthy`); the others' stays as
    it is, for what x holds there is a lesion. b is what `cells` takes r_0 to lie on: f, and with `cells` = intensity on the lesion, whose intensities do not
    follow f, the mean of x over it.

    It is to come before the form, the borders and the detail are held to what the lesion is to look like: these then decide how strong all of it shows."""
    share = model.config.method.anatomy
    if not share or not bool(batch.healthy.any()):
        return r0
    x, base = batch.x.float(), x_sub.float()
    if model.config.method.cells == "intensity" and model.config.method.coarse > 1:
        mean = (x * batch.m).sum(dim=(2, 3), keepdim=True) / batch.m.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)
        lesion = decomposition.refine(coarse.lesion_share(model, batch, parts), coarse.there(model, parts), parts.support, model.config.method.coarse)
        base = base + lesion * (mean - base)
    own = (x - base) / model.r_scale.view(1, -1, 1, 1) * parts.support * parts.known
    return torch.where(batch.healthy[:, None, None, None].to(r0.device), r0 + share * own, r0)
