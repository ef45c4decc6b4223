"""Long work says how far it is: a bar with the time left on a terminal, a plain line every 30 s elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

EVERY_SECONDS = 30.0


class Track(Protocol):
    """What `track` hands out."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """`n` more are done; `note` (a subject, a loss) is shown beside the count until the next one replaces it."""


def _clock(seconds: float) -> str:
    minutes, left = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"


class _Lines:
    """Plain lines for logs: at most one every `EVERY_SECONDS`, none for work that ends before the first is due."""

    def __init__(self, total: int, before: int, description: str, unit: str, stream: TextIO) -> None:
        self.total, self.before, self.description, self.unit, self.stream = total, before, description, unit, stream
        self.done, self.note = 0, ""
        self.start = self.last = time.monotonic()

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        now = time.monotonic()
        if now - self.last >= EVERY_SECONDS and self.done:
            self.last = now
            spent = now - self.start
            left = spent / self.done * max(self.total - self.before - self.done, 0)
            tail = f", {self.note}" if self.note else ""
            self.stream.write(f"{self.description}: {self.before + self.done}/{self.total} {self.unit}, {_clock(spent)} spent, {_clock(left)} left{tail}\n")
            self.stream.flush()


class _Bar:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self.bar, self.task = bar, task

    def advance(self, n: int = 1, note: str = "") -> None:
        self.bar.advance(self.task, n)
        if note:
            self.bar.update(self.task, note=note)


class _Silent:
    def advance(self, n: int = 1, note: str = "") -> None:
        return


@contextmanager
def track(total: int | Sized, description: str, unit: str = "steps", *, done: int = 0, show: bool = True) -> Iterator[Track]:
    """Show the progress of `total` units of work (a number, or anything with a length); use as `with track(…) as progress: progress.advance()`.

    done  units already finished by an earlier, interrupted run
    show  False: silent
    """
    count = total if isinstance(total, int) else len(total)
    if not show:
        yield _Silent()
        return
    stream = sys.stderr
    if not stream.isatty():
        yield _Lines(count, done, description, unit, stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("·"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(file=stream), transient=False) as bar:
        yield _Bar(bar, bar.add_task(description, total=count, completed=done, note=""))
