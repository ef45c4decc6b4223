"""Reject and redraw: does the best of a few drawn forms make better lesions than any one of them?

    python benchmarks/quality_redraw.py --data slices.h5 --weights glioma [--candidates 3] [--learn 4] [--judge 20] [--threads N]

For each window `--candidates` forms are drawn, each with looks of its own. A logistic regression learns on the training subjects to tell real forms from
drawn ones by their numbers (`appearance.measure`, and how steps lie, correlate and repeat, see `numbers`); it scores every candidate. Then the trees are
asked as in quality_realism.py, on validation subjects, folds by subject, for: each candidate, the best of them by that score, the worst of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import judging
import numpy as np
import torch
from judging import Seen
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pathosyn import appearance, coarse, decomposition, rng
from pathosyn.checkpoint import Loaded
from pathosyn.data.slices import Slices
from pathosyn.evaluate import realism
from pathosyn.generate import chosen, in_batches
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import Image, LesionBatch

SOFT = 0.03
"""scikit-learn's C: about a hundred numbers of a few hundred windows need a strong prior."""


@dataclass(frozen=True)
class Window:
    """One window's real form and its candidates, in numbers and as the trees see them."""

    subject: str
    judged: bool
    real: np.ndarray
    drawn: np.ndarray
    real_seen: dict[str, float]
    drawn_seen: list[dict[str, float]]


def numbers(method: PathoSyn, form: Image, batch: LesionBatch) -> np.ndarray:
    """(B, F): what the lesion looks like; per channel and at 1, 2 and 4 cells' distance the logarithm of the root-mean-square step, its ratio to the spread and
    to the mean absolute step; per pair of channels how steps of 1 and 2 cells correlate; per channel the fourth moment."""
    parts = method.parts(batch)
    form, inside = form.float(), (coarse.lesion_share(method, batch, parts) >= 0.5).float()
    count = inside.sum(dim=(2, 3)).clamp(min=1.0)
    apart = (form - ((form * inside).sum(dim=(2, 3)) / count)[:, :, None, None]) * inside
    spread = (apart.square().sum(dim=(2, 3)) / count + 1e-4).sqrt()
    found = [appearance.measure(method, form, batch, parts), (apart**4).sum(dim=(2, 3)) / count / spread**4 / 10]
    for reach in (1, 2, 4):
        step, both = [], []
        for dim in (2, 3):
            n = form.shape[dim] - reach
            step.append((form.narrow(dim, reach, n) - form.narrow(dim, 0, n)).flatten(2))
            both.append((inside.narrow(dim, reach, n) * inside.narrow(dim, 0, n)).flatten(2))
        steps, pairs = torch.cat(step, dim=2), torch.cat(both, dim=2)
        total = pairs.sum(dim=2).clamp(min=1.0)
        rms = ((steps.square() * pairs).sum(dim=2) / total + 1e-4).sqrt()
        found += [rms.log(), (rms / spread).log().clamp(-3, 3), ((steps.abs() * pairs).sum(dim=2) / total + 1e-2).log() - rms.log()]
        if reach < 4:
            found += [
                ((steps[:, a] * steps[:, b] * pairs[:, 0]).sum(dim=1) / total[:, 0] / rms[:, a] / rms[:, b])[:, None]
                for a, b in combinations(range(form.shape[1]), 2)
            ]
    return torch.cat(found, dim=1).numpy()


@torch.inference_mode()
def drawn(loaded: Loaded, batch: LesionBatch, candidates: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Numbers of the real forms, and for each candidate its numbers and its composed windows (B, C, H, W)."""
    method = loaded.method
    parts, f = method.parts(batch), method.fill(batch)
    real, _ = coarse.form(method, method.to_scaled(decomposition.deviation(batch.x, f, parts.support * parts.known)), batch, f, parts)
    figures, windows = [], []
    for k in range(candidates):
        streams = [rng.generator(k, s, z) for s, z in zip(batch.subject, batch.z, strict=True)]
        fields: dict[int, torch.Tensor] = {}

        def noise(n: int, fields: dict[int, torch.Tensor] = fields, streams: list[torch.Generator] = streams) -> torch.Tensor:
            return fields.setdefault(n, rng.normal(streams, tuple(batch.x.shape[1:])))

        form = method.draw_form(batch, f, noise, look=method.look(batch, k))
        r = method.last_call(batch, f, form, lambda n: noise(5000 + n))
        figures.append(numbers(method, form, batch))
        windows.append(((decomposition.heal(batch.x, f, parts.S) + parts.S * r) * parts.known).float().numpy())
    return numbers(method, real, batch), figures, windows


def windows_of(loaded: Loaded, data: Path, partition: str, count: int, candidates: int) -> Iterator[Window]:
    """The windows of a partition with their candidates."""
    slices = Slices(data, partition, contrasts=loaded.config.contrasts, every=False)
    for members in in_batches(slices, chosen(slices, count)):
        batch = slices.lesion(members)
        real, figures, made = drawn(loaded, batch, candidates)
        for b, row in enumerate(members):
            scene = realism.Scene.of(slices, row)
            if scene.m.sum() < realism.SMALLEST:
                continue
            seen = [realism.measured(scene, x, scene.m, scene.S > 0) for x in (scene.x, *(x[b] for x in made))]
            yield Window(batch.subject[b], partition == "validation", real[b], np.stack([each[b] for each in figures]), seen[0], seen[1:])


def judge_of(windows: list[Window]) -> Pipeline:
    """The regression: real forms are class 1."""
    train = [w for w in windows if not w.judged]
    values = np.concatenate([np.stack([w.real for w in train]), *[w.drawn for w in train]])
    labels = np.arange(len(values)) < len(train)
    return make_pipeline(StandardScaler(), LogisticRegression(C=SOFT, max_iter=5000, class_weight="balanced")).fit(values, labels)


def main() -> None:
    """Print one row a candidate, one for the best and one for the worst."""
    parser = judging.arguments(__doc__, learn=4, judge=20)
    parser.add_argument("--candidates", type=int, default=3)
    given = parser.parse_args()
    loaded = judging.ready(given)
    windows = [w for p, n in (("train", given.learn), ("validation", given.judge)) for w in windows_of(loaded, given.data, p, n, given.candidates)]
    judge = judge_of(windows)
    choices = {f"candidate {k}": [k] * len(windows) for k in range(given.candidates)}
    scores = [judge.decision_function(w.drawn) for w in windows]
    choices |= {f"best of {given.candidates}": [int(s.argmax()) for s in scores], f"worst of {given.candidates}": [int(s.argmin()) for s in scores]}
    print("draw | windows judged | " + " | ".join(judging.REGIONS))
    for name, choice in choices.items():
        rows = [
            Seen(w.subject, label, seen, w.judged)
            for w, k in zip(windows, choice, strict=True)
            for label, seen in (("real", w.real_seen), (name, w.drawn_seen[k]))
        ]
        print(f"{name} | {judging.row(judging.pairs(rows, name))}", flush=True)


if __name__ == "__main__":
    main()
