"""What the demo's page shows, section by section. Everything is read again from the saved files, with nibabel alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from pathosyn import figures
from pathosyn.config import Config, Geometry
from pathosyn.demo import page
from pathosyn.demo.page import Tile, View

CONTRASTS = ("t1ce", "flair")
"""The two that a reader of gliomas looks at first."""


@dataclass(frozen=True)
class Shown:
    """One result folder: what the demo calls it, the severity it was drawn with, and the subject folder that it was made from."""

    place: str
    severity: float
    source: Path
    result: Path

    def scan(self, contrast: str) -> Path:
        """The source's file."""
        return self.source / f"{self.source.name}_{contrast}.nii.gz"

    def file(self, kind: str) -> Path:
        """The result's file of a contrast, `seg`, or `<contrast>_deviation` and `<contrast>_substrate`."""
        return self.result / f"{self.result.name}_{kind}.nii.gz"

    def masks(self) -> list[Path]:
        """The masks in play: the source's own lesion if it has one, and the result's."""
        return [path for path in (self.scan("seg"), self.file("seg")) if path.is_file()]


@dataclass(frozen=True)
class Run:
    """What the page says about the whole demo. `counts` subjects a partition, `seconds` a part."""

    root: Path
    config: Config
    counts: dict[str, int]
    seconds: dict[str, float]
    commands: Sequence[str]


def changes(shown: Shown, contrast: str, geometry: Geometry) -> tuple[int, int, int]:
    """Stored voxels of a contrast that differ from the source's: on the support, outside it; and how many lie outside.

    The support is computed anew: nearer to one of the masks than `grow_mm + feather_mm`, where S reaches 0."""
    before, after = (_stored(path) for path in (shown.scan(contrast), shown.file(contrast)))
    inside = np.zeros(before.shape, bool)
    spacing = nib.load(shown.scan(contrast)).header.get_zooms()[:3]  # type: ignore[attr-defined]
    for mask in shown.masks():
        lesion = _stored(mask) > 0
        if lesion.any():
            inside |= distance_transform_edt(~lesion, sampling=spacing) < geometry.grow_mm + geometry.feather_mm
    differs = before != after
    return int((differs & inside).sum()), int((differs & ~inside).sum()), int((~inside).sum())


def _stored(path: Path) -> NDArray[Any]:
    return np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]


def lesion_row(shown: Shown, contrast: str, z: int) -> list[Tile]:
    """Scan, mask, substrate, deviation, result, difference."""
    view = View.of(shown.scan(contrast), z)
    return [
        (f"scan, {contrast}", view.grey()),
        ("mask", view.outlined(shown.file("seg"))),
        ("substrate: lesion out", view.grey(shown.file(f"{contrast}_substrate"))),
        ("deviation", view.signed(shown.file(f"{contrast}_deviation"))),
        ("lesion drawn anew", view.grey(shown.file(contrast))),
        ("difference to the scan", view.difference(shown.file(contrast))),
    ]


def readme_picture(results: Sequence[Shown], path: Path) -> None:
    """PNG: the first redrawn lesion, a row a contrast."""
    first = results[0]
    z = page.largest_slice(first.scan("seg"))
    rows = [[page.captioned(tile, zoom=2, text_px=20) for tile in lesion_row(first, contrast, z)] for contrast in CONTRASTS]
    figures.mosaic(rows, path, flip=False)


def report(results: Sequence[Shown], run: Run, path: Path) -> Path:
    """Write the page, beside-then-rename; returns `path`."""
    body = [
        _introduction(run),
        _redrawn([s for s in results if s.place == "redrawn"]),
        _unchanged(results, run.config.geometry),
        _severities(results),
        _healed(next(s for s in results if s.place == "healed")),
        _healthy([s for s in results if s.place in ("borrowed", "ball")]),
        _training(run),
        _time(run),
    ]
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(page.document("pathosyn demo: a lesion out, a lesion in", body), encoding="utf-8")
    beside.replace(path)
    return path


def _introduction(run: Run) -> str:
    count, train = run.counts, run.config.train
    return (
        '<p class="note"><strong>Phantoms, not patients. Not for diagnosis.</strong> The anatomy is the ICBM 152 average bent anew for each subject; '
        "the lesions in it are drawn by a program.</p>"
        f"<p>A generator was trained for {train.steps} steps ({run.seconds.get('train', 0):.0f} s) on {count['train']} phantoms and validated on "
        f"{count['validation']}; the scans below are two of the {count['test']} test phantoms, which it has not seen. That is enough to show what each "
        "command does. It is not enough for texture: filled-in tissue and drawn lesions are smoother than the scan around them. "
        "Within a row all scans have the same grey limits, and all differences the same colour limit (half the grey range; white is 0, red brighter, "
        "blue darker). Anterior is up, the patient's right is on the right.</p>"
    )


def _redrawn(results: Sequence[Shown]) -> str:
    first = results[0]
    z = page.largest_slice(first.scan("seg"))
    parts = [
        f"<section><h2>Its own lesion, taken out and drawn anew</h2><p>{escape(first.source.name)}, axial slice {z}. Substrate plus deviation, blended "
        "over the mask's rim, is the result.</p>"
    ]
    for contrast in CONTRASTS:
        row = lesion_row(first, contrast, z)
        view = View.of(first.scan(contrast), z)
        row += [("another draw", view.grey(other.file(contrast))) for other in results[1:]]
        parts.append(page.tiles(row, about=f"{first.source.name} {contrast}"))
    return "".join(parts) + "</section>"


