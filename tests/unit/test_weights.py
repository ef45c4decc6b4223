"""The weights that come with the package: a name, a file or nothing, and what is none of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pathosyn import weights
from pathosyn.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with two shipped files, the working folder elsewhere."""
    there = tmp_path / "package"
    there.mkdir()
    rows = []
    for name in ("first", "second"):
        (there / f"{name}.safetensors").write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        rows.append({"name": name, "file": f"{name}.safetensors", "version": "1", "sha256": digest, "what": "a test"})
    (there / "index.json").write_text(json.dumps(rows))
    (there / "LICENSE.txt").write_text("For research\nonly.\n\nAnd more.")
    monkeypatch.setattr(weights, "_FOLDER", there)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    weights.shipped.cache_clear()
    yield there
    weights.shipped.cache_clear()


@pytest.fixture
def bare(folder: Path) -> Path:
    """A package built without weights."""
    (folder / "index.json").unlink()
    weights.shipped.cache_clear()
    return folder


def refused(given: str | Path | None) -> str:
    with pytest.raises(InputError) as caught:
        weights.find(given)
    (fault,) = caught.value.faults
    return str(fault)


def test_a_name_is_its_file_and_none_is_the_first(folder: Path) -> None:
    assert weights.find("second") == folder / "second.safetensors"
    assert weights.find() == weights.find("first") == folder / "first.safetensors"
    assert list(weights.shipped()) == ["first", "second"]


def test_a_path_is_returned_as_it_is(folder: Path, tmp_path: Path) -> None:
    """Also one that is not there: `load` names it better."""
    mine = tmp_path / "mine.safetensors"
    assert weights.find(mine) == mine and weights.find(str(mine)) == mine
    mine.write_bytes(b"x")
    assert weights.find(mine) == mine
    (tmp_path / "run").mkdir()
    assert weights.find(tmp_path / "run") == tmp_path / "run"


def test_an_unknown_name_is_refused_with_the_known_ones(folder: Path) -> None:
    told = refused("third")
    assert "'third'" in told and "first, second" in told and "\n" not in told


def test_a_file_of_the_users_goes_before_a_name(folder: Path) -> None:
    Path("second").write_bytes(b"mine")
    assert weights.find("second") == Path("second")
    Path("first").mkdir()
    assert weights.find("first") == folder / "first.safetensors", "a folder of that name is no weight file"


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")], ids=["gone", "changed"])
def test_a_damaged_file_of_ours_is_refused(folder: Path, spoil: object) -> None:
    spoil(folder / "second.safetensors")  # type: ignore[operator]
    assert "install pathosyn again" in refused("second")
    assert weights.find("first").is_file()


def test_a_package_without_weights_says_so(bare: Path) -> None:
    assert weights.shipped() == {} and weights.terms() == ""
    assert "without weights" in refused(None) and "no names" in refused("first")


def test_terms_are_the_first_paragraph(folder: Path) -> None:
    assert weights.terms() == "For research only."
