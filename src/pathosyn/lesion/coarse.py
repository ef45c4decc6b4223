"""The coarse form of a deviation: each cell's mean and how rough the cell is; and what eps_theta is shown to draw texture as rough as that.

Pure functions of a model and a batch's fields, as `alg1` is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pathosyn import decomposition
from pathosyn.lesion import borders, tails, texture
from pathosyn.types import Image, LesionBatch, Mask

if TYPE_CHECKING:
    from pathosyn.framework.base import Parts
    from pathosyn.methods.pathosyn import PathoSyn

FLOOR = 0.02
"""Normalised units: less grain than this is taken for none, so that its logarithm has a meaning."""
FARTHEST = 4.0
"""Standard deviations at which a drawn roughness is held."""
MIXED = 2
"""Times that detail is mixed until its contrasts share what is asked: the smooth part shares some, too."""
SPARSED = 2
"""Times that the finest detail is made as sparse as is asked."""
NEAR_ONE = 0.95
"""Detail is not asked to share more."""


def form(model: PathoSyn, r0: Image, batch: LesionBatch, x_sub: Image, parts: Parts, *, own: Tensor | None = None) -> tuple[Image, Mask]:
    """r_0 (B, C, H, W; scaled, 0 off the support) in cells: their means and, with `roughness`, the logarithm of how rough they are beside the scan's
    own grain, with mean 0 and spread 1 over the training data: (B, C or 2C, H/coarse, W/coarse), and which cells hold any of the support.

    With `cells` = intensity the means are of f + r_0 on the lesion: r_0 there undoes what f got wrong, and a network that draws r_0 has to know it.
    `own`: the spread of the scan's `own_of`, where it is known already."""
    mean, there = decomposition.coarsen(r0, parts.support, model.config.method.coarse)
    mean = mean + _ground(model, batch, x_sub, parts)
    if not model.rough:
        return mean, there
    _, relative = relative_roughness(model, model.from_scaled(r0), batch, x_sub, parts, own=own)
    relative = (relative - _per_contrast(model.rough_mean)) / _per_contrast(model.rough_std).clamp(min=1e-3)
    return torch.cat([mean, relative * there * parts.known], dim=1), there


def there(model: PathoSyn, parts: Parts) -> Mask:
    """(B, 1, H/coarse, W/coarse): which cells hold any of the support."""
    return decomposition.coarsen(parts.support, parts.support, model.config.method.coarse)[1]


def lesion_share(model: PathoSyn, batch: LesionBatch, parts: Parts) -> Mask:
    """(B, 1, H/coarse, W/coarse): the share of each cell's support that is lesion."""
    return decomposition.coarsen(batch.m, parts.support, model.config.method.coarse)[0]


def means(model: PathoSyn, form: Image, batch: LesionBatch, x_sub: Image, parts: Parts) -> Image:
    """The cells' means of r_0 alone, scaled, (B, C, H/coarse, W/coarse)."""
    return form[:, : len(model.config.contrasts)] - _ground(model, batch, x_sub, parts)


def _ground(model: PathoSyn, batch: LesionBatch, x_sub: Image, parts: Parts) -> Image | float:
    """The mean of f over each cell, scaled, times the share of the cell that is lesion."""
    if model.config.method.cells == "deviation":
        return 0.0
    ground = decomposition.coarsen(x_sub.float() / _per_contrast(model.r_scale), parts.support, model.config.method.coarse)[0]
    return lesion_share(model, batch, parts) * ground * parts.known


