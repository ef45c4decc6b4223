"""A cohort: a method or a control draws on the lesion windows of a prepared data set, into a SyntheticSet.

Batches are numbered before any is drawn and depend on the request alone. Each is drawn by one process and written at once, so that several processes share
them, an interrupted call goes on where it was, and the finished set has the same bytes either way.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pathosyn import rng
from pathosyn.checkpoint import Loaded, opened
from pathosyn.cohort import scenes
from pathosyn.cohort.controls import CONTROLS, NEEDS_DONOR
from pathosyn.cohort.drawing import Drawer, Drawn, drawer
from pathosyn.cohort.placing import Placer, Wish, healer
from pathosyn.config import Train
from pathosyn.data.population import fingerprint
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import FIELDS, Group, Origin, SyntheticSet, Writer
from pathosyn.data.windows import side_of
from pathosyn.errors import refuse
from pathosyn.methods import METHODS as GENERATIVE
from pathosyn.optim import fabric_for
from pathosyn.progress import track
from pathosyn.runfolder import package_version
from pathosyn.types import Backend, Controls
from pathosyn.writing import refuse_unwritable

if TYPE_CHECKING:
    from lightning_fabric import Fabric

METHODS = (*GENERATIVE, *CONTROLS, "conventional", "none")
WEIGHTLESS = ("conventional", "none")
"""In whose sets no weights have a part."""


@dataclass(frozen=True)
class Request:
    """What a set is to hold. The same request on the same data with the same weights is the same set."""

    method: str = "pathosyn"
    purpose: Literal["train", "evaluate"] = "evaluate"
    partition: Literal["train", "validation", "test"] = "validation"
    per_lesion: int = 1
    per_subject: int = 0
    seed: int = 0
    steps: int | None = None
    severity: float = 1.0
    wish: Wish = field(default_factory=Wish)
    reconstruct: bool = False


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
    severity: float = 1.0,
    wish: Wish | None = None,
    reconstruct: bool = False,
    device: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    backend: Backend | None = None,
    progress: bool = True,
) -> Path:
    """Draw `per_lesion` times on each lesion window of `partition` (at most `per_subject` windows of a subject, evenly spread; 0: all).

    `reconstruct`: the given windows through the method's own code and back, instead of a draw.
    `wish`: which masks, on whose anatomy; the scan's own on its own, if not given.
    `weights` draw the lesion where `method` is theirs; for a control they give the substrate. Donors of the controls come from the training subjects.
    `devices` on each of `nodes`: processes that share the work (Fabric); `backend` as in `load`. The same call again goes on after an interruption.
    Returns `out`.
    InputError: an unknown method, or not that of the weights, a purpose that does not fit the partition, data without these subjects, weights that learned
    from them, no room on the disk."""
    data, out = Path(data), Path(out)
    asked = Request(method, purpose, partition, per_lesion, per_subject, seed, steps, severity, wish or Wish(), reconstruct)
    _refuse(asked)
    refuse_unwritable(out, "--out")
    fabric = fabric_for(Train(devices=devices, nodes=nodes), device, flag="--devices") if devices * nodes > 1 or device != "cpu" else None
    loaded = opened(weights, str(fabric.device) if fabric else "cpu", backend)
    if method in GENERATIVE and method != loaded.config.name:
        found, remedy = f"{method} with weights of {loaded.config.name}", f"give --weights that `pathosyn train --method {method}` made"
        raise refuse("--method", found=found, expected=f"{loaded.config.name}, or a control", remedy=remedy)
    slices = Slices(data, partition, contrasts=loaded.config.contrasts, every=False)
    _refuse_seen(slices, loaded, purpose)
    rows = scenes.chosen(slices, per_subject) if method != "none" else np.empty(0, int)
    if method == "conventional":  # which changes whole slices: one for each
        rows = rows[np.unique(slices.windows[["subject", "z"]][rows], return_index=True)[1]]
    if not len(rows) and method != "none":
        raise refuse(data, found=f"no lesion in the {partition} subjects", expected="lesion windows to draw on", remedy="prepare data with masks there")
    origin = Origin(slices.contrasts, fingerprint(slices), method, purpose, partition, "" if method in WEIGHTLESS else loaded.sha256, seed)
    training = Slices(data, "train", contrasts=loaded.config.contrasts) if method in NEEDS_DONOR or asked.wish.masks == "sampled" else None
    work = [(members, replicate) for members in scenes.in_batches(slices, rows) for replicate in range(per_lesion)]
    writer = Writer(out, origin, {**vars(asked), "batch_pixels": scenes.BATCH_PIXELS, "pathosyn": package_version(), "backend": loaded.backend})
    placer = None if asked.wish.plain else Placer(asked.wish, slices, training, healer(loaded))
    lent = scenes.labels(slices) | (scenes.labels(training) if training else {})
    job = _Job(asked, loaded, slices, placer, drawer(method, loaded, slices, training, steps, reconstruct=reconstruct), writer, work, lent, training)
    return _run(job, fabric, show=progress)


@dataclass(frozen=True)
class _Job:
    asked: Request
    loaded: Loaded
    slices: Slices
    placer: Placer | None
    draw: Drawer
    writer: Writer
    work: list[tuple[list[int], int]]
    """Rows of a batch, and which replicate of them."""
    labels: dict[str, str]
    """What the data says of each subject that may lend a lesion, as JSON."""
    training: Slices | None
    """Those who lend lesions or shapes, where they are asked for."""


def _run(job: _Job, fabric: Fabric | None, *, show: bool) -> Path:
    """This process's share of the batches; the first process opens the set and finishes it."""
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    total = sum(len(members) for members, _ in job.work)
    if rank == 0:
        job.writer.check()
        _announce(job, total, show=show)
        job.writer.open()
    if fabric:
        fabric.barrier()
    mine = [(number, *each) for number, each in enumerate(job.work) if number % world == rank]
    there = sum(len(members) for number, members, _ in mine if job.writer.has(number))
    share = sum(len(members) for _, members, _ in mine)
    if there and show and rank == 0:
        print(f"generate {job.asked.method}: {there} of {share} windows are there from before", file=sys.stderr)
    try:
        with track(share, f"generate {job.asked.method}", "windows", done=there, show=show and rank == 0) as bar:
            for number, members, replicate in mine:
                if not job.writer.has(number):
                    job.writer.add(number, *_batch(job, members, replicate))
                    bar.advance(len(members))
        if fabric:
            fabric.barrier()
        if rank == 0:
            job.writer.finish(len(job.work))
            _tell_missing(job, total)
        if fabric:
            fabric.barrier()  # none comes back before the set is there
        return job.writer.folder
    except Exception:  # not an interruption, after which the same command goes on
        job.writer.abandon()
        raise


