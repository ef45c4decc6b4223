"""Where a rim may go: not into what is dark in every contrast in which fluid is dark."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pathosyn.config import Geometry
from pathosyn.data.masks import blend_map
from pathosyn.data.store import read_header
from pathosyn.data.tissue import FLUID, TISSUE, on_tissue, solid


def test_fluid_is_dark_in_every_contrast() -> None:
    t1, flair = np.array([-3.0, -3.0, 0.0, FLUID - 0.1, TISSUE]), np.array([-3.0, 4.0, -3.0, FLUID - 0.1, -3.0])
    assert solid({"t1": t1, "flair": flair}).tolist() == [0.0, 1.0, 1.0, 0.0, 1.0], "a bright FLAIR, or T1, is tissue"
    assert solid({"flair": flair}).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_between_the_two_it_is_a_smoothstep() -> None:
    u = np.linspace(0, 1, 11)
    assert np.allclose(solid({"t1ce": FLUID + (TISSUE - FLUID) * u}), 3 * u**2 - 2 * u**3, atol=1e-5)
    assert solid({"t1": np.zeros(3)}).dtype == np.float32


def test_t2_in_which_fluid_is_bright_says_nothing() -> None:
    assert float(solid({"t2": np.full(4, -5.0)})) == 1.0
    assert solid({"t2": np.full(2, 5.0), "t1": np.array([-5.0, 0.0])}).tolist() == [0.0, 1.0]


def test_the_lesion_itself_keeps_its_blend() -> None:
    m = np.zeros((1, 9, 9), bool)
    m[0, 3:6, 3:6] = True
    S = blend_map(m, (5.0, 1.0, 1.0), Geometry())  # noqa: N806
    tissue = np.ones(m.shape, np.float32)
    tissue[..., 4:] = 0.0
    found = on_tissue(S, m, tissue)
    assert (found[m] == 1).all() and not found[..., 4:][~m[..., 4:]].any() and np.array_equal(found[..., :4], S[..., :4]) and found.dtype == np.float32


def test_data_prepared_before_is_read_as_it_was(prepared_file: Path, tmp_path: Path) -> None:
    assert read_header(prepared_file).geometry.stop_at_fluid
    old = tmp_path / "old.h5"
    old.write_bytes(prepared_file.read_bytes())
    with h5py.File(old, "r+") as file:
        geometry = json.loads(file.attrs["geometry"])
        del geometry["stop_at_fluid"]
        file.attrs["geometry"] = json.dumps(geometry)
    assert read_header(old).geometry == Geometry(**{**vars(read_header(prepared_file).geometry), "stop_at_fluid": False})


@pytest.fixture(scope="module")
def prepared_file(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pathosyn.data.prepare import prepare

    out = tmp_path_factory.mktemp("tissue") / "slices.h5"
    prepare([tiny_cohort], out, fractions=(0.5, 0.25, 0.25), workers=0, progress=False)
    return out
