"""Eqs. 3, 9, 13, 15 and L_syn: each term is a mean over its own support, a sample at a time."""

from __future__ import annotations

import math

import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor
from torch.nn.functional import pad

from pathosyn import decomposition, losses
from pathosyn.losses import masked_mean


def square(side: int, *, size: int = 16) -> Tensor:
    """A mask (1, 1, size, size) with a square of this side."""
    m = torch.zeros(1, 1, size, size)
    m[..., 3 : 3 + side, 3 : 3 + side] = 1
    return m


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_masked_mean_is_the_weighted_mean() -> None:
    error, soft = noise(1, 1, 2, 2), torch.tensor([[[[1.0, 0.5], [0.25, 0.0]]]])
    expected = (error[0, 0, 0, 0] + 0.5 * error[0, 0, 0, 1] + 0.25 * error[0, 0, 1, 0]) / 1.75
    assert masked_mean(error, soft).item() == pytest.approx(expected.item(), rel=1e-6)
    assert masked_mean(error, 0.1 * soft).item() == pytest.approx(expected.item(), rel=1e-6), "only the weights' ratios count"


def test_masked_mean_does_not_know_how_large_image_or_lesion_are() -> None:
    error, m = noise(2, 3, 16, 16), square(5).expand(2, 1, 16, 16)
    wide = masked_mean(pad(error, (7, 9, 20, 3), value=100.0), pad(m, (7, 9, 20, 3)))
    assert wide.item() == pytest.approx(masked_mean(error, m).item(), rel=1e-5)
    two = torch.full((1, 1, 16, 16), 2.0)
    assert masked_mean(two, square(1)).item() == masked_mean(two, square(10)).item() == 2.0


def test_masked_mean_gives_a_small_lesion_the_say_of_a_large_one() -> None:
    error = torch.cat([torch.full((1, 1, 16, 16), 1.0), torch.full((1, 1, 16, 16), 3.0)])
    assert masked_mean(error, torch.cat([square(1), square(12)])).item() == pytest.approx(2.0)


def test_masked_mean_leaves_missing_contrasts_out() -> None:
    error, m = noise(2, 3, 16, 16), square(4).expand(2, 1, 16, 16)
    known = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])[:, :, None, None]
    first, second = masked_mean(error[:1, :2], m[:1]), masked_mean(error[1:, :1], m[1:])
    assert masked_mean(error, m * known).item() == pytest.approx(0.5 * float(first + second), rel=1e-5)
    changed = torch.where(known > 0, error, torch.tensor(77.0))
    assert torch.equal(masked_mean(changed, m * known), masked_mean(error, m * known))


def test_masked_mean_of_samples_without_support_is_0_and_has_a_gradient() -> None:
    error = noise(3, 1, 16, 16).requires_grad_()
    support = torch.cat([square(4), torch.zeros(2, 1, 16, 16)])
    assert masked_mean(error, support).item() == pytest.approx(masked_mean(error[:1], support[:1]).item() / 3, rel=1e-6)
    nothing = masked_mean(error, torch.zeros(3, 1, 16, 16))
    nothing.backward()
    assert nothing.item() == 0.0 and error.grad is not None and not error.grad.any()


def test_mean_of_the_shares_of_a_batch_is_the_batch() -> None:
    """Two processes of which one holds a single supported sample, the other two."""
    error, support = noise(4, 1, 16, 16), torch.cat([square(4), torch.zeros(1, 1, 16, 16), square(6), square(2)])
    shares = [masked_mean(error[i::2], support[i::2]) for i in (0, 1)]
    assert float(sum(shares) / 2) == pytest.approx(masked_mean(error, support).item(), rel=1e-6)


def test_weight_scales_the_share_of_its_sample() -> None:
    error, support = torch.ones(2, 1, 16, 16), square(4).expand(2, 1, 16, 16)
    assert masked_mean(error, support, torch.tensor([0.5, 0.1])).item() == pytest.approx(0.3)


