"""One scene, drawn on by one method: a generative one, a control, conventional augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pathosyn import rng
from pathosyn.checkpoint import Loaded
from pathosyn.cohort.controls import CONTROLS, NEEDS_DONOR, closest
from pathosyn.cohort.conventional import augmented
from pathosyn.cohort.scenes import Scene, Wholes
from pathosyn.data.slices import Slices
from pathosyn.data.tissue import blank, on_tissue, solid
from pathosyn.data.windows import Window, cut, paste
from pathosyn.errors import refuse
from pathosyn.framework.base import Framework
from pathosyn.networks import bf16_pays
from pathosyn.protocol import Method
from pathosyn.types import Controls, Image, LesionBatch, Mask, Synthesis

LEAST = 24
"""Lesion pixels that a donor must have: a window may show a lesion's rim alone."""
DONORS = 8
"""Real lesions of other subjects that are looked at for the one whose mask fits best."""


class Lent(NamedTuple):
    """Whose lesion a real one is, and of which slice; no subject for a drawn one."""

    subject: str = ""
    z: int = 0


@dataclass(frozen=True)
class Drawn:
    """What was made of a scene: x_hat, x_sub (B, C, side, side), m, S (B, 1, side, side); where it lies; whose lesion it is; the whole slice (C, H, W) where
    more than the window changed."""

    x_hat: Image
    x_sub: Image
    m: Mask
    S: Mask
    windows: Sequence[Window]
    donors: Sequence[Lent]
    planes: Sequence[np.ndarray | None]


Drawer = Callable[[Scene, Controls], Drawn]


def drawer(method: str, loaded: Loaded, slices: Slices, training: Slices | None, steps: int | None, *, reconstruct: bool = False) -> Drawer:
    """The function that draws `method` on scenes of `slices`. `training`: whose lesions the controls lend. `reconstruct`: the given windows through the
    method's own code and back, instead of a draw."""
    made = partial(_reconstructed, loaded) if reconstruct else partial(_synthesized, loaded, steps=steps)
    if method in CONTROLS:
        donors = Donors(training) if method in NEEDS_DONOR and training is not None else None
        return lambda scene, controls: _controlled(method, loaded, scene, slices, donors, controls)
    if method == "conventional":
        wholes = Wholes(slices)
        return lambda scene, controls: _augmented(scene, wholes, controls)
    if loaded.any_method.whole:
        wholes = Wholes(slices, loaded.any_method.whole)
        return lambda scene, controls: _on_wholes(scene, wholes, made, controls)
    return lambda scene, controls: _on_windows(loaded, scene, slices, made(scene.batch, controls))


def _synthesized(loaded: Loaded, batch: LesionBatch, controls: Controls, *, steps: int | None) -> Synthesis:
    device = next(loaded.any_method.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16_pays(device.type)):
        made = loaded.any_method.synthesize(batch.to(device), controls=controls, steps=steps)
    return _brought(made)


def _reconstructed(loaded: Loaded, batch: LesionBatch, controls: Controls) -> Synthesis:
    device = next(loaded.any_method.parameters()).device
    with torch.inference_mode():
        made = loaded.any_method.reconstruct(batch.to(device))
    if isinstance(made, Synthesis):
        return _brought(made)
    made = made.float().cpu()
    return Synthesis(made, made, torch.zeros_like(made), batch.S, batch.m, [controls.seed] * len(batch))


def _brought(made: Synthesis) -> Synthesis:
    """To the CPU, in 32 bit."""
    return Synthesis(made.x_hat.float().cpu(), made.x_sub.float().cpu(), made.r.float().cpu(), made.S.float().cpu(), made.m.float().cpu(), made.seeds)


def _on_windows(loaded: Loaded, scene: Scene, slices: Slices, made: Synthesis) -> Drawn:
    x_hat = stopped_at_fluid(loaded.any_method, scene.batch, made.x_hat, made.m)
    return _finished(scene, slices, x_hat, made.x_sub, made.m, made.S, [Lent()] * len(scene.batch))


def _on_wholes(scene: Scene, wholes: Wholes, draw: Callable[[LesionBatch, Controls], Synthesis], controls: Controls) -> Drawn:
    """Whole slices are drawn, and the scene's windows cut out of them."""
    batch, places = wholes.of(scene)
    made = draw(batch, controls)
    known = batch.present[:, :, None, None].to(made.x_hat.dtype)
    fields = [field.numpy() for field in (made.x_hat * known, made.x_sub * known, made.m, made.S)]
    parts: list[list[np.ndarray]] = [[] for _ in fields]
    planes: list[np.ndarray | None] = []
    for b, (window, place) in enumerate(zip(scene.windows, places, strict=True)):
        inside = Window(window.z, window.y - place.y, window.x - place.x, window.side)
        for found, one in zip(parts, fields, strict=True):
            found.append(cut(one[b], inside, mode="edge" if one.shape[1] > 1 else "zero"))
        plane = scene.plane(wholes.slices, b)
        paste(plane, fields[0][b], place, np.ones((place.side, place.side), bool))
        planes.append(plane)
    x_hat, x_sub, m, blend = (torch.from_numpy(np.stack(found)) for found in parts)
    return Drawn(x_hat, x_sub, m, blend, scene.windows, [Lent()] * len(batch), planes)


