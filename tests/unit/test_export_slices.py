"""Drawn windows in whole slices: what belongs to whom, on slices small enough to see."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pathosyn.data.normalise import Normaliser
from pathosyn.data.windows import Window, cut
from pathosyn.export.nifti import native
from pathosyn.export.slices import Case, Drawn, _picture, composed, file_names

H, W = 24, 40
LEFT, RIGHT = (slice(8, 12), slice(4, 8)), (slice(8, 12), slice(28, 32))


def scan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A slice of two contrasts, a lesion of two parts, and a support of one pixel more all around."""
    plane = np.random.default_rng(0).normal(size=(2, H, W)).astype(np.float16).astype(np.float32)
    lesion, support = np.zeros((2, H, W), bool)
    for rows, columns in (LEFT, RIGHT):
        lesion[rows, columns] = True
        support[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1] = True
    return plane, lesion, support


def drawn(window: Window, add: float, where: np.ndarray, *, m: np.ndarray | None = None) -> Drawn:
    """The scan plus `add` on `where` (H, W), seen through a window."""
    plane, lesion, _ = scan()
    x = cut(plane + add * where, window)
    return Drawn(window, x, cut((lesion if m is None else m).astype(np.float32), window, mode="zero"))


def test_nothing_drawn_is_the_scan() -> None:
    plane, lesion, support = scan()
    image, label = composed(plane, lesion, support, [])
    assert np.array_equal(image, plane) and np.array_equal(label, lesion)


@pytest.mark.parametrize("x", [-6, 0, 2])
def test_one_window_changes_its_support_alone_and_the_other_lesion_stays(x: int) -> None:
    plane, lesion, support = scan()
    image, label = composed(plane, lesion, support, [drawn(Window(0, 2, x, 20), 5, support)])
    left = support & (np.arange(W) < 20)
    assert np.array_equal(image != plane, np.broadcast_to(left, plane.shape)) and np.allclose(image[:, left], plane[:, left] + 5)
    assert np.array_equal(label, lesion), "the lesion that was not drawn stays in the label, the drawn one has the same mask"


def test_two_windows_of_a_slice_come_together_whatever_their_order() -> None:
    plane, lesion, support = scan()
    both = [drawn(Window(0, 2, 0, 20), 5, support), drawn(Window(0, 2, 18, 20), 7, support)]
    left = support & (np.arange(W) < 20)
    for some in (both, both[::-1]):
        image, label = composed(plane, lesion, support, some)
        assert np.allclose(image - plane, np.where(left, 5, np.where(support, 7, 0)), atol=1e-5) and np.array_equal(label, lesion)


def test_a_window_that_cuts_a_lesion_leaves_it_to_its_owner_or_as_it_is() -> None:
    plane, lesion, support = scan()
    cutting = drawn(Window(0, 0, 0, 30), 5, support)  # ends within the right part
    image, label = composed(plane, lesion, support, [cutting])
    right = support & (np.arange(W) >= 20)
    assert np.array_equal(image[:, right], plane[:, right]) and np.array_equal(label, lesion)
    image, _ = composed(plane, lesion, support, [cutting, drawn(Window(0, 2, 20, 20), 7, support)])
    assert np.allclose(image[:, right], plane[:, right] + 7) and np.allclose(image[:, support & ~right], plane[:, support & ~right] + 5)


def test_a_donors_lesion_takes_the_place_of_the_own_one() -> None:
    plane, lesion, support = scan()
    other = np.zeros_like(lesion)
    other[14:18, 5:12] = True
    left = support & (np.arange(W) < 20)
    image, label = composed(plane, lesion, support, [drawn(Window(0, 0, 0, 20), 5, left | other, m=other)])
    assert np.array_equal((image != plane).any(axis=0), left | other)
    assert np.array_equal(label, other | (lesion & (np.arange(W) >= 20))), "where the own lesion was healed there is none any more"


def test_what_two_windows_would_change_is_the_smaller_ones() -> None:
    plane, lesion, support = scan()
    between = np.zeros_like(lesion)
    between[2:5, 14:20] = True
    large = drawn(Window(0, 0, 10, 24), 5, between, m=between)
    small = drawn(Window(0, 0, 10, 20), 7, between, m=np.zeros_like(lesion))
    image, label = composed(plane, lesion, support, [large, small])
    assert np.allclose(image[:, between], plane[:, between] + 7) and not label[between].any(), "image and label tell of the same drawing"


def test_a_whole_drawn_slice_may_be_handed_in() -> None:
    plane, lesion, support = scan()
    left = support & (np.arange(W) < 20)
    far = np.zeros_like(lesion)
    far[20:23, 30:38] = True
    window = drawn(Window(0, 2, 0, 20), 5, left)
    image, label = composed(plane, lesion, support, [Drawn(window.window, plane + 5 * (left | far), window.m, whole=True)])
    assert np.array_equal((image != plane).any(axis=0), left | far) and np.array_equal(label, lesion)


def test_nothing_that_is_drawn_is_darker_than_all_of_the_scan() -> None:
    plane, lesion, support = scan()
    source = SimpleNamespace(
        slices=SimpleNamespace(plane=lambda *_: (plane, lesion), contrasts=("t1", "t2")), lesion=lambda *_: lesion, support=lambda *_: support
    )
    case = Case("", source, 0, 0, 0)  # type: ignore[arg-type]
    dark = drawn(Window(0, 2, 0, 20), -20, support)
    for each in (dark, Drawn(Window(0, 2, 0, 20), plane - 20 * support, np.zeros((20, 20), np.float32), whole=True)):
        image = _picture(case, [each], ("t1", "t2")).image
        assert np.array_equal(image.min(axis=(1, 2)), plane.min(axis=(1, 2))) and (image != plane).any()


def test_names_for_files_are_plain_and_each_another() -> None:
    given = ["a b", "a_b", "A-B", "a-b", "Ж", "x" * 3]
    for keep, instead in (("_-", "-"), ("", "")):
        found = file_names(given, keep, instead)
        assert set(found) == set(given) and len({name.casefold() for name in found.values()}) == len(given)
        assert all(name and all(c.isascii() and (c.isalnum() or c in keep) for c in name) for name in found.values())


def test_what_was_0_in_the_scan_is_0_again() -> None:
    unit = Normaliser(3990.5, 697.1)
    source = SimpleNamespace(normaliser=lambda *_: unit, attribute=lambda *_: json.dumps({"t1": {"dtype": "int16"}, "t2": {"dtype": "float32"}}))
    scan = np.array([[0, 0, 3000, 5120]], np.float32)
    stored = unit.apply(scan).astype(np.float16).astype(np.float32)
    assert abs(unit.invert(stored)[0, 0]) > 0.5, "half precision alone leaves a rest"
    case = Case("", source, 0, 0, 0)  # type: ignore[arg-type]
    whole, fine = native(case, "t1", stored), native(case, "t2", stored)
    assert whole.dtype == np.int16 and fine.dtype == np.float32
    assert np.array_equal(whole[0, :2], [0, 0]) and np.array_equal(fine[0, :2], [0, 0]) and np.abs(whole - scan).max() <= 1