def test_equation_3() -> None:
    x, x_ph, m = torch.full((1, 1, 16, 16), 5.0), torch.full((1, 1, 16, 16), 2.0), square(4)
    x_sub = torch.where(m > 0, 4.0, 8.0)  # 2 from x_ph inside, 3 from x outside
    assert losses.substrate_loss(x_sub, x, x_ph, m, 1 - m, lam_out=1.0, lam_in=0.0).item() == pytest.approx(9.0)
    assert losses.substrate_loss(x_sub, x, x_ph, m, 1 - m, lam_out=0.0, lam_in=1.0).item() == pytest.approx(4.0)
    assert losses.substrate_loss(x_sub, x, x_ph, m, 1 - m, lam_out=0.5, lam_in=2.0).item() == pytest.approx(12.5)
    elsewhere = losses.substrate_loss(x_sub, x + 9 * m, x_ph + 9 * (1 - m), m, 1 - m, lam_out=0.5, lam_in=2.0)
    assert elsewhere.item() == pytest.approx(12.5), "neither x under the mask nor Inp outside it counts"


def test_equation_9_counts_on_the_support_only() -> None:
    eps, m = noise(4, 2, 64, 64), square(40, size=64).expand(4, 1, 64, 64)
    assert losses.diffusion_loss(eps, torch.zeros_like(eps), m).item() == pytest.approx(1.0, abs=0.05)
    assert losses.diffusion_loss(eps, eps * m, m).item() == 0.0, "ε outside cannot be known and costs nothing"


def test_equation_13_term_by_term() -> None:
    m = square(4)
    ring = decomposition.ring(decomposition.smooth(m, sigma=1.0))
    r0, r0_hat = m * 1.0, torch.where(m > 0, 1.5, 0.2)
    terms = losses.deviation_loss(r0_hat, r0, m, ring, 1 - m, lam_pat=2.0, lam_ring=3.0, lam_leak=5.0)
    inside = float((ring * m).sum() / ring.sum())
    assert terms["pat"].item() == pytest.approx(0.5)
    assert terms["leak"].item() == pytest.approx(0.2)
    assert terms["ring"].item() == pytest.approx(0.5 * inside + 0.2 * (1 - inside), rel=1e-5)
    assert terms["dev"].item() == pytest.approx(2 * 0.5 + 3 * terms["ring"].item() + 5 * 0.2, rel=1e-5)


def test_leak_of_the_unprojected_estimate_has_a_gradient_where_a_projected_one_has_none() -> None:
    m, r0_hat = square(4), torch.full((1, 1, 16, 16), 0.3, requires_grad=True)
    zero = torch.zeros(1, 1, 16, 16)
    for estimate, leaks in ((r0_hat, True), (r0_hat * m, False)):
        r0_hat.grad = None
        losses.deviation_loss(estimate, zero, m, m, 1 - m, lam_pat=0.0, lam_ring=0.0, lam_leak=1.0)["dev"].backward()
        assert r0_hat.grad is not None and bool(r0_hat.grad.any()) == leaks


def test_synthesis_loss_is_least_at_r_over_s_as_printed_and_at_r_in_default() -> None:
    x, f, m = noise(1, 1, 16, 16), noise(1, 1, 16, 16, seed=1), square(6)
    S, r = decomposition.smooth(m, sigma=2.0), (x - f) * m  # noqa: N806

    def loss(estimate: Tensor, kind: str) -> float:
        return losses.synthesis_loss(decomposition.recompose(x, f, estimate, S, kind=kind), x, S * m).item()  # type: ignore[arg-type]

    overshot = r / S
    assert loss(overshot, "paper") == pytest.approx(0, abs=1e-6) and loss(r, "paper") > 0.1
    assert loss(r, "preserve") == pytest.approx(0, abs=1e-6) and loss(overshot, "preserve") > 0.1


def test_synthesis_loss_closed_form() -> None:
    S = torch.tensor([[[[1.0, 0.5, 0.0]]]])  # noqa: N806
    x = torch.zeros(1, 1, 1, 3)
    assert losses.synthesis_loss(torch.tensor([[[[2.0, -4.0, 99.0]]]]), x, S).item() == pytest.approx((2 + 2) / 1.5)


def test_equation_15() -> None:
    one, two, three = (torch.tensor(v) for v in (1.0, 2.0, 3.0))
    assert losses.total_loss(sub=torch.tensor(10.0), diff=one, dev=two, syn=three, lam_diff=0.5, lam_dev=0.1, lam_syn=2.0).item() == pytest.approx(16.7)
    assert losses.total_loss(sub=0.0, diff=one, dev=two, syn=three, lam_diff=1.0, lam_dev=0.0, lam_syn=0.0).item() == 1.0


