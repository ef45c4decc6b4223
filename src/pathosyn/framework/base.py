"""What PathoSyn's methods share: f_sub, the support and the blend map, the deviation and its units, and how a drawn one is put into the scan.

substrate   f = f_sub(x ⊙ (1 - D), 1 - D)
deviation   r_0 = (x - f) ⊙ D, in units of its RMS
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pathosyn import decomposition, losses, rng
from pathosyn.augment import HIDE_SUBSTRATE
from pathosyn.config import Config
from pathosyn.networks import SubstrateNetwork
from pathosyn.protocol import Method, Stage
from pathosyn.types import Controls, Image, LesionBatch, Mask, Soft, Synthesis


@dataclass(frozen=True)
class Parts:
    """What Alg. 1 and 2 need of a batch, under one composition. `known` is 1 on contrasts that the subject has (B, C, 1, 1)."""

    support: Mask
    S: Soft
    known: Image


class Framework(Method):
    """f_sub and the statistics of r_0 (buffers: `r_scale`, `r_max`, both (C,)); a method adds what draws r_0."""

    r_scale: Tensor
    r_max: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        contrasts = len(config.contrasts)
        self.sub = SubstrateNetwork(contrasts, config.networks.sub, fill=config.method.fill)
        self.register_buffer("r_scale", torch.ones(contrasts))
        self.register_buffer("r_max", torch.zeros(contrasts))

    @property
    def rough(self) -> bool:
        """Whether roughness is among what is drawn."""
        return False

    @property
    def one_call(self) -> bool:
        """Whether one call draws, where no number of calls is asked for."""
        return False

    def calls(self, steps: int | None = None) -> int:
        """Of the network that draws: as many as asked for, or else as the weights say."""
        return steps or (1 if self.one_call else self.config.method.steps)

    def parts(self, batch: LesionBatch) -> Parts:
        """Support and blend map: (D, S) in `default`, (m, G_σ∗m) in `paper`."""
        known = batch.present[:, :, None, None].to(batch.x.dtype)
        return Parts(batch.m, self.smoothed(batch.m), known) if self.config.method.composition == "paper" else Parts(batch.D, batch.S, known)

    def smoothed(self, m: Mask) -> Soft:
        """G_σ∗m, which is the paper's S and of which Eq. 11 makes the ring."""
        return decomposition.smooth(m, sigma=self.config.method.sigma_px)

    def substrate(self, x: Image, hidden: Mask, known: Image) -> Image:
        """f_sub(x ⊙ (1 - hidden), 1 - hidden): nothing of x under `hidden` reaches the network. Missing contrasts come out as 0."""
        return self.sub(x * known, 1.0 - hidden, known.expand(-1, -1, *x.shape[2:])) * known

    def given(self, batch: LesionBatch, parts: Parts, *, learns: bool) -> Image:
        """f on a training batch: what was made beforehand where it was. Only where f_sub learns does a gradient reach it: elsewhere one through r_0 could
        but teach it to copy the lesion."""
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return self.substrate(batch.x, parts.support, parts.known) if batch.x_sub is None else batch.x_sub

    @torch.no_grad()
    def fill(self, batch: LesionBatch) -> Image:
        """f on each window, (B, C, H, W)."""
        parts = self.parts(batch)
        return self.substrate(batch.x, parts.support, parts.known)

    def condition(self, x: Image, x_sub: Image, m: Mask, parts: Parts) -> Image:
        """What a deviation is drawn from, (B, 2C + 2, H, W). paper: x_sub and m. default: x_sub inside D with the scan itself around it, whose noise and
        sharpness the lesion must share, m and S. Both: which contrasts are there."""
        flags = parts.known.expand(-1, -1, *x.shape[2:])
        if self.config.method.composition == "paper":
            return torch.cat([x_sub, m, torch.zeros_like(m), flags], dim=1)
        if self.config.method.context == "blend":
            around = decomposition.heal(x * parts.known, x_sub, parts.S)
        else:
            around = torch.where(parts.support > 0, x_sub, x * parts.known)
        return torch.cat([around, m, parts.S, flags], dim=1)

    def to_scaled(self, r: Image) -> Image:
        """Normalised units → the units in which r_0 is drawn: Eq. 5 where asked for, then division by the RMS on the support."""
        delta = self.config.method.tanh_delta
        return (decomposition.saturate(r, delta=delta) if delta else r) / self.r_scale.view(1, -1, 1, 1)

    def from_scaled(self, r: Image) -> Image:
        """The inverse of `to_scaled`, except that Eq. 5 is not undone: the print never does (DESIGN §3, 7)."""
        return r * self.r_scale.view(1, -1, 1, 1)

    def bound(self) -> Tensor | None:
        """±k at which a drawn r_0 is clamped, in its units, (1, C, 1, 1); None where the method does not ask."""
        return self.r_max.view(1, -1, 1, 1) if self.config.method.clamp_quantile else None

    def learn_substrate(self, share: float) -> Stage:
        """f_sub's stage: on healthy holes, with contrasts hidden now and then, since a user's scan may be a T1 alone."""
        return Stage("substrate", ("sub",), share, self.holes, hide=HIDE_SUBSTRATE)

    def holes(self, progress: float) -> float:
        """Share of healthy holes while f_sub learns alone: half of the windows are lesion windows at first, fading out over the warm-up."""
        return 1.0 - 0.5 * max(0.0, 1.0 - progress / max(self.config.method.warmup, 1e-9))

    def substrate_terms(self, x_sub: Image, batch: LesionBatch, parts: Parts) -> Tensor:
        """Eq. 3, a number."""
        lam, inside, outside = self.config.method.weights, parts.support * parts.known, (1.0 - parts.support) * parts.known
        return losses.substrate_loss(x_sub, batch.x, batch.x_ph, inside, outside, lam_out=lam.out, lam_in=lam.inside)

    def streams(self, batch: LesionBatch, seed: int) -> Sequence[torch.Generator]:
        """A generator a window, keyed by (seed, subject, z)."""
        return [rng.generator(seed, s, z) for s, z in zip(batch.subject, batch.z, strict=True)]

    def composed(self, batch: LesionBatch, x_sub: Image, r: Image, controls: Controls) -> Synthesis:
        """A drawn deviation (normalised units, 0 off the support) in its window: the scan's own lesion is taken out first, where it has one."""
        parts = self.parts(batch)
        has_lesion = (~batch.healthy)[:, None, None, None]
        kind, severity = self.config.method.composition, controls.severity
        redrawn = decomposition.heal(batch.x, x_sub, parts.S) + severity * parts.S * r
        x_hat = decomposition.recompose(batch.x, x_sub, r, parts.S, severity=severity, kind=kind)
        x_hat = torch.where(has_lesion & (kind == "preserve"), redrawn, x_hat)
        return Synthesis(x_hat=x_hat * parts.known, x_sub=x_sub, r=r, S=parts.S, m=batch.m, seeds=[controls.seed] * len(batch))
