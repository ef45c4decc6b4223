"""From the working grid back into the file's own voxels: the composition in native units, and maps of substrate and deviation."""

from __future__ import annotations

import numpy as np

from pathosyn.data.masks import back
from pathosyn.data.nifti import Volume
from pathosyn.data.tissue import on_tissue
from pathosyn.decomposition import heal, recompose
from pathosyn.scan.job import Field, Job, Mask


def support(job: Job, *, healed_only: bool = False) -> Mask:
    """(Z, H, W) on the file's grid: the voxels that may differ from the source, supp S_old ∪ supp S_new without air, and without fluid beyond the lesions."""
    old, new = job.native_blends
    return (old > 0 if healed_only else (old > 0) | (new > 0)) & (job.native_tissue > 0)


def composed(job: Job, f_old: Field, f_new: Field | None = None, r: Field | None = None, *, severity: float = 0.0) -> dict[str, Volume]:
    """Every contrast with the old lesion out and, where `r` is given, the new one in (DESIGN §3). Fields are (Z, C, H, W), normalised.

    Only voxels of the support where the contrast holds signal are computed and written; all others keep their stored value, bit for bit."""
    S_old, S_new = job.native_blends  # noqa: N806 - the paper's letters
    may_change = support(job, healed_only=r is None)
    kind = job.loaded.config.method.composition
    images = {}
    for channel, name in job.channels():
        stored, normaliser = job.scan.volumes[name], job.scene.normalisers[name]
        where = may_change & ~job.blank(name, may_change)
        tissue = job.native_tissue[where]
        values = stored.canonical().transpose(2, 1, 0)
        inside = heal(values[where], normaliser.invert(_to_native(job, f_old[:, channel])[where]), S_old[where])
        if r is not None and f_new is not None:
            x_sub = normaliser.invert(_to_native(job, f_new[:, channel])[where])
            deviation = _to_native(job, r[:, channel])[where] * np.float32(normaliser.scale)
            if job.lesions.redrawn and kind == "preserve":
                inside = inside + np.float32(severity) * S_new[where] * deviation
            else:
                inside = recompose(inside, x_sub, deviation, S_new[where], severity=severity, kind=kind)
        values, inside = values.copy(), on_tissue(values[where], inside, tissue)
        values[where] = np.maximum(inside, values.min())  # below its least value, 0 in most, a scan has none
        images[name] = stored.replaced(values.transpose(2, 1, 0), where.transpose(2, 1, 0))
    return images


def maps(job: Job, field: Field, *, deviation: bool) -> dict[str, Field]:
    """Contrast → canonical (X, Y, Z) map in native units of a substrate, or of a deviation (which has no offset)."""
    result = {}
    for channel, name in job.channels():
        normaliser = job.scene.normalisers[name]
        native = _to_native(job, field[:, channel])
        result[name] = (native * np.float32(normaliser.scale) if deviation else normaliser.invert(native)).transpose(2, 1, 0)
    return result


def _to_native(job: Job, field: Field) -> Field:
    """(Z, H, W) of the working grid → (Z, H, W) of the file, linear in-plane; the field itself where the grids are one."""
    return back(field, job.scan.shape[::-1], job.scan.spacing[::-1], job.loaded.config.geometry.grid_mm, order=1)
