"""SyntheticSet: what was written is what is read, a failure leaves nothing, and nothing else is taken for a set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pathosyn.data.synthetic import FIELDS, Group, Origin, SyntheticSet, Writer
from pathosyn.errors import InputError

ORIGIN = Origin(contrasts=("t1", "flair"), data="d" * 64, method="blurred", purpose="evaluate", partition="test", weights="w" * 64, seed=7)


def arrays(count: int, side: int, seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shape = {"x_hat": (count, 2, side, side), "x_sub": (count, 2, side, side), "m": (count, side, side), "S": (count, side, side)}
    return {name: draw.normal(size=shape[name]).astype(np.float32) for name in FIELDS}


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"row": n, "subject": f"{n:03d}", "z": 2 * n, "replicate": 0, "seed": 2**62 + n} for n in numbers]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three batches of two sides."""
    writer = Writer(tmp_path / "sets" / "blurred", ORIGIN)
    assert writer.open() == 0
    batches = ((rows(4, 5), (2, 32, 0)), (rows(6), (1, 64, 1)), (rows(8, 7), (2, 32, 2)))
    for number in (2, 0, 1):  # as several processes may
        some, (count, side, seed) = batches[number]
        writer.add(number, Group(arrays(count, side, seed), some))
    return writer.finish(3)


def test_what_was_written_is_read_in_its_order(folder: Path) -> None:
    found = SyntheticSet(folder)
    assert found.origin == ORIGIN and found.rows["row"].tolist() == [4, 5, 6, 8, 7]
    assert found.rows["subject"].tolist() == ["004", "005", "006", "008", "007"], "a name is no number"
    assert found.rows["seed"].tolist() == [2**62 + n for n in (4, 5, 6, 8, 7)]
    assert found.rows["side"].tolist() == [32, 32, 64, 32, 32] and found.rows["place"].tolist() == [0, 1, 0, 2, 3]
    wanted = [(0, 2, 32, 0), (1, 2, 32, 0), (0, 1, 64, 1), (0, 2, 32, 2), (1, 2, 32, 2)]
    for (row, window), (i, count, side, seed) in zip(found.windows(), wanted, strict=True):
        assert set(window) == set(FIELDS) and row["side"] == side
        for name, given in arrays(count, side, seed).items():
            assert window[name].dtype == np.float32
            assert np.array_equal(window[name], given[i].astype(np.float16).astype(np.float32)), "rounded as the scans are"


def test_a_finished_set_leaves_nothing_beside_it(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["blurred"]
    assert sorted(path.name for path in folder.iterdir()) == ["rows.csv", "set.json", "windows.h5"]


def test_what_another_request_left_does_not_count(tmp_path: Path) -> None:
    left = Writer(tmp_path / "set", ORIGIN, {"steps": 4})
    left.open()
    left.add(0, Group(arrays(2, 32, 0), rows(1, 2)))
    writer = Writer(tmp_path / "set", ORIGIN, {"steps": 5})
    assert writer.open() == 0 and not writer.has(0)
    writer.add(0, Group(arrays(1, 32, 1), rows(3)))
    writer.finish(1)
    assert SyntheticSet(tmp_path / "set").rows["row"].tolist() == [3] and [p.name for p in tmp_path.iterdir()] == ["set"]


def test_what_the_same_request_left_is_gone_on_with(tmp_path: Path, folder: Path) -> None:
    left = Writer(folder, ORIGIN, {"steps": 4})
    left.open()
    left.add(1, Group(arrays(2, 32, 0), rows(1, 2)))
    (left.part / ".batch-0000000.npz.part").write_bytes(b"half")
    again = Writer(folder, ORIGIN, {"steps": 4})
    assert again.open() == 1 and again.has(1) and not again.has(0)
    assert SyntheticSet(folder).rows["row"].tolist()[0] == 4, "the older set stays until the new one is whole"
    again.add(0, Group(arrays(1, 32, 1), rows(3)))
    again.finish(2)
    assert SyntheticSet(folder).rows["row"].tolist() == [3, 1, 2] and [p.name for p in folder.parent.iterdir()] == ["blurred"]


def test_an_abandoned_set_leaves_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", ORIGIN)
    writer.open()
    writer.add(0, Group(arrays(1, 32, 0), rows(1)))
    writer.abandon()
    assert not list(tmp_path.iterdir())


def test_whole_slices_travel_beside_their_windows(tmp_path: Path) -> None:
    """Two windows of one slice share it."""
    plane = np.random.default_rng(3).normal(size=(2, 50, 40)).astype(np.float32)
    writer = Writer(tmp_path / "set", ORIGIN)
    writer.open()
    some = [{**row, "plane": key} for row, key in zip(rows(1, 2, 3), ("a 1 0", "a 1 0", ""), strict=True)]
    writer.add(0, Group(arrays(3, 32, 0), some, {"a 1 0": plane}))
    found = [window for _, window in SyntheticSet(writer.finish(1)).windows()]
    assert all(np.array_equal(window["plane"], plane.astype(np.float16)) for window in found[:2]) and "plane" not in found[2]


def test_a_batch_may_hold_several_sides(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", ORIGIN)
    writer.open()
    writer.add(0, Group(arrays(1, 32, 0), rows(1)), Group(arrays(2, 64, 1), rows(2, 3)))
    writer.add(1, Group(arrays(1, 64, 2), rows(4)))
    found = SyntheticSet(writer.finish(2))
    assert found.rows["row"].tolist() == [1, 2, 3, 4] and found.rows["place"].tolist() == [0, 0, 1, 2]
    last = [window for _, window in found.windows()][-1]
    assert np.array_equal(last["x_hat"], arrays(1, 64, 2)["x_hat"][0].astype(np.float16).astype(np.float32))


def test_an_empty_set_is_a_set(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "set", ORIGIN)
    writer.open()
    found = SyntheticSet(writer.finish(0))
    assert len(found.rows) == 0 and list(found.windows()) == []


def no_json(folder: Path) -> None:
    (folder / "set.json").write_text("{")


def other_version(folder: Path) -> None:
    about = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**about, "version": 99}))


def other_kind(folder: Path) -> None:
    about = json.loads((folder / "set.json").read_text())
    (folder / "set.json").write_text(json.dumps({**about, "format": "a holiday"}))


@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda folder: (folder / "set.json").unlink(), "no synthetic set"),
        (lambda folder: (folder / "rows.csv").unlink(), "no synthetic set"),
        (no_json, "no synthetic set"),
        (other_version, "another kind or version"),
        (other_kind, "another kind or version"),
    ],
)
def test_what_is_no_set_is_refused_with_its_name(folder: Path, spoil: Any, told: str) -> None:
    spoil(folder)
    with pytest.raises(InputError) as caught:
        SyntheticSet(folder)
    (fault,) = caught.value.faults
    assert fault.where == str(folder) and told in fault.found and "pathosyn generate" in fault.remedy


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        SyntheticSet(tmp_path / "nothing")
