"""What a scan's healthy tissue tells of the lesions in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pathosyn import rng
from pathosyn.config import default
from pathosyn.lesion import looks, surroundings
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.types import LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., PathoSyn]
BOTH = torch.tensor([[True, True]])
N, K = 19, 16  # of two contrasts: seven numbers each, one pair, and two each of f; seven looks each, and one pair twice


def scan(seed: int = 0, spread: float = 0.2) -> Tensor:
    return spread * torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(seed))


def hole() -> Tensor:
    support = torch.zeros(1, 1, 32, 32)
    support[:, :, 10:20, 12:22] = 1.0
    return support


def seen(x: Tensor, support: Tensor, present: Tensor = BOTH, f: Tensor | None = None) -> Tensor:
    """The numbers with a lesion in the middle of the support."""
    lesion = torch.zeros_like(support)
    lesion[:, :, 12:18, 14:20] = 1.0
    return surroundings.numbers(x, scan(1) if f is None else f, lesion, support, present)


def areas(n: int) -> Tensor:
    """All of one size, that of a regression."""
    return torch.full((n,), surroundings.KNOTS[2]).exp()


def test_the_numbers_are_those_of_the_tissue_that_is_seen() -> None:
    x, support = scan(), hole()
    found = seen(x, support)[0].numpy()
    a, b = (x[0, c][support[0, 0] == 0].double().numpy() for c in (0, 1))  # all of it is tissue: its 7×7 means lie within ±1
    assert found.shape == (N,) and surroundings.count(2) == N
    assert np.allclose(found[:4], [a.mean(), b.mean(), a.std(), b.std()], atol=1e-5)
    assert np.allclose(found[6:14], np.quantile([a, b], surroundings.QUANTILES, axis=1).ravel(), atol=1e-5)
    assert found[14] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    f = scan(1)[0, :, 12:18, 14:20].reshape(2, -1).double().numpy()
    assert np.allclose(found[15:], [*f.mean(axis=1), *f.std(axis=1)], atol=1e-5), "what f_sub puts in the lesion's place"
    quiet, loud = seen(0.1 * x, support)[0], seen(3 * x, support)[0]
    assert bool((quiet[4:6] < found[4]).all()) and bool((loud[4:6] > found[4]).all()), "grain"


def test_nothing_of_the_lesion_is_used() -> None:
    x, support = scan(), hole()
    other = torch.where(support > 0, torch.tensor(torch.nan), x)
    assert torch.equal(seen(x, support), seen(other, support))


def test_fluid_and_fat_are_no_tissue_but_are_seen() -> None:
    x, support = scan(), hole()
    x[..., 24:] = 5.0
    found, before = seen(x, support)[0], seen(scan(), support)[0]
    assert torch.allclose(found[:2], before[:2], atol=0.3) and bool((found[12:14] == 5.0).all())


def test_what_is_missing_or_hardly_seen_is_not_known() -> None:
    found = seen(scan(), hole(), torch.tensor([[True, False]]))[0]
    first = [0, 2, 4, 6, 8, 10, 12, 15, 17]
    assert bool(found[first].isfinite().all()) and bool(found[[i for i in range(N) if i not in first]].isnan().all())
    almost_all = torch.ones(1, 1, 32, 32)
    almost_all[..., :2] = 0.0
    hardly = seen(scan(), almost_all)[0]
    assert bool(hardly[:15].isnan().all()) and bool(hardly[15:].isfinite().all()), "f is known"
    no_lesion = surroundings.numbers(scan(), scan(), torch.zeros_like(hole()), hole(), BOTH)[0]
    assert bool(no_lesion[:15].isfinite().all()) and bool(no_lesion[15:].isnan().all())


def told_of(method: PathoSyn, around: Tensor) -> Tensor:
    return surroundings.told(method, around, areas(len(around)))


@pytest.fixture
def method(make_method: Maker) -> PathoSyn:
    return make_method(default())


def planted(n: int = 400, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Looks that are a linear map of the surroundings, and noise."""
    stream = torch.Generator().manual_seed(0)
    around = torch.randn(n, N, generator=stream) * 3 + 1
    slope = torch.zeros(N, K)
    slope[0, 2], slope[1, 2], slope[5, 7] = 0.2, -0.1, 0.3
    return around, around @ slope + 0.5 + noise * torch.randn(n, K, generator=stream)


