"""Every method of the comparison through the command line: trained for a few steps, drawn with, reconstructed where it has a code, else refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pathosyn.data.synthetic import SyntheticSet

Cli = Callable[..., int]
WHOLE = ("--compared.latent.side", "64", "--compared.meta.side", "64")
SMALL = (
    *("--compared.vaegan.widths", "8", "8", "8", "8", "8", "--compared.latent.widths", "8", "8", "8", "--compared.latent.denoiser", "8", "8"),
    *("--compared.latent.critic", "8", "8", "8", "--compared.latent.steps", "2", "--compared.meta.widths", "8", "8", "8", "8", "8"),
    *("--compared.meta.templates", "2"),
)
CODES = ("vaegan", "brain-ldm", "maskdiff-inpaint", "meta-auto")
METHODS = (*CODES, "difference-gan")


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, train: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A method's name, and weights of it after a handful of steps."""
    run = tmp_path_factory.mktemp("methods") / "run"
    assert train(run, "--method", request.param, "--train.steps", 6, "--m.adversary", 0, *WHOLE, *SMALL) == 0
    assert any((run / "previews").iterdir())
    return request.param, run / "weights.safetensors"


def test_a_method_is_trained_and_draws(trained: tuple[str, Path], cli: Cli, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, weights = trained
    flags = ("--data", prepared, "--weights", weights, "--per-subject", 1, "--threads", 1)
    assert cli("generate", "--method", name, "--out", tmp_path / "set", *flags) == 0
    found = SyntheticSet(tmp_path / "set")
    windows = [window for _, window in found.windows()]
    assert len(windows) == 1 and found.origin.method == name and set(found.rows["labels"]) == {""}
    assert np.isfinite(windows[0]["x_hat"]).all() and windows[0]["x_hat"].std() > 0
    assert ("plane" in windows[0]) == (name in ("brain-ldm", "maskdiff-inpaint", "meta-auto"))
    assert cli("generate", "--method", name, "--out", tmp_path / "again", *flags) == 0
    assert (tmp_path / "again" / "windows.h5").read_bytes() == (tmp_path / "set" / "windows.h5").read_bytes()
    capsys.readouterr()
    assert cli("generate", "--method", name, "--out", tmp_path / "code", "--reconstruct", *flags) == (0 if name in CODES else 2)
    assert name in CODES or "codes what it is given" in capsys.readouterr().err


def test_other_methods_do_not_insert(trained: tuple[str, Path], cli: Cli, subject: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, weights = trained
    assert cli("insert", subject, "--out", tmp_path / "out", "--weights", weights, "--threads", 1) == 2
    told = capsys.readouterr().err
    assert f"weights of {name}" in told and "Traceback" not in told and not (tmp_path / "out").exists()


def test_weights_of_one_method_do_not_draw_as_another(trained: tuple[str, Path], cli: Cli, prepared: Path, tmp_path: Path) -> None:
    other = "pathosyn" if trained[0] == "vaegan" else "vaegan"
    assert cli("generate", "--method", other, "--data", prepared, "--out", tmp_path / "set", "--weights", trained[1], "--threads", 1) == 2
    assert not (tmp_path / "set").exists()


def test_a_slice_too_large_for_a_method_is_told_before_the_run_begins(train: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--method", "meta-auto", "--compared.meta.side", 32, "--train.steps", 2) == 2
    assert "at most 32" in capsys.readouterr().err and not (tmp_path / "run").exists()
