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
N, K = 15, 18  # of two contrasts: seven numbers each and one pair; eight looks each, and one pair twice


def scan(seed: int = 0, spread: float = 0.2) -> Tensor:
    return spread * torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(seed))


def hole() -> Tensor:
    support = torch.zeros(1, 1, 32, 32)
    support[:, :, 10:20, 12:22] = 1.0
    return support


def test_the_numbers_are_those_of_the_tissue_that_is_seen() -> None:
    x, support = scan(), hole()
    found = surroundings.numbers(x, support, BOTH)[0].numpy()
    a, b = (x[0, c][support[0, 0] == 0].double().numpy() for c in (0, 1))  # all of it is tissue: its 7×7 means lie within ±1
    assert found.shape == (N,) and surroundings.count(2) == N
    assert np.allclose(found[:4], [a.mean(), b.mean(), a.std(), b.std()], atol=1e-5)
    assert np.allclose(found[6:14], np.quantile([a, b], surroundings.QUANTILES, axis=1).ravel(), atol=1e-5)
    assert found[14] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)
    quiet, loud = surroundings.numbers(0.1 * x, support, BOTH)[0], surroundings.numbers(3 * x, support, BOTH)[0]
    assert bool((quiet[4:6] < found[4]).all()) and bool((loud[4:6] > found[4]).all()), "grain"


def test_nothing_of_the_lesion_is_used() -> None:
    x, support = scan(), hole()
    other = torch.where(support > 0, torch.tensor(torch.nan), x)
    assert torch.equal(surroundings.numbers(x, support, BOTH), surroundings.numbers(other, support, BOTH))


def test_fluid_and_fat_are_no_tissue_but_are_seen() -> None:
    x, support = scan(), hole()
    x[..., 24:] = 5.0
    found, before = surroundings.numbers(x, support, BOTH)[0], surroundings.numbers(scan(), support, BOTH)[0]
    assert torch.allclose(found[:2], before[:2], atol=0.3) and bool((found[12:14] == 5.0).all())


def test_what_is_missing_or_hardly_seen_is_not_known() -> None:
    found = surroundings.numbers(scan(), hole(), torch.tensor([[True, False]]))[0]
    first = [0, 2, 4, 6, 8, 10, 12]
    assert bool(found[first].isfinite().all()) and bool(found[[i for i in range(N) if i not in first]].isnan().all())
    almost_all = torch.ones(1, 1, 32, 32)
    almost_all[..., :2] = 0.0
    assert bool(surroundings.numbers(scan(), almost_all, BOTH).isnan().all())


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
    surroundings.learn(method, around[:300], looks[:300], torch.ones(300, K), torch.arange(300))
    rest = (surroundings.told(method, around[300:]) - looks[300:]).square().mean().sqrt()
    assert float(rest) == pytest.approx(0.1, rel=0.15)


def test_the_penalty_draws_to_the_mean(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    around, looks = planted()
    monkeypatch.setattr(surroundings, "PENALTY", 1e9)
    surroundings.learn(method, around, looks, torch.ones(400, K), torch.arange(400))
    assert torch.allclose(surroundings.told(method, around), looks.mean(dim=0).expand(400, K), atol=1e-3)


def test_few_subjects_tell_less(method: PathoSyn) -> None:
    """The same windows, as four hundred subjects and as eight."""
    around, looks = planted()
    spread = []
    for subjects in (torch.arange(400), torch.arange(400) % 8):
        surroundings.learn(method, around, looks, torch.ones(400, K), subjects)
        spread.append(float(surroundings.told(method, around)[:, 2].std()))
    assert spread[1] < 0.6 * spread[0] and spread[0] == pytest.approx(float(looks[:, 2].std()), rel=0.1)


def test_subjects_weigh_the_same_and_unknown_looks_do_not_count(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "PENALTY", 1e9)
    around, known = torch.randn(12, N), torch.ones(12, K)
    looks = torch.tensor([1.0] * 10 + [3.0, 100.0])[:, None].expand(12, K).clone()
    known[11, 0] = 0.0
    surroundings.learn(method, around, looks, known, torch.tensor([0] * 10 + [1, 2]))
    told = surroundings.told(method, around)[0]
    assert float(told[0]) == pytest.approx(2.0, abs=1e-3) and float(told[1]) == pytest.approx(104 / 3, abs=1e-2)


def test_a_number_that_is_not_known_counts_as_usual(method: PathoSyn) -> None:
    around, looks = planted()
    surroundings.learn(method, around, looks, torch.ones(400, K), torch.arange(400))
    silent = around[:1].clone()
    silent[0, 0] = torch.nan
    usual = around[:1].clone()
    usual[0, 0] = around[:, 0].mean()
    assert torch.allclose(surroundings.told(method, silent), surroundings.told(method, usual), atol=1e-5)
    assert not torch.allclose(surroundings.told(method, silent), surroundings.told(method, around[:1]), atol=1e-3)
    far = usual.clone()
    far[0, 0] += 1e6
    beyond = usual.clone()
    beyond[0, 0] += 3 * around[:, 0].std(correction=0)
    assert torch.allclose(surroundings.told(method, far), surroundings.told(method, beyond), atol=1e-4), "no further than three spreads"


def test_nothing_learned_is_the_usual(method: PathoSyn) -> None:
    assert not surroundings.told(method, torch.randn(3, N)).any()


def test_a_drawn_look_is_what_is_told_and_the_rest_of_a_training_lesion(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SMOOTH", 0.0)
    around, planted_looks = planted()
    surroundings.learn(method, around, planted_looks, torch.ones(400, K), torch.arange(400))
    method.looks[0], method.looks_of[0] = 0.25, torch.tensor([0.0, 100.0, 1.0, 1.0])
    drawn = looks.drawn(method, torch.tensor([100.0, 50.0]), torch.tensor([True, True]), around[3], rng.generator(0))
    asked = looks.plain(method, surroundings.told(method, around[3:4]) + 0.25)
    assert drawn is not None and torch.allclose(drawn, asked.expand(2, K), atol=1e-5)


def test_remembered_is_what_the_surroundings_leave_open(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told and rest together are the look of the training window itself."""
    batch = replace(batch_of(8), subject=list("aabbccdd"))
    monkeypatch.setattr(method.sub, "forward", lambda *_: batch.x_ph)
    monkeypatch.setattr(surroundings, "LEAST", 1)
    monkeypatch.setattr(looks, "_stretch", lambda *_: 1.0)
    method.begin("structure", [batch])
    parts = method.parts(batch)
    around = surroundings.numbers(batch.x, parts.support, batch.present)
    whole = surroundings.told(method, around) + method.looks[:8]
    plain = PathoSyn(replace(method.config, method=replace(method.config.method, attune=False)))
    plain.load_state_dict({k: v for k, v in method.state_dict().items() if k in plain.state_dict()})
    monkeypatch.setattr(plain.sub, "forward", lambda *_: batch.x_ph)
    plain.begin("structure", [batch])
    assert torch.allclose(whole, plain.looks[:8], atol=1e-4) and not torch.allclose(method.looks[:8], plain.looks[:8], atol=1e-2)


def test_a_brighter_scan_gets_another_look(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "LEAST", 1)
    around, planted_looks = planted()
    surroundings.learn(method, around, planted_looks, torch.ones(400, K), torch.arange(400))
    method.looks_of[0] = torch.tensor([0.0, 100.0, 1.0, 1.0])
    one, other = method.look(batch_of(), 0), method.look(replace(batch_of(), x=batch_of().x + 0.5), 0)
    assert one is not None and other is not None and not torch.allclose(one[:, 2], other[:, 2], atol=1e-3)
