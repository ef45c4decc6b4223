"""E_r and D_r: a deviation in a few numbers a cell of 16 × 16 pixels, and back. PathoSyn: VAE-GAN learns them; PathoSyn in latent space diffuses the code.

code of r_0   E_r(r_0, condition): mean and log variance of each number, on the cells that hold any of the support
and back      r̂ = D_r(code, condition) in units of r_0's RMS, then projected on the support
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from pathosyn import decomposition, diffusion
from pathosyn.config import Config
from pathosyn.framework.base import Framework, Parts
from pathosyn.framework.codes import Code, Decoder, Encoder
from pathosyn.lesion import texture
from pathosyn.types import Image, LesionBatch, Mask

CELL = 16
"""Pixels a side of a cell: windows are multiples of 32, so that there are 2 × 2 of them at the least."""
LEAST, MOST = -12.0, 4.0
"""Between which a log variance is held."""


@dataclass(frozen=True)
class Coded:
    """r_0 of a batch (scaled, 0 off the support), the condition beside which it is coded, and its code's mean and log variance. `known` (B, C, 1, 1) is 1
    on the contrasts of lesion windows that are there: only these count; `cells` is 1 on the cells that hold any of the support."""

    known: Image
    r0: Image
    condition: Image
    cells: Mask
    mean: Code
    log_var: Code

    @property
    def there(self) -> Mask:
        """The cells that count: those of lesion windows."""
        return self.cells * self.known.amax(dim=1, keepdim=True)

    def sample(self, noise: Code) -> Code:
        """mean + standard deviation · noise; 0 on cells without support."""
        return (self.mean + (0.5 * self.log_var).exp() * noise) * self.cells

    def kl(self) -> Tensor:
        """KL divergence from N(0, 1) of each number, in nats, (B, K, h, w)."""
        return 0.5 * (self.mean.square() + self.log_var.exp() - 1.0 - self.log_var)


class Coding(Framework):
    """A framework with E_r and D_r."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        contrasts, settings = len(config.contrasts), config.compared.vaegan
        shown = 2 * contrasts + 2
        if len(settings.widths) != 5 or any(width % 8 for width in settings.widths):
            raise ValueError(f"compared.vaegan.widths needs 5 multiples of 8, got {settings.widths}")
        self.encoder = Encoder(contrasts + shown, 2 * settings.latent, settings.widths)
        grain = contrasts if config.method.grain else 0
        self.decoder = Decoder(settings.latent, shown + grain, contrasts, settings.widths)

    def cells(self, parts: Parts) -> Mask:
        """(B, 1, H/16, W/16): 1 on the cells that hold any of the support. A code is 0 on the others: they have nothing to say, and may not carry any of it."""
        return max_pool2d(parts.support, CELL)

    def coded(self, batch: LesionBatch, parts: Parts, x_sub: Image) -> Coded:
        """E_r on r_0 = (x - f) ⊙ support."""
        known = parts.known * (~batch.healthy).to(batch.x.dtype)[:, None, None, None]
        r0 = self.to_scaled(decomposition.deviation(batch.x, x_sub, parts.support * known))
        condition = self.condition(batch.x, x_sub, batch.m, parts)
        mean, log_var = self.encoder(torch.cat([r0, condition], dim=1)).float().chunk(2, dim=1)
        return Coded(known, r0, condition, self.cells(parts), mean, log_var.clamp(LEAST, MOST))

    def decoded(self, code: Code, condition: Image, x: Image, parts: Parts, white: Image) -> Image:
        """D_r: r̂ in scaled units as the network gives it, also off the support; 0 on missing contrasts. Where the method asks for it, as for eps_theta, it is
        shown the grain of the scan x made of `white` (B, C, H, W): without noise to make texture of, a critic teaches it patterns."""
        if self.config.method.grain:
            condition = torch.cat([condition, texture.own_grain(x * parts.known, 1.0 - parts.support, white) * parts.known], dim=1)
        return self.decoder(code, condition).float() * parts.known

    def finished(self, r: Image, parts: Parts) -> Image:
        """A drawn r̂ held within the data's extremes, projected on the support, in normalised units."""
        bound = self.bound()
        return self.from_scaled(diffusion.project(r if bound is None else r.clamp(-bound, bound), parts.support))
