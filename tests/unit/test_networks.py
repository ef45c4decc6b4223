"""f_sub and eps_theta have the shape that paper III-D (a) describes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pathosyn.config import Networks
from pathosyn.networks import DeviationNetwork, parameter_count, substrate_network


@pytest.fixture(scope="module")
def f_sub() -> nn.Module:
    torch.manual_seed(0)
    return substrate_network(2, (8, 8, 16, 16, 24)).eval()


@pytest.fixture(scope="module")
def eps_theta() -> DeviationNetwork:
    torch.manual_seed(0)
    network = DeviationNetwork(2, 3, (8, 8, 16, 16), 1).eval()
    for parameter in network.parameters():
        if not parameter.any():  # the last layer starts at 0
            nn.init.normal_(parameter, std=0.1)
    return network


def sides(module: nn.Module, *inputs: Tensor) -> list[int]:
    """Widths of every four-dimensional output inside `module`, in order."""
    seen: list[int] = []

    def look(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            seen.append(output.shape[-1])

    hooks = [m.register_forward_hook(look) for m in module.modules()]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_f_sub_maps_scan_mask_and_flags_to_the_contrasts(f_sub: nn.Module) -> None:
    with torch.no_grad():
        assert f_sub(torch.zeros(3, 5, 32, 48)).shape == (3, 2, 32, 48)


def test_f_sub_has_four_down_samplings_and_comes_back(f_sub: nn.Module) -> None:
    seen = sides(f_sub, torch.zeros(1, 5, 64, 64))
    assert set(seen) == {64, 32, 16, 8, 4} and seen[0] == seen[-1] == 64


def test_f_sub_keeps_absolute_intensity(f_sub: nn.Module) -> None:
    """A norm over a single instance's channel would make scans that differ by an offset alike."""
    x = torch.randn(1, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    shifted = x.clone()
    shifted[:, 0] += 2
    with torch.no_grad():
        assert not torch.allclose(f_sub(shifted), f_sub(x), atol=1e-3)
    assert not [m for m in f_sub.modules() if isinstance(m, nn.InstanceNorm2d | nn.BatchNorm2d)]


def test_eps_theta_attends_at_its_lowest_resolution_only(eps_theta: DeviationNetwork) -> None:
    where: list[int] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...], __: object) -> None:
        where.append(inputs[0].shape[-1])

    hooks = [m.register_forward_hook(look) for m in eps_theta.modules() if type(m).__name__ == "SpatialAttentionBlock"]
    with torch.no_grad():
        eps_theta(torch.zeros(1, 2, 128, 128), torch.zeros(1, 3, 128, 128), torch.tensor([3]))
    for hook in hooks:
        hook.remove()
    assert set(where) == {16}, "16×16 for a window of 128 with four levels"


def test_eps_theta_knows_the_time_and_the_condition(eps_theta: DeviationNetwork) -> None:
    draw = torch.Generator().manual_seed(1)
    r, condition = torch.randn(1, 2, 32, 32, generator=draw), torch.randn(1, 3, 32, 32, generator=draw)
    with torch.no_grad():
        base = eps_theta(r, condition, torch.tensor([10]))
        assert base.shape == r.shape
        assert not torch.allclose(base, eps_theta(r, condition, torch.tensor([900])), atol=1e-4)
        assert not torch.allclose(base, eps_theta(r, condition.flip(1), torch.tensor([10])), atol=1e-4)


@pytest.mark.parametrize("which", ["f_sub", "eps_theta"])
def test_a_sample_does_not_see_its_batch(which: str, f_sub: nn.Module, eps_theta: DeviationNetwork) -> None:
    draw = torch.Generator().manual_seed(2)
    r, condition, t = torch.randn(3, 2, 32, 32, generator=draw), torch.randn(3, 3, 32, 32, generator=draw), torch.tensor([5, 500, 1000])

    def run(i: slice) -> Tensor:
        return f_sub(torch.cat([r, condition], 1)[i]) if which == "f_sub" else eps_theta(r[i], condition[i], t[i])

    with torch.no_grad():
        together, alone = run(slice(None)), torch.cat([run(slice(i, i + 1)) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("widths, message", [((8, 8, 8, 8), "needs 5 widths"), ((8, 8, 8, 8, 12), "multiple of 8")])
def test_impossible_widths_of_f_sub_are_refused(widths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        substrate_network(1, widths)


def test_impossible_widths_of_eps_theta_are_refused() -> None:
    with pytest.raises(ValueError, match=r"networks\.eps: every width"):
        DeviationNetwork(1, 3, (16, 20), 1)


def test_parameter_count() -> None:
    assert parameter_count(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 5, 3))) == 3 * 4 + 4 + 2 * 5 * 9 + 5


def test_default_sizes_run_at_a_bucket_that_is_no_power_of_two() -> None:
    sizes = Networks()
    network = DeviationNetwork(3, 8, sizes.eps, sizes.blocks).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 96, 96), torch.zeros(1, 8, 96, 96), torch.tensor([1])).shape == (1, 3, 96, 96)
