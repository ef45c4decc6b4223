"""A scan made ready for the networks, with what is needed to put their answer back into the file's own voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pathosyn.checkpoint import Loaded
from pathosyn.config import Method
from pathosyn.data.masks import blend_map, box_of, grown_box
from pathosyn.data.normalise import CLIP, foreground
from pathosyn.data.placement import Lesions, Wish, lesions
from pathosyn.data.population import describe, unlike
from pathosyn.data.scene import Scene, on_grid, scene_of
from pathosyn.data.subjects import Scan, SubjectFiles, read_scan
from pathosyn.data.tissue import blank, one_value, solid
from pathosyn.decomposition import smooth
from pathosyn.errors import refuse
from pathosyn.scan.volume import Target

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Job:
    """x (Z, C, H, W) normalised, clipped, on the working grid, channels in the weights' order; m and S (Z, H, W) beside it.

    `old` is the scan's own lesion, `new` the one to be; `lesions` holds both on the file's grid."""

    scan: Scan
    scene: Scene
    lesions: Lesions
    loaded: Loaded
    x: Field
    present: Mask
    m_new: Mask
    S_old: Field
    S_new: Field
    warnings: list[str]

    def target(self, x: Field, *, new: bool) -> Target:
        """The windows over the new or the old lesion's support, with `x` as the scan: healthy tissue under a new lesion, unless that lies where the old one
        did."""
        m, blend = (self.m_new, self.S_new) if new else (self.scene.seg > 0, self.S_old)
        return Target.of(self.loaded.method, x, m, blend, self.present, self.scene.spacing[1], healthy=new and not self.lesions.redrawn)

    def channels(self) -> Iterator[tuple[int, str]]:
        """Channel and name of each contrast that the subject has."""
        return ((c, name) for c, name in enumerate(self.loaded.config.contrasts) if self.present[c])

    @cached_property
    def native_head(self) -> Mask:
        """Foreground on the file's grid, (Z, H, W)."""
        return _native_head(self.scan, self.scene)

    @cached_property
    def native_blends(self) -> tuple[Field, Field]:
        """S_old and S_new on the file's grid, (Z, H, W), from the file's own masks, so that S is 1 on all of them; 0 in air."""
        spacing, method, air = self.scan.spacing[::-1], self.loaded.config.method, self._air()
        if self.S_new.shape == self.scan.shape[::-1]:
            old, new = self.S_old, self.S_new
        else:
            masks = (m.transpose(2, 1, 0) for m in (self.lesions.old, self.lesions.new))
            old, new = (blend(method, m, spacing, self.loaded) for m in masks)
        return np.where(air, np.float32(0), old), np.where(air, np.float32(0), new)

    @cached_property
    def native_tissue(self) -> Field:
        """How far each voxel of the file's grid may change, (Z, H, W): 1 on the lesions, beyond them as far as it is tissue, where the method asks."""
        share = np.ones(self.scan.shape[::-1], np.float32)
        if self.loaded.config.method.stop_at_fluid:
            old, new = self.native_blends
            rim = ((old > 0) | (new > 0)) & ~(self.lesions.old | self.lesions.new).transpose(2, 1, 0)
            images = {name: self.scan.volumes[name].canonical().transpose(2, 1, 0)[rim] for _, name in self.channels()}
            share[rim] = solid({name: self.scene.normalisers[name].apply(values) for name, values in images.items()})
        return share

    def blank(self, contrast: str, near: Mask) -> Mask:
        """Where this contrast holds no signal on `near` (Z, H, W; the file's grid), and so no lesion is drawn in it."""
        found = np.zeros(near.shape, bool)
        if tight := box_of(near):
            box = grown_box(tight, (0, 2, 2), near.shape)  # a square at the edge of `near` reaches two pixels beyond it
            values = self.scan.volumes[contrast].canonical().transpose(2, 1, 0)[box]
            normal, level = self.scene.normalisers[contrast].apply, self._levels[contrast]
            found[box] = blank(normal(values), None if level is None else float(normal(np.asarray(level))))
        return found & near

    @cached_property
    def _levels(self) -> dict[str, float | None]:
        return {name: one_value(stored.canonical().transpose(2, 1, 0)[~self.native_head]) for name, stored in self.scan.volumes.items()}

    def _air(self) -> Mask:
        """Where every contrast holds the one value that a brain extraction wrote around the brain: a lesion's rim does not spill into it."""
        air = ~self.native_head
        for name, stored in self.scan.volumes.items():
            level = self._levels[name]
            air &= stored.canonical().transpose(2, 1, 0) == (np.nan if level is None else level)
        return air


