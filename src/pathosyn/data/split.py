"""Which subject trains, which validates, which tests: from a file, or drawn once from a seed; and folds."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pathosyn.errors import Fault, InputError, refuse

PARTITIONS = ("train", "validation", "test")


def _rows(path: Path) -> list[dict[str, str]]:
    """The table's rows with stripped cells; InputError if it cannot be read or lacks a column."""
    wanted = "a CSV with the columns subject, partition (and set, if names repeat)"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise refuse(path, found=f"no readable text file ({error})", expected=wanted, remedy="give the split's path, saved as CSV in UTF-8") from error
    header = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=header.count)
    try:
        lines = list(csv.reader(text.splitlines(), delimiter=delimiter))
    except csv.Error as error:
        raise refuse(path, found=f"no table ({error})", expected=wanted, remedy="export it as CSV again") from error
    names = [name.strip().lower() for name in lines[0]] if lines else []
    if not {"subject", "partition"} <= set(names):
        raise refuse(path, found=f"the header {header[:200]!r}" if header else "an empty file", expected=wanted, remedy="name the columns in the first line")
    rows = [dict(zip(names, [*(cell.strip() for cell in line), *[""] * len(names)], strict=False)) for line in lines[1:] if any(line)]
    if not rows:
        raise refuse(path, found="a header and no line below it", expected=wanted, remedy="add a line for every subject")
    return rows


def read_split(path: Path, subjects: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The partition of every (set, subject), from a CSV with the columns subject, partition and, optionally, set.

    A row's `set` decides only where the same subject stands in several rows; rows for subjects that are not asked for are ignored.
    Raises InputError with every subject that is missing or contradicted, and every partition that has another name than train, validation, test.
    """
    path = Path(path)
    by_subject: dict[str, list[dict[str, str]]] = {}
    faults = []
    for number, row in enumerate(_rows(path), start=2):
        by_subject.setdefault(row["subject"], []).append(row)
        if row["partition"] not in PARTITIONS:
            faults.append(Fault(f"{path}, line {number}", f"the partition {row['partition']!r}", " or ".join(PARTITIONS), "mend the line"))
    result, missing = {}, []
    for group, name in subjects:
        rows = by_subject.get(name, [])
        named = [row for row in rows if row.get("set") == group] or rows
        partitions = sorted({row["partition"] for row in named})
        if not rows:
            missing.append(name)
        elif len(partitions) > 1:
            faults.append(Fault(str(path), f"{name} in {' and '.join(partitions)}", "one partition a subject", "remove the wrong line"))
        else:
            result[name] = partitions[0]
    expected = "a line for every subject of the data"
    faults += [Fault(str(path), f"no line for {name}", expected, f"add '{name},train' or take the subject out") for name in missing]
    if faults:
        raise InputError(faults)
    return result


def draw_split(names: Sequence[str], fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0) -> dict[str, str]:
    """A random partition of every name, the same for the same set of names, fractions and seed, in whatever order they come.

    The counts are the fractions of the number of names, rounded to the nearest that sum up;
    a partition with a fraction above 0 gets a name as long as there are enough.
    Raises InputError unless there are three fractions, none below 0, that sum to 1.
    """
    share = np.asarray(fractions, float)
    if share.shape != (3,) or not ((share >= 0) & (share <= 1)).all() or abs(share.sum() - 1) > 1e-6:
        expected = "three numbers from 0 to 1 that sum to 1 (train validation test)"
        raise refuse("--fractions", found=" ".join(map(str, fractions)), expected=expected, remedy="give e.g. .8 .1 .1")
    if seed < 0:
        raise refuse("--seed", found=str(seed), expected="0 or more", remedy="give a whole number from 0 on")
    ordered = sorted(set(names))
    exact = share * len(ordered)
    counts = np.floor(exact).astype(int)
    for index in np.argsort(-(exact - counts), kind="stable")[: len(ordered) - counts.sum()]:
        counts[index] += 1
    if len(ordered) >= np.count_nonzero(share):
        for index in np.flatnonzero((counts == 0) & (share > 0)):
            counts[np.argmax(counts)] -= 1
            counts[index] += 1
    order = np.random.default_rng(seed).permutation(len(ordered))
    labels = np.repeat(PARTITIONS, counts)
    return {ordered[i]: str(label) for i, label in sorted(zip(order, labels, strict=True))}


def folds(subjects: Sequence[str], count: int, *, seed: int = 0) -> np.ndarray:
    """The fold of each row: whole subjects, dealt out so that folds have like numbers of rows."""
    names, number, rows = np.unique(np.asarray(subjects), return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-rows[order], kind="stable")]
    load, place = np.zeros(count), np.empty(len(names), int)
    for name in order:
        place[name] = int(load.argmin())
        load[place[name]] += rows[name]
    return place[number]
