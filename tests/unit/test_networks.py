"""f_sub and eps_theta have the shape that paper III-D (a) describes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pathosyn.blocks.unets import Attention
from pathosyn.config import Networks
from pathosyn.data.inpaint import harmonic
from pathosyn.networks import Critic, DeviationNetwork, SubstrateNetwork, fine_detail, parameter_count, smooth_fill


def start_anywhere(network: nn.Module) -> nn.Module:
    """Layers that start at 0 get weights, so that what they are given counts."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.fixture(scope="module", params=[True, False], ids=["fill", "zeros"])
def f_sub(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return start_anywhere(SubstrateNetwork(2, (8, 8, 16, 16, 24), fill=request.param))


@pytest.fixture(scope="module")
def eps_theta() -> nn.Module:
    torch.manual_seed(0)
    return start_anywhere(DeviationNetwork(2, 3, (8, 8, 16, 16), 1))


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


def scene(count: int = 1, side: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """x, visible (a square hole), flags."""
    x = torch.randn(count, 2, side, side, generator=torch.Generator().manual_seed(side))
    visible = torch.ones(count, 1, side, side)
    visible[..., 9:22, 11:20] = 0
    return x, visible, torch.ones_like(x)


def test_f_sub_has_four_down_samplings_and_comes_back(f_sub: nn.Module) -> None:
    seen = sides(f_sub.net, torch.zeros(1, 5, 64, 64))
    assert set(seen) == {64, 32, 16, 8, 4} and seen[0] == seen[-1] == 64


def test_f_sub_keeps_absolute_intensity(f_sub: nn.Module) -> None:
    """A norm over a single instance's channel would make scans that differ by an offset alike."""
    x, visible, flags = scene()
    with torch.no_grad():
        assert not torch.allclose(f_sub(x + 2, visible, flags), f_sub(x, visible, flags), atol=1e-2)
    assert not [m for m in f_sub.modules() if isinstance(m, nn.InstanceNorm2d | nn.BatchNorm2d)]


def test_f_sub_sees_nothing_under_the_hole(f_sub: nn.Module) -> None:
    x, visible, flags = scene()
    with torch.no_grad():
        for under in (9.0, torch.inf, torch.nan):
            assert torch.equal(f_sub(torch.where(visible > 0, x, under), visible, flags), f_sub(x, visible, flags))


def test_fresh_f_sub_is_its_filling() -> None:
    x, visible, flags = scene()
    with torch.no_grad():
        assert torch.equal(SubstrateNetwork(2, (8, 8, 8, 8, 8), fill=True)(x, visible, flags), smooth_fill(x, visible))


@pytest.mark.parametrize("side", [32, 48])
def test_filling_keeps_what_is_seen_and_continues_a_constant(side: int) -> None:
    x, visible, _ = scene(side=side)
    filled = smooth_fill(x, visible)
    seen = (visible > 0).expand_as(x)
    assert torch.equal(filled[seen], x[seen]) and filled.isfinite().all()
    assert torch.allclose(smooth_fill(torch.full_like(x, 3.0), visible), torch.tensor(3.0), atol=1e-5)
    assert not smooth_fill(x, torch.zeros_like(visible)).any(), "a window that shows nothing is filled with 0"


def test_filling_is_near_the_harmonic_one() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    image = torch.stack([x**2 - y**2, 1 + 2 * x - y])[None]  # both are harmonic: the Laplace equation continues them exactly
    visible = scene()[1]
    hole = (visible == 0).expand_as(image)
    exact = harmonic(image[0].numpy(), visible[0, 0].numpy() == 0)
    assert np.abs(exact - image[0].numpy()).max() < 1e-3
    for c in range(2):
        error = (smooth_fill(image, visible) - image)[:, c][hole[:, c]]
        assert float(error.abs().max()) < 0.1 * float(image[:, c].max() - image[:, c].min())


def test_eps_theta_attends_at_its_lowest_resolution_only(eps_theta: nn.Module) -> None:
    where: list[int] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...], __: object) -> None:
        where.append(inputs[0].shape[-1])

    hooks = [m.register_forward_hook(look) for m in eps_theta.modules() if isinstance(m, Attention)]
    with torch.no_grad():
        eps_theta(torch.zeros(1, 2, 128, 128), torch.zeros(1, 3, 128, 128), torch.tensor([3]))
    for hook in hooks:
        hook.remove()
    assert set(where) == {16}, "16×16 for a window of 128 with four levels"


def test_eps_theta_knows_the_time_and_the_condition(eps_theta: nn.Module) -> None:
    draw = torch.Generator().manual_seed(1)
    r, condition = torch.randn(1, 2, 32, 32, generator=draw), torch.randn(1, 3, 32, 32, generator=draw)
    with torch.no_grad():
        base = eps_theta(r, condition, torch.tensor([10]))
        assert base.shape == r.shape
        assert not torch.allclose(base, eps_theta(r, condition, torch.tensor([900])), atol=1e-4)
        assert not torch.allclose(base, eps_theta(r, condition.flip(1), torch.tensor([10])), atol=1e-4)


