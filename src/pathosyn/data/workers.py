"""Processes that read and compute while this one writes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from mmap import mmap
from typing import Any, TypeVar

from pathosyn.errors import refuse

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Results that may wait beside those that are being made."""
ROOM = 1 << 28
"""Bytes of a slot, of which only those that are used take memory; what does not fit goes through the pipe."""
ALIGNED = 64
_slots: list[mmap] = []
"""In a worker: the memory that it shares with the process that forked it."""


class Readers(ProcessPoolExecutor):
    """Processes, and the slots of memory in which they leave the arrays of their results: a pipe would copy them four times, in 64 kB pieces."""

    def __init__(self, workers: int, *, forks: bool) -> None:
        self.slots = [mmap(-1, ROOM) for _ in range(workers + AHEAD)] if forks else []  # there before the fork, so nothing has a name that could be left over
        super().__init__(workers, multiprocessing.get_context("fork" if forks else "spawn"), _begin, (os.getpid(), self.slots))


def start(workers: int | None, items: int, name: str = "prepare") -> tuple[Readers | None, int]:
    """Reading processes, already started, and how many; None where this one does the work.

    `name` is the verb's. They start before the work file is opened: an inherited file would keep its lock after this process is killed.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, items)
    if workers < 2:
        return None, 1
    # A forked worker starts at once; beside torch's threads, forking is not safe.
    forks = "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux" and "torch" not in sys.modules
    pool = Readers(workers, forks=forks)
    try:
        for started in [pool.submit(os.getpid) for _ in range(workers)]:
            started.result()
    except BrokenProcessPool:
        remedy = f'in a script, call {name} under `if __name__ == "__main__":`, or give one worker'
        raise refuse(name, found="reading processes that cannot start", expected="a program that they can import", remedy=remedy) from None
    return pool, workers


def _keep_memory() -> None:
    """What this process frees it keeps for its next arrays. Else glibc hands large ones back, and the system zeroes every page anew: a tenth of the time."""
    trim_threshold, mmap_max = -1, -4  # malloc.h
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another library of C
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(mmap_max, 0)
            mallopt(trim_threshold, 1 << 30)


def _begin(parent: int, slots: list[mmap]) -> None:
    """A worker whose parent was killed ends too, instead of waiting for work for ever."""
    _slots[:] = slots
    _keep_memory()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_order(work: Callable[[Item], Result], todo: Sequence[Item], pool: Readers | None, *, most: int, name: str = "prepare") -> Iterator[tuple[Item, Result]]:
    """Results in the order of `todo`, with no more than `most` of them in memory. The arrays of a result are good until the next one is asked for."""
    if pool is None:
        yield from ((item, work(item)) for item in todo)
        return
    ahead: deque[tuple[Item, int, Future[_Handed]]] = deque()
    try:
        for number, item in enumerate(todo):
            slot = number % most  # the one whose result was taken last, since there are never more than `most`
            ahead.append((item, slot, pool.submit(_handed, work, item, slot)))
            if len(ahead) == most:
                yield _taken(*ahead.popleft(), pool)
        while ahead:
            yield _taken(*ahead.popleft(), pool)
    except BrokenProcessPool as error:
        remedy = "run the same command again with one worker, it resumes"
        raise refuse(name, found="a process that ended abruptly", expected="enough memory for the scans", remedy=remedy) from error


_Handed = tuple[bytes, list[tuple[int, int]]]
"""A result pickled, but for its arrays, and where these begin and end in the slot."""


def _handed(work: Callable[[Item], Any], item: Item, slot: int) -> _Handed:
    """In a worker: its result, the arrays in the slot where they fit."""
    result = work(item)
    found: list[pickle.PickleBuffer] = []
    data = pickle.dumps(result, protocol=5, buffer_callback=found.append)
    spans: list[tuple[int, int]] = []
    for size in (each.raw().nbytes for each in found):
        begins = -(-spans[-1][1] // ALIGNED) * ALIGNED if spans else 0
        spans.append((begins, begins + size))
    if slot >= len(_slots) or (spans and spans[-1][1] > ROOM):
        return pickle.dumps(result, protocol=5), []
    for (begins, ends), each in zip(spans, found, strict=True):
        _slots[slot][begins:ends] = each.raw()
    return data, spans


def _taken(item: Item, slot: int, future: Future[_Handed], pool: Readers) -> tuple[Item, Any]:
    data, spans = future.result()
    view = memoryview(pool.slots[slot]) if spans else memoryview(b"")
    return item, pickle.loads(data, buffers=[view[begins:ends] for begins, ends in spans])