def _batch(job: _Job, members: list[int], replicate: int) -> list[Group]:
    """The windows of one batch as the Writer takes them."""
    asked = job.asked
    own = asked.seed if not replicate else rng.seed_of(asked.seed, replicate)
    groups = []
    for scene in job.placer.scenes(members, own) if job.placer else [scenes.own(job.slices, members)]:
        drawn = job.draw(scene, Controls(severity=asked.severity, seed=own))
        arrays = dict(zip(FIELDS, (t.numpy() for t in (drawn.x_hat, drawn.x_sub, drawn.m[:, 0], drawn.S[:, 0])), strict=True))
        planes = {_key(job, scene, b, replicate): plane for b, plane in enumerate(drawn.planes) if plane is not None}
        groups.append(Group(arrays, list(_rows(job, scene, drawn, replicate, own)), planes))
    return groups


def _key(job: _Job, scene: scenes.Scene, b: int, replicate: int) -> str:
    """Name of a whole drawn slice: two windows of one slice share it, where they were drawn together."""
    mask, window = scene.masks[b], scene.windows[b]
    apart = f" {scene.rows[b]} {mask.subject} {mask.z} {window.y} {window.x}" if job.placer else ""
    return f"{scene.batch.subject[b]} {scene.batch.z[b]} {replicate}{apart}"


def _rows(job: _Job, scene: scenes.Scene, drawn: Drawn, replicate: int, seed: int) -> Iterator[dict[str, Any]]:
    """A description for each window. Labels such as grade belong to the lesion: a lesion that was drawn without regard to them has none."""
    asked = job.asked
    for b, window in enumerate(drawn.windows):
        lent, mask = drawn.donors[b], scene.masks[b]
        donor = "" if lent.subject == scene.batch.subject[b] else lent.subject
        yield {
            "row": scene.rows[b],
            "subject": scene.batch.subject[b],
            "partition": asked.partition,
            "z": window.z,
            "y": window.y,
            "x": window.x,
            "replicate": replicate,
            "seed": seed,
            "method": asked.method,
            "weights": job.writer.origin.weights[:12],
            "severity": asked.severity,
            "donor": donor,
            "mask": "augmented" if asked.method == "conventional" else "donor" if donor else mask.how,
            "mask_subject": donor or mask.subject,
            "mask_z": lent.z if donor else mask.z,
            "labels": job.labels.get(lent.subject, ""),
            "lesion_pixels": int((drawn.m[b] > 0).sum()),
            "plane": _key(job, scene, b, replicate) if drawn.planes[b] is not None else "",
        }


