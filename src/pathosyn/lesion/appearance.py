"""What a lesion looks like, in a few numbers: measured on the coarse form of a real one, shown to the network that draws forms, and kept to by what it draws.

Left to itself the network learns from a few dozen subjects how bright and how varied a lesion is in *this* scan, which the scan does not tell. Given it, it
has to learn only how such a lesion lies in its mask; and what is given comes from the training lesions as a whole (`looks`).

Pure functions of a model and a batch's fields, as `coarse` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pathosyn.lesion import borders, coarse, moments, tails, texture
from pathosyn.types import Flags, Image, LesionBatch, Mask

if TYPE_CHECKING:
    from pathosyn.framework.base import Parts
    from pathosyn.methods.pathosyn import PathoSyn

BLUR = 0.1
"""Spread of what is added to a measured appearance in training, in units of its spread over the training lesions: no lesion is known by its numbers."""
SILENT = 0.1
"""Probability that the network is not told."""
GAIN, MIX, SHIFT = 0.35, 0.25, 0.4
"""Spreads of what a real form's looks are changed by in training (`recoloured`): the logarithm of a factor, the part of another contrast that is mixed in, and
what is added, in units of the form."""
ALL_EDGE = 0.02
"""An edge that lies no further out than this, as a share of a cell's neighbours, cannot be told from the lesion."""
ROUNDS = 6
"""Of moving a drawn form: cells at the rim move only as far as they are lesion, so once is not enough."""


def register(model: PathoSyn, contrasts: int) -> None:
    """The model's buffers for the units of these numbers, still empty."""
    for name in ("look_mean", "look_std"):
        model.register_buffer(name, torch.zeros(count(contrasts, rough=model.rough) + detail_count(model)))


def count(contrasts: int, *, rough: bool) -> int:
    """The numbers of an appearance that tell of the form."""
    return (6 if rough else 4) * contrasts + len(moments.pairs(contrasts))


def shared_count(model: PathoSyn) -> int:
    """And those that tell of the detail which contrasts share, at its end: one a pair, where the method asks."""
    return len(moments.pairs(len(model.config.contrasts))) if model.config.method.shared_grain else 0


def tails_count(model: PathoSyn) -> int:
    """And those that tell how sparse the finest detail is, after them: one a contrast, where the method asks."""
    return len(model.config.contrasts) if model.config.method.tails else 0


def borders_count(model: PathoSyn) -> int:
    """And those that tell how strong is what lies between cells and finest detail, last of all: one a contrast, where the method asks."""
    return len(model.config.contrasts) if model.config.method.borders else 0


def detail_counts(model: PathoSyn) -> tuple[int, int, int]:
    """Of the three, in their order."""
    return shared_count(model), tails_count(model), borders_count(model)


def detail_count(model: PathoSyn) -> int:
    """The numbers of an appearance, at its end, that tell of the lesion's pixels and not of its form."""
    return sum(detail_counts(model))


def of_form(model: PathoSyn, look: Tensor) -> Tensor:
    """The part of `look` (…, K) that tells of the form."""
    return look[..., : look.shape[-1] - detail_count(model)]


