"""What makes weights ready to ship, on weights of a short training."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pathosyn.checkpoint import load

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def remember(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`python tools/remember_looks.py …` in this process; returns the exit code."""
    tool = _module("remember_looks")

    def call(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["remember_looks.py", *map(str, words)])
        return int(tool.main())

    return call


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_looks_are_measured_anew_and_every_network_stays(
    remember: Callable[..., int], train: Callable[..., int], prepared: Path, weights: Path, tmp_path: Path
) -> None:
    """The one-call network, too, which nothing else of a training without steps keeps."""
    shares = ("--train.substrate-share", 0, "--train.structure-share", 0, "--train.sharpen-share", 0, "--train.distil-share", 1)
    assert train(tmp_path / "run", "--from", weights, *shares, "--train.steps", 2) == 0
    old, new = tmp_path / "run" / "weights.safetensors", tmp_path / "new.safetensors"
    before = load(old)
    assert remember(old, "--data", prepared, "--out", new) == 0
    after = load(new)
    networks = {name: value for name, value in before.any_method.state_dict().items() if name.split(".")[0] in ("sub", "eps", "coarse", "student")}
    assert any(name.startswith("student.") for name in networks)
    assert all(torch.equal(value, after.any_method.state_dict()[name]) for name, value in networks.items())
    assert after.config == before.config and after.provenance.subjects == before.provenance.subjects and after.provenance.parent == before.provenance.parent
    looks, counted = after.any_method.looks, after.any_method.looks_of[:, 1] > 0
    assert isinstance(looks, torch.Tensor) and int(counted.sum()) > 5
    assert torch.allclose(looks[counted], before.any_method.looks[counted], atol=1e-2), "the same data and method: the same looks"


def test_other_training_subjects_are_refused(
    remember: Callable[..., int], cli: Callable[..., int], tiny_cohort: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["subject,partition", "phantom_000,validation", "phantom_005,test", *(f"phantom_00{k},train" for k in (1, 2, 3, 4)), "healthy_000,train"]
    (tmp_path / "split.csv").write_text("\n".join(rows) + "\n")
    flags = ("--split", tmp_path / "split.csv", "--workers", 1, "--geometry.buckets", 32, 64, "--geometry.margin-mm", 4)
    assert cli("prepare", tiny_cohort, "--out", tmp_path / "other.h5", *flags) == 0
    capsys.readouterr()
    assert remember(weights, "--data", tmp_path / "other.h5", "--out", tmp_path / "new.safetensors") == 2
    assert "phantom_000" in capsys.readouterr().err and not (tmp_path / "new.safetensors").exists()
