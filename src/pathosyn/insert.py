"""One scan in, one scan out: `insert` puts a lesion in (or draws the scan's own anew), `heal` takes one out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pathosyn import decomposition
from pathosyn.checkpoint import Loaded, only, opened
from pathosyn.data.placement import Wish
from pathosyn.data.subjects import SubjectFiles, find_subject
from pathosyn.errors import refuse
from pathosyn.scan import native, output, volume
from pathosyn.scan.job import Job, ready
from pathosyn.types import Backend, Controls
from pathosyn.writing import refuse_unwritable

SEVERE = 100.0
"""Beyond it a lesion is no longer one, and far beyond it there are no numbers for it."""

Source = SubjectFiles | str | Path
Given = Loaded | str | Path


def insert(
    subject: Source,
    out: str | Path,
    weights: Given,
    *,
    mask: Path | None = None,
    from_mask_of: Path | None = None,
    at: tuple[float, float, float] | None = None,
    size_mm: float | None = None,
    controls: Controls | None = None,
    replicates: int = 1,
    steps: int | None = None,
    device: str = "cpu",
    backend: Backend | None = None,
) -> list[Path]:
    """Draw `replicates` lesions into one subject, each in a folder `out/<subject>-r00`, -r01, …; returns the folders.

    Without `mask`, `from_mask_of` or `at` with `size_mm` the subject's own lesion is taken out and drawn anew in its place. On a diseased scan
    any other mask is drawn after the scan's own lesion has been taken out. A folder that holds this very result already is kept.
    Nothing outside the lesion's support changes. `backend`: as in `load`, by which loaded weights have theirs already. InputError: docs/data.md lists
    what is refused."""
    loaded, files, controls = only(opened(weights, device, backend), "pathosyn"), _files(subject), controls or Controls()
    _check_numbers(controls, replicates, steps, loaded)
    refuse_unwritable(out, "--out")
    wish = Wish(mask, from_mask_of, at, size_mm, controls.extent_mm, controls.shift_mm)
    job = ready(files, loaded, wish)
    method, asked = loaded.method, {}
    distilled = steps is None and method.one_call
    for replicate in range(replicates):
        request = {"seed": controls.seed, "replicate": replicate, "severity": controls.severity, "steps": method.calls(steps), "distilled": distilled}
        asked[Path(out) / f"{files.name}-r{replicate:02d}"] = output.record("insert", job, request)
    todo = {folder: each for folder, each in asked.items() if not output.is_done(folder, each)}
    if todo:
        _draw(job, todo, severity=controls.severity, steps=steps, device=torch.device(device))
    return list(asked)


def _draw(job: Job, todo: dict[Path, dict], *, severity: float, steps: int | None, device: torch.device) -> None:
    method, config = job.loaded.method, job.loaded.config.method
    f_old = volume.substrate(method, job.target(job.x, new=False), device=device)
    # In its own place r brings the grain with it, and as far as it is not drawn (1 - s) the healed scan's stays.
    stays = 1.0 - severity if job.lesions.redrawn else 1.0
    healed = f_old + np.float32(stays) * _grain(job, f_old, device) if stays else f_old
    # Drawn anew in its place, the feather keeps (1-S) of the scan itself; anywhere else, of the scan without its own lesion.
    target = job.target(job.x if job.lesions.redrawn else decomposition.heal(job.x, healed, job.S_old[:, None]), new=True)
    f_new = f_old if job.lesions.redrawn else volume.substrate(method, target, device=device)
    may_change = native.support(job).transpose(2, 1, 0)
    for folder, asked in todo.items():
        request = asked["request"]
        key = (request["seed"], job.scan.name, request["replicate"])
        noise = volume.noise_field(target, job.scene.spacing[0], config.noise_mm, *key)
        r = volume.deviation(method, target, f_new, noise, key=key, steps=steps, device=device)
        images = native.composed(job, healed, f_new, r, severity=severity)
        # At severity 0 there is no lesion: a mask beside the scan would be false.
        mask = job.lesions.new if severity > 0 else np.zeros(job.scan.shape, bool)
        maps = (native.maps(job, r, deviation=True), native.maps(job, f_new, deviation=False))
        output.write_result(folder, job, output.Result(images, mask, may_change, *maps), asked)


def heal(
    subject: Source,
    out: str | Path,
    weights: Given,
    *,
    mask: Path | None = None,
    texture: bool = True,
    device: str = "cpu",
    backend: Backend | None = None,
) -> Path:
    """Take the lesion under `mask` (or the subject's own mask) out, into `out/<subject>-healed`; returns the folder. InputError as `insert`.

    f is smooth; `texture` puts the scan's own grain on it, the same whenever this scan is healed."""
    loaded, files = only(opened(weights, device, backend), "pathosyn"), _files(subject)
    refuse_unwritable(out, "--out")
    if mask is None and files.seg is None:
        raise refuse(files.name, found="no mask", expected="the mask of the lesion that is to go", remedy="add the *_seg file, or give --mask")
    # The lesion that is to go is the scan's own, so that its intensities do not count in the normalisation.
    job = ready(replace(files, seg=mask) if mask else files, loaded, Wish())
    folder = Path(out) / f"{files.name}-healed"
    asked = output.record("heal", job, {"texture": texture})
    if not output.is_done(folder, asked):
        f = volume.substrate(loaded.method, job.target(job.x, new=False), device=torch.device(device))
        nothing = np.zeros(job.scan.shape, bool)
        may_change = native.support(job, healed_only=True).transpose(2, 1, 0)
        healed = f + _grain(job, f, torch.device(device)) if texture else f
        result = output.Result(native.composed(job, healed), nothing, may_change, {}, native.maps(job, f, deviation=False))
        output.write_result(folder, job, result, asked)
    return folder


def _grain(job: Job, f: volume.Field, device: torch.device) -> volume.Field:
    """What f lacks of the scan's grain where its own lesion lay, keyed by the subject alone: `insert` and `heal` leave the same healed scan behind."""
    target = job.target(job.x, new=False)
    noise = volume.noise_field(target, job.scene.spacing[0], job.loaded.config.method.noise_mm, "heal", job.scan.name)
    return volume.grain(job.loaded.method, target, f, noise, device=device)


def _files(subject: Source) -> SubjectFiles:
    return subject if isinstance(subject, SubjectFiles) else find_subject(subject)


def _check_numbers(controls: Controls, replicates: int, steps: int | None, loaded: Loaded) -> None:
    if not 0 <= controls.severity <= SEVERE:
        remedy = "0 takes the lesion out, 1 is as trained, 2 doubles the deviation"
        raise refuse("--severity", found=f"{controls.severity:g}", expected=f"0…{SEVERE:g}", remedy=remedy)
    if not 1 <= replicates <= 1000:
        raise refuse("--replicates", found=str(replicates), expected="1…1000", remedy="give the number of lesions to draw")
    limit = loaded.config.method.timesteps
    if steps is not None and not 1 <= steps <= limit:
        raise refuse("--steps", found=str(steps), expected=f"1…{limit}", remedy=f"leave it out for the default, {loaded.method.calls()}")
