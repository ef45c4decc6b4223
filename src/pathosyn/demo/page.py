"""The demo's pictures and its report: slices of saved files as tiles, and one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pathosyn import figures
from pathosyn.figures import Rgb

Tile = tuple[str, Rgb]
"""Caption and picture, the picture's first row at the top."""

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 0 auto; padding: 1rem; }
.note { border-left: .3rem solid #c40; padding: .2rem .8rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; margin: .6rem 0; }
figure { margin: 0; }
figure img { width: 100%; display: block; border: 1px solid #8886; box-sizing: border-box; }
figcaption, td, th, .axis { font-size: .85rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid #8886; padding: .2rem .8rem .2rem 0; text-align: left; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; background: #8882; padding: .8rem; border-radius: .3rem; font-size: .8rem; }
svg { width: 100%; max-width: 36rem; height: auto; }
"""


@dataclass(frozen=True)
class View:
    """One axial slice of one contrast of one scan: what a row shows. All its tiles share the grey limits, and all signed maps one limit."""

    scan: NDArray[np.float32]
    z: int
    low: float
    high: float

    @classmethod
    def of(cls, path: Path, z: int, *others: Path) -> View:
        """The slice `z` (canonical) of a scan file. The limits are the scan's, widened to what `others` need."""
        values = plane(path, z)
        limits = [figures.window_limits(each) for each in (values, *(plane(other, z) for other in others))]
        return cls(values, z, min(low for low, _ in limits), max(high for _, high in limits))

    def grey(self, path: Path | None = None) -> Rgb:
        """The scan itself, or another file's slice with the same limits."""
        return upright(figures.grey(self.scan if path is None else plane(path, self.z), self.low, self.high))

    def outlined(self, mask: Path) -> Rgb:
        """The scan with the border of a mask."""
        drawn = figures.outline(figures.grey(self.scan, self.low, self.high), plane(mask, self.z) > 0)
        return upright(drawn)

    def signed(self, path: Path) -> Rgb:
        """A map of differences: half the grey range is full colour, 0 is white."""
        return upright(figures.signed(plane(path, self.z), (self.high - self.low) / 2))

    def difference(self, path: Path) -> Rgb:
        """Another file minus the scan."""
        return upright(figures.signed(plane(path, self.z) - self.scan, (self.high - self.low) / 2))


def plane(path: Path, z: int) -> NDArray[np.float32]:
    """(Y, X) float32 of an axial slice in RAS+ order."""
    image = nib.as_closest_canonical(nib.load(path))  # type: ignore[attr-defined]
    return np.asarray(image.dataobj[..., z], np.float32).T  # type: ignore[attr-defined]


def upright(picture: Rgb) -> Rgb:
    """(y, x) of RAS to a picture with anterior at the top; the patient's right stays on the right."""
    return np.ascontiguousarray(picture[::-1])


def largest_slice(mask: Path) -> int:
    """The canonical axial slice where a mask file marks most."""
    labels = np.asarray(nib.as_closest_canonical(nib.load(mask)).dataobj)  # type: ignore[attr-defined]
    return int(np.argmax((labels > 0).sum(axis=(0, 1))))


def captioned(tile: Tile, *, zoom: int, text_px: int) -> Rgb:
    """The tile enlarged by whole pixels, its caption above it."""
    from PIL import Image, ImageDraw, ImageFont

    caption, picture = tile
    height, width = (zoom * side for side in picture.shape[:2])
    band = round(1.5 * text_px) if caption else 0
    sheet = Image.new("RGB", (width, band + height), "white")
    ImageDraw.Draw(sheet).text((2, 1), caption, fill="black", font=ImageFont.load_default(size=text_px))
    sheet.paste(Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST), (0, band))
    return np.asarray(sheet)


# -- HTML ------------------------------------------------------------------------------------------------------------------------------


def tiles(row: Sequence[Tile], *, about: str) -> str:
    """A row of pictures that wraps on a narrow screen. `about` begins each picture's alternative text."""
    return '<div class="tiles">' + "".join(_figure(caption, picture, about) for caption, picture in row) + "</div>"


def _figure(caption: str, picture: Rgb, about: str) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    words = html.escape(f"{about}: {caption}", quote=True)
    return f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{html.escape(caption)}</figcaption></figure>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A plain table."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def commands(lines: Sequence[str]) -> str:
    """Lines for a shell."""
    return f"<pre><code>{html.escape(chr(10).join(lines))}</code></pre>"


def document(title: str, body: Sequence[str]) -> str:
    """The whole page."""
    name = html.escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{name}</title><style>{_STYLE}</style>'
    middle = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body><main>\n<h1>{name}</h1>\n{middle}\n</main></body></html>\n'


# -- the training --------------------------------------------------------------------------------------------------------------------------


def curves(metrics: Path) -> str:
    """The training loss of each stage over the steps, one SVG a stage."""
    losses: dict[str, list[tuple[int, float]]] = {}
    for row in _rows(metrics):
        if (row["partition"], row["metric"]) == ("train", "loss"):
            losses.setdefault(row["stage"], []).append((int(row["step"]), float(row["value"])))
    return '<div class="curves">' + "".join(_curve(f"{stage}: training loss", points) for stage, points in losses.items()) + "</div>"


def last_values(metrics: Path, names: Sequence[str]) -> dict[str, float]:
    """The last value of each of these metrics that was not measured on training batches; those that are missing are left out."""
    return {row["metric"]: float(row["value"]) for row in _rows(metrics) if row["partition"] != "train" and row["metric"] in names}


def _rows(metrics: Path) -> list[dict[str, str]]:
    with metrics.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _curve(title: str, points: Sequence[tuple[int, float]]) -> str:
    """A line in a frame of 360 × 130 units with its extremes written at the axes; lines and letters take the page's colour."""
    steps, values = np.array(points, float).T
    first, last, low, high = steps.min(), steps.max(), 0.0, float(values.max())
    x = 40 + 310 * (steps - first) / max(last - first, 1)
    y = 120 - 90 * (values - low) / max(high - low, 1e-9)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    letters = "".join(
        f'<text x="{a}" y="{b}" text-anchor="{anchor}" font-size="10" fill="currentColor">{words}</text>'
        for a, b, anchor, words in (
            (40, 14, "start", html.escape(title)),
            (36, 34, "end", f"{high:.2g}"),
            (36, 122, "end", "0"),
            (40, 136, "start", f"step {first:.0f}"),
            (350, 136, "end", f"step {last:.0f}: {values[-1]:.2g}"),
        )
    )
    frame = '<path d="M40 28V120H352" fill="none" stroke="currentColor" stroke-opacity=".5"/>'
    shape = f'<polyline points="{line}" fill="none" stroke="#d60" stroke-width="2"/>'
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2" fill="#d60"/>' for a, b in zip(x, y, strict=True))
    return f'<svg viewBox="0 0 360 142" role="img" aria-label="{html.escape(title, quote=True)}">{frame}{shape}{dots}{letters}</svg>'
