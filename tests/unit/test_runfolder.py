"""A run on disk: opened once, continued only with its own settings, and cut back to its last checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pathosyn.config import Config, Train
from pathosyn.errors import InputError
from pathosyn.runfolder import COLUMNS, RunFolder, environment, package_version, write_json

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "first")
    run.open(Config(), data="abc", parent="")
    return run


def test_a_new_run_holds_its_settings_and_surroundings(folder: RunFolder) -> None:
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json", "environment.json", "metrics.csv", "previews"]
    held = json.loads((folder.path / "config.json").read_text())
    assert held["data"] == "abc" and held["config"]["train"]["lr"] == 1e-4 and held["config"]["contrasts"] == ["t1", "t1ce", "flair"]
    assert json.loads((folder.path / "environment.json").read_text())["packages"]["torch"] == package_version("torch") != "unknown"
    assert (folder.path / "metrics.csv").read_text() == COLUMNS
    assert folder.weights.parent == folder.path and folder.weights.suffix == ".safetensors"


def test_the_same_settings_go_on_and_touch_nothing(folder: RunFolder) -> None:
    folder.log(1, "substrate", "train", {"loss": 0.5})
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    folder.open(Config(), data="abc", parent="")
    assert {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before


def test_every_setting_that_differs_is_named(folder: RunFolder) -> None:
    other = Config(contrasts=("t1",), train=Train(lr=0.5, steps=7))
    with pytest.raises(InputError) as caught:
        folder.open(other, data="xyz", parent="def")
    told = [str(fault) for fault in caught.value.faults]
    assert len(told) == 5
    for name, old, new in (("config.train.lr", "0.0001", "0.5"), ("config.train.steps", "9000", "7"), ("data", "abc", "xyz"), ("from", "", "def")):
        assert any(f"{name} = {old}" in line and f"{name} = {new}" in line for line in told), name
    assert any("config.contrasts" in line for line in told)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        RunFolder(tmp_path).open(Config(), data="", parent="")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_was_killed_while_it_was_being_opened_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.json is written last; what was there before it is our own."""
    from pathosyn import runfolder

    original = runfolder.write_json

    def killed(path: Path, content: object) -> None:
        if path.name == "config.json":
            raise KeyboardInterrupt
        original(path, content)

    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runfolder, "write_json", killed)
        run.open(Config(), data="", parent="")
    run.open(Config(), data="", parent="")
    assert (run.path / "config.json").is_file()


def test_metrics_are_tidy_rows(folder: RunFolder) -> None:
    folder.log(3, "substrate", "train", {"sub": 0.123456789, "lr": 1e-4})
    folder.log(4, "deviation", "validation", {"loss": 2.0})
    assert (folder.path / "metrics.csv").read_text() == COLUMNS + "3,substrate,train,sub,0.123457\n3,substrate,train,lr,0.0001\n4,deviation,validation,loss,2\n"


def test_a_state_comes_back_and_rows_after_it_are_cut(folder: RunFolder) -> None:
    folder.log(1, "s", "train", {"loss": 1.0})
    kept = (folder.path / "metrics.csv").read_text()
    folder.save_state({"step": 5, "method": {"w": torch.arange(3.0)}, "running": {"loss": [0.1, 0.2]}})
    folder.log(6, "s", "train", {"loss": 0.5})
    state = folder.load_state(CPU)
    assert state is not None and state["step"] == 5 and torch.equal(state["method"]["w"], torch.arange(3.0)) and state["running"] == {"loss": [0.1, 0.2]}
    assert (folder.path / "metrics.csv").read_text() == kept


def test_without_a_state_the_metrics_start_anew(folder: RunFolder) -> None:
    folder.log(1, "s", "train", {"loss": 1.0})
    assert folder.load_state(CPU) is None
    assert (folder.path / "metrics.csv").read_text() == COLUMNS


def test_a_save_that_fails_keeps_the_state_before_it(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.save_state({"step": 1})
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        folder.save_state({"step": 2})
    state = folder.load_state(CPU)
    assert state is not None and state["step"] == 1


def test_the_state_is_data_only(folder: RunFolder) -> None:
    """`weights_only=True`: a state that would run code on loading is refused."""
    torch.save({"step": 1, "metrics_bytes": 0, "config": replace(Config(), name="x")}, folder.path / "state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        folder.load_state(CPU)


def test_write_json_is_sorted_and_leaves_no_part(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1, 2]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1,\n    2\n  ],\n  "b": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_environment_names_what_one_needs_to_repeat() -> None:
    told = environment()
    assert set(told) >= {"python", "platform", "packages", "threads", "cpu", "gpu", "command"} and told["threads"] == torch.get_num_threads()
    assert package_version("no-such-package-at-all") == "unknown"
