"""Diffeomorphisms of the plane against closed forms: shifts, rotations, a spike's kernel norm; and what any smooth field must keep."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pathosyn import warps

SIDE = 64
INSIDE = (slice(None), slice(None), slice(16, 48), slice(16, 48))


def pixels() -> Tensor:
    """(1, 2, SIDE, SIDE): each pixel's own y and x."""
    return torch.stack(torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"))[None].float()


def smooth_velocity(count: int, *, size: float, seed: int = 0) -> Tensor:
    """Random smooth fields (B, 2, SIDE, SIDE) whose largest step is `size` pixels."""
    momentum = torch.randn(count, 2, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(seed))
    v = warps.enlarged(warps.velocity(momentum, sigma=1.5)[0], 8)
    return size * v / v.abs().amax(dim=(1, 2, 3), keepdim=True)


def test_a_constant_velocity_is_a_shift() -> None:
    v = torch.tensor([3.0, -5.0])[None, :, None, None].expand(1, 2, SIDE, SIDE)
    u = warps.flow(v, squarings=6)
    torch.testing.assert_close(u, v, rtol=0, atol=1e-4)
    image = torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    seen = warps.warp(image, u)
    torch.testing.assert_close(seen[INSIDE], image[:, :, 19:51, 11:43], rtol=0, atol=1e-4)  # image(p + (3, -5))


def rotated(angle: float, *, squarings: int) -> float:
    """The largest error, pixels, of the flow of the velocity of a rotation within 16 pixels of its centre."""
    from_centre = pixels() - (SIDE - 1) / 2
    turn = torch.stack([from_centre[:, 1], -from_centre[:, 0]], dim=1)
    cos, sin = math.cos(angle), math.sin(angle)
    truth = torch.stack([cos * from_centre[:, 0] + sin * from_centre[:, 1], cos * from_centre[:, 1] - sin * from_centre[:, 0]], dim=1) - from_centre
    return float((warps.flow(angle * turn, squarings=squarings) - truth)[INSIDE].abs().max())


def test_the_flow_of_a_rotations_velocity_is_the_rotation() -> None:
    """Euler's first step is off by angle² / 2ⁿ⁺¹ of the radius (here at most 22 pixels), and each doubling of the steps halves that."""
    assert rotated(0.3, squarings=6) < 22 * 0.3**2 / 2**7 * 1.1
    errors = [rotated(0.3, squarings=n) for n in (2, 3, 4, 5)]
    assert all(1.8 < before / after < 2.2 for before, after in pairwise(errors)), errors


def test_flows_do_not_fold_and_their_inverse_undoes_them() -> None:
    v = smooth_velocity(8, size=10.0)
    u, back = warps.flow(v, squarings=6), warps.flow(-v, squarings=6)
    assert float(u.abs().max()) > 5.0
    assert float(warps.jacobian(u).min()) > 0.0 and float(warps.jacobian(back).min()) > 0.0
    around = u + warps.warp(back, u)  # φ⁻¹ ∘ φ less the identity
    assert float(around[INSIDE].abs().max()) < 0.15


def test_the_jacobian_of_a_linear_map_is_its_determinant() -> None:
    matrix = torch.tensor([[0.2, 0.5], [-0.1, 0.3]])
    u = torch.einsum("ij,bjyx->biyx", matrix, pixels())
    torch.testing.assert_close(warps.jacobian(u), torch.full((1, SIDE - 1, SIDE - 1), 1.2 * 1.3 + 0.5 * 0.1), rtol=0, atol=1e-3)
    folded = torch.stack([torch.zeros(SIDE, SIDE), -1.5 * pixels()[0, 1]])[None]
    assert float(warps.jacobian(folded).max()) < 0.0


def test_the_kernel_norm_of_a_spike_and_its_sign() -> None:
    """⟨δ, K ∗ δ⟩ = K(0) = 1 / 2πσ²; and the norm of any momentum is above 0, as that of a positive definite kernel."""
    momentum = torch.zeros(1, 2, 32, 32)
    momentum[0, 1, 16, 16] = 1.0
    v, norm = warps.velocity(momentum, sigma=2.0)
    assert norm.item() * 32**2 == pytest.approx(1 / (2 * math.pi * 4.0))
    assert v[0, 1, 16, 18].item() / v[0, 1, 16, 16].item() == pytest.approx(math.exp(-0.5)) and not v[0, 0].any()
    others = torch.randn(20, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    assert (warps.velocity(others, sigma=1.5)[1] > 0).all()


def test_a_finer_grid_has_the_same_field_in_its_own_pixels() -> None:
    linear = 0.1 * pixels()
    fine = warps.enlarged(linear, 4)
    # The middle of a coarse pixel i lies at 4 i + 1.5 of the finer ones.
    at = torch.arange(8, 4 * SIDE - 8)
    torch.testing.assert_close(fine[0, 0, at, 100], 4 * 0.1 * (at - 1.5) / 4, rtol=0, atol=1e-4)
    assert warps.enlarged(linear, 1) is linear


def test_autocast_leaves_displacements_exact() -> None:
    v = smooth_velocity(1, size=10.0)
    u = warps.flow(v, squarings=6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(warps.flow(v, squarings=6), u, rtol=0, atol=0)
        momentum = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(2))
        assert warps.velocity(momentum, sigma=1.5)[0].dtype == torch.float32


def test_a_known_warp_is_found_again() -> None:
    """A momentum fitted to template ∘ φ finds φ where the template has something to see."""
    y, x = pixels()[0]
    template = (torch.sin(y / 3.0) * torch.cos(x / 3.5) + torch.sin((x + y) / 6.0))[None, None]
    truth = warps.flow(smooth_velocity(1, size=2.5, seed=3), squarings=6)
    seen = warps.warp(template, truth)
    momentum = torch.zeros(1, 2, SIDE // 8, SIDE // 8, requires_grad=True)
    optimizer = torch.optim.Adam([momentum], lr=0.25)

    def found() -> Tensor:
        return warps.flow(warps.enlarged(warps.velocity(momentum, sigma=1.5)[0], 8), squarings=6)

    for _ in range(50):
        optimizer.zero_grad()
        (warps.warp(template, found()) - seen).square().mean().backward()
        optimizer.step()
    error = (found().detach() - truth)[INSIDE].square().mean().sqrt()
    assert float(error) < 0.1 * float(truth[INSIDE].square().mean().sqrt())