def _augmented(scene: Scene, wholes: Wholes, controls: Controls) -> Drawn:
    """Real slices with all their lesions, turned and brightened; the window is the whole slice."""
    batch, places = wholes.of(scene)
    x, m, S = augmented(batch, seed=controls.seed)  # noqa: N806 - the paper's letter
    return Drawn(x, x, m, S, places, _owners(batch), [None] * len(batch))


def _controlled(method: str, loaded: Loaded, scene: Scene, slices: Slices, donors: Donors | None, controls: Controls) -> Drawn:
    batch = scene.batch
    donor = donors.for_batch(batch, controls.seed) if donors else None
    with torch.inference_mode():
        x_sub, theirs = _filled(loaded, batch), _filled(loaded, donor) if donor else None
        x_hat, m, blend = CONTROLS[method](batch, x_sub, donor, theirs, controls.seed)
    x_hat = stopped_at_fluid(loaded.any_method, batch, x_hat, m)  # the controls, too: the same blend for all
    lent = [Lent()] * len(batch) if method in ("substrate", "gaussian") else _owners(donor or batch)
    return _finished(scene, slices, x_hat, x_sub, m, blend, lent)


def _owners(batch: LesionBatch) -> list[Lent]:
    return [Lent(subject, z) for subject, z in zip(batch.subject, batch.z, strict=True)]


def _finished(scene: Scene, slices: Slices, x_hat: Tensor, x_sub: Tensor, m: Tensor, blend: Tensor, donors: Sequence[Lent]) -> Drawn:
    """Missing contrasts 0; where the slice beneath is not the file's own, the whole of it with the window in its place."""
    known = scene.batch.present[:, :, None, None].to(x_hat.dtype)
    x_hat = x_hat * known
    planes: list[np.ndarray | None] = []
    for b, window in enumerate(scene.windows):
        if not scene.planes or scene.planes[b] is None:
            planes.append(None)
            continue
        plane = scene.plane(slices, b)
        paste(plane, x_hat[b].numpy(), window, np.ones((window.side, window.side), bool))
        planes.append(plane)
    return Drawn(x_hat, x_sub, m, blend, scene.windows, donors, planes)


def _filled(loaded: Loaded, batch: LesionBatch) -> Tensor:
    """f of weights that hold an f_sub. InputError for others."""
    if not isinstance(loaded.any_method, Framework):
        found, expected = f"weights of {loaded.config.name}, which hold no f_sub", "weights of pathosyn, or of another method with f_sub"
        raise refuse(loaded.path, found=found, expected=expected, remedy="leave --weights out for the shipped ones")
    device = next(loaded.any_method.parameters()).device
    return loaded.any_method.fill(batch.to(device)).float().cpu()


def stopped_at_fluid(method: Method, batch: LesionBatch, x_hat: Image, m: Mask) -> Image:
    """Drawn windows x_hat (B, C, H, W) as `insert` finishes them: the scan's own where a contrast holds no signal, and its fluid and
    bone beyond the masks, its own and the drawn one m, where the method asks."""
    x, lesion, stops = batch.x.numpy(), (batch.m + m).numpy()[:, 0] > 0, method.config.method.stop_at_fluid
    made = []
    for b, contrasts in enumerate(x):
        there = {name: contrasts[c] for c, name in enumerate(method.config.contrasts) if batch.present[b, c]}
        tissue = np.where(lesion[b], np.float32(1), solid(there) if stops else np.float32(1))
        signal = np.stack([np.where(blank(one), np.float32(0), tissue) for one in contrasts])
        made.append(on_tissue(contrasts, x_hat[b].numpy(), signal))
    return torch.from_numpy(np.stack(made))


class Donors:
    """Real lesions of training subjects, a window of the same side for each window."""

    def __init__(self, slices: Slices) -> None:
        self.slices = slices
        self.rows = {side: np.flatnonzero(slices.windows["side"] == side) for side in slices.sides}

    def for_batch(self, batch: LesionBatch, seed: int) -> LesionBatch:
        """One a window. InputError where there is none."""
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