@pytest.mark.parametrize("which", ["f_sub", "eps_theta"])
def test_a_sample_does_not_see_its_batch(which: str, f_sub: nn.Module, eps_theta: nn.Module) -> None:
    draw = torch.Generator().manual_seed(2)
    r, condition, t = torch.randn(3, 2, 32, 32, generator=draw), torch.randn(3, 3, 32, 32, generator=draw), torch.tensor([5, 500, 1000])

    x, visible, flags = scene(3)
    visible[0], visible[1, :, 14:] = 1, 0

    def run(i: slice) -> Tensor:
        return f_sub(x[i], visible[i], flags[i]) if which == "f_sub" else eps_theta(r[i], condition[i], t[i])

    with torch.no_grad():
        together, alone = run(slice(None)), torch.cat([run(slice(i, i + 1)) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("widths, message", [((8, 8, 8, 8), "needs 5 widths"), ((8, 8, 8, 8, 12), "multiple of 8")])
def test_impossible_widths_of_f_sub_are_refused(widths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubstrateNetwork(1, widths, fill=False)


def test_impossible_widths_of_eps_theta_are_refused() -> None:
    with pytest.raises(ValueError, match=r"networks\.eps: every width"):
        DeviationNetwork(1, 3, (16, 20), 1)


@pytest.fixture(scope="module")
def critic() -> Critic:
    torch.manual_seed(0)
    return Critic(2, (8, 16, 16)).eval()


def judged(seed: int = 0, side: int = 32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, m, S and flags of two windows, the second with a smaller lesion, away from any grid of 4."""
    x = torch.randn(2, 2, side, side, generator=torch.Generator().manual_seed(seed))
    m, soft = torch.zeros(2, 2, 1, side, side)
    m[0, :, 9:18, 8:21], m[1, :, 13:16, 11:18] = 1, 1
    soft[0, :, 6:21, 5:24], soft[1, :, 10:19, 8:21] = 0.3, 0.3
    return x, m, torch.maximum(m, soft), torch.ones(2, 2, side, side)


def test_critic_scores_the_patches_that_lie_half_on_the_support_and_each_window(critic: Critic) -> None:
    x, m, S, flags = judged()  # noqa: N806
    with torch.no_grad():
        patch, whole = critic(x, m, S, flags)
    area = (S > 0).float().reshape(2, 8, 4, 8, 4).sum(dim=(2, 4))
    assert (area == 8).any() and ((area > 0) & (area < 8)).any(), "the rule is put to the test"
    assert patch.shape == (int((area >= 8).sum()),) and whole.shape == (2,)
    with torch.no_grad():
        apart = [critic(x[i : i + 1], m[i : i + 1], S[i : i + 1], flags[i : i + 1]) for i in (0, 1)]
    assert [len(p) for p, _ in apart] == [int((area[i] >= 8).sum()) for i in (0, 1)]
    assert torch.allclose(torch.cat([p for p, _ in apart]), patch, atol=1e-5)
    assert torch.allclose(torch.cat([w for _, w in apart]), whole, atol=1e-5)


@pytest.mark.parametrize("which", ["x", "m", "S", "flags"])
def test_critic_looks_at_all_it_is_given(which: str, critic: Critic) -> None:
    given = dict(zip(("x", "m", "S", "flags"), judged(), strict=True))
    changed = {**given, which: 0.5 * given[which]}
    with torch.no_grad():
        (patch, whole), (other_patch, other_whole) = critic(**given), critic(**changed)
    assert not torch.allclose(patch, other_patch, atol=1e-6) and not torch.allclose(whole, other_whole, atol=1e-6)


def test_critic_of_a_window_without_support_is_a_number(critic: Critic) -> None:
    x, m, S, flags = judged()  # noqa: N806
    with torch.no_grad():
        patch, whole = critic(x, 0 * m, 0 * S, flags)
    assert patch.shape == (0,) and whole.isfinite().all()


def test_impossible_widths_of_the_critic_are_refused() -> None:
    with pytest.raises(ValueError, match=r"networks\.critic needs 3 widths"):
        Critic(1, (8, 8))
    with pytest.raises(ValueError, match=r"networks\.critic: every width"):
        Critic(1, (8, 8, 12))


def test_fine_detail_of_a_constant_is_nothing_and_of_a_point_what_the_two_means_leave() -> None:
    assert all(not detail.abs().gt(1e-5).any() for detail in fine_detail(torch.full((1, 2, 12, 12), 7.0)))
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 9.0
    fine, size, broad = fine_detail(point)
    assert fine[0, 0, 7, 7].item() == pytest.approx(4 * (9 - 1)) and fine[0, 0, 6, 8].item() == pytest.approx(-4)
    assert torch.equal(size, fine.abs()) and fine[0, 0, 5, 7].item() == 0
    assert broad[0, 0, 7, 7].item() == pytest.approx(2 * (1 - 9 / 49)) and broad[0, 0, 4, 4].item() == pytest.approx(-2 * 9 / 49)


def test_parameter_count() -> None:
    assert parameter_count(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 5, 3))) == 3 * 4 + 4 + 2 * 5 * 9 + 5


def test_default_sizes_run_at_a_bucket_that_is_no_power_of_two() -> None:
    sizes = Networks()
    network = DeviationNetwork(3, 8, sizes.eps, sizes.blocks).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 96, 96), torch.zeros(1, 8, 96, 96), torch.tensor([1])).shape == (1, 3, 96, 96)
