"""The picture of all methods: the same lesions in every column, and the last one's substrate and deviation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pathosyn.checkpoint import Loaded, Provenance
from pathosyn.config import default
from pathosyn.data.synthetic import SyntheticSet
from pathosyn.errors import InputError
from pathosyn.evaluate import comparison
from pathosyn.generate import generate


@pytest.fixture(scope="module")
def drawn(
    prepared_cohort: Callable[..., Path], make_method: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, SyntheticSet]]:
    """Three sets on the same lesions, and one on fewer."""
    names = [f"phantom_00{n}" for n in range(6)]
    data, folder = prepared_cohort({"validation": names[:2], "train": names[2:], "test": ["healthy_000"]}), tmp_path_factory.mktemp("comparison")
    method = make_method(default(), steps=2).eval().requires_grad_(False)
    loaded = Loaded(method, method.config, Provenance(), Path("weights.safetensors"), "s" * 64)
    methods = ("real", "substrate", "pathosyn")
    return data, {name: SyntheticSet(generate(data, folder / name, loaded, method=name, per_subject=3, progress=False)) for name in methods}


def test_a_sheet_has_a_row_for_each_lesion_and_contrast(drawn: tuple[Path, dict[str, SyntheticSet]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, sets = drawn
    seen: dict[str, Any] = {}
    monkeypatch.setattr(comparison.figures, "mosaic", lambda rows, path, **named: seen.update(rows=rows, **named))
    comparison.sheet(data, sets, tmp_path / "a.png", lesions=3)
    assert seen["columns"] == ("given", "real", "substrate", "pathosyn", "pathosyn: substrate", "pathosyn: deviation")
    assert len(seen["rows"]) == 6 == len(seen["labels"]) and {label.split()[-1] for label in seen["labels"]} == {"t1", "flair"}
    assert len({tuple(label.split()[:2]) for label in seen["labels"]}) == 3 and len({label.split()[0] for label in seen["labels"]}) == 2
    for given, real, healed, made, substrate, deviation in seen["rows"]:
        outlined = (given != real).any(axis=-1)
        assert outlined.any() and (given[outlined] == (255, 196, 0)).all(), "the scan itself beside the outline"
        assert (healed != real).any() and (made != real).any() and (substrate != made).any()
        white = (deviation == 255).all(axis=-1)
        assert white.mean() > 0.5 and not white.all(), "it lies on the lesion alone"


def test_a_sheet_is_written_for_the_contrasts_asked_for(drawn: tuple[Path, dict[str, SyntheticSet]], tmp_path: Path) -> None:
    data, sets = drawn
    heights = [np.asarray(Image.open(comparison.sheet(data, sets, tmp_path / "a.png", lesions=2, contrasts=c))).shape[0] for c in (("flair",), ())]
    assert heights[1] - 16 == 2 * (heights[0] - 16)
    with pytest.raises(InputError, match="t2"):
        comparison.sheet(data, sets, tmp_path / "b.png", contrasts=("t2",))


def test_sets_without_a_common_lesion_are_refused(drawn: tuple[Path, dict[str, SyntheticSet]], tmp_path: Path) -> None:
    data, sets = drawn
    other = SyntheticSet(sets["real"].folder)
    other.rows = other.rows.assign(row=other.rows["row"] + 1000)
    with pytest.raises(InputError, match="all have"):
        comparison.sheet(data, {"a": sets["real"], "b": other}, tmp_path / "a.png")


def test_what_has_no_code_is_not_reconstructed(drawn: tuple[Path, dict[str, SyntheticSet]], make_method: Callable[..., Any], tmp_path: Path) -> None:
    method = make_method(default(), steps=2).eval()
    loaded = Loaded(method, method.config, Provenance(), Path("weights.safetensors"), "s" * 64)
    with pytest.raises(InputError, match="codes what it is given"):
        generate(drawn[0], tmp_path / "set", loaded, reconstruct=True, per_subject=1, progress=False)
    assert not list(tmp_path.iterdir())
