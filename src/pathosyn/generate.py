"""A cohort: a method or a control draws on the lesion windows of a prepared data set, into a SyntheticSet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pathosyn import rng
from pathosyn.checkpoint import Loaded, opened
from pathosyn.controls import CONTROLS, NEEDS_DONOR, closest
from pathosyn.data.population import fingerprint
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import FIELDS, Origin, Writer
from pathosyn.data.tissue import on_tissue, solid
from pathosyn.errors import refuse
from pathosyn.networks import bf16_pays
from pathosyn.progress import track
from pathosyn.types import Backend, Controls, Image, LesionBatch, Mask
from pathosyn.writing import refuse_unwritable

METHODS = ("pathosyn", *CONTROLS)
BATCH_PIXELS = 131072
LEAST = 24
"""Lesion pixels that a donor must have: a window may show a lesion's rim alone."""
DONORS = 8
"""Real lesions of other subjects that are looked at for the one whose mask fits best."""


def generate(
    data: str | Path,
    out: str | Path,
    weights: Loaded | str | Path,
    *,
    method: str = "pathosyn",
    purpose: Literal["train", "evaluate"] = "evaluate",
    partition: Literal["train", "validation", "test"] = "validation",
    per_lesion: int = 1,
    per_subject: int = 0,
    seed: int = 0,
    steps: int | None = None,
    backend: Backend | None = None,
    progress: bool = True,
) -> Path:
    """Draw `per_lesion` times on each lesion window of `partition` (at most `per_subject` windows of a subject, evenly spread; 0: all).

    `weights` gives the substrate, and with method "pathosyn" the lesion; `backend` as in `load`. Donors of the controls come from the training
    subjects. Returns `out`.
    InputError: an unknown method, a purpose that does not fit the partition, data without these subjects, weights that learned from them."""
    data, out = Path(data), Path(out)
    if method not in METHODS:
        raise refuse("--method", found=f"'{method}'", expected=f"one of {', '.join(METHODS)}", remedy="choose one of these")
    if (purpose == "train") != (partition == "train"):
        remedy = "sets to train with derive from training subjects only, sets to evaluate with from validation or test subjects only"
        raise refuse("--purpose", found=f"{purpose} with --partition {partition}", expected="a pair that fits", remedy=remedy)
    refuse_unwritable(out, "--out")
    loaded = opened(weights, "cpu", backend)
    slices = Slices(data, partition, contrasts=loaded.config.contrasts, every=False)
    _refuse_seen(slices, loaded, purpose)
    rows = chosen(slices, per_subject)
    if not len(rows):
        raise refuse(data, found=f"no lesion in the {partition} subjects", expected="lesion windows to draw on", remedy="prepare data with masks there")
    origin = Origin(slices.contrasts, fingerprint(slices), method, purpose, partition, loaded.sha256, seed)
    donors = _Donors(Slices(data, "train", contrasts=loaded.config.contrasts)) if method in NEEDS_DONOR else None
    with Writer(out, origin) as writer, track(len(rows) * per_lesion, f"generate {method}", "windows", show=progress) as bar:
        for members in in_batches(slices, rows):
            batch = slices.lesion(members)
            for replicate in range(per_lesion):
                writer.add(*_drawn(method, loaded, batch, donors, slices, members, seed=seed, replicate=replicate, steps=steps))
                bar.advance(len(members))
    return out


def chosen(slices: Slices, per_subject: int) -> np.ndarray:
    """Row numbers of `slices.windows`: all, or at most `per_subject` of each subject, evenly spread over its table."""
    owner = slices.windows["subject"]
    picked = []
    for subject in np.unique(owner):
        mine = np.flatnonzero(owner == subject)
        keep = min(per_subject or len(mine), len(mine))
        # the middle of each of `keep` equal stretches: the ends are where a lesion begins, a few pixels large
        picked.append(mine[((np.arange(keep) + 0.5) * len(mine) / keep).astype(int)])
    return np.concatenate(picked) if picked else np.empty(0, int)