def test_a_linear_relation_is_found(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    around, looks = planted()
    monkeypatch.setattr(surroundings, "PENALTY", 1e-6)
    surroundings.learn(method, around[:300], looks[:300], torch.ones(300, K), torch.arange(300), areas(300))
    rest = (told_of(method, around[300:]) - looks[300:]).square().mean().sqrt()
    assert float(rest) == pytest.approx(0.1, rel=0.15)


def test_the_penalty_draws_to_the_mean(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    around, looks = planted()
    monkeypatch.setattr(surroundings, "PENALTY", 1e9)
    surroundings.learn(method, around, looks, torch.ones(400, K), torch.arange(400), areas(400))
    assert torch.allclose(told_of(method, around), looks.mean(dim=0).expand(400, K), atol=1e-3)


def test_few_subjects_tell_less(method: PathoSyn) -> None:
    """The same windows, as four hundred subjects and as eight."""
    around, looks = planted()
    spread = []
    for subjects in (torch.arange(400), torch.arange(400) % 8):
        surroundings.learn(method, around, looks, torch.ones(400, K), subjects, areas(400))
        spread.append(float(told_of(method, around)[:, 2].std()))
    assert spread[1] < 0.6 * spread[0] and spread[0] == pytest.approx(float(looks[:, 2].std()), rel=0.1)


def test_subjects_weigh_the_same_and_unknown_looks_do_not_count(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "PENALTY", 1e9)
    around, known = torch.randn(12, N), torch.ones(12, K)
    looks = torch.tensor([1.0] * 10 + [3.0, 100.0])[:, None].expand(12, K).clone()
    known[11, 0] = 0.0
    surroundings.learn(method, around, looks, known, torch.tensor([0] * 10 + [1, 2]), areas(12))
    told = told_of(method, around)[0]
    assert float(told[0]) == pytest.approx(2.0, abs=1e-3) and float(told[1]) == pytest.approx(104 / 3, abs=1e-2)


def test_what_is_told_of_a_training_window_has_not_seen_its_subject(method: PathoSyn) -> None:
    around, planted_looks = planted(64)
    subjects, moved = torch.arange(64) // 4, planted_looks.clone()
    moved[subjects == 5] += 100.0
    before, after = (surroundings.learn(method, around, some, torch.ones(64, K), subjects, areas(64)) for some in (planted_looks, moved))
    # Subject 13 is taken out together with subject 5.
    apart = (subjects != 5) & (subjects != 13)
    assert torch.allclose(before[~apart], after[~apart], atol=1e-4) and bool(((before - after)[apart].abs() > 0.1).all())
    alone = surroundings.learn(method, around[:4], planted_looks[:4], torch.ones(4, K), subjects[:4], areas(4))
    assert not alone.any(), "of one subject nothing is known unseen"


def test_what_is_left_open_is_as_large_as_in_a_new_scan(method: PathoSyn) -> None:
    """Planted noise has nothing to do with the scan; regressions that have seen it leave less."""
    around, noise = torch.randn(80, N, generator=torch.Generator().manual_seed(0)), torch.randn(80, K, generator=torch.Generator().manual_seed(1))
    surroundings.learn(method, around, noise, torch.ones(80, K), torch.arange(80), areas(80))
    left, seen_left = surroundings.left(method, areas(1))[0], (noise - told_of(method, around)).square().mean(dim=0).sqrt()
    assert float(left.mean()) > 1.0 > 0.95 > float(seen_left.mean())


def test_a_number_that_is_not_known_counts_as_usual(method: PathoSyn) -> None:
    around, looks = planted()
    surroundings.learn(method, around, looks, torch.ones(400, K), torch.arange(400), areas(400))
    silent = around[:1].clone()
    silent[0, 0] = torch.nan
    usual = around[:1].clone()
    usual[0, 0] = around[:, 0].mean()
    assert torch.allclose(told_of(method, silent), told_of(method, usual), atol=1e-5)
    assert not torch.allclose(told_of(method, silent), told_of(method, around[:1]), atol=1e-3)
    far = usual.clone()
    far[0, 0] += 1e6
    beyond = usual.clone()
    beyond[0, 0] += 3 * around[:, 0].std(correction=0)
    assert torch.allclose(told_of(method, far), told_of(method, beyond), atol=1e-4), "no further than three spreads"


def test_nothing_learned_is_the_usual(method: PathoSyn) -> None:
    assert not told_of(method, torch.randn(3, N)).any()


def test_a_drawn_look_is_what_is_told_and_the_rest_of_a_training_lesion(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    around, planted_looks = planted()
    surroundings.learn(method, around, planted_looks, torch.ones(400, K), torch.arange(400), areas(400))
    method.looks[0], method.looks_of[0] = 0.25, torch.tensor([0.0, 100.0, 1.0, 1.0])
    sizes = torch.tensor([100.0, 50.0])
    drawn = looks.drawn(method, sizes, torch.tensor([True, True]), around[3], rng.generator(0))
    asked = looks.plain(method, surroundings.told(method, around[3].expand(2, -1), sizes) + 0.25 * surroundings.left(method, sizes))
    assert drawn is not None and torch.allclose(drawn, asked, atol=1e-5) and not torch.allclose(drawn[0], drawn[1], atol=1e-3)


def test_what_is_told_depends_on_size_and_lies_between_the_nearest(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a lesion of 33 pixels follows the scan, one of 665 the other way."""
    monkeypatch.setattr(surroundings, "PENALTY", 1e-6)
    around, small = planted(noise=0.0)
    looks_there = torch.cat([small, 1.0 - small])
    sizes = torch.cat([torch.full((400,), surroundings.KNOTS[1]), torch.full((400,), surroundings.KNOTS[4])]).exp()
    surroundings.learn(method, around.repeat(2, 1), looks_there, torch.ones(800, K), torch.arange(400).repeat(2), sizes)
    one, other = around[:5], torch.full((5,), surroundings.KNOTS[1]).exp()
    assert torch.allclose(surroundings.told(method, one, other), small[:5], atol=0.05)
    assert torch.allclose(surroundings.told(method, one, sizes[-5:]), 1.0 - small[:5], atol=0.05)
    below, above = (surroundings.told(method, one, torch.full((5,), knot).exp()) for knot in surroundings.KNOTS[2:4])
    between = surroundings.told(method, one, torch.full((5,), 0.25 * surroundings.KNOTS[2] + 0.75 * surroundings.KNOTS[3]).exp())
    assert torch.allclose(between, 0.25 * below + 0.75 * above, atol=1e-4) and not torch.allclose(below, above, atol=1e-2)
    ends = (torch.tensor([0.0, 3.0]), torch.tensor([5000.0, 1e6]))
    for tiny, large in ends:
        least, most = (surroundings.told(method, one, size.expand(5)) for size in (tiny, large))
        assert torch.allclose(least, most, atol=1e-5), "beyond the last, the last"


def test_weights_of_one_regression_tell_the_same_in_todays_shapes(method: PathoSyn) -> None:
    stream = torch.Generator().manual_seed(0)
    old = {"look_around_mean": torch.randn(15, generator=stream), "look_around_std": torch.rand(15, generator=stream) + 0.5}
    old["look_map"] = torch.randn(16, K, generator=stream)
    wider = surroundings.widened(old, 2)
    assert surroundings.widened(wider, 2) is wider and surroundings.widened({}, 2) == {}
    for name, value in wider.items():
        getattr(method, name).copy_(value)
    around = torch.randn(4, N, generator=stream)
    rows = ((around[:, :15] - old["look_around_mean"]) / old["look_around_std"]).clamp(-3, 3)
    wanted = old["look_map"][0] + rows @ old["look_map"][1:]
    for size in (10.0, 300.0, 4000.0):
        assert torch.allclose(surroundings.told(method, around, torch.full((4,), size)), wanted, atol=1e-5)


def test_remembered_is_what_the_surroundings_leave_open(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of it unseen, and the rest, are the look of the training window itself."""
    learn, unseen = surroundings.learn, []
    monkeypatch.setattr(surroundings, "learn", lambda *given: (unseen.append(learn(*given)), unseen[0])[1])
    batch = replace(batch_of(8), subject=list("aabbccdd"))
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    monkeypatch.setattr(surroundings, "LEAST", 1)
    monkeypatch.setattr(looks, "_stretch", lambda *_: torch.ones(K))
    method.begin("structure", [batch])
    whole = unseen[0] + surroundings.left(method, looks.pixels(batch)) * method.looks[:8]
    plain = PathoSyn(replace(method.config, method=replace(method.config.method, attune=False)))
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if k in plain.state_dict()})
    monkeypatch.setattr(plain.sub, "forward", lambda *_: batch.x_ph)
    plain.begin("structure", [batch])
    assert torch.allclose(whole, plain.looks[:8], atol=1e-4) and not torch.allclose(method.looks[:8], plain.looks[:8], atol=1e-2)


def test_a_brighter_scan_gets_another_look(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LEAST", 1)
    around, planted_looks = planted()
    surroundings.learn(method, around, planted_looks, torch.ones(400, K), torch.arange(400), areas(400))
    method.looks_of[0] = torch.tensor([0.0, 100.0, 1.0, 1.0])
    batch, f = batch_of(), batch_of().x_ph
    one, other = method.look(batch, f, 0), method.look(replace(batch, x=batch.x + 0.5), f, 0)
    assert one is not None and other is not None and not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)
    method.look_map[:, 16:, 2] = 0.5
    beneath = method.look(batch, f + 0.5, 0)
    assert beneath is not None and not torch.allclose(one[:, 2], beneath[:, 2], atol=1e-3), "and so does other tissue in the lesion's place"
