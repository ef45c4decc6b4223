"""The networks on a whole scan: what the windows cover, what they cannot see, and the noise field they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pathosyn.config import Geometry, default
from pathosyn.data.windows import windows_of
from pathosyn.methods.pathosyn import Parts
from pathosyn.scan import volume
from pathosyn.scan.volume import Target, noise_field
from pathosyn.types import LesionBatch

CPU = torch.device("cpu")
GEOMETRY = Geometry(buckets=(32, 64), margin_mm=4.0)


def target_of(boxes: list[tuple[slice, slice, slice]], shape: tuple[int, int, int] = (8, 80, 90), contrasts: int = 2) -> Target:
    """Lesions in boxes, S = 1 on them and ½ on a rim of one pixel; windows as at inference."""
    m = np.zeros(shape, bool)
    for box in boxes:
        m[box] = True
    rim = m.copy()
    for axis in (1, 2):
        rim |= np.roll(m, 1, axis) | np.roll(m, -1, axis)
    S = np.where(m, 1.0, np.where(rim, 0.5, 0.0)).astype(np.float32)  # noqa: N806
    x = np.random.default_rng(0).normal(size=(shape[0], contrasts, *shape[1:])).astype(np.float32)
    return Target(x, m, S, np.ones(contrasts, bool), windows_of(S > 0, GEOMETRY))


SPREAD = [
    (slice(1, 4), slice(5, 15), slice(6, 12)),
    (slice(2, 3), slice(60, 79), slice(70, 89)),  # a second window in slice 2, at the edge
    (slice(5, 6), slice(20, 60), slice(20, 50)),  # another side
]


@pytest.fixture
def spread() -> Target:
    target = target_of(SPREAD)
    assert len({w.side for w in target.windows}) == 2 and sum(w.z == 2 for w in target.windows) == 2
    return target


# -- the noise field --------------------------------------------------------------------------------------------------------------------


def draws(target: Target, spacing_z: float, mm: float, count: int) -> np.ndarray:
    """(count, depth, C, h, w) inside the support's box."""
    make = noise_field(target, spacing_z, mm, "seed", "subject", 0)
    return np.stack([make(k)[2:7, :, 10:40, 20:60] for k in range(count)])


BLOCK = [(slice(2, 7), slice(11, 39), slice(21, 59))]


@pytest.mark.parametrize("spacing_z, mm", [(1.0, 2.0), (1.0, 0.5), (3.0, 2.0), (5.0, 2.0), (1.0, 0.0)])
def test_noise_has_variance_1_in_every_slice_and_at_every_place(spacing_z: float, mm: float) -> None:
    field = draws(target_of(BLOCK), spacing_z, mm, 60)
    by_slice = field.var(axis=(0, 2, 3, 4))
    assert np.abs(by_slice - 1).max() < 0.03, by_slice  # 144,000 samples a slice: 8 standard errors
    assert np.abs(field.mean(axis=(0, 2, 3, 4))).max() < 0.03
    rows = field.var(axis=(0, 1, 2, 4))  # 36,000 samples a row, fewer where slices are alike
    assert np.abs(rows - 1).max() < 0.08, rows
    assert np.abs(field).max() < 7


