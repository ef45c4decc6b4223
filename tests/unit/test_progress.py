"""Progress: plain lines on a log, a bar on a terminal, nothing where it is switched off."""

from __future__ import annotations

import io
import sys

import pytest

from pathosyn import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_every_thirty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.track(110, "prepare", "subjects", done=10) as bar:
        for i in range(100):
            now[0] += 1
            bar.advance(note=f"s{i}")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "prepare: 40/110 subjects, 0:30 spent, 1:10 left, s29"
    assert lines[2].startswith("prepare: 100/110 subjects, 1:30 spent, 0:10 left")


def test_short_work_and_silence_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.track(3, "x", show=False) as bar:
        bar.advance(3)
    assert stream.getvalue() == ""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress.track([1, 2], "x") as bar:
        bar.advance(2)
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.track(4, "insert", "windows") as bar:
        bar.advance(3, note="[odd] name")
    said = stream.getvalue()
    assert "3/4" in said
    assert "[odd] name" in said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (59.6, "1:00"), (3600, "1:00:00"), (3725, "1:02:05")])
def test_clock(seconds: float, said: str) -> None:
    assert progress._clock(seconds) == said
