"""One picture of all methods, as the paper's Fig. 4: the given slice, what each method made of it, and of the last one its substrate and deviation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pathosyn import figures
from pathosyn.data.matching import beside_real
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.data.windows import Window, paste
from pathosyn.errors import refuse

LEAST = 300
"""Lesion pixels of a window that is shown, where there are enough of such."""
RANGE = 0.6
"""Of the slice's grey range: the deviation at which its colour is full."""


def sheet(data: str | Path, sets: Mapping[str, SyntheticSet], out: Path, *, lesions: int = 6, contrasts: tuple[str, ...] = ()) -> Path:
    """`out`, a PNG: a row for each of `lesions` lesions, of different subjects while there are, and each contrast (all, if none is named).

    The lesions are those that every set has (replicate 0). InputError where there is none, or a contrast is not there."""
    slices = {name: beside_real(data, each) for name, each in sets.items()}
    first = next(iter(sets.values()))
    there = first.origin.contrasts
    if unknown := [name for name in contrasts if name not in there]:
        raise refuse("--contrasts", found=", ".join(unknown), expected=f"some of {', '.join(there)}", remedy="name these")
    rows = _shared(sets, lesions)
    windows = {name: _windows(each, rows) for name, each in sets.items()}
    tiles, labels = [], []
    for row in rows:
        for contrast in contrasts or there:
            own = next(iter(slices.values()))
            number = int(own.windows["subject"][row])
            if not own.present[number][own.contrasts.index(contrast)]:
                continue
            tiles.append(_row(own, row, contrast, {name: windows[name][row] for name in sets}))
            labels.append(f"{own.subjects[number][:16]} z{int(own.windows['z'][row])} {contrast}")
    side = max(tile.shape[0] for line in tiles for tile in line), max(tile.shape[1] for line in tiles for tile in line)
    tiles = [[*(_centred(tile, side, 0) for tile in line[:-1]), _centred(line[-1], side, 255)] for line in tiles]
    last = list(sets)[-1]
    figures.mosaic(tiles, out, columns=("given", *sets, f"{last}: substrate", f"{last}: deviation"), labels=labels)
    return out


def _shared(sets: Mapping[str, SyntheticSet], count: int) -> list[int]:
    """Lesion windows that all sets have: of each subject its largest first."""
    common = set.intersection(*({int(r) for r in each.rows.loc[each.rows["replicate"] == 0, "row"]} for each in sets.values()))
    if not common:
        found, remedy = f"no lesion that {', '.join(sets)} all have", "draw them with the same --per-subject"
        raise refuse("--synthetic", found=found, expected="sets on the same lesions", remedy=remedy)
    table = next(iter(sets.values())).rows.drop_duplicates("row").set_index("row").loc[sorted(common)]
    large = table[table["lesion_pixels"] >= LEAST]
    table = (large if len(large) >= count else table).sort_values("lesion_pixels", ascending=False)
    table["turn"] = table.groupby("subject").cumcount()
    return [int(row) for row in table.sort_values(["turn", "lesion_pixels"], ascending=[True, False]).index[:count]]


def _windows(each: SyntheticSet, rows: list[int]) -> dict[int, tuple[Window, dict[str, np.ndarray]]]:
    found = {}
    for row, arrays in each.windows():
        if int(row["row"]) in rows and row["replicate"] == 0:
            found[int(row["row"])] = Window(int(row["z"]), int(row["y"]), int(row["x"]), int(row["side"])), arrays
    return found


def _row(slices: Slices, row: int, contrast: str, drawn: Mapping[str, tuple[Window, dict[str, np.ndarray]]]) -> list[figures.Rgb]:
    """The given slice with the mask's outline, each method's, the last one's substrate and deviation."""
    c, number, z = slices.contrasts.index(contrast), int(slices.windows["subject"][row]), int(slices.windows["z"][row])
    plane, _ = slices.plane(number, z)
    low, high = figures.window_limits(plane[c])
    made, mask = [], np.zeros(plane.shape[1:], bool)
    for window, arrays in drawn.values():
        everywhere = np.ones((window.side, window.side), bool)
        whole, f, r = plane.copy(), plane.copy(), np.zeros_like(plane)
        if "plane" in arrays:
            whole = arrays["plane"]
        else:
            paste(whole, arrays["x_hat"], window, everywhere)
        paste(f, arrays["x_sub"], window, arrays["S"] > 0)
        paste(r, arrays["x_hat"] - arrays["x_sub"], window, arrays["S"] > 0)
        mask[:] = False
        paste(mask, arrays["m"] > 0, window, everywhere)
        made.append(whole[c])
    greys = [figures.grey(each, low, high) for each in (plane[c], *made, f[c])]
    return [figures.outline(greys[0], mask), *greys[1:], figures.signed(r[c], RANGE * (high - low))]


def _centred(tile: figures.Rgb, size: tuple[int, int], around: int) -> figures.Rgb:
    missing = [total - have for total, have in zip(size, tile.shape[:2], strict=True)]
    return np.pad(tile, (*((m // 2, m - m // 2) for m in missing), (0, 0)), constant_values=around)
