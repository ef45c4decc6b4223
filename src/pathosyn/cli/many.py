"""Scans one after the other, or by several processes at once: shared by insert and heal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pathosyn.cli.limits import outside
from pathosyn.cli.sources import announce, open_weights, tell
from pathosyn.data import workers as processes
from pathosyn.data.subjects import SubjectFiles
from pathosyn.errors import Fault, InputError
from pathosyn.progress import track

if TYPE_CHECKING:
    from pathosyn.checkpoint import Loaded

AHEAD = 2
"""Scans a process that may be done before their turn to be told comes."""


@dataclass(frozen=True)
class Networks:
    """What a process loads before its first scan."""

    weights: Path | None
    device: str
    threads: int
    backend: Literal["torch", "onnxruntime"]


def each(name: str, subjects: Sequence[SubjectFiles], work: Callable[..., list[Path]], how: Networks, workers: int) -> None:
    """`work(files, loaded, device)` → folders, on every subject, by `workers` processes (1: this one), each of which loads the weights itself. What is
    written does not depend on how many there are. Faulty subjects are named at the end, all in one InputError; the others are done."""
    if faults := outside("workers", workers):
        raise InputError(faults)
    announce(how.weights)
    pool, count = processes.start(workers, len(subjects), name)
    # In this process what is wrong with the weights or the device is said before the first scan is begun.
    here = _open(how) if pool is None else None
    ready: Callable[[], tuple[Loaded, str]] = partial(_loaded, how) if here is None else lambda: here
    faults = []
    try:
        with track(len(subjects), name, "subjects") as bar:
            for files, (folders, seconds, found) in processes.in_order(partial(_one, work=work, ready=ready), subjects, pool, most=AHEAD * count, name=name):
                tell(folders, seconds)
                faults += found
                bar.advance(note=files.name)
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
    if faults:
        raise InputError(dict.fromkeys(faults))


def _open(how: Networks) -> tuple[Loaded, str]:
    return open_weights(how.weights, how.device, how.threads, how.backend)


@cache
def _loaded(how: Networks) -> tuple[Loaded, str]:
    """For the life of a process that does nothing else."""
    return _open(how)


def _one(files: SubjectFiles, *, work: Callable[..., list[Path]], ready: Callable[[], tuple[Loaded, str]]) -> tuple[list[Path], float, list[Fault]]:
    """What was written, in how many seconds, and what is wrong with the subject, or with what every subject needs."""
    try:
        loaded, device = ready()
        start = time.monotonic()
        return work(files, loaded, device), time.monotonic() - start, []
    except InputError as error:
        return [], 0.0, list(error.faults)
