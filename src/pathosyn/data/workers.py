"""Processes that read and compute while this one writes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pathosyn.errors import refuse

Item = TypeVar("Item")
Result = TypeVar("Result")


def start(workers: int | None, items: int, name: str = "prepare") -> tuple[ProcessPoolExecutor | None, int]:
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
    context = multiprocessing.get_context("fork" if forks else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with, initargs=(os.getpid(),))
    try:
        for started in [pool.submit(os.getpid) for _ in range(workers)]:
            started.result()
    except BrokenProcessPool:
        remedy = f'in a script, call {name} under `if __name__ == "__main__":`, or give one worker'
        raise refuse(name, found="reading processes that cannot start", expected="a program that they can import", remedy=remedy) from None
    return pool, workers


def _end_with(parent: int) -> None:
    """A worker whose parent was killed ends too, instead of waiting for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_order(
    work: Callable[[Item], Result], todo: Sequence[Item], pool: ProcessPoolExecutor | None, *, most: int, name: str = "prepare"
) -> Iterator[tuple[Item, Result]]:
    """Results in the order of `todo`, with no more than `most` of them in memory."""
    if pool is None:
        yield from ((item, work(item)) for item in todo)
        return
    ahead: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in todo:
            ahead.append((item, pool.submit(work, item)))
            if len(ahead) == most:
                item, future = ahead.popleft()
                yield item, future.result()
        while ahead:
            item, future = ahead.popleft()
            yield item, future.result()
    except BrokenProcessPool as error:
        remedy = "run the same command again with one worker, it resumes"
        raise refuse(name, found="a process that ended abruptly", expected="enough memory for the scans", remedy=remedy) from error
