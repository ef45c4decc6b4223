"""Sets of drawn lesions in the layouts that other tools read: nnU-Net v2, BIDS derivatives, pairs of PNG."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd

from pathosyn.data.matching import matching
from pathosyn.data.slices import Slices
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.errors import refuse
from pathosyn.export import bids, nnunet, png
from pathosyn.export.slices import Case, Picture, Source, drawn_cases, file_names, pictures, real_cases
from pathosyn.progress import track
from pathosyn.runfolder import package_version, write_json
from pathosyn.weights import shipped, terms
from pathosyn.writing import cannot_write, new_folders, refuse_unwritable, remove_empty

To = Literal["nnunet", "bids", "png"]
MARK = "export.json"
"""Written last into every export: what is replaced by a later one has it."""
_TABLES = {"nnunet": "provenance.csv", "bids": "provenance.csv", "png": "pairs.csv"}


class Layout(Protocol):
    """What nnunet, bids and png have in common."""

    def add(self, case: Case, picture: Picture) -> None:
        """Write one case."""

    def finish(self) -> None:
        """Write what describes all of them."""


def export(
    sets: Sequence[str | Path],
    data: str | Path,
    to: To,
    out: str | Path,
    *,
    contrasts: Sequence[str] | None = None,
    folds: int = 5,
    dataset_id: int = 500,
    dataset_name: str = "Pathosyn",
    real_per_subject: int = 0,
    healthy: int = 0,
    progress: bool = True,
) -> Path:
    """Write the slices of `sets` (folders that `generate` wrote, drawn on the slices file `data`) under `out`; returns the folder of the export.

    contrasts   which, in this order; all that every set has if not given
    nnunet      beside the sets, of each training subject the real slices with lesion (at most `real_per_subject`, 0: all) and `healthy` slices without;
                `folds`, `dataset_id` and `dataset_name` are nnU-Net's. A subject that lacks a contrast is left out, with a line on standard error.

    InputError: no set, a set of other data, a contrast that is not there, purpose other than train for nnunet, an `out` that holds other things.
    """
    out = Path(out)
    if to not in _TABLES:
        raise refuse("--to", found=f"'{to}'", expected=f"one of {', '.join(_TABLES)}", remedy="choose one of these")
    sources = _sources(sets, data)
    chosen = _contrasts(sources, contrasts)
    target = nnunet.folder(out, dataset_id, dataset_name) if to == "nnunet" else out
    if to == "nnunet":
        nnunet.refuse_judged(sources)
        slices = Slices(data, "train", contrasts=sources[0].slices.contrasts, every=False)
        sources.append(Source(slices, None, "scan"))
    _refuse_taken(target)
    cases = _cases(sources, chosen, to=to, real=real_per_subject, healthy=healthy, say=progress)
    about = _about(to, sources, chosen)
    with _placed(target) as part:
        layout, kind = _layout(part, cases, chosen, to=to, folds=folds, about=about)
        _tell_size(target, [kind.files(case, chosen) for case in cases], say=progress)
        with track(len(cases), f"export {to}", "slices", show=progress) as bar:
            for source, its in groupby(cases, key=lambda case: case.source):
                for case, picture in pictures(source, list(its), chosen):
                    layout.add(case, picture)
                    bar.advance(note=case.name)
        layout.finish()
        pd.DataFrame([case.provenance() for case in cases]).to_csv(part / _TABLES[to], index=False)
        write_json(part / MARK, about)
    return target


def _layout(part: Path, cases: list[Case], contrasts: Sequence[str], *, to: To, folds: int, about: dict[str, Any]) -> tuple[Layout, Any]:
    if to == "nnunet":
        return nnunet.Layout(part, cases, contrasts, folds=folds, about=about), nnunet.Layout
    kind = bids.Layout if to == "bids" else png.Layout
    return kind(part, cases, contrasts, about=about), kind


def _sources(folders: Sequence[str | Path], data: str | Path) -> list[Source]:
    """The sets with the slices that they were drawn on. Tags are the methods' names, numbered where several sets have one."""
    if not folders:
        raise refuse("SET", found="no set", expected="a folder that `pathosyn generate` wrote", remedy="name at least one")
    resolved = [Path(folder).resolve() for folder in folders]
    if twice := [path for path in resolved if resolved.count(path) > 1]:
        raise refuse(twice[0], found="the same set twice", expected="each set once", remedy="leave one out")
    sets = [SyntheticSet(folder) for folder in folders]
    methods = [each.origin.method for each in sets]
    found = []
    for number, each in enumerate(sets):
        earlier = methods[:number].count(methods[number])
        tag = methods[number].replace("-", "") + (str(earlier + 1) if earlier else "")
        found.append(Source(matching(data, each), each, tag))
        if not len(each.rows):
            raise refuse(each.folder, found="a set without rows", expected="drawn lesions", remedy="draw it anew")
    return found