def blend(method: Method, m: Mask, spacing: Sequence[float], loaded: Loaded) -> Field:
    """S of the weights' composition for a mask (Z, H, W)."""
    if method.composition == "paper":
        return smooth(torch.from_numpy(m.astype(np.float32))[:, None], sigma=method.sigma_px)[:, 0].numpy()
    return blend_map(m, spacing, loaded.config.geometry)


def ready(files: SubjectFiles, loaded: Loaded, wish: Wish) -> Job:
    """Read, check, normalise and place. InputError with what is wrong with the scan, the mask or the wish."""
    config = loaded.config
    files, warnings = _known(files, config.contrasts)
    scan = read_scan(files)
    scene = scene_of(scan, config.geometry)
    asked = lesions(scan, wish, _native_head(scan, scene).transpose(2, 1, 0))
    m_new = on_grid(asked.new, scan.spacing, config.geometry.grid_mm, order=0)
    if not m_new.any():
        pixel = f"at least {config.geometry.grid_mm:g} mm"
        raise refuse(files.name, found="a lesion smaller than a pixel of the working grid", expected=pixel, remedy="make it larger")
    present = np.array([name in scene.images for name in config.contrasts])
    x = np.zeros((scene.S.shape[0], len(present), *scene.S.shape[1:]), np.float32)
    for channel, name in enumerate(config.contrasts):
        if present[channel]:
            x[:, channel] = np.clip(scene.normalisers[name].apply(scene.images[name]), -CLIP, CLIP)
    old, new = (np.where(scene.head | m, blend(config.method, m, scene.spacing, loaded), np.float32(0)) for m in (scene.seg > 0, m_new))
    job = Job(scan, scene, asked, loaded, x, present, m_new, old, new, warnings)
    done, whole = loaded.provenance.steps, config.train.steps
    if done < whole:  # before the second stage there is no lesion in them at all
        warnings.append(f"the training of these weights stopped at step {done} of {whole}: the same `pathosyn train` command again finishes it")
    warnings += _unlike(job)
    return job


def _known(files: SubjectFiles, contrasts: Sequence[str]) -> tuple[SubjectFiles, list[str]]:
    """The files of the contrasts that the weights know, and a warning that names the others."""
    unknown = [name for name in files.images if name not in contrasts]
    images = {name: path for name, path in files.images.items() if name in contrasts}
    if not images:
        expected = f"one of {', '.join(contrasts)}"
        raise refuse(files.name, found=f"only {', '.join(files.images)}", expected=expected, remedy="use weights that know this contrast")
    why = "not known to these weights and not written, since a scan without the lesion beside scans with it would be false"
    return replace(files, images=images), [f"{', '.join(unknown)}: {why}"] if unknown else []


def _native_head(scan: Scan, scene: Scene) -> Mask:
    if scene.head.shape == scan.shape[::-1]:
        return scene.head
    return foreground([v.canonical().transpose(2, 1, 0) for v in scan.volumes.values()])


def _unlike(job: Job) -> list[str]:
    """Where this scan or this lesion leaves what the weights have seen."""
    known = job.loaded.provenance.population
    found = []
    inside = job.scene.head & ~(job.S_old > 0)
    for channel, name in job.channels():
        if inside.any():
            found += unlike(known, name, describe(job.x[:, channel], inside))
    z, y, x = job.scene.spacing
    for what, value, limits, unit in (
        ("lesion area in a slice", float(job.m_new.sum(axis=(1, 2)).max()) * y * x, known.get("area_mm2"), "mm²"),
        ("lesion volume", float(job.m_new.sum()) * z * y * x / 1000, known.get("volume_ml"), "ml"),
    ):
        if limits and not limits[0] <= value <= limits[1]:
            found.append(f"{what} is {value:.3g} {unit}, in the training data {limits[0]:.3g} to {limits[1]:.3g} {unit}")
    return found
