"""Every kind of bad input ends with exit code 2 and one line a fault that names the place and what to do, and leaves nothing half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import CASES
from bad_world import Case, Place, World, call, judge


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("bad") / "world")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused(case: Case, world: World, tmp_path: Path) -> None:
    outcome = judge(case, world, tmp_path)
    assert not outcome.complaints, "\n".join([*outcome.complaints, outcome.errors])


def test_each_case_is_another() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) >= 150


def test_the_sound_world_is_taken(world: World, tmp_path: Path) -> None:
    """Otherwise the refusals would prove nothing."""
    place = Place(world, tmp_path)
    for argv in (place.insert(), place.heal(), place.prepare("--fractions", 1, 0, 0), ["check", str(world.cohort)]):
        if argv[0] == "prepare":
            argv[argv.index("--out") + 1] += ".h5"
        code, _, errors = call(argv)
        assert (code, errors) == (0, ""), argv[0]
    assert sorted(path.name for path in place.out.iterdir()) == ["s1-healed", "s1-r00"]


def test_the_referee_sees_what_is_wrong(world: World, tmp_path: Path) -> None:
    """A command that succeeds, writes, changes a file and says nothing fails on every count."""

    def build(place: Place) -> list[str]:
        place.text("out/s1-r00/mine.txt", "x")
        return place.prepare("--fractions", 1, 0, 0)

    outcome = judge(Case("none", lambda p: [*build(p)[:3], str(p.root / "new.h5"), *build(p)[4:]], ("a fault",)), world, tmp_path)
    told = " ".join(outcome.complaints)
    assert "exit code 0" in told and "lacks ['a fault']" in told and "left behind: …/new.h5" in told


@pytest.mark.parametrize("name", ["no arguments", "unknown verb", "check: a truncated scan", "prepare: split with other columns"])
def test_a_real_process_says_the_same(name: str, world: World, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    argv = case.build(Place(world, tmp_path))
    code, output, errors = call(argv)
    done = subprocess.run([sys.executable, "-c", "import sys; from pathosyn.cli import main; sys.exit(main())", *argv], capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (code, output, errors)
