"""Conventional augmentation: nothing changes by nothing, what is geometry holds for image, mask and blend map alike, and the keys alone decide."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from pathosyn.cohort import conventional
from pathosyn.cohort.conventional import augmented
from pathosyn.compared import Conventional
from pathosyn.errors import InputError
from pathosyn.types import LesionBatch

Batches = Callable[..., LesionBatch]
NOTHING = Conventional(flips=(0.0, 0.0), rotation=0.0, zoom=0.0, shear=0.0, elastic=0.0, bias=0.0, gamma=0.0, contrast=0.0, noise=0.0)
GEOMETRY = replace(Conventional(), bias=0.0, gamma=0.0, contrast=0.0, noise=0.0)
INTENSITY = replace(NOTHING, chance=1.0, bias=0.1, gamma=0.35, contrast=0.25, noise=0.1)


def dice(a: Tensor, b: Tensor) -> float:
    return float(2 * (a * b).sum() / (a.sum() + b.sum()))


def disks(count: int, side: int = 96, radius: int = 14) -> LesionBatch:
    """A bright disk under each mask, off the centre, beside other structures that are as dark as the rest is."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    m = (((y - 40) ** 2 + (x - 54) ** 2).float().sqrt() <= radius).float()[None, None].expand(count, -1, -1, -1)
    scan = 3.0 * m.expand(-1, 2, -1, -1) + 0.3 * torch.sin(x / 5.0)
    there, none = torch.ones(count, 2, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    return LesionBatch(x=scan, m=m, S=m, x_ph=scan, present=there, healthy=none, subject=[f"s{i}" for i in range(count)], z=list(range(count)))


def test_nothing_changes_where_all_ranges_are_0(batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]])
    x, m, S = augmented(batch, seed=3, settings=NOTHING)  # noqa: N806
    assert torch.equal(x, batch.x) and torch.equal(m, batch.m) and torch.equal(S, batch.S)
    assert {f.name for f in fields(Conventional)} - {"chance", "elastic_spacing"} == {
        f.name for f in fields(NOTHING) if getattr(NOTHING, f.name) in (0.0, (0.0, 0.0))
    }


def test_a_resampling_by_almost_nothing_moves_nothing(batch_of: Batches) -> None:
    """The grid of the elastic change lies where the pixels are."""
    batch = batch_of()
    x, m, S = augmented(batch, seed=3, settings=replace(NOTHING, rotation=1e-6))  # noqa: N806
    assert torch.allclose(x, batch.x, atol=2e-3) and torch.equal(m, batch.m) and torch.allclose(S, batch.S, atol=1e-3)


@pytest.mark.parametrize("side", [64, 96, 256])
def test_the_mask_stays_binary_and_moves_with_the_image(side: int) -> None:
    batch = disks(8, side)
    x, m, S = augmented(batch, seed=0, settings=GEOMETRY)  # noqa: N806
    assert x.shape == batch.x.shape and set(m.unique().tolist()) == {0.0, 1.0} and x.dtype == m.dtype == torch.float32
    for i in range(8):
        assert dice((x[i, :1] > 1.5).float(), m[i]) > 0.9 and dice((S[i] > 0.5).float(), m[i]) > 0.9
        assert dice(batch.m[i], m[i]) < 0.9, "and it does move"


def test_the_whole_of_it_leaves_a_bright_disk_under_its_mask() -> None:
    x, m, _ = augmented(disks(8), seed=1)
    for i in range(8):
        assert float(x[i][m[i].expand(2, -1, -1) > 0].mean()) > 1.5 > float(x[i][m[i].expand(2, -1, -1) == 0].mean())


def test_lengths_and_angles_stay_within_their_ranges() -> None:
    """Zoom alone changes the disk's radius by at most e^±.35; rotation alone leaves its distance from the centre as it was and turns it by at most 30°."""
    batch = disks(40)
    _, m, _ = augmented(batch, seed=0, settings=replace(NOTHING, zoom=0.35))
    factors = (m.sum(dim=(1, 2, 3)) / batch.m.sum(dim=(1, 2, 3))).sqrt().log()
    assert 0.25 < float(factors.max()) < 0.36 and -0.36 < float(factors.min()) < -0.25
    _, turned, _ = augmented(batch, seed=0, settings=replace(NOTHING, rotation=30.0))
    place = torch.arange(96.0) - 47.5
    centre = torch.stack([(m * place.view(axis)).sum(dim=(1, 2, 3)) / m.sum(dim=(1, 2, 3)) for m in (turned, batch.m) for axis in ((-1, 1), (1, -1))])
    assert torch.allclose(centre[:2].norm(dim=0), centre[2:].norm(dim=0), atol=0.3)
    angles = torch.rad2deg(torch.atan2(centre[0], centre[1]) - torch.atan2(centre[2], centre[3]))
    assert 20 < float(angles.max()) < 31 and -31 < float(angles.min()) < -20


