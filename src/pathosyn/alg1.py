"""Alg. 1 on one batch: the terms of Eqs. 9 and 13 on pixels, Eq. 9 on the coarse form, and the last stage's.

Pure functions of a model, a batch and its f; `methods/pathosyn.py` says which player learns from which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pathosyn import augment, decomposition, diffusion, losses, rng
from pathosyn.lesion import appearance, coarse, lay, texture
from pathosyn.types import Image, LesionBatch, Mask, Times

if TYPE_CHECKING:
    from pathosyn.framework.base import Parts
    from pathosyn.methods.pathosyn import PathoSyn

KEPT = 4
"""A drawn form is kept over squares of so many cells a side, which lie elsewhere at each step: a grid that stays shows in what is drawn."""


@dataclass(frozen=True)
class Noised:
    """One call of eps_theta in training: times, what counts, and the estimate with what it should have been. Of windows whose form is `drawn` (B, 1, 1, 1)
    nothing is known of each pixel; `start` is the form at full resolution, r_0 where there is none."""

    t: Times
    counts: Image
    where: Image
    drawn: Mask
    start: Image
    r0: Image
    r0_hat: Image
    wanted: Image
    output: Image
    x_hat: Image


def _of_lesions(batch: LesionBatch, parts: Parts) -> Image:
    """1 on the contrasts that a window has, 0 for a healthy hole: it has no lesion to learn from. (B, C, 1, 1)."""
    return parts.known * (~batch.healthy).to(batch.x.dtype)[:, None, None, None]


def noised(model: PathoSyn, batch: LesionBatch, parts: Parts, x_sub: Image, streams: Sequence[torch.Generator], *, last: bool = False) -> Noised:
    """One call of eps_theta on noised deviations, at any t; `last`: at the draw's last call, where all that is known of r_0 is its coarse form."""
    method, T = model.config.method, model.schedule.T  # noqa: N806 - the paper's letter
    device, shape = batch.x.device, tuple(batch.x.shape[1:])
    t = diffusion.training_times(rng.integers(streams, 1, T), T, times=method.times).to(device)
    eps = rng.normal(streams, shape).to(device)
    counts = _of_lesions(batch, parts)
    where = parts.support * counts
    r0 = start = model.to_scaled(decomposition.deviation(batch.x, x_sub, where))
    form = there = shared = None
    own = coarse.own_of(model, batch.x, parts)
    drawn = torch.zeros_like(counts[:, :1])
    if last or model.coarse:
        t = torch.full_like(t, method.level)
        form, there = coarse.form(model, r0, batch, x_sub, parts, own=own.spread)
        # What is told is data: in joint training r_0 carries a gradient, which must not reach f_sub through the numbers that describe it.
        look = appearance.measure(model, form.detach(), batch, parts) if model.looking else None
        if look is not None:
            shared = appearance.shared(model, appearance.taught(look, streams), batch.present)
        if last and method.drawn_forms:
            chosen = rng.uniform(streams) < method.drawn_forms
            drawn = chosen.to(device, r0.dtype)[:, None, None, None]
            which = chosen.nonzero().flatten().tolist()
            form = form.clone()
            form[which] = own_form(model, batch, x_sub, look, streams, which).to(form.dtype)
        start = decomposition.refine(coarse.means(model, form, batch, x_sub, parts), there, parts.support, method.coarse)
    # A missing contrast is 0 here as it is at the draw.
    r_t = diffusion.diffuse(start, t, eps, parts.support * parts.known, model.schedule)
    white = rng.normal(streams, shape).to(device) if method.grain else None
    seen = coarse.seen(model, model.condition(batch.x, x_sub, batch.m, parts), own, parts, white, form=form, there=there, shared=shared)
    output, r0_hat = model.estimate(model.eps, r_t, seen, t)
    # What is asked for gives r_0 itself, also where the noised start was its coarse form.
    noise = eps if start is r0 else diffusion.predict_eps(r_t, r0, t, model.schedule)
    wanted = diffusion.target(r0, noise, t, model.schedule, prediction=method.prediction)
    x_hat = decomposition.recompose(batch.x, x_sub, model.from_scaled(r0_hat * parts.support), parts.S, kind=method.composition)
    return Noised(t, counts, where, drawn, start, r0, r0_hat, wanted, output, x_hat)


