"""What a lesion looks like, in a few numbers: measured on the coarse form of a real one, shown to the network that draws forms, and taken from the training
lesions when a new one is drawn.

Left to itself the network learns from a few dozen subjects how bright and how varied a lesion is in *this* scan, which the scan does not tell. Given it, it
has to learn only how such a lesion lies in its mask; and what is given comes from the training lesions as a whole.

Pure functions of a model and a batch's fields, as `coarse` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pathosyn import coarse, decomposition, moments, surroundings, texture
from pathosyn.types import Flags, Image, LesionBatch

if TYPE_CHECKING:
    from pathosyn.framework import Parts
    from pathosyn.methods.pathosyn import PathoSyn

ROWS = 1024
"""Lesion windows that a weight file remembers the appearance of, at the most."""
BLUR = 0.1
"""Spread of what is added to a measured appearance in training, in units of its spread over the training lesions: no lesion is known by its numbers."""
SILENT = 0.1
"""Probability that the network is not told."""
NEAR_LARGEST, NEAR_SLICE = 0.5, 0.1
"""Widths in log(area) of the kernels that choose a training lesion by its largest slice, and weigh that lesion's slices."""
NEAR_ONE = 0.99
"""Correlations are held within ± this before they become Fisher's z."""
SMOOTH = 0.25
"""Bandwidth of the smoothed bootstrap, in units of the spread over the training lesions."""


def register(model: PathoSyn, contrasts: int) -> None:
    """The model's buffers for all this, still empty."""
    numbers, around = count(contrasts, rough=model.rough) + shared_count(model), surroundings.count(contrasts)
    for name, shape in (("look_mean", (numbers,)), ("look_std", (numbers,)), ("looks", (ROWS, numbers)), ("looks_of", (ROWS, 2 + contrasts))):
        model.register_buffer(name, torch.zeros(shape))
    if attuned(model):
        for name, shape in (("look_around_mean", (around,)), ("look_around_std", (around,)), ("look_map", (1 + around, numbers))):
            model.register_buffer(name, torch.zeros(shape))


def attuned(model: PathoSyn) -> bool:
    """Whether the scan's healthy tissue has a say in what a lesion looks like."""
    return model.config.method.attune and model.looking


def count(contrasts: int, *, rough: bool) -> int:
    """The numbers of an appearance that tell of the form."""
    return (6 if rough else 4) * contrasts + len(moments.pairs(contrasts))


def shared_count(model: PathoSyn) -> int:
    """And those that tell of the detail which contrasts share, at its end: one a pair, where the method asks."""
    return len(moments.pairs(len(model.config.contrasts))) if model.config.method.shared_grain else 0


def remembered(model: PathoSyn) -> bool:
    """Whether the training lesions' looks have been measured, all of them."""
    several = shared_count(model)
    return bool(model.looks_of.any()) and (not several or bool(model.look_std[-several:].any()))


def of_form(model: PathoSyn, look: Tensor) -> Tensor:
    """The part of `look` (…, K) that tells of the form."""
    return look[..., : look.shape[-1] - shared_count(model)]