def _tell_missing(job: _Job, wanted: int) -> None:
    """A warning where masks found no place. InputError where none did."""
    missing = wanted - len(SyntheticSet(job.writer.folder).rows)
    if missing and missing == wanted:
        shutil.rmtree(job.writer.folder)
        remedy = "give a smaller --shift-mm or --extent-mm, or another --anatomy"
        raise refuse(job.writer.folder, found="no mask that found a place", expected="masks on the head, off the lesions", remedy=remedy)
    if missing:
        print(f"warning: {missing} of {wanted} masks found no place on the head and have no row", file=sys.stderr)


def _size(job: _Job, windows: int) -> int:
    """Bytes that these take at the most, before they are packed."""
    slices, several = job.slices, len(job.slices.contrasts)
    sides = slices.windows["side"].astype(np.int64)
    pixels = sum(int((sides[members] ** 2).sum()) for members, _ in job.work)
    if not job.asked.wish.plain:  # masks that are moved, resized or sampled have windows of their own
        geometry = slices.geometry
        largest = max([*slices.sides, *(job.training.sides if job.training else ())])
        box = largest + ceil(2 * (max(0.0, job.asked.wish.extent_mm) - geometry.margin_mm) / geometry.grid_mm)
        pixels = windows * side_of((0, box, 0, box), geometry, geometry.grid_mm) ** 2
    whole = job.loaded.any_method.whole if job.asked.method in GENERATIVE else 0
    if windows and job.asked.method == "conventional":
        pixels = windows * scenes.whole_side(slices) ** 2
    planes = 0
    if windows and (whole or not job.asked.wish.plain):  # the slice beside its window
        planes = windows * several * max(whole, scenes.whole_side(slices)) ** 2
    return 2 * (pixels * (2 * several + 2) + planes)


def _announce(job: _Job, windows: int, *, show: bool) -> None:
    """How much is to be drawn and how much of the disk it takes. InputError where that is not free."""
    table, size = job.slices.windows, _size(job, windows)
    place = next(path for path in (job.writer.folder, *job.writer.folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if 2 * size > free:  # the batches and the set that is made of them
        found, expected = f"{free / 1e6:.0f} MB free", f"{2 * size / 1e6:.0f} MB for {windows} windows"
        raise refuse(job.writer.folder, found=found, expected=expected, remedy="free some space, or give fewer --per-lesion or --per-subject")
    if show:
        there = len(set(table["subject"][[row for members, _ in job.work for row in members]].tolist()))
        print(f"generate {job.asked.method}: {windows} windows of {there} subjects, at most {size / 1e6:.0f} MB ({free / 1e6:.0f} MB free)", file=sys.stderr)


def _refuse(asked: Request) -> None:
    if not asked.wish.plain and asked.method in (*CONTROLS, "conventional"):
        found, remedy = f"{asked.method} with other masks than the scan's own", "leave --masks, --shift-mm and --extent-mm out"
        raise refuse("--method", found=found, expected="a method that draws lesions", remedy=remedy)
    if asked.wish.masks == "own" and asked.wish.anatomy != "own":
        raise refuse("--anatomy", found=f"{asked.wish.anatomy} with the scan's own masks", expected="own", remedy="add --masks sampled")
    if asked.method not in METHODS:
        raise refuse("--method", found=f"'{asked.method}'", expected=f"one of {', '.join(METHODS)}", remedy="choose one of these")
    if (asked.purpose == "train") != (asked.partition == "train"):
        remedy = "sets to train with derive from training subjects only, sets to evaluate with from validation or test subjects only"
        raise refuse("--purpose", found=f"{asked.purpose} with --partition {asked.partition}", expected="a pair that fits", remedy=remedy)


def _refuse_seen(slices: Slices, loaded: Loaded, purpose: str) -> None:
    """Weights may not be judged on what they learned from, nor trained with what they are judged on."""
    learned = set(loaded.provenance.subjects.get("train", []))
    if purpose == "evaluate" and (seen := sorted(learned & set(slices.subjects))):
        found = f"weights that learned from {len(seen)} of these subjects ({seen[0]} …)"
        raise refuse(loaded.path, found=found, expected="subjects that the weights have not seen", remedy="prepare the data with the split of the weights")