def with_form(
    model: PathoSyn,
    r0: Image,
    change: Callable[[Image], Image],
    batch: LesionBatch,
    x_sub: Image,
    parts: Parts,
    *,
    own: Tensor,
    shared: Tensor | None = None,
) -> Image:
    """r_0 (as `form` takes it) with another form, as `change` makes it of its own: its cells' means, and between the cells' centres what `refine` makes of
    them; what roughness is measured of (`rough_of`) is as much stronger or weaker as the cells are to be rougher or smoother; and what lies beyond the means,
    its detail, is mixed until the contrasts of f + r_0 share on the lesion what `shared` (`appearance.shared`) asks for. `own`: the spread of the scan's
    `own_of`."""
    r0, size = r0.float() * parts.support, model.config.method.coarse
    now, there = form(model, r0, batch, x_sub, parts, own=own)
    moved = change(now)
    before, after = (decomposition.refine(means(model, each, batch, x_sub, parts), there, parts.support, size) for each in (now, moved))
    detail = r0 - before
    if model.rough:
        stronger = (roughness(model, moved, own) + FLOOR) / (roughness(model, now, own) + FLOOR)
        detail = detail + _rough_part(model, r0, detail, batch, x_sub, parts) * (decomposition.refine(stronger, there, parts.support, size) - 1.0)
    if shared is not None:
        detail = _mixed(detail, after + x_sub.float() / _per_contrast(model.r_scale), batch.m, shared)
    return (after + detail) * parts.known


def _rough_part(model: PathoSyn, r0: Image, detail: Image, batch: LesionBatch, x_sub: Image, parts: Parts) -> Image:
    """What of f + r_0 counts as rough, scaled, 0 off the support: all of `detail`, or the finest, which leaves the rise at the outline as it is."""
    if model.config.method.rough_of == "cells":
        return detail * parts.support
    whole = _whole(model.from_scaled(r0), batch, x_sub, parts)
    return (whole - texture.box_mean(whole, 1)) * parts.support / _per_contrast(model.r_scale)


def _whole(r: Image, batch: LesionBatch, x_sub: Image, parts: Parts) -> Image:
    """The scan with f + r under the support; r in normalised units."""
    return torch.where(parts.support > 0, x_sub.float() + r, batch.x.float()) * parts.known


def with_tails(model: PathoSyn, r: Image, batch: LesionBatch, x_sub: Image, parts: Parts, wanted: Tensor) -> Image:
    """r (normalised units, 0 off the support) with which the finest detail of f + r in the scan is, on the lesion, as sparse as is `wanted`
    (`appearance.sparseness`). Detail that is changed has a mean over 3×3 pixels, so that once is not quite enough."""
    for _ in range(SPARSED):
        whole = _whole(r, batch, x_sub, parts)
        detail = whole - texture.box_mean(whole, 1)
        r = r + (tails.sparser(detail, batch.m, wanted) - detail) * parts.support * parts.known
    return r


def with_borders(model: PathoSyn, r0: Image, batch: LesionBatch, x_sub: Image, parts: Parts, wanted: Tensor) -> Image:
    """r_0 (as `form` takes it) with which what lies between cells and finest detail of f + r_0 in the scan is, on the lesion, gathered in borders. A sample of
    which anything `wanted` (as `with_strength` takes it) is NaN stays as it is."""
    whole, told = _whole(model.from_scaled(r0), batch, x_sub, parts), wanted.isfinite().all(dim=1)[:, None, None, None]
    return r0 + (borders.bordered(whole, batch.m, batch.present) - whole) * told * parts.support * parts.known / _per_contrast(model.r_scale)


def with_strength(model: PathoSyn, r0: Image, batch: LesionBatch, x_sub: Image, parts: Parts, wanted: Tensor) -> Image:
    """r_0 with which what lies between cells and finest detail of f + r_0 in the scan is, on the lesion, as strong as is `wanted` (`appearance.strengths`)."""
    whole = _whole(model.from_scaled(r0), batch, x_sub, parts)
    return r0 + (borders.strengthened(whole, batch.m, wanted) - whole) * parts.support * parts.known / _per_contrast(model.r_scale)


def _mixed(detail: Image, smooth: Image, m: Mask, shared: Tensor) -> Image:
    """`detail` whose contrasts share what is asked of `smooth + detail`: of what the smooth part adds to it only the detail can make up."""
    for _ in range(MIXED):
        wanted = texture.shared(detail, m) + shared - texture.shared(smooth + detail, m)
        detail = texture.sharing(detail, m, wanted.clamp(-NEAR_ONE, NEAR_ONE))
    return detail


