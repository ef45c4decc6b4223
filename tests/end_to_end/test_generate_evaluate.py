"""generate and evaluate as a user runs them, on the tiny cohort."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Cli

from pathosyn.data.synthetic import SyntheticSet


@pytest.fixture(scope="module")
def sets(cli: Cli, prepared: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn, blurred and real lesions on the validation subject and the test subject, and on the training subjects."""
    folder = tmp_path_factory.mktemp("sets")
    for method in ("pathosyn", "blurred", "real"):
        common = ("generate", "--data", prepared, "--weights", weights, "--method", method, "--threads", 1, "--steps", 2)
        assert cli(*common, "--out", folder / method) == 0
        assert cli(*common, "--out", folder / f"{method}-train", "--purpose", "train") == 0
    assert cli("generate", "--data", prepared, "--weights", weights, "--threads", 1, "--steps", 2, "--per-lesion", 2, "--out", folder / "twice") == 0
    return folder


def test_realism_sees_no_difference_where_there_is_none(cli: Cli, prepared: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"{name}={sets / name},{sets / name}-train" for name in ("real", "pathosyn")]
    assert cli("evaluate", "realism", "--real", prepared, "--synthetic", *given, "--out", tmp_path, "--judges", "trees", "--threads", 1) == 0
    table = pd.read_csv(tmp_path / "realism.csv").set_index(["method", "region"])
    assert table.loc[("real", "lesion"), "auc"] == 0.5 and table.loc[("pathosyn", "background"), "auc"] == 0.5
    assert {"real", "real vs real", "pathosyn"} == set(table.index.get_level_values(0)) and (table["low"] <= table["high"]).all()
    assert "realism.csv" not in capsys.readouterr().err


def test_appearance_of_the_real_lesions_is_their_own(cli: Cli, prepared: Path, sets: Path, tmp_path: Path) -> None:
    given = [f"{name}={sets / name}" for name in ("real", "blurred")]
    assert cli("evaluate", "appearance", "--real", prepared, "--synthetic", *given, "--out", tmp_path, "--threads", 1) == 0
    table = pd.read_csv(tmp_path / "appearance.csv").set_index(["method", "contrast", "metric"])
    assert np.allclose(table.loc["real", "gap"].dropna(), 0, atol=1e-6)
    assert table.loc[("blurred", "flair", "laplacian"), "ratio"] < 0.9, "a blurred lesion has less fine detail"


def test_diversity_over_two_draws(cli: Cli, prepared: Path, sets: Path, tmp_path: Path) -> None:
    assert cli("evaluate", "diversity", "--real", prepared, "--synthetic", f"ours={sets / 'twice'}", "--out", tmp_path, "--threads", 1) == 0
    table = pd.read_csv(tmp_path / "diversity.csv").set_index("metric")
    assert (table.loc[[m for m in table.index if m.startswith("spread/")], "value"] > 0).all(), "two seeds draw two lesions"
    assert table.loc["nearest, real", "value"] > 0


def test_the_set_says_where_it_comes_from(sets: Path, weights: Path) -> None:
    import hashlib

    drawn = SyntheticSet(sets / "pathosyn")
    assert drawn.origin.weights == hashlib.sha256(weights.read_bytes()).hexdigest() and drawn.origin.purpose == "evaluate"
    assert set(drawn.rows["subject"]) == {"phantom_003"}
    assert "phantom_003" not in set(SyntheticSet(sets / "pathosyn-train").rows["subject"])


def test_the_gallery_keeps_its_key_apart_and_tells_the_auc_once_scored(
    cli: Cli, prepared: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("evaluate", "gallery", "--real", prepared, "--synthetic", f"ours={sets / 'pathosyn'}", "--out", tmp_path, "--threads", 1)
    assert cli(*call) == 0
    key, scores = tmp_path / "ours" / "key.csv", tmp_path / "ours" / "scores.csv"
    assert "next: look at the sheets" in capsys.readouterr().out
    pd.DataFrame({"number": pd.read_csv(key)["number"], "score": 0.5}).to_csv(scores, index=False)
    before = key.read_bytes(), scores.read_bytes()
    assert cli(*call) == 0
    assert "AUC of your scores 0.500" in capsys.readouterr().out and (key.read_bytes(), scores.read_bytes()) == before
    scores.write_text(scores.read_text().replace("0.5", "maybe"))
    assert cli(*call) == 2 and "maybe" in capsys.readouterr().err