def in_batches(slices: Slices, rows: np.ndarray) -> Iterator[list[int]]:
    """The rows by side, in lists of at most `BATCH_PIXELS` window pixels."""
    sides = slices.windows["side"][rows]
    for side in np.unique(sides):
        members = rows[sides == side].tolist()
        size = max(1, BATCH_PIXELS // int(side) ** 2)
        yield from (members[start : start + size] for start in range(0, len(members), size))


class _Donors:
    """Real lesions of training subjects, a window of the same side for each window."""

    def __init__(self, slices: Slices) -> None:
        self.slices = slices
        self.rows = {side: np.flatnonzero(slices.windows["side"] == side) for side in slices.sides}

    def for_batch(self, batch: LesionBatch, seed: int) -> LesionBatch:
        return self.slices.lesion([self._one(batch, b, seed) for b in range(len(batch))])

    def _lends(self, donor: int, batch: LesionBatch, b: int) -> bool:
        return self.slices.subjects[donor] != batch.subject[b] and bool((self.slices.present[donor] >= batch.present[b].numpy()).all())

    def _one(self, batch: LesionBatch, b: int, seed: int) -> int:
        """Of a few lesions of other subjects that have this one's contrasts, the one whose mask fits best."""
        side, table = batch.x.shape[-1], self.slices.windows
        able = [row for row in self.rows.get(side, ()) if table["lesion_pixels"][row] >= LEAST and self._lends(int(table["subject"][row]), batch, b)]
        if not able:
            raise refuse(self.slices.path, found=f"no training lesion of {side} pixels with these contrasts", expected="a donor", remedy="use another method")
        draw = np.random.default_rng(rng.seed_of(seed, batch.subject[b], batch.z[b], "donor"))
        some = draw.choice(able, min(DONORS, len(able)), replace=False).tolist()
        return int(some[closest(batch.m[b], self.slices.lesion(some).m)])


def _drawn(
    method: str,
    loaded: Loaded,
    batch: LesionBatch,
    donors: _Donors | None,
    slices: Slices,
    members: list[int],
    *,
    seed: int,
    replicate: int,
    steps: int | None,
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The windows of one batch as the Writer takes them."""
    own = seed if not replicate else rng.seed_of(seed, replicate)
    donor = donors.for_batch(batch, own) if donors else None
    with torch.inference_mode():
        x_sub = _substrate(loaded, batch)
        if method == "pathosyn":
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays("cpu")):
                made = loaded.method.synthesize(batch, controls=Controls(seed=own), steps=steps)
            x_hat, m, blend = made.x_hat.float(), made.m, made.S
        else:
            x_hat, m, blend = CONTROLS[method](batch, x_sub, donor, _substrate(loaded, donor) if donor else None, own)
    x_hat = stopped_at_fluid(loaded, batch, x_hat, m)  # the controls, too: the same blend for all
    known = batch.present[:, :, None, None].to(x_hat.dtype)
    arrays = dict(zip(FIELDS, (t.numpy() for t in (x_hat * known, x_sub, m[:, 0], blend[:, 0])), strict=True))
    table = slices.windows[members]
    rows = [
        {
            "row": row,
            "subject": batch.subject[b],
            "z": batch.z[b],
            "y": int(table["y"][b]),
            "x": int(table["x"][b]),
            "replicate": replicate,
            "seed": own,
            "donor": donor.subject[b] if donor else "",
            "lesion_pixels": int((m[b] > 0).sum()),
        }
        for b, row in enumerate(members)
    ]
    return arrays, rows


def stopped_at_fluid(loaded: Loaded, batch: LesionBatch, x_hat: Image, m: Mask) -> Image:
    """Drawn windows x_hat (B, C, H, W) as `insert` finishes them: the scan's own fluid and bone beyond the masks, its own and the drawn one m, where the
    method asks."""
    if not loaded.method.config.method.stop_at_fluid:
        return x_hat
    x, lesion = batch.x.numpy(), (batch.m + m).numpy()[:, 0] > 0
    tissue = [solid({name: x[b, c] for c, name in enumerate(loaded.config.contrasts) if batch.present[b, c]}) for b in range(len(batch))]
    made = [on_tissue(x[b], x_hat[b].numpy(), np.where(lesion[b], np.float32(1), tissue[b])) for b in range(len(batch))]
    return torch.from_numpy(np.stack(made))


def _substrate(loaded: Loaded, batch: LesionBatch) -> torch.Tensor:
    parts = loaded.method.parts(batch)
    return loaded.method.substrate(batch.x, parts.support, parts.known)


def _refuse_seen(slices: Slices, loaded: Loaded, purpose: str) -> None:
    """Weights may not be judged on what they learned from, nor trained with what they are judged on."""
    learned = set(loaded.provenance.subjects.get("train", []))
    if purpose == "evaluate" and (seen := sorted(learned & set(slices.subjects))):
        found = f"weights that learned from {len(seen)} of these subjects ({seen[0]} …)"
        raise refuse(loaded.path, found=found, expected="subjects that the weights have not seen", remedy="prepare the data with the split of the weights")
