"""The scan's own anatomy under a new lesion: where there was none, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pathosyn import decomposition, rng
from pathosyn.config import default
from pathosyn.lesion import anatomy, appearance, coarse
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.scan import volume
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
HEALTHY = (True,) * 6


def kept(method: PathoSyn, batch: LesionBatch, f: Tensor) -> Tensor:
    """What comes of no deviation at all."""
    return anatomy.through(method, torch.zeros_like(batch.x), batch, f, method.parts(batch))


def scaled(make_method: Maker, **fields: object) -> PathoSyn:
    method = make_method(default(), **fields)
    method.r_scale.copy_(torch.tensor([0.5, 2.0]))
    method.r_max.fill_(9.0)
    return method


def large(batch_of: Batches) -> LesionBatch:
    """Healthy windows with a square of 20 pixels, wide enough for cells that lie well inside."""
    batch = batch_of(2, healthy=(True, True))
    m = torch.zeros_like(batch.m)
    m[..., 4:24, 4:24] = 1.0
    return replace(batch, m=m, S=torch.nn.functional.max_pool2d(m, 17, stride=1, padding=8))


def within(batch: LesionBatch) -> tuple[Tensor, Tensor]:
    """Pixels of cells that are all lesion, with those beside them, and those of cells with none: (B, 1, H, W) each."""
    share, _ = decomposition.coarsen(batch.m, batch.D, 4)
    around = torch.nn.functional.pad(share, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
    return tuple(where.repeat_interleave(4, 2).repeat_interleave(4, 3) * (batch.D > 0) for where in (around.amin(4) == 1, around.amax(4) == 0))  # type: ignore[return-value]


def test_what_is_kept_in_closed_form(make_method: Maker, batch_of: Batches) -> None:
    """0.7 (x - f) in units of r where r lies on f; where it lies on the lesion's own intensity 0.7 (x - x̄); 0 off the support."""
    batch, scale = large(batch_of), torch.tensor([0.5, 2.0]).view(1, 2, 1, 1)
    f = batch.x_ph
    off_f = 0.7 * (batch.x - f) / scale * batch.D
    assert torch.allclose(kept(scaled(make_method, anatomy=0.7, cells="deviation"), batch, f), off_f, atol=1e-6)
    found = kept(scaled(make_method, anatomy=0.7, cells="intensity"), batch, f)
    mean = (batch.x * batch.m).sum(dim=(2, 3), keepdim=True) / batch.m.sum(dim=(2, 3), keepdim=True)
    deep, beyond = within(batch)
    assert deep.sum() > 20 and beyond.sum() > 20
    assert torch.allclose(found * deep, 0.7 * (batch.x - mean) / scale * deep, atol=1e-5)
    assert torch.allclose(found * beyond, off_f * beyond, atol=1e-6)
    small = batch_of(2, healthy=(True, True))
    found = kept(scaled(make_method, anatomy=0.7), small, small.x_ph)
    assert found.any() and not found[(small.D == 0).expand_as(found)].any()


def test_on_the_lesion_it_does_not_follow_f(make_method: Maker, batch_of: Batches) -> None:
    """As the form there does not (`cells` = intensity): what f says of the level was undone before."""
    method, batch = scaled(make_method, anatomy=1.0), large(batch_of)
    one, other = (kept(method, batch, f) for f in (batch.x_ph, batch.x_ph + 3.0))
    deep, beyond = within(batch)
    assert torch.allclose(one * deep, other * deep, atol=1e-5)
    assert torch.allclose((one - other) * beyond, 3.0 / torch.tensor([0.5, 2.0]).view(1, 2, 1, 1) * beyond, atol=1e-5)


def test_a_missing_contrast_has_no_anatomy(make_method: Maker, batch_of: Batches) -> None:
    batch = batch_of(2, healthy=(True, True), present=[[1, 0], [1, 1]])
    found = kept(scaled(make_method, anatomy=1.0), replace(batch, x=batch.x + 1.0), batch.x_ph)  # nothing may be read there
    assert not found[0, 1].any() and found[0, 0].any() and found[1, 1].any()