def measure(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    """(B, K), in units of the training lesions: 0 is usual, 1 one spread more. Over the cells of `form` (`coarse.form`), each with the share of it that is
    lesion: per contrast mean, standard deviation, cube root of the third central moment, and by how much the edge differs from the mean; per contrast mean
    and standard deviation of the roughness, where there is one; per pair of contrasts the correlation; and, of the lesion's pixels in `batch.x`, per pair
    of contrasts that of their finest detail (`texture.shared`). 0 where a contrast is missing."""
    return (_all(model, form, batch, parts) - model.look_mean) / model.look_std.clamp(min=1e-3) * _known(model, batch.present)


def _all(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    raw = _raw(model, form, batch, parts)
    return torch.cat([raw, texture.shared(batch.x * parts.known, batch.m)], dim=1) if shared_count(model) else raw


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


def _known(model: PathoSyn, present: Flags) -> Tensor:
    """(B, K): 1 on the numbers of contrasts that are there."""
    there = present.float()
    pairs = [there[:, a : a + 1] * there[:, b : b + 1] for a, b in moments.pairs(there.shape[1])]
    several = there.repeat(1, 2 if model.rough else 1)
    return torch.cat([several, several, there, there, *pairs, *(pairs if shared_count(model) else ())], dim=1)


def shared(model: PathoSyn, look: Tensor | None, present: Flags) -> Tensor | None:
    """(B, C(C - 1)/2): the correlations of the finest detail that `look` asks for, 0 where a contrast is missing; NaN for a window that is told nothing, None
    where the method does not ask or none is."""
    several = shared_count(model)
    if look is None or not several:
        return None
    asked = look[:, -several:] * model.look_std[-several:] + model.look_mean[-several:]
    return asked * _known(model, present)[:, -several:].to(asked.device)


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


def held(model: PathoSyn, form: Image, look: Tensor, batch: LesionBatch, parts: Parts) -> Image:
    """A drawn form moved, on the lesion, to what was asked: by the linear map that brings the mean and the covariance over the contrasts of its cells to those
    of `look` with the least movement (`moments.transport`), its roughness by contrast. Windows that were told nothing stay."""
    with torch.autocast(form.device.type, enabled=False):
        return _held(model, form.float(), look.float(), batch, parts).to(form.dtype)


def _held(model: PathoSyn, form: Image, look: Tensor, batch: LesionBatch, parts: Parts) -> Image:
    contrasts, told = len(model.config.contrasts), look.isfinite().all(dim=1)
    is_there = batch.present.to(form.device)
    now = _moments(_raw(model, form, batch, parts), contrasts, is_there)
    asked = _moments(of_form(model, look.nan_to_num(0.0) * model.look_std + model.look_mean), contrasts, is_there)
    share = coarse.lesion_share(model, batch, parts).float() * told[:, None, None, None]
    groups = [(slice(0, contrasts), moments.transport(now[1], asked[1]))]
    if model.rough:
        rough = slice(contrasts, 2 * contrasts)
        groups.append((rough, ((asked[2] + moments.EVEN) / (now[2] + moments.EVEN)).diag_embed()))
    moved = form.clone()
    for channels, matrix in groups:
        mean, wanted = now[0][:, channels, None, None], asked[0][:, channels, None, None]
        there = torch.einsum("bij,bjhw->bihw", matrix, moved[:, channels] - mean) + wanted
        moved[:, channels] += share * (there - moved[:, channels]) * is_there[:, :, None, None]
    return moved


def _moments(raw: Tensor, contrasts: int, present: Flags) -> tuple[Tensor, Tensor, Tensor]:
    """From numbers in the form's own units: means (B, C or 2C), covariance of the contrasts' means (B, C, C), standard deviations of roughness (B, C)."""
    several = (raw.shape[1] - contrasts * (contrasts - 1) // 2) // contrasts // 2 - 1  # 1, or 2 with roughness
    mean, std = raw[:, : several * contrasts], raw[:, several * contrasts : 2 * several * contrasts].clamp(min=0.0)
    correlation = moments.matrix(raw[:, 2 * (several + 1) * contrasts :], contrasts)
    own = std[:, :contrasts] * present
    return mean, correlation * own[:, :, None] * own[:, None, :], std[:, contrasts:]


@torch.no_grad()
def remember(model: PathoSyn, batches: Iterable[LesionBatch]) -> dict[str, Any]:
    """Measure the appearance of at most `ROWS` training windows into the model's `looks`; their units, too, where they are not known yet. Where the method
    attunes, what the surroundings tell is learned, and `looks` holds what they leave open."""
    found: list[Tensor] = []
    origin: list[Tensor] = []
    around: list[Tensor] = []
    number: dict[str, int] = {}
    for batch in batches:
        parts = model.parts(batch)
        x_sub = model.substrate(batch.x, parts.support, parts.known) if batch.x_sub is None else batch.x_sub
        form, _ = coarse.form(model, model.to_scaled(decomposition.deviation(batch.x, x_sub, parts.support * parts.known)), batch, x_sub, parts)
        found.append(_all(model, form, batch, parts))
        around.append(surroundings.numbers(batch.x, parts.support, batch.present))
        subject = torch.tensor([number.setdefault(name, len(number)) for name in batch.subject], device=batch.x.device)
        origin.append(torch.cat([subject[:, None], pixels(batch)[:, None], batch.present], dim=1).float())
    raw, rows = torch.cat(found)[:ROWS], torch.cat(origin)[:ROWS]
    known = _known(model, rows[:, 2:] > 0)
    learned = {}
    new = model.look_std == 0  # a training that goes on may know some of them
    if bool(new.any()):
        total = known.sum(dim=0).clamp(min=1.0)
        mean = (raw * known).sum(dim=0) / total
        std = ((raw - mean).square() * known).sum(dim=0).div(total).sqrt()
        model.look_mean.copy_(torch.where(new, mean, model.look_mean))
        model.look_std.copy_(torch.where(new, std, model.look_std))
        learned = {"look_mean": model.look_mean.tolist(), "look_std": model.look_std.tolist()}
    model.looks.zero_()
    model.looks_of.zero_()
    looks = natural(model, (raw - model.look_mean) / model.look_std.clamp(min=1e-3)) * known
    if attuned(model):
        beside = torch.cat(around)[:ROWS]
        surroundings.learn(model, beside, looks, known, rows[:, 0])
        looks = (looks - surroundings.told(model, beside)) * known
    model.looks[: len(raw)] = looks
    model.looks_of[: len(rows)] = rows
    return learned


def natural(model: PathoSyn, look: Tensor) -> Tensor:
    """Looks (n, K) as they are averaged and varied: correlations as Fisher's z, of unit slope at the mean: averaged as they are, they lose what is near 1.
    Unchanged where the method says so."""
    mean, std, of = _correlations(model)
    z = ((look * std + mean).clamp(-NEAR_ONE, NEAR_ONE).atanh() - mean.atanh()) * (1.0 - mean.square()) / std
    return torch.where(of, z, look)


def plain(model: PathoSyn, look: Tensor) -> Tensor:
    """The inverse of `natural`, (n, K)."""
    mean, std, of = _correlations(model)
    return torch.where(of, ((mean.atanh() + look * std / (1.0 - mean.square())).tanh() - mean) / std, look)


def _correlations(model: PathoSyn) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and spread of the looks, (K,), and which of them are correlations that become Fisher's z."""
    of = torch.zeros_like(model.look_mean, dtype=torch.bool)
    contrasts = len(model.config.contrasts)
    of[count(contrasts, rough=model.rough) - len(moments.pairs(contrasts)) :] = model.config.method.fisher_z
    return model.look_mean.clamp(-NEAR_ONE, NEAR_ONE), model.look_std.clamp(min=1e-3), of


def pixels(batch: LesionBatch) -> Tensor:
    """(B,): pixels of the lesion."""
    return (batch.m > 0).sum(dim=(1, 2, 3)).to(batch.x.device)


def drawn(model: PathoSyn, areas: Tensor, present: Flags, around: Tensor | None, stream: torch.Generator) -> Tensor | None:
    """(n, K): the appearance of a new lesion in its n windows with `areas` (n,) pixels of lesion each, `present` (C,), in a scan with the surroundings
    `around` (N,), where the method asks for them; None where no appearance is known.

    One training lesion that has the contrasts is chosen, the likelier the nearer its largest slice is in area; each window takes the mean over that lesion's
    slices, weighed by how near they are in area; and the whole is moved a little, the same for all windows (a smoothed bootstrap: Silverman and Young 1987)."""
    looks, of = model.looks.cpu(), model.looks_of.cpu()
    looks, of = looks[of[:, 1] > 0], of[of[:, 1] > 0]
    if not len(of):
        return None
    there = present.cpu().float()
    lacking = (there - of[:, 2:]).clamp(min=0).sum(dim=1)
    looks, of = looks[lacking == lacking.min()], of[lacking == lacking.min()]
    areas, log_area = areas.cpu().float().clamp(min=1.0).log(), of[:, 1].log()
    subjects = of[:, 0].unique()
    largest = torch.stack([log_area[of[:, 0] == s].max() for s in subjects])
    # A Gumbel variate for each subject of the training: windows of one scan that are drawn apart then mostly take the same.
    gumbel = -(-torch.rand(int(of[:, 0].max()) + 1, generator=stream, dtype=torch.float64).clamp(min=1e-12).log()).log()
    score = -0.5 * ((areas.max() - largest) / NEAR_LARGEST) ** 2 + gumbel[subjects.long()]
    mine = of[:, 0] == subjects[score.argmax()]
    weight = (-0.5 * ((areas[:, None] - log_area[mine][None]) / NEAR_SLICE) ** 2).softmax(dim=1)
    moved = (weight @ looks[mine] + SMOOTH * looks.std(dim=0, correction=0) * torch.randn(looks.shape[1], generator=stream)) / (1.0 + SMOOTH**2) ** 0.5
    if attuned(model) and around is not None:
        moved = moved + surroundings.told(model, around[None].to(model.looks.device)).cpu()
    return plain(model, moved.to(model.looks.device)) * _known(model, present[None]).to(model.looks.device)
