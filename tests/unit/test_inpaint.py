"""Inp(x, m) against the functions it must reproduce, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic

from pathosyn.data import inpaint as module
from pathosyn.data.inpaint import KINDS, biharmonic, harmonic, inpaint

Y, X = np.mgrid[:40, :50].astype(float)


def disk(radius: float, y: int = 20, x: int = 25) -> np.ndarray:
    return (y - Y) ** 2 + (x - X) ** 2 <= radius**2


def test_harmonic_reproduces_harmonic_functions() -> None:
    """The 5-point stencil is exact for harmonic polynomials up to degree 3."""
    image = np.stack([2 + Y - 3 * X, Y**2 - X**2, X * Y, X**3 - 3 * X * Y**2])
    np.testing.assert_allclose(harmonic(image * ~disk(11), disk(11)), image, atol=1e-7)


def test_biharmonic_reproduces_biharmonic_functions() -> None:
    image = np.stack([1 + X - Y, X**2 + Y**2, X**3 + Y**3, X**2 * Y])
    np.testing.assert_allclose(biharmonic(image * ~disk(11), disk(11)), image, atol=1e-6)


def test_harmonic_obeys_the_maximum_principle() -> None:
    image = np.random.default_rng(0).normal(size=(1, 40, 50))
    hole = disk(9) | disk(4, 5, 5)
    filled = harmonic(image, hole)
    for part in (disk(9), disk(4, 5, 5)):
        rim = image[0][ndimage.binary_dilation(part) & ~part]
        assert rim.min() < filled[0][part].min() <= filled[0][part].max() < rim.max()


@pytest.mark.parametrize("hole", [disk(8), disk(3) | disk(6, 8, 40), disk(10, 2, 3)], ids=["middle", "two", "corner"])
def test_biharmonic_is_scikit_images(hole: np.ndarray) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(2, 40, 50)), (0, 2, 2))
    theirs = np.stack([inpaint_biharmonic(channel, hole) for channel in image])
    assert np.abs(biharmonic(image, hole) - theirs).max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_border_is_reflecting(kind: str) -> None:
    """A hole at the border is filled as half of the hole in the image mirrored there."""
    image = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(1, 40, 50)), (0, 2, 2))
    hole = disk(7, 0, 25)
    mirrored = inpaint(kind, np.concatenate([image[:, ::-1], image], axis=1), np.concatenate([hole[::-1], hole]))
    np.testing.assert_allclose(inpaint(kind, image, hole), mirrored[:, 40:], atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_hole_changes_and_the_dtype_stays(kind: str) -> None:
    image = np.random.default_rng(3).normal(size=(3, 40, 50)).astype(np.float32)
    before = image.copy()
    filled = inpaint(kind, image, disk(5))
    assert filled.dtype == np.float32
    assert np.array_equal(filled[:, ~disk(5)], image[:, ~disk(5)])
    assert (filled[:, disk(5)] != image[:, disk(5)]).all()
    assert np.array_equal(image, before)
    nothing = np.zeros((40, 50), bool)
    assert np.array_equal(inpaint(kind, image, nothing), image)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_in_the_hole_does_not_matter(kind: str) -> None:
    image = np.random.default_rng(4).normal(size=(1, 40, 50))
    other = image + 100 * disk(6)
    np.testing.assert_array_equal(inpaint(kind, image, disk(6)), inpaint(kind, other, disk(6)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hole", [disk(9) & ~disk(3), disk(9) | disk(4, 5, 5), (X + Y) % 7 == 0], ids=["island", "two", "specks"])
def test_both_ways_of_solving_agree(monkeypatch: pytest.MonkeyPatch, kind: str, hole: np.ndarray) -> None:
    """Sources on the rim (`_LONGEST_RIM` at its value) and the sparse system (no rim short enough) solve the same equations."""
    image = np.random.default_rng(5).normal(size=(2, 40, 50))
    hole = np.pad(hole[3:-3, 3:-3], 3)
    ways = [inpaint(kind, image, hole)]
    monkeypatch.setattr(module, "_LONGEST_RIM", 0)
    ways.append(inpaint(kind, image, hole))
    assert not np.array_equal(*ways)  # two ways indeed
    np.testing.assert_allclose(*ways, atol=1e-9)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no rim"):
        harmonic(np.zeros((1, 4, 4)), np.ones((4, 4), bool))
    with pytest.raises(ValueError, match="harmonic, biharmonic"):
        inpaint("bicubic", np.zeros((1, 4, 4)), np.zeros((4, 4), bool))


def test_the_dense_system_is_solved_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with as many BLAS threads as there are cores took ten times as long as with one each."""
    from threadpoolctl import threadpool_info, threadpool_limits

    seen: list[set[int]] = []
    solve = module.linalg.cho_factor

    def watched(*given: object, **named: object) -> object:
        seen.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
        return solve(*given, **named)

    monkeypatch.setattr(module.linalg, "cho_factor", watched)
    hole = np.zeros((32, 32), bool)
    hole[10:20, 12:22] = True
    with threadpool_limits(2, user_api="blas"):
        harmonic(np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32), hole)
        after = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    assert seen == [{1}] and after == {2}
