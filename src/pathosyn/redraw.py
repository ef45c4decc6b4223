"""Reject and redraw: of a few lesions that could be drawn, the one whose coarse forms look most like real ones is drawn.

A logistic regression learns, on the training lesions, to tell real forms from drawn ones by a hundred numbers of each; its log odds score a candidate. The
judges of `evaluate` see other numbers, of the finished window, and other subjects.

Pure functions of a model and a batch's fields, as `coarse` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from pathosyn import appearance, coarse, decomposition, rng
from pathosyn.types import Image, LesionBatch, Parts

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn

Noise = TypeVar("Noise")

DRAWS = 2
"""Forms drawn on each training window from which the regression learns."""
SOFT = 0.03
"""scikit-learn's C: a hundred numbers of a few hundred windows need a strong prior."""
REACH = (1, 2, 4)
"""Cells between which steps are measured; beyond the last but one, how steps of two channels correlate is left out."""
STRIDE = 100_000
"""Between the noise fields of one candidate and the next: more than any draw takes."""


def register(model: PathoSyn) -> None:
    """The model's buffer for all this, still empty."""
    model.register_buffer("judge", torch.zeros(1 + count(model)))


def count(model: PathoSyn) -> int:
    """F, how many numbers `numbers` gives."""
    contrasts = len(model.config.contrasts)
    channels = (1 + model.rough) * contrasts
    pairs = channels * (channels - 1) // 2
    return appearance.count(contrasts, rough=model.rough) + channels + 3 * channels * len(REACH) + pairs * (len(REACH) - 1)


def candidates(model: PathoSyn) -> int:
    """How many lesions are tried: 1 where nothing was learned by which to choose."""
    return model.config.method.redraw if model.judging and bool(model.judge.any()) else 1


def key(asked: Sequence[object], candidate: int) -> tuple[object, ...]:
    """The key of a candidate's random streams; the first one's is the key that was asked for."""
    return (*asked, "candidate", candidate) if candidate else tuple(asked)


def noise_of(noise: Callable[[int], Noise], candidate: int) -> Callable[[int], Noise]:
    """The noise fields of a candidate; the first one's are those that were asked for."""
    return lambda k: noise(k + candidate * STRIDE)


def numbers(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    """(B, F) of `coarse.form`s: what the lesion looks like (`appearance.measure`); per channel the fourth moment over ten; per channel and at each `REACH` the
    logarithm of the root-mean-square step, and that of its ratio to the spread and to the mean absolute step; per pair of channels how steps correlate."""
    form, inside = form.float(), (coarse.lesion_share(model, batch, parts) >= 0.5).float()
    cells = inside.sum(dim=(2, 3)).clamp(min=1.0)
    apart = (form - ((form * inside).sum(dim=(2, 3)) / cells)[:, :, None, None]) * inside
    spread = (apart.square().sum(dim=(2, 3)) / cells + 1e-4).sqrt()
    found = [appearance.measure(model, form, batch, parts), (apart**4).sum(dim=(2, 3)) / cells / spread**4 / 10]
    for reach in REACH:
        steps, both = _steps(form, reach), _pairs(inside, reach)
        total = both.sum(dim=2).clamp(min=1.0)
        rms = ((steps.square() * both).sum(dim=2) / total + 1e-4).sqrt()
        found += [rms.log(), (rms / spread).log().clamp(-3, 3), ((steps.abs() * both).sum(dim=2) / total + 1e-2).log() - rms.log()]
        if reach < REACH[-1]:
            products = [(steps[:, a] * steps[:, b] * both[:, 0]).sum(dim=1) for a, b in combinations(range(form.shape[1]), 2)]
            scale = [rms[:, a] * rms[:, b] for a, b in combinations(range(form.shape[1]), 2)]
            found += [(product / total[:, 0] / unit)[:, None] for product, unit in zip(products, scale, strict=True)]
    return torch.cat(found, dim=1)


def _steps(field: Image, reach: int) -> Tensor:
    """(B, C, n): differences of cells `reach` apart, down and across."""
    down, across = field[:, :, reach:] - field[:, :, :-reach], field[:, :, :, reach:] - field[:, :, :, :-reach]
    return torch.cat([down.flatten(2), across.flatten(2)], dim=2)


def _pairs(inside: Image, reach: int) -> Tensor:
    """(B, 1, n): 1 where both cells of such a step are lesion."""
    down, across = inside[:, :, reach:] * inside[:, :, :-reach], inside[:, :, :, reach:] * inside[:, :, :, :-reach]
    return torch.cat([down.flatten(2), across.flatten(2)], dim=2)


def score(model: PathoSyn, form: Image, batch: LesionBatch, parts: Parts) -> Tensor:
    """(B,): log odds that a form is a real one; only differences between candidates mean anything."""
    return numbers(model, form, batch, parts) @ model.judge[1:] + model.judge[0]


@torch.no_grad()
def learn(model: PathoSyn, batches: Iterable[LesionBatch]) -> dict[str, Any]:
    """Fit the regression on training windows: their real forms against `DRAWS` drawn ones each. Returns what to log: the AUC on the windows it learned from."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    real, drawn = [], []
    for batch in batches:
        parts = model.parts(batch)
        f = model.fill(batch) if batch.x_sub is None else batch.x_sub
        form, _ = coarse.form(model, model.to_scaled(decomposition.deviation(batch.x, f, parts.support * parts.known)), batch, f, parts)
        real.append(numbers(model, form, batch, parts))
        for k in range(DRAWS):
            seeds = [rng.seed_of("redraw", k)] * len(batch)
            made = model.draw_form(batch, f, model.noise(batch, seeds), look=model.look(batch, seeds))
            drawn.append(numbers(model, made, batch, parts))
    values = torch.cat(real + drawn).double().cpu().numpy()
    labels = [True] * sum(map(len, real)) + [False] * sum(map(len, drawn))
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=SOFT, max_iter=5000, class_weight="balanced")).fit(values, labels)
    scaler, regression = fitted[0], fitted[1]
    slope = regression.coef_[0] / scaler.scale_
    weights = [float(regression.intercept_[0] - slope @ scaler.mean_), *slope.tolist()]
    model.judge.copy_(torch.tensor(weights, dtype=torch.float64).float())
    return {"redraw_auc": [float(roc_auc_score(labels, fitted.decision_function(values)))]}
