"""The statistics of r_0 that a training takes from its data before eps_theta learns: the units of the diffusion, its clamp, and usual roughness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from pathosyn import decomposition
from pathosyn.lesion import coarse
from pathosyn.types import LesionBatch

if TYPE_CHECKING:
    from pathosyn.framework.base import Framework
    from pathosyn.methods.pathosyn import PathoSyn


@torch.no_grad()
def measure(model: Framework, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
    """Before eps_theta learns: RMS and extreme of r_0 on the support, mean and spread of the logarithm of its relative roughness, per contrast;
    what is known already stays. In joint training f_sub still moves: the fixed Inp stands in for it, so that the scale does not drift."""
    method, contrasts = model.config.method, len(model.config.contrasts)
    wanted = stage != "sharpen" and not bool(model.r_max.any()) and bool(method.scale_residual or method.clamp_quantile)
    drawn = cast("PathoSyn", model)  # the only one that draws roughness
    rough = model.rough and not bool(drawn.rough_std.any())
    if stage == "substrate" or not (wanted or rough):
        return {}
    values, relative = ([[torch.empty(0)] for _ in range(contrasts)] for _ in range(2))
    for batch in batches:
        parts = model.parts(batch)
        filled = batch.x_ph if stage == "joint" else batch.x_sub
        x_sub = model.substrate(batch.x, parts.support, parts.known) if filled is None else filled
        r = decomposition.deviation(batch.x, x_sub, parts.support)
        there, cells = coarse.relative_roughness(drawn, r, batch, x_sub, parts) if rough else (parts.support, None)
        for c in range(contrasts):
            known = batch.present[:, c, None, None]
            values[c].append(r[:, c][(parts.support[:, 0] > 0) & known].float().cpu())
            if cells is not None:
                relative[c].append(cells[:, c][(there[:, 0] > 0) & known].float().cpu())
    found = _set_scale(model, [torch.cat(of_c) for of_c in values]) if wanted else {}
    if rough:
        for c, of_c in enumerate(relative):
            if len(known_cells := torch.cat(of_c)) > 1:
                drawn.rough_mean[c], drawn.rough_std[c] = known_cells.mean(), known_cells.std()
        found |= {"rough_mean": drawn.rough_mean.tolist(), "rough_std": drawn.rough_std.tolist()}
    return found


def _set_scale(model: Framework, values: Sequence[Tensor]) -> dict[str, Any]:
    for c, r_c in enumerate(values):
        if not len(r_c):
            continue
        if model.config.method.scale_residual:
            model.r_scale[c] = r_c.square().mean().sqrt()
        if model.config.method.clamp_quantile:
            model.r_max[c] = _quantile(r_c.abs(), model.config.method.clamp_quantile) / model.r_scale[c]
    return {"r_scale": model.r_scale.tolist(), "r_max": model.r_max.tolist()}


def _quantile(values: Tensor, q: float) -> Tensor:
    """torch.quantile refuses more than 2^24 values."""
    return values.kthvalue(max(1, min(len(values), round(q * len(values))))).values