def _unchanged(results: Sequence[Shown], geometry: Geometry) -> str:
    """Counts of changed voxels, from the files."""
    rows, outside, looked = [], 0, 0
    for shown in results:
        names = [c for c in ("t1", "t1ce", "t2", "flair") if shown.file(c).is_file()]
        counts = {contrast: changes(shown, contrast, geometry) for contrast in names}
        there = sum(count[1] for count in counts.values())
        outside, looked = outside + there, looked + sum(count[2] for count in counts.values())
        inside = ", ".join(f"{name} {count[0]:,}" for name, count in counts.items())
        rows.append((f"{shown.place}/{shown.result.name}", f"{shown.severity:g}", inside, there))
    return (
        "<section><h2>What did not change</h2>"
        f"<p><strong>{outside} voxels outside the lesions' support differ from the scan</strong>, of {looked:,} compared: every saved contrast of every "
        "result below was read again and compared with its source, stored value by stored value. "
        f"The support reaches {geometry.grow_mm + geometry.feather_mm:g} mm beyond the mask.</p>"
        + page.table(("result", "severity", "voxels changed on the support", "outside it"), rows)
        + "</section>"
    )


def _severities(results: Sequence[Shown]) -> str:
    row = [next(s for s in results if s.place == f"severity-{severity:g}") for severity in (0, 0.5)]
    row += [next(s for s in results if s.place == "redrawn"), next(s for s in results if s.place == "severity-1.5")]
    z = page.largest_slice(row[0].scan("seg"))
    parts = ["<section><h2>Severity</h2><p>The same draw, its deviation scaled: 0 is the scan without lesion, 1 as trained.</p>"]
    for contrast in reversed(CONTRASTS):
        view = View.of(row[0].scan(contrast), z, *(s.file(contrast) for s in row))
        made = [(f"{contrast}, severity {s.severity:g}", view.grey(s.file(contrast))) for s in row]
        parts.append(page.tiles([(f"scan, {contrast}", view.grey()), *made], about=row[0].source.name))
    return "".join(parts) + "</section>"


def _healed(shown: Shown) -> str:
    z = page.largest_slice(shown.scan("seg"))
    parts = ["<section><h2>Taken out</h2><p>The substrate network fills the support from what surrounds it; it never sees the lesion.</p>"]
    for contrast in CONTRASTS:
        view = View.of(shown.scan(contrast), z)
        row = [
            (f"scan, {contrast}", view.grey()),
            ("mask", view.outlined(shown.scan("seg"))),
            ("healed", view.grey(shown.file(contrast))),
            ("difference to the scan", view.difference(shown.file(contrast))),
        ]
        parts.append(page.tiles(row, about=f"{shown.source.name} {contrast}"))
    return "".join(parts) + "</section>"


def _healthy(results: Sequence[Shown]) -> str:
    what = {"borrowed": "the other subject's shape in its place", "ball": "a plain ball at a point (--at, --size-mm)"}
    parts = [f"<section><h2>A lesion in a healthy scan</h2><p>{escape(results[0].source.name)}, a test phantom without a lesion.</p>"]
    for shown in results:
        z = page.largest_slice(shown.file("seg"))
        parts.append(f"<h3>{escape(what[shown.place].capitalize())}</h3>")
        for contrast in CONTRASTS:
            view = View.of(shown.scan(contrast), z, shown.file(contrast))
            row = [
                (f"scan, {contrast}", view.grey()),
                ("mask", view.outlined(shown.file("seg"))),
                ("with a lesion", view.grey(shown.file(contrast))),
                ("difference to the scan", view.difference(shown.file(contrast))),
            ]
            parts.append(page.tiles(row, about=f"{shown.source.name} {contrast}"))
    return "".join(parts) + "</section>"


def _training(run: Run) -> str:
    metrics = run.root / "run" / "metrics.csv"
    quality = page.last_values(metrics, ("psnr_sub", "psnr_inp"))
    found = ""
    if len(quality) == 2:
        found = (
            f"<p>In lesion-shaped holes over healthy tissue of the validation phantoms, where the truth is known, the substrate network reaches a PSNR of "
            f"{quality['psnr_sub']:.1f} dB; plain harmonic filling {quality['psnr_inp']:.1f} dB.</p>"
        )
    return f"<section><h2>Training</h2>{page.curves(metrics)}{found}</section>"


def _time(run: Run) -> str:
    before = {name: seconds for name, seconds in run.seconds.items() if name != "report"}
    rows = [(name, f"{seconds:.1f}") for name, seconds in (*before.items(), ("together", sum(before.values())))]
    return (
        "<section><h2>Time</h2>" + page.table(("part", "seconds"), rows) + "</section><section><h2>The same by hand</h2>"
        "<p>On this folder each command finds its result there and keeps it; give another folder to have it made anew.</p>"
        + page.commands(run.commands)
        + "</section>"
    )
