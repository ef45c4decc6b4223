"""Is what is asked of a new lesion what the training lesions are, and does the draw keep to it?

    python benchmarks/quality_looks.py --data slices.h5 [--weights glioma] [--learn 4] [--judge 24] [--seed 0] [--threads N]

For each number of a lesion's looks (`pathosyn.lesion.appearance`, in the form's own units): mean and spread, one weight a subject, of the real lesions, of
what is asked of the drawn ones in their place, of their coarse forms, and of what the last call made of these; on training subjects, whose looks the weights
remember, and on validation subjects. Then, over all windows, how far what is asked and what is drawn go together, as a correlation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import judging
import numpy as np
import torch
from torch import Tensor

from pathosyn import decomposition
from pathosyn.config import Config
from pathosyn.framework.base import Parts
from pathosyn.lesion import appearance, coarse, moments
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Image, LesionBatch

KINDS = ("real", "asked", "form", "drawn")


@dataclass
class Listening:
    """Wraps a method's `draw` and notes the looks of what goes in and comes out: (n, K) a kind."""

    model: PathoSyn
    found: dict[str, list[Tensor]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    known: list[Tensor] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """From now on."""
        self._draw, self._form = self.model.draw, self.model.draw_form
        self.model.draw, self.model.draw_form = self.draw, self.draw_form  # type: ignore[method-assign]

    def draw_form(self, batch: LesionBatch, x_sub: Image, noise: Callable[[int], Image], **more: Any) -> Image:
        """As the model's."""
        form = self._form(batch, x_sub, noise, **more)
        self.found["form"].append(appearance.of_form(self.model, appearance.raw(self.model, form, batch, self.model.parts(batch))))
        return form

    def draw(self, batch: LesionBatch, x_sub: Image, noise: Callable[[int], Image], *, look: Tensor | None = None, steps: int | None = None) -> Image:
        """As the model's."""
        r = self._draw(batch, x_sub, noise, look=look, steps=steps)
        if look is None:
            raise SystemExit("these weights ask nothing of a lesion: there is nothing to compare")
        parts = self.model.parts(batch)
        self.found["real"].append(self._looks(batch, batch.x, x_sub, parts))
        self.found["drawn"].append(self._looks(batch, torch.where(parts.support > 0, x_sub + r, batch.x), x_sub, parts))
        self.found["asked"].append(look * self.model.look_std + self.model.look_mean)
        self.known.append(appearance.known(self.model, batch.present))
        self.subjects += list(batch.subject)
        return r

    def _looks(self, batch: LesionBatch, x: Image, x_sub: Image, parts: Parts) -> Tensor:
        """Of a lesion that lies in `x`."""
        r0 = self.model.to_scaled(decomposition.deviation(x, x_sub, parts.support * parts.known))
        with_it = replace(batch, x=x)
        return appearance.raw(self.model, coarse.form(self.model, r0, with_it, x_sub, parts)[0], with_it, parts)


def numbers(config: Config, *, rough: bool) -> list[str]:
    """What each of the K numbers is."""
    contrasts, method = config.contrasts, config.method
    channels = [*contrasts, *(f"{name}'s roughness" for name in contrasts)] if rough else [*contrasts]
    pairs = [f"{contrasts[a]}-{contrasts[b]}" for a, b in moments.pairs(len(contrasts))]
    listed = [("mean", channels), ("std", channels), ("third moment", contrasts), ("edge", contrasts), ("correlation", pairs)]
    detail = [("fine detail", pairs)] * method.shared_grain + [("sparseness", contrasts)] * method.tails + [("borders", contrasts)] * method.borders
    return [f"{kind}, {of}" for kind, several in [*listed, *detail] for of in several]


def weighted(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Mean and spread."""
    mean = float((weight * values).sum() / weight.sum())
    return mean, float(np.sqrt((weight * (values - mean) ** 2).sum() / weight.sum()))


def main() -> None:
    """A row a number."""
    parser = judging.arguments(__doc__, learn=4, judge=24)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    loaded = judging.ready(given)
    heard = Listening(loaded.method)
    heard.begin()
    with tempfile.TemporaryDirectory() as folder:
        judging.drawn(given.data, loaded, Path(folder), learn=given.learn, judge=given.judge, seed=given.seed)
    found = {kind: torch.cat(rows).cpu().numpy() for kind, rows in heard.found.items()}
    known, subjects = torch.cat(heard.known).cpu().numpy() > 0, np.array(heard.subjects)
    training = np.isin(subjects, loaded.provenance.subjects["train"])
    print(f"{training.sum()} windows of {len(set(subjects[training]))} training subjects, {(~training).sum()} of {len(set(subjects[~training]))} others")
    print("number | " + " | ".join(f"{part}: {', '.join(KINDS)}" for part in ("training", "others")) + " | asked with drawn")
    for k, name in enumerate(numbers(loaded.config, rough=loaded.method.rough)):
        cells = []
        for part in (training, ~training):
            rows = part & known[:, k]
            _, where, many = np.unique(subjects[rows], return_inverse=True, return_counts=True)
            each = {kind: weighted(found[kind][rows, k], 1.0 / many[where]) for kind in KINDS if k < found[kind].shape[1]}  # a form has no fine detail
            cells.append(", ".join(f"{each[kind][0]:.2f} ± {each[kind][1]:.2f}" if kind in each else "-" for kind in KINDS))
        together = np.corrcoef(found["asked"][known[:, k], k], found["drawn"][known[:, k], k])[0, 1]
        print(f"{name} | " + " | ".join(cells) + f" | {together:.2f}")


if __name__ == "__main__":
    main()
