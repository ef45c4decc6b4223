"""What a lesion looks like, in a few numbers: measured on the coarse form of a real one, shown to the network that draws forms, and taken from the training
lesions when a new one is drawn.

Left to itself the network learns from a few dozen subjects how bright and how varied a lesion is in *this* scan, which the scan does not tell. Given it, it
has to learn only how such a lesion lies in its mask; and what is given comes from the training lesions as a whole.

Pure functions of a model and a batch's fields, as `coarse` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pathosyn import coarse, decomposition, surroundings
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
NEAR_LARGEST, NEAR_SLICE = 0.5, 0.25
"""Widths in log(area) of the kernels that choose a training lesion by its largest slice, and weigh that lesion's slices."""
EVEN = 0.02
"""Units of the form: spreads below it are taken for chance."""
SMOOTH = 0.25
"""Bandwidth of the smoothed bootstrap, in units of the spread over the training lesions."""


def register(model: PathoSyn, contrasts: int) -> None:
    """The model's buffers for all this, still empty."""
    numbers, around = count(contrasts, rough=model.rough), surroundings.count(contrasts)
    for name, shape in (("look_mean", (numbers,)), ("look_std", (numbers,)), ("looks", (ROWS, numbers)), ("looks_of", (ROWS, 2 + contrasts))):
        model.register_buffer(name, torch.zeros(shape))
    if attuned(model):
        for name, shape in (("look_around_mean", (around,)), ("look_around_std", (around,)), ("look_map", (1 + around, numbers))):
            model.register_buffer(name, torch.zeros(shape))


def attuned(model: PathoSyn) -> bool:
    """Whether the scan's healthy tissue has a say in what a lesion looks like."""
    return model.config.method.attune and model.looking


def count(contrasts: int, *, rough: bool) -> int:
    """K, the length of an appearance."""
    return (6 if rough else 4) * contrasts + contrasts * (contrasts - 1) // 2