def test_critic_loss_closed_form() -> None:
    zero = torch.zeros(5)
    assert losses.critic_loss(zero, zero).item() == 2.0
    assert losses.critic_loss(torch.tensor([1.0, 7.0]), torch.tensor([-1.0, -3.0])).item() == 0.0, "beyond the margin nothing is asked for"
    real, fake = torch.tensor([0.5, 2.0, -1.0]), torch.tensor([-0.5, 3.0])
    assert losses.critic_loss(real, fake).item() == pytest.approx((0.5 + 0 + 2) / 3 + (0.5 + 4) / 2)
    assert losses.critic_loss(fake, real).item() == pytest.approx((1.5 + 0) / 2 + (1.5 + 3 + 0) / 3)


def test_critic_loss_pushes_the_two_apart_within_the_margin_only() -> None:
    real, fake = torch.tensor([0.0, 2.0], requires_grad=True), torch.tensor([0.0, -2.0], requires_grad=True)
    losses.critic_loss(real, fake).backward()
    assert real.grad is not None and fake.grad is not None
    assert real.grad.tolist() == [-0.5, 0.0] and fake.grad.tolist() == [0.5, 0.0]


def test_slope_in_closed_form_and_for_another_gradient() -> None:
    """Of scores w·x in each of n patches: n |w|² / n; zero slope where the critic is flat; nothing where no gradient is taken."""
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    w = torch.tensor(0.5, requires_grad=True)
    count = torch.tensor([16.0, 8.0])
    found = losses.slope(w * x, x, count)
    assert found.item() == pytest.approx((16 * 0.25 / 16 + 16 * 0.25 / 8) / 2)
    found.backward()
    assert w.grad is not None and w.grad.item() == pytest.approx(2 * 0.5 * (1 + 2) / 2)
    assert losses.slope(0.0 * x, x, count).item() == 0.0
    assert losses.slope(torch.ones(2, 3), x.detach(), count).item() == 0.0


def test_low_pass_loss_is_blind_to_what_vanishes_in_the_mean_of_8_by_8() -> None:
    r0, whole = noise(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    chequers = 1.0 - 2.0 * ((y + x) % 2)
    assert losses.low_pass_loss(r0 + 5.0 * chequers, r0, whole).item() < 1e-5
    blocks = 1.0 - 2.0 * ((y // 8 + x // 8) % 2)
    assert losses.low_pass_loss(r0 + 5.0 * blocks, r0, whole).item() == pytest.approx(5.0, rel=1e-5), "what lies between blocks is seen"


@pytest.mark.parametrize("offset", [-0.7, 2.0])
def test_low_pass_loss_of_an_offset_is_its_size_on_any_support(offset: float) -> None:
    r0, known = noise(2, 3, 16, 16), torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])[:, :, None, None]
    for support in (torch.ones(2, 1, 16, 16), square(5).expand(2, 1, 16, 16), square(5) * known):
        assert losses.low_pass_loss(r0 + offset, r0, support).item() == pytest.approx(abs(offset), rel=1e-4)


def test_low_pass_loss_ignores_what_lies_outside_the_support() -> None:
    r0, support = noise(1, 2, 16, 16), square(6)
    near, far = r0 + noise(1, 2, 16, 16, seed=1), 99.0 * (1 - support)
    assert losses.low_pass_loss(near + far, r0, support).item() == pytest.approx(losses.low_pass_loss(near, r0, support).item(), rel=1e-5)
    assert losses.low_pass_loss(near, r0, torch.zeros(1, 1, 16, 16)).item() == 0.0


def test_nan_on_the_support_is_seen() -> None:
    error = torch.zeros(1, 1, 16, 16)
    error[..., 4, 4] = math.nan
    assert masked_mean(error, square(4)).isnan(), "a NaN on the support must be seen"


def test_shapes_are_what_the_types_say() -> None:
    x, m = torch.zeros(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    checked = jaxtyped(typechecker=beartype)(losses.masked_mean)
    assert checked(x, m).shape == checked(x, x, torch.ones(2)).shape == ()
    for wrong in ((x, m[:1]), (x, m[..., :4]), (x[0], m), (x, m, torch.ones(3)), (x, m, torch.ones(2, 1))):
        with pytest.raises(TypeCheckError):
            checked(*wrong)
