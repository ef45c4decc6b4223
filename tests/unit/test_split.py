"""The split: read as written, drawn the same every time, refused where it says too little or too much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pathosyn.data.split import PARTITIONS, draw_split, read_split
from pathosyn.errors import InputError

NAMES = [f"s{i:03d}" for i in range(97)]


def write(folder: Path, text: str) -> Path:
    path = folder / "split.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["subject,partition\na,train\nb,test\nx,validation\n", "\ufeffSubject; Partition;set\n\na;train;q\nb; test ;q\n"])
def test_read_takes_what_is_written(tmp_path: Path, text: str) -> None:
    assert read_split(write(tmp_path, text), [("q", "a"), ("q", "b")]) == {"a": "train", "b": "test"}


def test_set_decides_between_rows_of_one_subject(tmp_path: Path) -> None:
    path = write(tmp_path, "set,subject,partition\nold,a,train\nnew,a,test\n")
    assert read_split(path, [("new", "a")]) == {"a": "test"}
    assert read_split(path, [("old", "a")]) == {"a": "train"}
    with pytest.raises(InputError, match="a in test and train"):
        read_split(path, [("other", "a")])


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "subject,partition\na,training\nb,test\nb,train\n")
    with pytest.raises(InputError) as caught:
        read_split(path, [("", "a"), ("", "b"), ("", "c"), ("", "d")])
    said = [str(fault) for fault in caught.value.faults]
    assert len(said) == 4
    assert "line 2" in said[0]
    assert "'training'" in said[0]
    assert "b in test and train" in said[1]
    assert "no line for c" in said[2]


@pytest.mark.parametrize(("text", "said"), [("", "an empty file"), ("name,fold\na,1\n", "the header 'name,fold'"), ("subject,partition\n", "header")])
def test_what_is_not_a_split(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_split(write(tmp_path, text), [("", "a")])
    with pytest.raises(InputError, match="no readable text file"):
        read_split(tmp_path / "none.csv", [("", "a")])


def test_drawn_split_has_the_counts_and_loses_nobody() -> None:
    drawn = draw_split(NAMES, (0.8, 0.1, 0.1), 0)
    assert sorted(drawn) == NAMES
    assert [list(drawn.values()).count(p) for p in PARTITIONS] == [77, 10, 10]
    assert drawn != draw_split(NAMES, (0.8, 0.1, 0.1), 1)


def test_drawn_split_does_not_depend_on_the_order() -> None:
    shuffled = list(np.random.default_rng(5).permutation(NAMES))
    assert draw_split(shuffled, (0.5, 0.25, 0.25), 3) == draw_split(NAMES, (0.5, 0.25, 0.25), 3)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_few_subjects_fill_every_partition_that_is_asked_for(count: int) -> None:
    values = list(draw_split(NAMES[:count], (0.8, 0.1, 0.1), 0).values())
    assert len(values) == count
    assert count < 3 or set(values) == set(PARTITIONS)
    assert set(draw_split(NAMES[:count], (1, 0, 0), 0).values()) <= {"train"}


@pytest.mark.parametrize("fractions", [(0.8, 0.1), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_are_checked(fractions: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        draw_split(NAMES, fractions)