@pytest.mark.parametrize("spacing_z, mm", [(1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (1.0, 1.0)])
def test_noise_is_correlated_along_z_in_mm(spacing_z: float, mm: float) -> None:
    """White noise under a Gaussian of σ is correlated by exp(-d²/4σ²) at a distance of d."""
    field = draws(target_of(BLOCK), spacing_z, mm, 40)
    sigma = mm / spacing_z
    for lag in range(1, 5):
        found = float((field[:, lag:] * field[:, :-lag]).mean())
        # The kernel is sampled at whole slices, which matters where σ is below one.
        k = np.arange(-12, 13)
        kernel = np.exp(-0.5 * (k / sigma) ** 2)
        expected = float((kernel[lag:] * kernel[:-lag]).sum() / (kernel**2).sum())
        assert found == pytest.approx(expected, abs=0.03), lag
        if sigma >= 1:
            assert expected == pytest.approx(np.exp(-(lag**2) / (4 * sigma**2)), abs=0.01)


@pytest.mark.parametrize("spacing_z, mm", [(1.0, 0.0), (8.0, 2.0)])
def test_noise_of_distant_slices_is_independent(spacing_z: float, mm: float) -> None:
    field = draws(target_of(BLOCK), spacing_z, mm, 40)
    assert abs(float((field[:, 1:] * field[:, :-1]).mean())) < 0.01


def test_noise_is_white_in_plane_and_over_contrasts() -> None:
    field = draws(target_of(BLOCK), 1.0, 2.0, 40)
    for other in (field[..., 1:, :] * field[..., :-1, :], field[..., 1:] * field[..., :-1], field[:, :, 0] * field[:, :, 1]):
        assert abs(float(other.mean())) < 0.02


def test_noise_does_not_depend_on_windows_mask_scan_or_place(spread: Target) -> None:
    make = noise_field(spread, 1.0, 2.0, 1, "s", 0)
    wanted = make(0)
    other = replace(spread, windows=spread.windows[:1], m=np.zeros_like(spread.m), x=spread.x * 3 + 1)
    assert np.array_equal(noise_field(other, 1.0, 2.0, 1, "s", 0)(0), wanted)
    moved = replace(spread, S=np.roll(spread.S, (1, 0, 0), (0, 1, 2)))
    assert np.array_equal(noise_field(moved, 1.0, 2.0, 1, "s", 0)(0), np.roll(wanted, 1, 0)), "only the box's size counts"
    assert not wanted[0].any() and not wanted[6:].any(), "0 beyond the support's box"


def test_noise_changes_with_every_part_of_the_key(spread: Target) -> None:
    keys = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    fields = [noise_field(spread, 1.0, 2.0, *key)(k) for key in keys for k in (0, 1)]
    inside = [field[2, :, 5:78, 7:80] for field in fields]
    for i, one in enumerate(inside):
        for other in inside[:i]:
            assert abs(float(np.corrcoef(one.ravel(), other.ravel())[0, 1])) < 0.05
    assert np.array_equal(noise_field(spread, 1.0, 2.0, 0, "a", 0)(1), fields[1])


def test_noise_over_nothing_is_nothing() -> None:
    assert not noise_field(target_of([]), 1.0, 2.0, 0)(0).any()


# -- through the windows ----------------------------------------------------------------------------------------------------------------


@dataclass
class Echo:
    """A method that gives back what it was given: the first noise as deviation, the scan plus 1 as substrate."""

    sizes: list[int]
    looking = False

    def parts(self, batch: LesionBatch) -> Parts:
        return Parts(batch.D, batch.S, batch.present[:, :, None, None].to(batch.x.dtype))

    def substrate(self, x: Tensor, hidden: Tensor, known: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return torch.where(hidden > 0, torch.zeros(()), x) + 1 + hidden

    def draw(self, batch: LesionBatch, x_sub: Tensor, noise: Callable[[int], Tensor], *, look: Tensor | None = None, steps: int | None = None) -> Tensor:
        assert look is None
        self.sizes.append(len(batch))
        return noise(0) + 10 * noise(1) + 100 * x_sub


@pytest.fixture
def echo() -> Any:
    return Echo([])


def test_the_substrate_replaces_the_support_and_nothing_else(spread: Target, echo: Any) -> None:
    filled = volume.substrate(echo, spread, device=CPU)
    inside = np.broadcast_to((spread.S > 0)[:, None], filled.shape)
    assert (filled[inside] == 2.0).all(), "each pixel of the support lies in a window"
    assert np.array_equal(filled[~inside], spread.x[~inside]) and filled.dtype == np.float32


def test_every_window_cuts_from_one_noise_field_and_one_substrate(spread: Target, echo: Any) -> None:
    make = noise_field(spread, 1.0, 2.0, 0)
    x_sub = np.random.default_rng(1).normal(size=spread.x.shape).astype(np.float32)
    drawn = volume.deviation(echo, spread, x_sub, make, key=("k",), steps=None, device=CPU)
    expected = np.where((spread.S > 0)[:, None], make(0) + 10 * make(1) + 100 * x_sub, 0)
    assert np.allclose(drawn, expected, rtol=1e-6, atol=1e-4)
    assert not drawn[np.broadcast_to((spread.S == 0)[:, None], drawn.shape)].any()


def test_every_window_of_a_lesion_looks_like_one_training_lesion(spread: Target, make_method: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from pathosyn import rng
    from pathosyn.lesion import looks

    method, given = make_method(default()), []
    rows = torch.arange(20)
    method.looks[:20] = rows[:, None].float()
    method.looks_of[:20] = torch.stack([rows, 5 + 60 * rows, *torch.ones(2, 20)], dim=1).float()

    def draw(batch: LesionBatch, x_sub: Tensor, noise: Callable[[int], Tensor], *, look: Tensor, steps: int | None) -> Tensor:
        given.append((looks.pixels(batch), look))
        return x_sub

    monkeypatch.setattr(method, "draw", draw)
    seen = {}
    for key in ("a", "a", "b"):
        given.clear()
        volume.deviation(method, spread, spread.x, noise_field(spread, 1.0, 2.0, 0), key=(key,), steps=None, device=CPU)
        areas, shown = (torch.cat(part) for part in zip(*given, strict=True))
        assert len(areas) == len(spread.windows) == 5 and torch.equal(shown[:1].expand(5, -1), shown), "one lesion of one slice: the same in all"
        wanted = looks.drawn(method, areas, torch.ones(2, dtype=torch.bool), None, rng.generator(key, "appearance"))
        assert wanted is not None and torch.equal(shown, wanted)
        assert key not in seen or torch.equal(seen[key], shown)
        seen[key] = shown
    assert not torch.equal(seen["a"], seen["b"])


def test_the_surroundings_of_all_windows_are_taken_together(spread: Target, make_method: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One scan tells one thing, though its windows see different parts of it."""
    from pathosyn.lesion import surroundings

    method, seen = make_method(default()), []
    monkeypatch.setattr(surroundings, "LEAST", 1)
    method.look_around_std.fill_(1.0), method.look_map.fill_(0.1)
    method.looks_of[0] = torch.tensor([0.0, 50.0, 1.0, 1.0])

    def draw(batch: LesionBatch, x_sub: Tensor, noise: Callable[[int], Tensor], *, look: Tensor, steps: int | None) -> Tensor:
        seen.append((surroundings.numbers(batch.x, method.parts(batch).support, batch.present), look))
        return x_sub

    monkeypatch.setattr(method, "draw", draw)
    told = []
    for x in (spread.x, spread.x + np.float32(0.25)):
        seen.clear()
        volume.deviation(method, replace(spread, x=x), x, noise_field(spread, 1.0, 2.0, 0), key=("a",), steps=None, device=CPU)
        around, looks = (torch.cat(part) for part in zip(*seen, strict=True))
        assert torch.equal(looks, looks[:1].expand_as(looks)) and not torch.allclose(around[0], around[1], atol=1e-3)
        told.append((looks[0] - surroundings.told(method, around.nanmean(dim=0, keepdim=True))[0])[:4])  # what is no logarithm
    assert torch.allclose(*told, atol=1e-5), "the rest is the training lesion's, whatever the scan"


@pytest.mark.parametrize("pixels, largest", [(1, 1), (2 * 32**2, 2), (10**9, 4)])
def test_batches_are_as_large_as_the_memory_allows(spread: Target, echo: Any, monkeypatch: pytest.MonkeyPatch, pixels: int, largest: int) -> None:
    wanted = volume.substrate(Echo([]), spread, device=CPU)  # type: ignore[arg-type]
    monkeypatch.setattr(volume, "BATCH_PIXELS", pixels)
    assert np.array_equal(volume.substrate(echo, spread, device=CPU), wanted)
    assert max(echo.sizes) == largest and sum(echo.sizes) == len(spread.windows) == 5


def test_what_lies_under_the_support_never_reaches_a_network(spread: Target, tiny: dict[str, Any]) -> None:
    method = tiny["default"].eval()
    hidden = np.where((spread.S > 0)[:, None], 1e3, 0).astype(np.float32)
    one, other = (volume.substrate(method, t, device=CPU) for t in (spread, replace(spread, x=spread.x + hidden)))
    assert np.array_equal(one, other)


def test_windows_follow_the_geometry_of_the_weights(tiny: dict[str, Any]) -> None:
    m = np.zeros((3, 100, 100), bool)
    m[1, 40:60, 40:60] = True
    config = SimpleNamespace(geometry=replace(GEOMETRY, margin_mm=20.0))
    made = Target.of(SimpleNamespace(config=config), np.zeros((3, 1, 100, 100), np.float32), m, m.astype(np.float32), np.ones(1, bool), 1.0)  # type: ignore[arg-type]
    assert [(w.z, w.side) for w in made.windows] == [(1, 64)]
    half = Target.of(SimpleNamespace(config=config), made.x, m, made.S, made.present, 2.0)  # type: ignore[arg-type]
    assert [(w.z, w.side) for w in half.windows] == [(1, 64)] and half.windows[0].side >= 20 + 2 * 10


def test_a_tiny_method_draws_the_same_in_any_batch(spread: Target, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At 32 bit to rounding; bf16 has its own tolerance in the end-to-end test, in stored steps."""
    from contextlib import nullcontext

    monkeypatch.setattr(volume, "_autocast", lambda _: nullcontext())
    method = tiny["default"].eval()
    method.r_max.fill_(3.0)
    x_sub = volume.substrate(method, spread, device=CPU)
    make = noise_field(spread, 1.0, 2.0, 0)
    together = volume.deviation(method, spread, x_sub, make, key=("k",), steps=3, device=CPU)
    monkeypatch.setattr(volume, "BATCH_PIXELS", 1)
    apart = volume.deviation(method, spread, x_sub, make, key=("k",), steps=3, device=CPU)
    assert together.any() and np.abs(together - apart).max() < 1e-4


def test_a_contrast_that_is_missing_stays_0(spread: Target, tiny: dict[str, Any]) -> None:
    lacking = replace(spread, x=spread.x * np.array([1, 0], np.float32)[:, None, None], present=np.array([True, False]))
    method = tiny["default"].eval()
    method.r_max.fill_(3.0)
    x_sub = volume.substrate(method, lacking, device=CPU)
    drawn = volume.deviation(method, lacking, x_sub, noise_field(lacking, 1.0, 2.0, 0), key=("k",), steps=2, device=CPU)
    assert drawn[:, 0].any() and not drawn[:, 1].any() and not x_sub[:, 1].any()
