"""PathoSyn: VAE-GAN, the patch-wise VAE-GAN that the paper puts into PathoSyn's own framework (Implementation Details; its ref. 35 is Gur et al. 2020).

code        E_r(r_0, condition) on a grid of 1/16, 8 numbers a cell: 128 for a patch of 64 × 64 pixels, the paper's latent of 128
deviation   r̂ = D_r(code, condition) ⊙ D
draw        code ~ N(0, I)

f_sub, S, the units of r and the composition are PathoSyn's, and so are the losses on r: Eq. 15 with the squared error of r̂ in the place of Eq. 9. The paper
gives the size of the code, the PatchGAN and λ_adv = 0.1. It leaves open the KL's weight, what E_r and D_r see besides, what the critic judges and when.
Ours: both see what eps_theta sees, the grain D_r alone; the critic judges reconstructions and draws from the prior, half each, from a second stage on, and
its slope at real windows is priced (R1). One scale, not the hierarchy of Gur et al., whose coarse scales are what S and f are here. Staged, also under
`joint`: a code of a deviation that still moves codes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pathosyn import augment, decomposition, diffusion, losses, rng
from pathosyn.config import Config
from pathosyn.framework.base import Parts
from pathosyn.framework.codes import Code, PatchGan
from pathosyn.framework.coding import CELL, Coded, Coding
from pathosyn.lesion import scale
from pathosyn.protocol import Stage
from pathosyn.types import Controls, Image, LesionBatch, Synthesis


class VaeGan(Coding):
    """f_sub, E_r, D_r and the critic."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.critic = PatchGan(len(config.contrasts), config.networks.critic) if config.compared.vaegan.adversary else None

    @property
    def stages(self) -> Sequence[Stage]:
        """f_sub on healthy holes as PathoSyn's; E_r and D_r alone; then with the critic."""
        share, settings = self.config.train.substrate_share, self.config.compared.vaegan
        against = (1.0 - share) * settings.adversary_share if settings.adversary else 0.0
        stages = (
            self.learn_substrate(share),
            Stage("vae", ("vae",), 1.0 - share - against, lambda _: 0.0, filled=True, varied=True),
            Stage("adversary", ("critic", "gan"), against, lambda _: 0.0, betas=(0.5, 0.99), filled=True, varied=True),
        )
        return tuple(stage for stage in stages if stage.share > 0)

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """`sub`; `vae`, and `gan`: E_r and D_r without and with a critic; `critic`."""
        pair = (self.encoder, self.decoder)
        named: dict[str, tuple[nn.Module | None, ...]] = {"sub": (self.sub,), "vae": pair, "gan": pair, "critic": (self.critic,)}
        return tuple(module for module in named[player] if module is not None)

    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Before r is learned: the statistics of r_0 (`scale.measure`)."""
        return {} if stage == "adversary" else scale.measure(self, stage, batches)

    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """`sub`: Eq. 3. `vae`: the error of r̂ from a sample of its code, and the KL. `gan`: and the critic's word. `critic`: the hinge loss."""
        parts = self.parts(batch)
        x_sub = self.given(batch, parts, learns=player == "sub")
        if player == "sub":
            terms = {"sub": self.substrate_terms(x_sub, batch, parts)}
            return {**terms, "loss": terms["sub"]}
        with torch.set_grad_enabled(player != "critic" and torch.is_grad_enabled()):
            coded = self.coded(batch, parts, x_sub)
            code, white = coded.sample(self._noise(batch, rng)), self._white(batch, rng)
            r_hat = self.decoded(code, coded.condition, batch.x, parts, white)
            made = [self.window(batch, parts, x_sub, r_hat)]
            if player != "vae":
                drawn = self.decoded(self._noise(batch, rng) * coded.cells, coded.condition, batch.x, parts, white)
                made.append(self.window(batch, parts, x_sub, drawn))
        if player == "critic":
            return self._critic_terms(batch, parts, coded, made, rng)
        terms = self._terms(batch, parts, coded, r_hat, made[0])
        if player == "gan":
            scores, inside = self._scores([made[0], made[1]], batch, parts, coded, rng)
            terms["adversary"] = -0.5 * sum((losses.masked_mean(score, inside) for score in scores), scores[0].new_zeros(()))
            terms["loss"] = terms["loss"] + self.config.compared.vaegan.adversary * terms["adversary"]
        return terms

    def _terms(self, batch: LesionBatch, parts: Parts, coded: Coded, r_hat: Image, x_hat: Image) -> dict[str, Tensor]:
        """`rec`, the squared error of r̂, Eq. 13, L_syn and the KL in nats a cell; their sum by the λ's of Eq. 15. `left` is logged: the share of its own
        window's r_0 that r̂ does not explain, in power; r̂ = 0 leaves 1."""
        lam, printed = self.config.method.weights, self.config.method.composition == "paper"
        where = parts.support * coded.known
        terms = losses.deviation_loss(
            r_hat,
            coded.r0,
            where,
            decomposition.ring(self.smoothed(batch.m)) * (coded.known if printed else where),
            (1.0 - parts.support) * coded.known,
            lam_pat=lam.pat,
            lam_ring=lam.ring,
            lam_leak=lam.leak,
        )
        error = (r_hat - coded.r0) ** 2
        terms["rec"] = losses.masked_mean(error, where)
        terms["syn"] = losses.synthesis_loss(x_hat, batch.x, parts.S * (coded.known if printed else where))
        with torch.no_grad():
            power = coded.r0.square().sum(dim=(1, 2, 3))
            terms["left"] = ((error * where).sum(dim=(1, 2, 3)) / power.clamp(min=1e-12)).where(power > 0, power.new_zeros(())).mean()
        terms["kl"] = losses.masked_mean(coded.kl(), coded.there) * coded.mean.shape[1]
        loss = losses.total_loss(sub=0.0, diff=terms["rec"], dev=terms["dev"], syn=terms["syn"], lam_diff=lam.diff, lam_dev=lam.dev, lam_syn=lam.syn)
        nats = (coded.kl() * coded.there).sum(dim=(1, 2, 3)) / coded.there.sum(dim=(1, 2, 3)).clamp(min=1e-12)
        settings = self.config.compared.vaegan
        return {**terms, "loss": loss + settings.kl * (nats - settings.free).clamp(min=0.0).mean()}

    def _critic_terms(self, batch: LesionBatch, parts: Parts, coded: Coded, made: Sequence[Image], streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """The hinge loss: real windows against reconstructions and draws, half each; and what `r1` makes of the critic's slope at real windows."""
        penalty = self.config.compared.vaegan.r1
        x = batch.x.detach().requires_grad_(penalty > 0)
        (real, *fakes), inside = self._scores([x, *made], batch, parts, coded, streams)
        terms = {"critic_real": losses.masked_mean((1.0 - real).clamp(min=0.0), inside)}
        for name, fake in zip(("critic_rec", "critic_drawn"), fakes, strict=True):
            terms[name] = losses.masked_mean((1.0 + fake).clamp(min=0.0), inside)
        loss = terms["critic_real"] + 0.5 * (terms["critic_rec"] + terms["critic_drawn"])
        if penalty:
            terms["slope"] = losses.slope(real * inside, x, inside.sum(dim=(1, 2, 3)))
            loss = loss + 0.5 * penalty * terms["slope"]
        return {**terms, "loss": loss}

    def _scores(
        self, windows: Sequence[Image], batch: LesionBatch, parts: Parts, coded: Coded, streams: Sequence[torch.Generator]
    ) -> tuple[list[Tensor], Tensor]:
        """The critic's maps of windows that are moved alike by 0…3 pixels, since its patches lie on a grid of 4; and 1 on the patches that count: elsewhere
        a window is the scan itself."""
        assert self.critic is not None
        shifts = torch.stack([rng.integers(streams, 0, 3), rng.integers(streams, 0, 3)], dim=1)
        m, S = (augment.rolled(field, shifts) for field in (batch.m, parts.S))  # noqa: N806 - the paper's letter
        flags = parts.known.expand_as(batch.x)
        scores = [self.critic(augment.rolled(window * parts.known, shifts), m, S, flags) for window in windows]
        lesion = coded.known.amax(dim=1, keepdim=True)
        return scores, (avg_pool2d((S > 0).to(scores[0].dtype), 4) >= 0.5) * lesion

    def _noise(self, batch: LesionBatch, streams: Sequence[torch.Generator]) -> Code:
        """N(0, I) on the grid of the code."""
        height, width = (side // CELL for side in batch.x.shape[2:])
        return rng.normal(streams, (self.config.compared.vaegan.latent, height, width)).to(batch.x.device)

    def _white(self, batch: LesionBatch, streams: Sequence[torch.Generator]) -> Image:
        """N(0, 1) at each pixel of each contrast, of which D_r's grain is made."""
        return rng.normal(streams, tuple(batch.x.shape[1:])).to(batch.x.device)

    def window(self, batch: LesionBatch, parts: Parts, x_sub: Image, r: Image) -> Image:
        """The window with r (scaled) on its support in the place of its own deviation."""
        r = self.from_scaled(diffusion.project(r, parts.support))
        return decomposition.recompose(batch.x, x_sub, r, parts.S, kind=self.config.method.composition)

    # -- synthesis ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """One lesion a window: a code from the prior, keyed by (seed, subject, z), and D_r. One pass: `steps` has no meaning here."""
        parts = self.parts(batch)
        x_sub = self.substrate(batch.x, parts.support, parts.known)
        condition = self.condition(batch.x, x_sub, batch.m, parts)
        streams = self.streams(batch, controls.seed)
        code = self._noise(batch, streams) * self.cells(parts)
        r = self.decoded(code, condition, batch.x, parts, self._white(batch, streams))
        return self.composed(batch, x_sub, self.finished(r, parts), controls)

    @torch.no_grad()
    def reconstruct(self, batch: LesionBatch) -> Synthesis:
        """The window's own lesion from the mean of its code: what the code can hold."""
        parts = self.parts(batch)
        x_sub = self.substrate(batch.x, parts.support, parts.known)
        coded = self.coded(batch, parts, x_sub)
        controls = Controls()
        white = self._white(batch, self.streams(batch, controls.seed))
        r = self.decoded(coded.mean * coded.cells, coded.condition, batch.x, parts, white)
        return self.composed(batch, x_sub, self.finished(r, parts), controls)