def _contrasts(sources: Sequence[Source], asked: Sequence[str] | None) -> tuple[str, ...]:
    shared = tuple(name for name in sources[0].slices.contrasts if all(name in each.slices.contrasts for each in sources))
    chosen = tuple(dict.fromkeys(asked)) if asked is not None else shared
    if unknown := [name for name in chosen if name not in shared]:
        remedy = "choose among these"
        raise refuse("--contrasts", found=", ".join(unknown), expected=f"contrasts that every set has: {', '.join(shared) or 'none'}", remedy=remedy)
    if not chosen:
        raise refuse("--contrasts", found="none", expected="one contrast or more that every set has", remedy="name it, or export the sets apart")
    return chosen


def _cases(sources: Sequence[Source], contrasts: Sequence[str], *, to: To, real: int, healthy: int, say: bool) -> list[Case]:
    """All of them; those that lack what the layout needs are left out, and counted on standard error."""
    names = file_names({name for each in sources for name in each.slices.subjects})
    every = [case for each in sources for case in (drawn_cases(each, names) if each.drawn else real_cases(each, names, lesions=real, healthy=healthy))]
    able = [case for case in every if len(case.contrasts(contrasts)) >= (len(contrasts) if to == "nnunet" else 1)]
    if say and len(able) < len(every):
        lacking = len({case.subject for case in every} - {case.subject for case in able})
        print(
            f"left out: {len(every) - len(able)} slices of {lacking} subjects that lack some of {', '.join(contrasts)}; fewer --contrasts keep them",
            file=sys.stderr,
        )
    if not any(case.synthetic for case in able):
        raise refuse("--contrasts", found=f"no drawn slice with {' and '.join(contrasts)}", expected="at least one", remedy="choose fewer contrasts")
    return able


def _about(to: To, sources: Sequence[Source], contrasts: Sequence[str]) -> dict[str, Any]:
    """What goes into MARK."""
    sets = [each.drawn for each in sources if each.drawn is not None]
    ours = {each.sha256 for each in shipped().values()}
    return {
        "to": to,
        "contrasts": list(contrasts),
        "sets": [{"folder": each.folder.name, "method": each.origin.method, "seed": each.origin.seed, "weights": each.origin.weights} for each in sets],
        "data": sets[0].origin.data,
        "pathosyn": package_version(),
        "use": "synthetic; research only, not for diagnosis",
        **({"license": terms()} if ours & {each.origin.weights for each in sets} else {}),
    }


def _refuse_taken(target: Path) -> None:
    """InputError unless `target` can be made, is empty, or is an older export, which is replaced."""
    if target.is_dir() and any(target.iterdir()) and not (target / MARK).is_file():
        raise refuse(target, found="a folder with other files in it", expected="a new folder, or an older export to replace", remedy="give another --out")
    refuse_unwritable(target, "--out")


def _tell_size(target: Path, files: Sequence[tuple[int, float]], *, say: bool) -> None:
    """InputError where the disk has less room than the export will about take."""
    size, free = sum(each for _, each in files), shutil.disk_usage(target.parent).free
    if say:
        print(f"{target}: {len(files)} slices, {sum(count for count, _ in files)} files, about {size / 1e6:.1f} MB", file=sys.stderr)
    if free < size:
        expected, remedy = f"about {size / 1e6:.1f} MB", "free some space, give another --out, or choose fewer --contrasts"
        raise refuse(target, found=f"a full disk ({free / 1e6:.1f} MB free)", expected=expected, remedy=remedy)


@contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """A folder beside `target` that takes its place once all is written; nothing is left where that fails."""
    part = target.with_name(f".{target.name}.part")
    made = new_folders(target.parent)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        remove_empty(made)
        if isinstance(error, OSError):
            raise cannot_write(target, "--out", error) from error
        raise