def test_a_lesion_is_no_anatomy(make_method: Maker, batch_of: Batches) -> None:
    """Of a window whose x holds a lesion under the support, nothing of it is used: the same bits, whatever lies there and however much is kept."""
    batch = batch_of(2, healthy=(False, True))
    other = replace(batch, x=torch.where(batch.S == 1, batch.x + 5.0, batch.x))
    drawn = [
        scaled(make_method, anatomy=share).eval().synthesize(each, controls=Controls(seed=3), steps=2)
        for share, each in ((0.0, batch), (1.0, batch), (1.0, other))
    ]
    assert all(torch.equal(each.r[0], drawn[0].r[0]) for each in drawn)
    assert not torch.equal(drawn[0].r[1], drawn[1].r[1]) and not torch.equal(drawn[1].r[1], drawn[2].r[1])


def test_severity_0_is_the_scan_and_nothing_leaves_the_support(make_method: Maker, batch_of: Batches) -> None:
    method, batch = scaled(make_method, anatomy=1.0).eval(), batch_of(healthy=(True,) * 3)
    for severity in (0.0, 1.0):
        made = method.synthesize(batch, controls=Controls(seed=1, severity=severity), steps=2).x_hat
        where = (batch.D > 0).expand_as(made) & (severity > 0)
        assert torch.equal(made[~where], batch.x[~where]) and (severity == 0 or not torch.equal(made, batch.x))


def test_the_lesion_looks_as_was_asked_and_the_gyrus_shows(make_method: Maker, batch_of: Batches) -> None:
    """Kept before the form is held: a gyrus through the lesion, which alone has many times the spread that is asked, and nothing more is asked for."""
    batch = large(batch_of)
    stripe = torch.zeros(32).index_fill(0, torch.arange(12, 18), 3.0)
    batch = replace(batch, x=0.3 * batch.x + stripe, x_ph=0.1 * batch.x_ph)
    noise = [rng.normal([rng.generator(k)] * 2, (2, 32, 32)) for k in range(6)]
    along, mean, std = {}, {}, {}
    for share, hold in ((0.0, True), (1.0, True), (1.0, False)):
        method = scaled(make_method, anatomy=share, hold=hold, gather=False)
        method.look_std.fill_(1.0), method.rough_std.fill_(1.0)
        asked = torch.full((2, len(method.look_mean)), 0.4)
        asked[:, 10:12] = 0.0  # networks that know nothing have no edge to move
        r, parts = method.draw(batch, batch.x_ph, lambda k: noise[k % 6], look=asked, steps=2), method.parts(batch)
        form, _ = coarse.form(method, method.to_scaled(r), batch, batch.x_ph, parts)
        looks = appearance.measure(method, form, batch, parts)
        mean[share, hold], std[share, hold] = float(looks[:, 0].mean()), float(looks[:, 4].mean())
        inside = [torch.stack([(batch.x_ph + r)[b, 0], batch.x[b, 0]])[:, batch.m[b, 0] > 0] for b in range(2)]
        along[share, hold] = float(torch.stack([torch.corrcoef(values)[0, 1] for values in inside]).mean())
    assert along[1.0, True] > along[0.0, True] + 0.3, along
    assert abs(mean[1.0, True] - 0.4) < 0.1, mean
    assert std[1.0, True] < 0.9 and std[1.0, False] > 2.0, std


@pytest.mark.parametrize("healthy", [True, False])
def test_a_volume_says_whether_it_is_healthy(healthy: bool, make_method: Maker) -> None:
    method, seen = scaled(make_method, anatomy=1.0), []
    m = np.zeros((2, 64, 64), bool)
    m[:, 28:36, 28:36] = True
    target = volume.Target.of(method, np.zeros((2, 2, 64, 64), np.float32), m, m.astype(np.float32), np.ones(2, bool), 1.0, healthy=healthy)
    method.draw = lambda batch, *_, **__: seen.append(batch.healthy) or torch.zeros_like(batch.x)  # type: ignore[method-assign, assignment, func-returns-value]
    volume.deviation(method, target, target.x, volume.noise_field(target, 1.0, 2.0, 0), key=("k",), steps=1, device=torch.device("cpu"))
    assert torch.cat(seen).tolist() == [healthy] * 2
