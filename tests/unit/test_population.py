"""What travels with the weights about the training data, and what is said of a scan that is unlike it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pathosyn.config import Geometry
from pathosyn.data.population import FEATURES, PERCENTILES, describe, fingerprint, population, unlike
from pathosyn.data.prepare import prepare
from pathosyn.data.slices import Slices


@pytest.fixture(scope="module")
def file(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("population")
    rows = [f"phantom_00{i},train" for i in range(5)] + ["phantom_005,test", "healthy_000,train"]
    (folder / "split.csv").write_text("subject,partition\n" + "\n".join(rows) + "\n")
    prepare([tiny_cohort], folder / "slices.h5", split=folder / "split.csv", workers=1, progress=False, geometry=Geometry(buckets=(32, 64), margin_mm=4.0))
    return folder / "slices.h5"


# -- describe ---------------------------------------------------------------------------------------------------------------------------


def test_percentiles_are_those_of_the_inside_only() -> None:
    planes = np.full((1, 40, 40), 1e6, np.float32)
    inside = np.zeros(planes.shape, bool)
    inside[0, 10:30, 10:30] = True
    planes[inside] = np.linspace(0, 100, 400)
    assert describe(planes, inside)[:-1] == pytest.approx(PERCENTILES, abs=1e-3)
    assert len(describe(planes, inside)) == len(FEATURES)


def test_sharpness_is_the_mean_laplacian() -> None:
    y, x = np.indices((20, 22), dtype=np.float32)
    inside = np.ones((1, 20, 22), bool)
    assert describe((3 * y + x)[None], inside)[-1] == pytest.approx(0, abs=1e-5), "a ramp is not sharp"
    assert describe((1 - 2 * ((x + y) % 2))[None], inside)[-1] == pytest.approx(8), "a checkerboard of ±1 is as sharp as can be"
    noise = np.random.default_rng(0).normal(size=(30, 20, 22)).astype(np.float32)
    # 4z - z1 - z2 - z3 - z4 of unit noise has variance 20, and E|N(0, 20)| = sqrt(40/π).
    assert describe(noise, np.ones(noise.shape, bool))[-1] == pytest.approx((40 / np.pi) ** 0.5, rel=0.05)


def test_sharpness_of_a_scan_without_inner_pixels_is_0() -> None:
    inside = np.zeros((1, 5, 5), bool)
    inside[0, 0] = True
    assert describe(np.random.default_rng(0).normal(size=(1, 5, 5)), inside)[-1] == 0.0


# -- population -------------------------------------------------------------------------------------------------------------------------


def test_population_against_the_stored_arrays(file: Path) -> None:
    slices = Slices(file, "train")
    told = population(slices)
    rows: dict[str, list[list[float]]] = {name: [] for name in slices.contrasts}
    volumes = []
    with h5py.File(file) as held:
        for name in slices.subjects:
            group = held["subjects"][name]
            healthy = group["foreground"][()].astype(bool)
            lesion = np.zeros(healthy.size, bool)
            lesion[group["support_index"][()]] = True
            healthy &= ~lesion.reshape(healthy.shape)
            for c, contrast in enumerate(slices.contrasts):
                if group.attrs["present"][c]:
                    rows[contrast].append(describe(group["image"][()][:, c].astype(np.float32), healthy))
            if (group["seg"][()] > 0).any():
                volumes.append((group["seg"][()] > 0).sum() / 1000)
    assert {name: entry["subjects"] for name, entry in told["intensity"].items()} == {"t1": 6, "t1ce": 5, "t2": 6, "flair": 6}
    for contrast, entry in told["intensity"].items():
        assert np.allclose(entry["mean"], np.mean(rows[contrast], axis=0)) and np.allclose(entry["std"], np.std(rows[contrast], axis=0))
    assert told["volume_ml"] == pytest.approx([min(volumes), max(volumes)]) and len(volumes) == 5
    pixels = slices.windows["lesion_pixels"]  # 0 where the lesion of the slice above or below casts its support
    assert told["area_mm2"] == [pixels[pixels > 0].min(), pixels.max()]
    assert told["spacing_z_mm"] == [1.0, 1.0]


def test_population_is_plain_data(file: Path) -> None:
    """It travels as JSON and comes back as it was."""
    import json

    told = population(Slices(file, "train"))
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_subset_of_contrasts_describes_those(file: Path) -> None:
    whole, part = population(Slices(file, "train")), population(Slices(file, "train", contrasts=("flair", "t1")))
    assert part["intensity"] == {name: whole["intensity"][name] for name in ("flair", "t1")}


# -- fingerprint ------------------------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_data_and_not_of_the_file(file: Path, tmp_path: Path) -> None:
    wanted = fingerprint(Slices(file, "train"))
    copy = Path(shutil.copy(file, tmp_path / "elsewhere.h5"))
    assert fingerprint(Slices(copy, "train")) == wanted and len(wanted) == 64
    assert fingerprint(Slices(file, "test")) != wanted
    assert fingerprint(Slices(file, "train", contrasts=("t1", "flair"))) != wanted
    with h5py.File(copy, "r+") as held:
        held["subjects/phantom_005"].attrs["checksum"] += 1
    assert fingerprint(Slices(copy, "train")) == wanted, "a test subject is not in use"
    with h5py.File(copy, "r+") as held:
        held["subjects/phantom_001"].attrs["checksum"] += 1
    changed = fingerprint(Slices(copy, "train"))
    assert changed != wanted
    with h5py.File(copy, "r+") as held:
        held["subjects"].move("phantom_001", "phantom_0001")
    assert fingerprint(Slices(copy, "train")) not in (wanted, changed)


# -- unlike -----------------------------------------------------------------------------------------------------------------------------


def known(std: float = 0.1, subjects: int = 10) -> dict[str, Any]:
    return {"intensity": {"t1": {"mean": [0.0] * len(FEATURES), "std": [std] * len(FEATURES), "subjects": subjects}}}


@pytest.mark.parametrize("feature", range(len(FEATURES)))
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_feature_is_told_beyond_four_standard_deviations(feature: int, sign: int) -> None:
    values = np.zeros(len(FEATURES))
    values[feature] = sign * 0.39
    assert unlike(known(), "t1", values) == []
    values[feature] = sign * 0.41
    (told,) = unlike(known(), "t1", values)
    assert told.startswith("t1 is unlike the training data") and FEATURES[feature] in told and f"{sign * 0.41:.2f}" in told


def test_a_uniform_training_set_does_not_make_every_scan_unlike() -> None:
    values = [0.19] * len(FEATURES)
    assert unlike(known(std=0.001), "t1", values) == []
    assert len(unlike(known(std=0.001), "t1", [0.21] * len(FEATURES))) == len(FEATURES)


def test_nothing_is_said_without_grounds() -> None:
    far = [9.0] * len(FEATURES)
    assert unlike(known(subjects=2), "t1", far) == [] and unlike(known(), "flair", far) == [] and unlike({}, "t1", far) == []
    assert unlike(known(subjects=3), "t1", far)


def test_training_subjects_are_like_themselves(file: Path) -> None:
    slices = Slices(file, "train")
    told = population(slices)
    with h5py.File(file) as held:
        for name in slices.subjects:
            group = held["subjects"][name]
            inside = group["foreground"][()].astype(bool)
            inside.reshape(-1)[group["support_index"][()]] = False
            for c, contrast in enumerate(slices.contrasts):
                if group.attrs["present"][c]:
                    assert unlike(told, contrast, describe(group["image"][()][:, c].astype(np.float32), inside)) == []
