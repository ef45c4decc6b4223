"""docs/method.md names functions and tests that exist, leaves no equation out, and states the presets as they are."""

from __future__ import annotations

import ast
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from pathosyn.config import default, paper

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
FUNCTIONS = sorted(set(re.findall(r"`(src/[\w/]+\.py):([\w.]+)`", PAGE)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
NUMBERED = {f"Eq. {n}" for n in (1, *range(3, 16))} | {"Alg. 1", "Alg. 2"}


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its two head rows."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


@cache
def names(path: str) -> set[str]:
    """Functions and classes at the top of a file, methods as Class.method."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("path, name", FUNCTIONS, ids=[name for _, name in FUNCTIONS])
def test_named_function_exists(path: str, name: str) -> None:
    assert name in names(path)


@pytest.mark.parametrize("path, name", TESTS, ids=[name for _, name in TESTS])
def test_named_test_exists(path: str, name: str) -> None:
    assert name.startswith("test_") and name in names(path)


def test_every_equation_and_algorithm_has_a_function_and_a_test() -> None:
    rows = {row[0]: row for row in table("Equations")}
    assert NUMBERED - set(rows) == set()
    for where, row in rows.items():
        assert len(row) == 4, where
        assert re.search(r"`src/[\w/]+\.py:[\w.]+`", row[2]) and re.search(r"`tests/[\w/]+\.py::test_\w+`", row[3]), where


def test_named_function_carries_its_equation_number() -> None:
    for where, _, function, _ in table("Equations"):
        number = re.fullmatch(r"(?:Eq|Alg)\. (\d+)", where)
        if number is None or where == "Eq. 2":
            continue
        documented = []
        for path, name in re.findall(r"`(src/[\w/]+\.py):([\w.]+)`", function):
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef) and node.name == name.split(".")[-1]:
                    documented.append(ast.get_docstring(node) or "")
        assert documented and all(re.search(rf"(Eqs?|Alg)\.[^.:]*\b{number[1]}\b", text) for text in documented), where


def flat(settings: dict[str, object]) -> dict[str, str]:
    """field → value as text; λ's as weights.name."""
    values: dict[str, str] = {}
    for name, value in settings.items():
        values |= {f"{name}.{k}": str(v) for k, v in value.items()} if isinstance(value, dict) else {name: str(value)}
    return values


@pytest.mark.parametrize("column, preset", [(1, paper), (2, default)], ids=["paper", "default"])
def test_presets_are_those_of_the_code(column: int, preset: object) -> None:
    stated = {row[0].strip("`"): row[column] for row in table("Presets")}
    assert stated == flat(asdict(preset()))  # type: ignore[operator]


def test_no_line_names_a_test_or_function_in_another_way() -> None:
    """A reference that the patterns above do not see would not be checked."""
    assert len(re.findall(r"::", PAGE)) == len(re.findall(r"`tests/[\w/]+\.py::\w+`", PAGE))
    assert len(re.findall(r"\.py:[A-Za-z]", PAGE)) == len(re.findall(r"`src/[\w/]+\.py:[\w.]+`", PAGE))
