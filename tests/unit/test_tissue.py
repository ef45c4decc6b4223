"""Where a lesion may go: not where a contrast holds no signal; and its rim: not into what is dark in every contrast in which fluid is dark."""

from __future__ import annotations

import numpy as np
import pytest

from pathosyn.data.tissue import EVEN, FLUID, TISSUE, blank, on_tissue, one_value, solid


def test_fluid_is_dark_in_every_contrast() -> None:
    t1, flair = np.array([-3.0, -3.0, 0.0, FLUID - 0.1, TISSUE]), np.array([-3.0, 4.0, -3.0, FLUID - 0.1, -3.0])
    assert solid({"t1": t1, "flair": flair}).tolist() == [0.0, 1.0, 1.0, 0.0, 1.0], "a bright FLAIR, or T1, is tissue"
    assert solid({"flair": flair}).tolist() == [0.0, 1.0, 0.0, 0.0, 0.0]


def test_between_the_two_it_is_a_smoothstep() -> None:
    u = np.linspace(0, 1, 11)
    assert np.allclose(solid({"flair": FLUID + (TISSUE - FLUID) * u}), 3 * u**2 - 2 * u**3, atol=1e-5)
    assert solid({"flair": np.zeros(3)}).dtype == np.float32


def test_t2_in_which_fluid_is_bright_says_nothing() -> None:
    assert solid({"t2": np.full(2, 5.0), "flair": np.array([-5.0, 0.0])}).tolist() == [0.0, 1.0]


def test_without_flair_a_dark_lesion_is_not_taken_for_fluid() -> None:
    for images in ({"t1": np.full(4, -5.0)}, {"t1": np.full(4, -5.0), "t1ce": np.full(4, -5.0)}, {"t2": np.full(4, -5.0)}):
        assert float(solid(images)) == 1.0


def test_all_of_what_was_drawn_none_of_it_or_a_share() -> None:
    draw = np.random.default_rng(0)
    x, changed = draw.normal(size=(2, 6, 6)).astype(np.float32), draw.normal(size=(2, 6, 6)).astype(np.float32)
    share = np.ones((6, 6), np.float32)
    share[:, 3:], share[0, 0] = 0.0, 0.25
    found = on_tissue(x, changed, share)
    assert np.array_equal(found[:, :, 3:], x[:, :, 3:]) and np.array_equal(found[:, 1:, :3], changed[:, 1:, :3])
    assert np.allclose(found[:, 0, 0], 0.75 * x[:, 0, 0] + 0.25 * changed[:, 0, 0], atol=1e-6)


@pytest.mark.parametrize("dark", [-2.0, FLUID])
def test_even_squares_as_dark_as_fluid_hold_no_signal_and_a_lone_pixel_does(dark: float) -> None:
    image = np.random.default_rng(0).uniform(-3, 1, (2, 12, 12))
    image[0, :, 8:], image[0, 4, 2], image[0, 8:10, 2:4] = dark, dark, dark
    image[1, 3:6, 3:6] = dark + 0.5 * EVEN * np.random.default_rng(1).uniform(-1, 0, (3, 3))
    expected = np.zeros(image.shape, bool)
    expected[0, :, 8:], expected[1, 3:6, 3:6] = True, True
    assert np.array_equal(blank(image), expected) and np.array_equal(blank(image[1]), expected[1])


def test_an_even_square_of_tissue_holds_signal_unless_a_tool_wrote_that_value() -> None:
    image = np.zeros((1, 8, 8))
    image[:, :, :4] = 3.0
    assert not blank(image).any()
    found = blank(image, 0.5 * EVEN)
    assert found[0, :, 4:].all() and not found[0, :, :4].any()


def test_one_value_off_the_head_was_written_by_a_tool() -> None:
    noise = np.random.default_rng(0).normal(size=1000)
    assert one_value(noise) is None and one_value(np.zeros(0)) is None
    assert one_value(np.r_[np.full(4000, -1.5), noise]) == -1.5 and one_value(np.r_[np.full(3990, -1.5), noise]) is None