@dataclass(frozen=True)
class Own:
    """What a scan shows of its own texture off the support, normalised units: `detail` (B, C, H, W) on `tissue` (B, 1, H, W), as `texture.own_detail` finds
    them, and `spread` (B, C, 1, 1), how rough it is as `rough_of` has it."""

    detail: Image
    tissue: Mask
    spread: Tensor


def own_of(model: PathoSyn, x: Image, parts: Parts) -> Own:
    """Nothing of x under the support is used."""
    visible = 1.0 - parts.support
    x = torch.where(visible > 0, x.float(), 0.0) * parts.known
    detail, tissue = texture.own_detail(x, visible)
    finest = model.config.method.rough_of == "finest"
    return Own(detail, tissue, texture.finest_spread(x, visible, tissue) if finest else texture.spread_of(detail, tissue))


def relative_roughness(model: PathoSyn, r: Image, batch: LesionBatch, x_sub: Image, parts: Parts, *, own: Tensor | None = None) -> tuple[Mask, Image]:
    """Which cells hold any of the support, and log((roughness of r + FLOOR) / (the scan's own + FLOOR)) of each; r in normalised units. `finest` is taken of
    f + r in the scan (and over the cells beside, too), of which nothing is used under the support."""
    size, support = model.config.method.coarse, parts.support
    mean, there = decomposition.coarsen(r, support, size)
    if model.config.method.rough_of == "finest":
        rough = _around(texture.finest(_whole(r, batch, x_sub, parts), support).square(), support, size).sqrt() * there
    else:
        rough = decomposition.roughness(r, mean, there, support, size)
    own = own_of(model, batch.x, parts).spread if own is None else own
    return there, torch.log((rough + FLOOR) / (own + FLOOR))


def _around(power: Image, support: Mask, size: int) -> Image:
    """Means over the pixels of the support in each cell and the eight around it: those of one cell are too few to tell how rough it is, and grain whose
    strength changes from cell to cell is a mottle. Above 0, where a square root has a slope."""
    summed, weight = (avg_pool2d(avg_pool2d(field, size), 3, stride=1, padding=1) for field in (power * support, support))
    return summed / weight.clamp(min=1e-6) + 1e-12


def roughness(model: PathoSyn, form: Image, own: Tensor) -> Image:
    """The inverse: normalised units, (B, C, H/coarse, W/coarse). `own` (B, C, 1, 1) is the scan's own spread."""
    relative = form[:, len(model.config.contrasts) :].clamp(-FARTHEST, FARTHEST) * _per_contrast(model.rough_std) + _per_contrast(model.rough_mean)
    return (relative.exp() * (own + FLOOR) - FLOOR).clamp(min=0.0)


def seen(
    model: PathoSyn,
    condition: Image,
    own: Own,
    parts: Parts,
    white: Image | None,
    *,
    form: Image | None = None,
    there: Mask | None = None,
    shared: Tensor | None = None,
) -> Image:
    """What eps_theta sees at full resolution beside r_t: the condition and, where the method asks for them, the scan's `own` grain made of `white`
    (B, C, H, W) and the roughness that the coarse `form` asks for. The grain on the support is then as rough as that, and its contrasts share what `shared`
    (`appearance.shared`) asks for."""
    grain = None if white is None else texture.grain_of(own.detail, own.tissue, white) * parts.known
    if not model.rough or form is None or there is None:
        return condition if grain is None else torch.cat([condition, grain], dim=1)
    rough = decomposition.refine(roughness(model, form, own.spread), there, parts.support, model.config.method.coarse) * parts.known
    if grain is not None:
        mixed = grain if shared is None else texture.sharing(grain, parts.support, shared)
        grain = torch.where(parts.support > 0, mixed * (rough + FLOOR) / (own.spread + FLOOR), grain)
    shown = [condition, grain, rough / _per_contrast(model.r_scale)]
    return torch.cat([field for field in shown if field is not None], dim=1)


def _per_contrast(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
