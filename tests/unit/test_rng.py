"""Named random streams: the same key, the same numbers, wherever and in whatever company they are drawn."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pathosyn import rng

KEYS = [(), (0,), (1,), (1.5,), ("a", "b"), ("ab",), ("a", "b", ""), (0, "scan_00", 0), (0, "scan_0", "00"), (1, "scan_00", 0), (0, "scan_00", 1)]


def test_every_key_has_a_seed_of_its_own_that_torch_and_numpy_take() -> None:
    seeds = [rng.seed_of(*key) for key in KEYS]
    assert len(set(seeds)) == len(KEYS)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(rng.seed_of(i) for i in range(200)) > 2**62, "the whole range is used"


def test_seeds_are_the_same_on_every_machine_and_in_every_process() -> None:
    """Python's own hash of a string changes from process to process. The number is pinned: another one would change every lesion drawn so far."""
    assert rng.seed_of(0, "phantom_000", 0) == 7978203900521342845
    code = "from pathosyn.rng import seed_of; print(seed_of(0, 'phantom_000', 0))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"})
    assert int(told.stdout) == rng.seed_of(0, "phantom_000", 0)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    together = rng.normal([rng.generator("x", i) for i in range(4)], (2, 3))
    assert together.shape == (4, 2, 3)
    for i in (3, 0):
        assert torch.equal(rng.normal([rng.generator("x", i)], (2, 3))[0], together[i])
    assert not torch.equal(together[0], together[1])


def test_normal_is_unit_noise() -> None:
    field = rng.normal([rng.generator("unit", i) for i in range(4)], (50_000,))
    assert field.mean(dim=1).abs().max() < 0.02 and (field.var(dim=1) - 1).abs().max() < 0.03
    assert abs(float(torch.corrcoef(field)[0, 1])) < 0.02


def test_integers_reach_both_ends_evenly() -> None:
    drawn = rng.integers([rng.generator("t", i) for i in range(4000)], 1, 5)
    assert drawn.shape == (4000,) and drawn.dtype == torch.int64
    counts = torch.bincount(drawn, minlength=7)
    assert counts[0] == 0 and counts[6] == 0
    assert ((counts[1:6] - 800).abs() < 4 * 800**0.5).all()


def test_a_stream_goes_on_where_it_was() -> None:
    stream = rng.generator("s")
    first, second = rng.integers([stream], 0, 10**9), rng.integers([stream], 0, 10**9)
    assert int(first) != int(second)
    assert int(rng.integers([rng.generator("s")], 0, 10**9)) == int(first)


def test_the_global_state_is_left_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    rng.normal([rng.generator("x")], (5,))
    assert torch.equal(torch.rand(2), wanted)


def test_no_generators_is_a_mistake() -> None:
    with pytest.raises(RuntimeError):
        rng.normal([], (2,))
