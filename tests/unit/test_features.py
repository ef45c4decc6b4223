"""What is measured on a lesion, its rim and its background, on images whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest

from pathosyn.evaluate import appearance, features
from pathosyn.evaluate.realism import REGIONS, Scene, measured

SIDE = 64
Y, X = np.indices((SIDE, SIDE)).astype(np.float32)
DISC = (Y - 31) ** 2 + (X - 32) ** 2 <= 10**2
HEAD = np.ones((SIDE, SIDE), bool)
BOTH = np.ones(2, bool)


def of(*planes: np.ndarray, m: np.ndarray = DISC, head: np.ndarray = HEAD, present: np.ndarray | None = None) -> dict[str, float]:
    x = np.stack(planes).astype(np.float32)
    return features.lesion(x, m, head, np.ones(len(x), bool) if present is None else present)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype(np.float32)


def scene(x: np.ndarray, present: np.ndarray = BOTH) -> Scene:
    """A window in the middle of a larger slice, its support one pixel wider than the mask and a half beyond."""
    from pathosyn.data.windows import Window

    soft = np.where(DISC, 1.0, ((Y - 31) ** 2 + (X - 32) ** 2 <= 13**2) * 0.5).astype(np.float32)
    plane = np.zeros((2, 96, 100), np.float32)
    plane[:, 16:80, 20:84] = x
    return Scene(x, DISC, soft, HEAD, present, plane, np.pad(HEAD, ((16, 16), (20, 16))), Window(0, 16, 20, SIDE))


def test_a_constant_has_its_value_and_no_texture() -> None:
    found = of(np.full((SIDE, SIDE), 2.5))
    assert found["intensity/0/mean"] == found["intensity/0/q0.5"] == found["rim/0/beyond mean"] == 2.5
    zero = ("intensity/0/std", "texture/0/gradient", "texture/0/laplacian", "texture/0/coarse", "rim/0/jump", "rim/0/gradient", "rim/0/outer std")
    assert [found[name] for name in zero] == pytest.approx([0.0] * len(zero), abs=1e-6)
    assert all(np.isnan(found[f"{name}"]) for name in ("intensity/0/skewness", "texture/0/lag 1")), "moments of a constant do not exist"


def test_a_ramp_has_its_slope_and_no_laplacian() -> None:
    found = of(0.3 * X + 0.4 * Y)
    assert found["texture/0/gradient"] == pytest.approx(0.5, rel=1e-5) and found["rim/0/gradient"] == pytest.approx(0.5, rel=1e-5)
    assert found["texture/0/laplacian"] == pytest.approx(0.0, abs=1e-4)
    assert found["intensity/0/mean"] == pytest.approx(0.3 * 32 + 0.4 * 31, rel=1e-5)
    assert found["intensity/0/std"] == pytest.approx(float((0.3 * X + 0.4 * Y)[DISC].std()), rel=1e-5)
    assert found["intensity/0/skewness"] == pytest.approx(0.0, abs=1e-4), "a disc is symmetric"


def test_a_step_at_the_rim_is_its_jump() -> None:
    found = of(np.where(DISC, 5.0, 2.0))
    assert found["rim/0/jump"] == pytest.approx(3.0) and found["rim/0/inner mean"] == 5.0 and found["rim/0/outer mean"] == 2.0
    assert found["rim/0/gradient"] > 1.0 and found["texture/0/laplacian to beyond"] > 1.0


def test_white_noise_has_no_lag_and_the_laplacians_twenty() -> None:
    found = of(noise(), m=np.pad(np.ones((48, 48), bool), 8))
    assert found["texture/0/laplacian"] == pytest.approx(20**0.5, rel=0.06) and abs(found["texture/0/lag 1"]) < 0.06
    assert found["intensity/0/kurtosis"] == pytest.approx(0.0, abs=0.25)


def test_lags_of_a_wave_are_those_of_its_correlation() -> None:
    wave = np.sin(np.pi * X / 2) + np.sin(np.pi * Y / 2)  # period 4: along its own axis opposite after 2, the other wave stays
    found = of(wave, m=np.pad(np.ones((40, 40), bool), 12))
    assert found["texture/0/lag 1"] == pytest.approx(0.5, abs=0.05) and found["texture/0/lag 2"] == pytest.approx(0.0, abs=0.05)


def test_between_contrasts_is_their_correlation() -> None:
    a, b = noise(1), noise(2)
    assert of(a, 2 * a + 1)["between/01/correlation"] == pytest.approx(1.0) and of(a, -a)["between/01/fine"] == pytest.approx(-1.0)
    assert abs(of(a, b)["between/01/correlation"]) < 0.2


def test_a_missing_contrast_is_nan_throughout() -> None:
    found = of(noise(1), noise(2), present=np.array([True, False]))
    whole = of(noise(1), noise(2))
    assert found.keys() == whole.keys()
    for name, value in found.items():
        assert np.isnan(value) == ("/1/" in name or name.startswith("between")), name
    region = features.region(np.stack([noise(1), noise(2)]), HEAD, np.array([True, False]))
    assert all(np.isnan(value) == name.startswith("1/") for name, value in region.items())


def test_what_lies_beyond_the_last_band_is_not_seen() -> None:
    far = np.hypot(Y - 31, X - 32) > 10 + features.BEYOND[1] + 3
    base = noise(3)
    assert far.any() and of(np.where(far, 50.0, base)) == pytest.approx(of(base), nan_ok=True)


def test_bands_keep_off_the_air() -> None:
    air = X > 44
    assert of(np.where(air, -20.0, 2.0), head=~air)["rim/0/beyond mean"] == 2.0


def test_background_features_are_blind_to_the_support() -> None:
    x = np.stack([noise(4), noise(5)])
    base = scene(x)
    support = base.S > 0
    drawn = np.where(support, 30.0, x).astype(np.float32)
    first, second = measured(base, x, DISC, support), measured(base, drawn, DISC, support)
    for region, blind in (("background", True), ("lesion", False), ("whole image", False)):
        names = [name for name in first if name.startswith(REGIONS[region])]
        assert names and all(first[name] == second[name] for name in names) == blind


def test_background_features_are_blind_to_both_supports() -> None:
    """A donor's mask may be smaller than the place where this scan's own lesion was healed."""
    x = np.stack([noise(4), noise(5)])
    base, small = scene(x), (Y - 31) ** 2 + (X - 32) ** 2 <= 16
    drawn = np.where(base.S > 0, -9.0, x).astype(np.float32)
    first, second = measured(base, x, DISC, small), measured(base, drawn, small, small)
    assert {k: v for k, v in first.items() if k.startswith("background/")} == {k: v for k, v in second.items() if k.startswith("background/")}


def test_whole_image_holds_the_window_in_its_slice() -> None:
    x = np.full((2, SIDE, SIDE), 3.0, np.float32)
    found = measured(scene(x), x + 1, DISC, DISC)
    assert found["whole/0/mean"] == pytest.approx(4.0)


# -- appearance -------------------------------------------------------------------------------------------------------------------------


TISSUE = np.linspace(0.0, 1.0, 1001)


def test_glcm_of_a_constant_is_of_one_level() -> None:
    assert appearance.glcm(np.full((SIDE, SIDE), 0.4), DISC, TISSUE) == {"contrast": 0.0, "homogeneity": 1.0}


def test_glcm_of_a_chequerboard_is_known() -> None:
    """Levels 0 and 15: neighbours along an axis differ by 15, diagonal ones are equal. Contrast ½·225, homogeneity ½ + ½/(1 + 225)."""
    board = (X + Y) % 2
    square = np.pad(np.ones((32, 32), bool), 16)
    found = appearance.glcm(board, square, TISSUE)
    assert found["contrast"] == pytest.approx(112.5) and found["homogeneity"] == pytest.approx(0.5 + 0.5 / 226)


def test_glcm_sees_the_lesion_alone() -> None:
    inside = noise(6)
    assert appearance.glcm(np.where(DISC, inside, 77.0), DISC, TISSUE) == appearance.glcm(inside, DISC, TISSUE)


def test_contrast_to_noise_closed_form() -> None:
    grain = np.where((X + Y) % 2 == 0, 0.5, -0.5)
    x = np.stack([np.where(DISC, 4.0, 1.0 + grain)] * 2).astype(np.float32)
    base = scene(x)
    assert appearance.contrast_to_noise(x[0], DISC, base) == pytest.approx(3.0 / 0.5, rel=0.01)
    assert appearance.contrast_to_noise(8 - x[0], DISC, base) == pytest.approx(6.0, rel=0.01), "darker counts as brighter does"
    flat = np.where(DISC, 4.0, 1.0)
    assert np.isnan(appearance.contrast_to_noise(flat, DISC, base)), "no noise, no figure"
