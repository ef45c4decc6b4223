"""Eqs. 3, 9, 13 and 15, and the two terms of the adversarial stage, which the paper does not have.

The print sums over pixels. Here each term is a mean over its own support, a sample at a time, then over the batch: a sum would make the λ's
scale with the lesion's area and let small lesions vanish (DESIGN §3, 8). `weight` (B,) scales a sample's share where a time t would dominate.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pathosyn.types import Float, Image, Mask, Soft

Weight = Float[Tensor, "B"]


def masked_mean(error: Image, support: Image | Mask, weight: Weight | None = None) -> Tensor:
    """Σ(support · error) / Σ support for each sample, 0 where it has none, times `weight`; then the mean over the batch.

    Every sample counts, with or without support, so that the mean of equal shares of a batch is the batch's, on however many processes.
    `support` may be soft and broadcasts over contrasts; give it as (B, C, H, W), 0 on a missing contrast, to leave that contrast out."""
    support = support.expand_as(error)
    mass = support.sum(dim=(1, 2, 3))
    per_sample = (support * error).sum(dim=(1, 2, 3)) / mass.clamp(min=1e-12)
    if weight is not None:
        per_sample = per_sample * weight
    return per_sample.where(mass > 0, per_sample.new_zeros(())).mean()


def substrate_loss(x_sub: Image, x: Image, x_ph: Image, inside: Image | Mask, outside: Image | Mask, *, lam_out: float, lam_in: float) -> Tensor:
    """Eq. 3: λ_out ‖(x_sub - x) ⊙ m̄‖² + λ_in ‖(x_sub - x_ph) ⊙ m‖². x_ph is Inp(x, m), or the truth where the hole is over healthy tissue."""
    return lam_out * masked_mean((x_sub - x) ** 2, outside) + lam_in * masked_mean((x_sub - x_ph) ** 2, inside)


def diffusion_loss(target: Image, output: Image, support: Image | Mask, weight: Weight | None = None) -> Tensor:
    """Eq. 9, on the support as in Alg. 1: what lies outside is noise that no network can know."""
    return masked_mean((target - output) ** 2, support, weight)


def deviation_loss(
    r0_hat: Image,
    r0: Image,
    support: Image | Mask,
    w_ring: Image | Soft,
    outside: Image | Mask,
    *,
    lam_pat: float,
    lam_ring: float,
    lam_leak: float,
    weight: Weight | None = None,
) -> dict[str, Tensor]:
    """Eq. 13 term by term, L1: `pat` on the support, `ring` by w_ring (Eq. 11), `leak` of the unprojected estimate outside m; `dev` is their λ-sum."""
    error = (r0_hat - r0).abs()
    terms = {
        "pat": masked_mean(error, support, weight),
        "ring": masked_mean(error, w_ring, weight),
        "leak": masked_mean(r0_hat.abs(), outside, weight),
    }
    terms["dev"] = lam_pat * terms["pat"] + lam_ring * terms["ring"] + lam_leak * terms["leak"]
    return terms


def synthesis_loss(x_hat: Image, x: Image, S: Image | Soft, weight: Weight | None = None) -> Tensor:  # noqa: N803 - the paper's letter
    """L_syn = ‖(x̂ - x) ⊙ S‖₁, the text below Eq. 14."""
    return masked_mean((x_hat - x).abs(), S, weight)


def critic_loss(real: Float[Tensor, "..."], fake: Float[Tensor, "..."]) -> Tensor:
    """The hinge loss of a critic (Lim & Ye 2017): max(0, 1 - real) + max(0, 1 + fake), each a mean. Equal scores of 0 give 2."""
    return mean_or_0((1.0 - real).clamp(min=0.0)) + mean_or_0((1.0 + fake).clamp(min=0.0))


def slope(scores: Float[Tensor, "B ..."], x: Image, count: Float[Tensor, "B"]) -> Tensor:
    """R1 (Mescheder et al. 2018) of a critic with many scores a sample: the squared norm of the gradient of their sum with respect to x, divided by their
    number `count`; a mean over the batch. It can be differentiated again; 0 where no gradient is taken (a validation)."""
    if not scores.requires_grad:
        return scores.new_zeros(())
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return (gradient.square().sum(dim=(1, 2, 3)) / count.clamp(min=1.0)).mean()


def mean_or_0(scores: Float[Tensor, "..."]) -> Tensor:
    """The mean, and 0 where there are no scores: a batch of specks has no patch that lies on a support."""
    return scores.sum() / max(1, scores.numel())


def low_pass_loss(r0_hat: Image, r0: Image, support: Image | Mask, *, size: int = 8) -> Tensor:
    """L1 between two deviations averaged over `size` × `size` pixels of the support; H and W are multiples of `size`."""
    support = support.expand_as(r0)
    weight = avg_pool2d(support, size)
    gap = avg_pool2d((r0_hat - r0) * support, size).abs() / weight.clamp(min=1e-6)
    return masked_mean(gap, weight)


def total_loss(*, sub: Tensor | float, diff: Tensor, dev: Tensor, syn: Tensor, lam_diff: float, lam_dev: float, lam_syn: float) -> Tensor:
    """Eq. 15: L = L_sub + λ_diff L_diff + λ_dev L_dev + λ_syn L_syn."""
    return sub + lam_diff * diff + lam_dev * dev + lam_syn * syn


def psnr_inside(estimate: Tensor, truth: Tensor, inside: Tensor) -> list[float]:
    """Peak signal-to-noise ratio, dB, on `inside` for each sample and contrast that has any. The peak is the range of the truth's window
    between its 0.5 and 99.5 percentiles."""
    values = []
    for b, c in product(range(truth.shape[0]), range(truth.shape[1])):
        where = inside[b, min(c, inside.shape[1] - 1)] > 0
        if not where.any():
            continue
        window = truth[b, c].flatten()
        peak = torch.quantile(window, 0.995) - torch.quantile(window, 0.005)
        mse = (estimate[b, c] - truth[b, c])[where].square().mean().clamp(min=1e-12)
        if peak > 0:
            values.append(float(10 * torch.log10(peak**2 / mse)))
    return values