def test_what_comes_in_from_beyond_the_window_repeats_its_edge() -> None:
    batch = replace(disks(8), x=torch.full((8, 2, 96, 96), 5.0))
    x, _, _ = augmented(batch, seed=0, settings=GEOMETRY)
    assert torch.allclose(x, batch.x, atol=1e-4)


def test_flips_alone_permute_pixels(batch_of: Batches) -> None:
    batch = batch_of(12)
    x, m, S = augmented(batch, seed=0, settings=replace(NOTHING, flips=(0.5, 0.5)))  # noqa: N806
    seen = set()
    for i in range(12):
        (axes,) = [a for a in ((), (1,), (2,), (1, 2)) if torch.equal(x[i], batch.x[i].flip(a))]
        assert torch.equal(m[i], batch.m[i].flip(axes)) and torch.equal(S[i], batch.S[i].flip(axes))
        seen.add(axes)
    assert len(seen) == 4


def test_intensities_change_within_their_ranges_and_nothing_moves() -> None:
    batch = disks(8)
    x, m, S = augmented(batch, seed=0, settings=INTENSITY)  # noqa: N806
    assert torch.equal(m, batch.m) and torch.equal(S, batch.S) and not torch.allclose(x, batch.x, atol=0.05)
    assert not torch.allclose(x[:, 0], x[:, 1], atol=0.05), "contrast by contrast"
    noisy, _, _ = augmented(batch, seed=0, settings=replace(NOTHING, chance=1.0, noise=0.1))
    spread = (noisy - batch.x).flatten(2).std(dim=2)
    assert 0.05 < float(spread.max()) < 0.105 and torch.allclose((noisy - batch.x).flatten(2).mean(dim=2), torch.zeros(8, 2), atol=0.01)
    steeper, _, _ = augmented(batch, seed=0, settings=replace(NOTHING, chance=1.0, contrast=0.25))
    ratio = steeper.flatten(2).std(dim=2) / batch.x.flatten(2).std(dim=2)
    assert 0.74 < float(ratio.min()) < 0.9 and 1.1 < float(ratio.max()) < 1.26
    bent, _, _ = augmented(batch, seed=0, settings=replace(NOTHING, chance=1.0, gamma=0.35))
    assert torch.allclose(bent.flatten(2).mean(dim=2), batch.x.flatten(2).mean(dim=2), atol=1e-3) and not torch.allclose(bent, batch.x, atol=0.05)


def test_a_bias_field_is_one_for_all_contrasts_and_leaves_air_alone() -> None:
    batch = disks(4)
    air = torch.zeros_like(batch.m)
    air[..., :20, :] = 1.0
    batch = replace(batch, x=torch.where(air > 0, -2.0, batch.x.abs() + 1.0))
    x, _, _ = augmented(batch, seed=0, settings=replace(NOTHING, chance=1.0, bias=0.1))
    assert torch.allclose(x[:, :, :20], torch.tensor(-2.0), atol=1e-5)
    field = ((x + 2.0) / (batch.x + 2.0))[:, :, 20:]
    assert torch.allclose(field[:, 0], field[:, 1], rtol=1e-4) and 0.5 < float(field.min()) < 0.95 and 1.05 < float(field.max()) < 2.0


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(batch_of: Batches) -> None:
    batch = batch_of()
    first, again, other = (augmented(batch, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)) and not torch.equal(first[0], other[0])


def test_a_batch_is_its_windows_one_by_one(batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [0, 1]])
    together = augmented(batch, seed=5)
    for i in range(len(batch)):
        alone = augmented(batch.shard(i, len(batch)), seed=5)
        assert all(torch.equal(a[i], b[0]) for a, b in zip(together, alone, strict=True))


def test_a_missing_contrast_stays_0(batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [0, 1]])
    x, _, _ = augmented(batch, seed=5, settings=replace(Conventional(), chance=1.0))
    assert not x[~batch.present].any() and all(bool(one.any()) for one in x[batch.present])


def test_without_monai_one_line_names_the_extra(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conventional, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pathosyn\[monai\]"):
        augmented(batch_of(), seed=0)


def test_monai_is_imported_by_the_first_call_only() -> None:
    code = "import sys, pathosyn, pathosyn.cohort.conventional as c; c.check(); sys.exit(any(name.split('.')[0] == 'monai' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