@torch.no_grad()
def own_form(model: PathoSyn, batch: LesionBatch, x_sub: Image, look: Tensor | None, streams: Sequence[torch.Generator], which: Sequence[int]) -> Image:
    """The forms that the model draws for the windows `which`, told and held to `look`, the real ones': (len(which), C or 2C, H/coarse, W/coarse).

    Every window's stream gives noise for a form, wanted or not: what is drawn from it afterwards must not depend on the others of its batch."""
    some, shape = batch.some(which), tuple(batch.x.shape[1:])
    look = look[which] if look is not None else None
    return model.draw_form(some, x_sub[which], lambda _: rng.normal(streams, shape)[which].to(x_sub.device), look=look)


def structure_terms(model: PathoSyn, batch: LesionBatch, parts: Parts, x_sub: Image, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """Eq. 9 on the coarse form of the deviation."""
    method = model.config.method
    assert model.coarse is not None
    counts = _of_lesions(batch, parts)
    r0, there = coarse.form(model, model.to_scaled(decomposition.deviation(batch.x, x_sub, parts.support * counts)), batch, x_sub, parts)
    if model.looking:
        r0 = appearance.recoloured(model, r0, batch, parts, streams)
    several = r0.shape[1] // batch.x.shape[1]
    known, counts = parts.known.repeat(1, several, 1, 1), counts.repeat(1, several, 1, 1)
    t = diffusion.training_times(rng.integers(streams, 1, model.schedule.T), model.schedule.T, times=method.times).to(r0.device)
    eps = rng.normal(streams, tuple(r0.shape[1:])).to(r0.device)
    r_t = diffusion.diffuse(r0, t, eps, there * known, model.schedule)
    look = appearance.taught(appearance.measure(model, r0, batch, parts), streams) if model.looking else None
    output, r0_hat = model.estimate(model.coarse, r_t, model.condition_form(batch, x_sub, parts, look), t)
    wanted = diffusion.target(r0, eps, t, model.schedule, prediction=method.coarse_prediction)
    diff = losses.diffusion_loss(wanted, output, there * counts, diffusion.snr_weight(t, model.schedule) if method.coarse_prediction == "r0" else None)
    return {"diff": diff, "pat": losses.masked_mean((r0_hat - r0).abs(), there * counts), "loss": diff}


def distilled_terms(model: PathoSyn, batch: LesionBatch, parts: Parts, x_sub: Image, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """How far one call of the student lies from what its teacher draws in several, from the same noise (Luhman and Luhman 2021); `untaught`: one call of
    the teacher does. Both are told the looks of the window's lesion."""
    with torch.no_grad():
        r0, there = coarse.form(model, model.to_scaled(decomposition.deviation(batch.x, x_sub, parts.support * parts.known)), batch, x_sub, parts)
        look = appearance.taught(appearance.measure(model, r0, batch, parts), streams) if model.looking else None
        shown, noise = model.condition_form(batch, x_sub, parts, look), rng.normal(streams, tuple(r0.shape[1:])).to(r0.device)
        wanted = model.sample_form(shown, parts, lambda _: noise, steps=model.config.method.steps)
        untaught = model.sample_form(shown, parts, lambda _: noise, steps=1)
    counts = _of_lesions(batch, parts)
    where = there * counts.repeat(1, r0.shape[1] // batch.x.shape[1], 1, 1)
    drawn = model.sample_form(shown, parts, lambda _: noise)
    terms = {name: losses.masked_mean((form - wanted).square(), where) for name, form in (("distil", drawn), ("untaught", untaught))}
    return terms | {"loss": terms["distil"]}


def deviation_terms(model: PathoSyn, batch: LesionBatch, parts: Parts, noised: Noised) -> dict[str, Tensor]:
    lam = model.config.method.weights
    weight = _time_weight(model, noised.t)
    printed = model.config.method.composition == "paper"
    band = decomposition.ring(model.smoothed(batch.m)) * (noised.counts if printed else noised.where)
    terms = losses.deviation_loss(
        noised.r0_hat,
        noised.r0,
        noised.where,
        band,
        (1.0 - parts.support) * noised.counts,
        lam_pat=lam.pat,
        lam_ring=lam.ring,
        lam_leak=lam.leak,
        weight=weight,
    )
    terms["diff"] = losses.diffusion_loss(noised.wanted, noised.output, noised.where)
    terms["syn"] = losses.synthesis_loss(noised.x_hat, batch.x, parts.S * (noised.counts if printed else noised.where), weight)
    with torch.no_grad():
        terms["std_r0"] = (losses.masked_mean((noised.r0 * model.r_scale.view(1, -1, 1, 1)) ** 2, noised.where)).sqrt()
    return terms


def _scores(model: PathoSyn, x: Image, batch: LesionBatch, parts: Parts, shifts: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's scores of windows that are moved by `shifts` (B, 2) pixels: its patches lie on a grid, on which eps_theta would otherwise learn to
    set dots that suit them."""
    assert model.critic is not None
    moved = [augment.rolled(field, shifts) for field in (x * parts.known, batch.m, parts.S)]
    return model.critic(*moved, parts.known.expand_as(x))


def _shifts(streams: Sequence[torch.Generator], size: int = 8) -> Tensor:
    """(B, 2), each 0…size - 1 pixels."""
    return torch.stack([rng.integers(streams, 0, size - 1), rng.integers(streams, 0, size - 1)], dim=1)


def critic_terms(model: PathoSyn, batch: LesionBatch, parts: Parts, x_sub: Image, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """Real windows against windows composed of r̂_0."""
    with torch.no_grad():
        fake = noised(model, batch, parts, x_sub, streams, last=True).x_hat
    shifts = _shifts(streams)
    scores = zip(_scores(model, batch.x, batch, parts, shifts), _scores(model, fake, batch, parts, shifts), strict=True)
    terms = dict(zip(("critic_patch", "critic_whole"), (losses.critic_loss(real, drawn) for real, drawn in scores), strict=True))
    return {**terms, "loss": terms["critic_patch"] + terms["critic_whole"]}


def sharp_terms(model: PathoSyn, batch: LesionBatch, parts: Parts, x_sub: Image, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """What the last call learns from: patches like the real ones, the critic's word, the coarse form that it was given, and Eq. 9. A drawn form it keeps
    over cells of twice the size alone: what such a form lacks is detail of its own cells."""
    lam = model.config.method
    drawn = noised(model, batch, parts, x_sub, streams, last=True)
    theirs, own = drawn.where * (1.0 - drawn.drawn), drawn.where * drawn.drawn
    terms = {"low": losses.low_pass_loss(drawn.r0_hat, drawn.r0, theirs, size=lam.coarse)}
    if lam.drawn_forms:
        shifts = _shifts(streams, KEPT * lam.coarse)
        moved = [augment.rolled(field, shifts) for field in (drawn.r0_hat, drawn.start, own)]
        terms["low"] = terms["low"] + losses.low_pass_loss(*moved, size=KEPT * lam.coarse)
    loss = lam.low * terms["low"]
    made, x, lesion = drawn.x_hat * parts.known, batch.x * parts.known, batch.m * drawn.counts.amax(dim=1, keepdim=True)
    if lam.patches:
        filters = torch.stack([texture.directions(batch.x.shape[1], stream) for stream in streams]).to(batch.x.device)
        terms["patches"] = texture.distance(made, x, texture.regions(batch.m, parts.S), texture.around(x, parts.S), filters)
        loss = loss + lam.patches * terms["patches"]
    if lam.shared:
        terms["shared"] = texture.shared_distance(made, x, lesion)
        loss = loss + lam.shared * terms["shared"]
    if lam.lay:
        along = torch.stack([lay.directions(batch.x.shape[1], stream) for stream in streams]).to(batch.x.device)
        terms["lay"] = lay.distance(made, x, lay.zones(lesion), along)
        loss = loss + lam.lay * terms["lay"]
    if lam.adversary:
        patch, whole = _scores(model, drawn.x_hat, batch, parts, _shifts(streams))
        terms["adversary"] = -losses.mean_or_0(patch) - whole.mean()
        loss = loss + lam.adversary * terms["adversary"]
    terms["diff"] = losses.diffusion_loss(drawn.wanted, drawn.output, theirs)
    return {**terms, "loss": loss + lam.anchor * terms["diff"]}


def _time_weight(model: PathoSyn, t: Times) -> Tensor | None:
    """√ᾱ_t for ε-prediction in `default`: 1/√ᾱ_t in Eq. 12 would let t > 750 make up most of L_dev (DESIGN §3, 6)."""
    if model.config.method.composition == "paper" or model.config.method.prediction != "eps":
        return None
    return diffusion.at(model.schedule.alpha_bar, t).flatten().sqrt().float()
