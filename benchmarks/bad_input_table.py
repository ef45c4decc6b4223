"""What the program says to every kind of bad input, as a Markdown page.

    python benchmarks/bad_input_table.py > docs/bad-input.md

The cases are those of tests/end_to_end/test_bad_input.py; each is run here anew. Exit code 1 if one of them is not refused as it should be.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "end_to_end"))

from bad_inputs import CASES
from bad_world import Case, Place, World, judge

PAGE = """# Bad input

What `pathosyn` says to input that it cannot work with. Every fault is one line on standard error: where, what was found, what was expected, what to do.
The exit code is 2, there is no traceback, and nothing half-written is left. (Where the same command can go on from work that is done, that work stays:
`OUT.part` of `prepare`, the run folder of `train`.) All faults that can be seen at once are told at once. A flag that is unknown, lacks its value or has
one of the wrong type is told in a box that names it.

This page is made by `benchmarks/bad_input_table.py` from the cases that `tests/end_to_end/test_bad_input.py` runs: {cases} cases, {refused} refused as
described. `…` stands for a folder; flags that are the same in every row (`--device cpu`, sizes of tiny networks) are left out.
"""
LONGEST = 420


def main() -> int:
    """The page on standard output."""
    failed = []
    rows = []
    with tempfile.TemporaryDirectory() as root:
        world = World.make(Path(root) / "world")
        for number, case in enumerate(CASES):
            place = Place(world, Path(root) / f"case{number}")
            outcome = judge(case, world, place.root)
            if outcome.complaints:
                failed.append(f"{case.name}: {'; '.join(outcome.complaints)}")
            more = f" (and {len(outcome.lines) - 1} more)" if len(outcome.lines) > 1 else ""
            rows.append((_verb(case, outcome.argv), case.name, place.shown(outcome.argv), outcome.code, _short(place.plain(outcome.lines[0])) + more))
    print(PAGE.format(cases=len(CASES), refused=len(CASES) - len(failed)))
    for verb in dict.fromkeys(row[0] for row in rows):
        print(f"## {verb}\n\n| Case | Command | Exit | It says |\n|---|---|---|---|")
        for _, name, command, code, said in (row for row in rows if row[0] == verb):
            print(f"| {_cell(name.removeprefix(f'{verb}: '))} | `{_cell(command)}` | {code} | {_cell(said)} |")
        print()
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _verb(case: Case, argv: list[str]) -> str:
    if not argv or argv[0] not in ("check", "prepare", "train", "insert", "heal"):
        return "The command line"
    return argv[0]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"


def _cell(text: str) -> str:
    """Without what Markdown would read as its own."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().replace("|", "\\|").replace("<", "&lt;").split())


if __name__ == "__main__":
    sys.exit(main())