def measure(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    """(B, K), in units of the training lesions: 0 is usual, 1 one spread more. Over the cells of `form` (`coarse.form`), each with the share of it that is
    lesion: per contrast mean, standard deviation, cube root of the third central moment, and by how much the edge differs from the mean; per contrast mean
    and standard deviation of the roughness, where there is one; per pair of contrasts the correlation; and, of the lesion's pixels in `batch.x`, per pair
    of contrasts that of their finest detail (`texture.shared`) and per contrast how sparse that is (`tails.sparseness`) and how strong what is next finest
    (`borders.strength`). 0 where a contrast is missing."""
    return (raw(model, form, batch, parts) - model.look_mean) / model.look_std.clamp(min=1e-3) * known(model, batch.present)


def raw(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    """`measure` in the numbers' own units, (B, K)."""
    found, x = [_raw(model, form, batch, parts)], batch.x.float() * parts.known
    if shared_count(model):
        found.append(texture.shared(x, batch.m))
    if tails_count(model):
        found.append(tails.sparseness(x - texture.box_mean(x, 1), batch.m))
    if borders_count(model):
        found.append(borders.strength(x, batch.m))
    return torch.cat(found, dim=1)


def _raw(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    form, contrasts = form.float(), len(model.config.contrasts)
    share = coarse.lesion_share(model, batch, parts).float()
    inner = avg_pool2d(share, 3, stride=1, padding=1)

    def over(values: Tensor, weight: Tensor = share) -> Tensor:
        return (values * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3)).clamp(min=1e-6)

    mean = over(form)
    apart = form - mean[:, :, None, None]
    std = (over(apart.square()) + 1e-6).sqrt()
    third = over(apart[:, :contrasts] ** 3)
    edge = over(apart[:, :contrasts], share * (1.0 - inner))
    pairs = [over(apart[:, a : a + 1] * apart[:, b : b + 1]) / (std[:, a : a + 1] * std[:, b : b + 1]) for a, b in moments.pairs(contrasts)]
    return torch.cat([mean, std, third.sign() * third.abs() ** (1 / 3), edge, *pairs], dim=1)


def known(model: PathoSyn, present: Flags) -> Tensor:
    """(B, K): 1 on the numbers of contrasts that are there."""
    there = present.float()
    pairs = [there[:, a : a + 1] * there[:, b : b + 1] for a, b in moments.pairs(there.shape[1])]
    several = there.repeat(1, 2 if model.rough else 1)
    shared, *others = detail_counts(model)
    return torch.cat([several, several, there, there, *pairs, *(pairs if shared else ()), *(there for count in others if count)], dim=1)


def shared(model: PathoSyn, look: Tensor | None, present: Flags) -> Tensor | None:
    """(B, C(C - 1)/2): the correlations of the finest detail that `look` asks for, 0 where a contrast is missing; NaN for a window that is told nothing, None
    where the method does not ask or none is."""
    if look is None or not shared_count(model):
        return None
    return _of_detail(model, look, present)[0]


def sparseness(model: PathoSyn, look: Tensor | None, present: Flags) -> Tensor | None:
    """(B, C): how sparse (`tails.sparseness`) the finest detail that `look` asks for is; 0, NaN and None as `shared` has them."""
    if look is None or not tails_count(model):
        return None
    return _of_detail(model, look, present)[1]


def strengths(model: PathoSyn, look: Tensor | None, present: Flags) -> Tensor | None:
    """(B, C), normalised units: how strong (`borders.strength`) what lies between cells and finest detail is to be; 0, NaN and None as `shared` has them."""
    if look is None or not borders_count(model):
        return None
    return _of_detail(model, look, present)[2]


def _of_detail(model: PathoSyn, look: Tensor, present: Flags) -> Sequence[Tensor]:
    """The three parts. What has never been measured (no spread) is not asked for: NaN; of what contrasts share that is all or none."""
    last = slice(-detail_count(model), None)
    mean, std, shared = model.look_mean[last], model.look_std[last], shared_count(model)
    measured = torch.cat([(std[:shared] > 0).any().expand(shared), std[shared:] > 0])
    asked = (look[:, last] * std + mean) * known(model, present)[:, last].to(look.device)
    return torch.where(measured, asked, torch.nan).split(detail_counts(model), dim=1)


def shown(model: PathoSyn, look: Tensor | None, batch: LesionBatch, parts: Parts) -> Image:
    """(B, numbers of the form + 1, H/coarse, W/coarse): these, and a 1 that says they are told, spread over the lesion; zeros where `look` is None, and for a
    window whose row of it is NaN."""
    share = coarse.lesion_share(model, batch, parts)
    if look is None:
        return share.new_zeros(len(share), len(of_form(model, model.look_mean)) + 1, *share.shape[2:])
    look = of_form(model, look)
    told = look.isfinite().all(dim=1, keepdim=True)
    values = torch.cat([torch.where(told, look, torch.zeros_like(look)), told.to(look.dtype)], dim=1)
    return values[:, :, None, None].to(share.dtype) * share


def taught(look: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    """What training shows of a measured appearance: blurred by `BLUR`, and NaN, not told, with probability `SILENT`."""
    noise = torch.stack([torch.randn(look.shape[1], generator=stream) for stream in streams]).to(look.device)
    silent = torch.stack([torch.rand(1, generator=stream) for stream in streams]).to(look.device) < SILENT
    return torch.where(silent, torch.full_like(look, torch.nan), look + BLUR * noise)


def recoloured(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts, streams: Sequence[torch.Generator]) -> Image:
    """A real form with other looks: about its mean over the lesion the contrasts are mixed by a random matrix near 1 and moved, the roughness made more or less
    varied and moved, each as far as a cell is lesion. What the lesion's looks are then says little of which lesion it is."""
    contrasts = len(model.config.contrasts)
    channels, share = form.shape[1], coarse.lesion_share(model, batch, parts).to(form.dtype)
    mean = ((form * share).sum(dim=(2, 3)) / share.sum(dim=(2, 3)).clamp(min=1e-6))[:, :, None, None]
    u = torch.stack([torch.randn(channels, channels + 2, generator=stream) for stream in streams]).to(form.device, form.dtype)
    mix = MIX * u[:, :, :channels] * (1.0 - torch.eye(channels, device=form.device))
    mix[:, contrasts:], mix[:, :, contrasts:] = 0.0, 0.0
    there = batch.present.to(form.device, form.dtype).repeat(1, channels // contrasts)
    matrix = (mix + torch.eye(channels, device=form.device)) * (GAIN * u[:, :, channels]).exp()[:, :, None] * there[:, :, None] * there[:, None, :]
    other = torch.einsum("bij,bjhw->bihw", matrix, form - mean) + mean + SHIFT * u[:, :, channels + 1, None, None] * there[:, :, None, None]
    return form + share * (other - form)


def held(model: PathoSyn, form: Image, look: Tensor, batch: LesionBatch, parts: Parts) -> Image:
    """A drawn form moved, on the lesion, to what was asked: by the linear map that brings the mean and the covariance over the contrasts of its cells to those
    of `look` with the least movement (`moments.transport`), its roughness by contrast; before that its edge, as a whole, to where the look has it; and before
    that, with `skew`, nearer to its third moments (`moments.skewed`); `ROUNDS` times. Windows that were told nothing stay."""
    with torch.autocast(form.device.type, enabled=False):
        return _held(model, form.float(), look.float(), batch, parts).to(form.dtype)


class _Moments(NamedTuple):
    """In the form's own units."""

    mean: Tensor
    """(B, C), or 2C with roughness."""
    covariance: Tensor
    """(B, C, C): of the contrasts' means."""
    third: Tensor
    """(B, C): third central moments of the contrasts' means."""
    rough: Tensor
    """(B, C): standard deviations of the roughness, where there is one."""
    edge: Tensor
    """(B, C): by how much the edge differs from the mean."""


def _held(model: PathoSyn, form: Image, look: Tensor, batch: LesionBatch, parts: Parts) -> Image:
    contrasts, told = len(model.config.contrasts), look.isfinite().all(dim=1)
    is_there, share = batch.present.to(form.device), coarse.lesion_share(model, batch, parts).float()
    asked = _moments(of_form(model, look.nan_to_num(0.0) * model.look_std + model.look_mean), contrasts, is_there)
    outwards, edge, reach = (each.flatten(2) for each in _edge(share))
    lesion, cells = share.flatten(2), form.flatten(2).clone()  # (B, …, cells)
    weight = lesion / lesion.sum(dim=2, keepdim=True).clamp(min=1e-6)
    movable = lesion * told[:, None, None] * is_there[:, :, None]
    means, rough = cells[:, :contrasts], cells[:, contrasts:]  # views: what is added to them is added to `cells`
    for _ in range(ROUNDS):
        if model.config.method.skew:
            means += movable * (moments.skewed(means[:, :, None], lesion[:, :, None], asked.third)[:, :, 0] - means)
        differs = (means * (edge - weight)).sum(dim=2)
        means += movable * (asked.edge - differs)[:, :, None] * reach * outwards
        mean = (cells * weight).sum(dim=2, keepdim=True)
        apart = cells - mean
        covariance = (apart[:, :contrasts] * weight) @ apart[:, :contrasts].transpose(1, 2) * is_there[:, :, None] * is_there[:, None]
        matrix = moments.transport(covariance, asked.covariance)
        means += movable * (matrix @ apart[:, :contrasts] + asked.mean[:, :contrasts, None] - means)
        if model.rough:
            std = ((apart[:, contrasts:].square() * weight).sum(dim=2) + 1e-6).sqrt()
            wider = ((asked.rough + moments.EVEN) / (std + moments.EVEN))[:, :, None]
            rough += movable * (wider * apart[:, contrasts:] + asked.mean[:, contrasts:, None] - rough)
    return cells.view_as(form)


def _edge(lesion: Mask) -> tuple[Image, Mask, Tensor]:
    """Of cells whose share of lesion is `lesion` (B, 1, h, w): a field that falls from the edge inwards and has a mean of 0 over the lesion; the weights over
    which `_raw` takes the edge, adding up to 1; and, (B, 1, 1, 1), how much of that field moves the edge by 1, nearly 0 where a lesion is all edge."""
    outer = 1.0 - avg_pool2d(lesion, 3, stride=1, padding=1)
    field = outer - (outer * lesion).sum(dim=(2, 3), keepdim=True) / lesion.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    edge = lesion * outer
    edge = edge / edge.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    moves = (field * edge).sum(dim=(2, 3), keepdim=True)
    return field, edge, moves / (moves.square() + ALL_EDGE**2)


def _moments(raw: Tensor, contrasts: int, present: Flags) -> _Moments:
    """Of numbers in the form's own units, as `_raw` lists them."""
    several = (raw.shape[1] - contrasts * (contrasts - 1) // 2) // contrasts // 2 - 1  # 1, or 2 with roughness
    each = [several * contrasts, several * contrasts, contrasts, contrasts]
    mean, std, third, edge, pairs = raw.split([*each, raw.shape[1] - sum(each)], dim=1)
    std = std.clamp(min=0.0)
    own = std[:, :contrasts] * present
    return _Moments(mean, moments.matrix(pairs, contrasts) * own[:, :, None] * own[:, None, :], third**3, std[:, contrasts:], edge)