def measure(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    """(B, K), in units of the training lesions: 0 is usual, 1 one spread more. Over the cells of `form` (`coarse.form`), each with the share of it that is
    lesion: per contrast mean, standard deviation, cube root of the third central moment, and by how much the edge differs from the mean; per contrast mean
    and standard deviation of the roughness, where there is one; per pair of contrasts the correlation. 0 where a contrast is missing."""
    raw = _raw(model, form, batch, parts)
    return (raw - model.look_mean) / model.look_std.clamp(min=1e-3) * _known(batch.present, rough=model.rough)


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
    pairs = [over(apart[:, a : a + 1] * apart[:, b : b + 1]) / (std[:, a : a + 1] * std[:, b : b + 1]) for a, b in combinations(range(contrasts), 2)]
    return torch.cat([mean, std, third.sign() * third.abs() ** (1 / 3), edge, *pairs], dim=1)


def _known(present: Flags, *, rough: bool) -> Tensor:
    """(B, K): 1 on the numbers of contrasts that are there."""
    there = present.float()
    pairs = [there[:, a : a + 1] * there[:, b : b + 1] for a, b in combinations(range(there.shape[1]), 2)]
    several = there.repeat(1, 2 if rough else 1)
    return torch.cat([several, several, there, there, *pairs], dim=1)


def shown(model: PathoSyn, look: Tensor | None, batch: LesionBatch, parts: Parts) -> Image:
    """(B, K + 1, H/coarse, W/coarse): the numbers, and a 1 that says they are told, spread over the lesion; zeros where `look` is None, and for a window whose
    row of it is NaN."""
    share = coarse.lesion_share(model, batch, parts)
    if look is None:
        return share.new_zeros(len(share), len(model.look_mean) + 1, *share.shape[2:])
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
    of `look` with the least movement (Monge-Kantorovich; Pitié and Kokaram 2007), its roughness by contrast. Windows that were told nothing stay."""
    with torch.autocast(form.device.type, enabled=False):
        return _held(model, form.float(), look.float(), batch, parts).to(form.dtype)


def _held(model: PathoSyn, form: Image, look: Tensor, batch: LesionBatch, parts: Parts) -> Image:
    contrasts, told = len(model.config.contrasts), look.isfinite().all(dim=1)
    is_there = batch.present.to(form.device)
    now = _moments(_raw(model, form, batch, parts), contrasts, is_there)
    asked = _moments(look.nan_to_num(0.0) * model.look_std + model.look_mean, contrasts, is_there)
    share = coarse.lesion_share(model, batch, parts).float() * told[:, None, None, None]
    groups = [(slice(0, contrasts), _transport(now[1], asked[1]))]
    if model.rough:
        rough = slice(contrasts, 2 * contrasts)
        groups.append((rough, ((asked[2] + EVEN) / (now[2] + EVEN)).diag_embed()))
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
    correlation = torch.eye(contrasts, device=raw.device).repeat(len(raw), 1, 1)
    for k, (a, b) in enumerate(combinations(range(contrasts), 2)):
        correlation[:, a, b] = correlation[:, b, a] = raw[:, 2 * (several + 1) * contrasts + k].clamp(-1.0, 1.0)
    own = std[:, :contrasts] * present
    return mean, correlation * own[:, :, None] * own[:, None, :], std[:, contrasts:]


def _transport(source: Tensor, target: Tensor) -> Tensor:
    """(B, C, C): A^-½ (A^½ B A^½)^½ A^-½, of covariances to both of which EVEN² is added: a lesion of one cell has none of its own."""
    even = EVEN**2 * torch.eye(source.shape[-1], device=source.device, dtype=torch.float64)
    a, b = source.double() + even, target.double() + even
    half, back = _power(a, 0.5), _power(a, -0.5)
    return (back @ _power(half @ b @ half, 0.5) @ back).float()


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Of symmetric matrices; eigenvalues are held at EVEN⁴, since correlations that were drawn apart may not belong to any covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ (values.clamp(min=EVEN**4) ** exponent).diag_embed() @ vectors.transpose(-1, -2)


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
        found.append(_raw(model, form, batch, parts))
        around.append(surroundings.numbers(batch.x, parts.support, batch.present))
        subject = torch.tensor([number.setdefault(name, len(number)) for name in batch.subject], device=batch.x.device)
        origin.append(torch.cat([subject[:, None], pixels(batch)[:, None], batch.present], dim=1).float())
    raw, rows = torch.cat(found)[:ROWS], torch.cat(origin)[:ROWS]
    known = _known(rows[:, 2:] > 0, rough=model.rough)
    learned = {}
    if not bool(model.look_std.any()):
        total = known.sum(dim=0).clamp(min=1.0)
        model.look_mean.copy_((raw * known).sum(dim=0) / total)
        model.look_std.copy_((((raw - model.look_mean) ** 2 * known).sum(dim=0) / total).sqrt())
        learned = {"look_mean": model.look_mean.tolist(), "look_std": model.look_std.tolist()}
    model.looks.zero_()
    model.looks_of.zero_()
    looks = (raw - model.look_mean) / model.look_std.clamp(min=1e-3) * known
    if attuned(model):
        beside = torch.cat(around)[:ROWS]
        surroundings.learn(model, beside, looks, known, rows[:, 0])
        looks = (looks - surroundings.told(model, beside)) * known
    model.looks[: len(raw)] = looks
    model.looks_of[: len(rows)] = rows
    return learned


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
    spread = looks.std(dim=0, correction=0) if attuned(model) else torch.ones(looks.shape[1])
    moved = (weight @ looks[mine] + SMOOTH * spread * torch.randn(looks.shape[1], generator=stream)) / (1.0 + SMOOTH**2) ** 0.5
    if attuned(model) and around is not None:
        moved = moved + surroundings.told(model, around[None].to(model.looks.device)).cpu()
    return (moved * _known(present[None].cpu(), rough=model.rough)).to(model.looks.device)
