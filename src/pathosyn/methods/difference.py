"""Difference GAN: a bounded difference in one pass, in the form of FreeTumor (Wu et al., Nature Communications 2025), re-implemented in this framework.

substrate   f = f_sub(x ⊙ (1 - D), 1 - D)
generator   r̂ = κ tanh(G([noise, f inside D with the scan around, m, S, which contrasts]) / κ) ⊙ D
composed    x̂ = x + S ⊙ (f + r̂ - x)

What the source does: volume - blur(mask) · tanh(G(volume)) · texture, with volumes in [0, 1], a mask that G does not see, and a texture that is noise made
beforehand; a discriminator that knows real from synthetic tumours; and as its main loss a frozen segmentor, which must find the tumour. It keeps a
draw only if that segmentor finds more than .7 of it.

What is ours: S in place of the blurred mask and κ, the largest |r_0| of the training data, in place of 1; G is eps_theta's U-Net, called once, with m and S
among what it sees, and noise as an input in place of the texture; the critic is the one of PathoSyn's last stage, with the hinge loss. There is no
segmentor: neither its loss nor the filter, which would hide from an evaluation the draws that fail (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from pathosyn import augment, decomposition, losses, rng
from pathosyn.config import Config
from pathosyn.errors import refuse
from pathosyn.framework.base import Framework, Parts
from pathosyn.lesion import scale
from pathosyn.networks import Critic, DeviationNetwork
from pathosyn.protocol import Stage
from pathosyn.types import Controls, Image, LesionBatch, Mask, Synthesis

Streams = Sequence[torch.Generator]


class DifferenceGan(Framework):
    """f_sub, the generator and, while it trains, the critic. InputError for settings that leave the difference without a bound, or
    without noise."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not config.method.clamp_quantile:
            remedy = "add --m.clamp-quantile 0.9999, or use --preset default"
            raise refuse("--m.clamp-quantile", found="0: no bound", expected="a bound for the difference", remedy=remedy)
        contrasts, cells = len(config.contrasts), config.compared.difference.cells
        if not cells or min(cells) < 1:
            found = " ".join(map(str, cells)) or "no size"
            raise refuse("--compared.difference.cells", found=found, expected="sizes in pixels, 1 or more", remedy="give 1 8 32, say")
        # The noise stands where r_t stands for eps_theta.
        seen = 2 * contrasts + 2 + contrasts * (len(cells) - 1)
        self.generator = DeviationNetwork(contrasts, seen, config.networks.eps, config.networks.blocks)
        self.critic = Critic(contrasts, config.networks.critic)

    @property
    def stages(self) -> Sequence[Stage]:
        """f_sub on healthy holes; the generator alone; the generator against the critic."""
        share, settings = self.config.train.substrate_share, self.config.compared.difference
        warm = (1.0 - share) * settings.warm_up
        stages = (
            self.learn_substrate(share),
            Stage("warm-up", ("warm",), warm, lambda _: 0.0, varied=True),
            # Not `filled`: beside a hole there would be the scan itself, not the answer of f_sub.
            Stage("adversarial", ("critic", "difference"), 1.0 - share - warm, lambda _: settings.healthy, betas=(0.5, 0.99), varied=True),
        )
        return tuple(stage for stage in stages if stage.share > 0)

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """`sub`; `warm` and `difference`, the generator before and against the `critic`."""
        named: dict[str, nn.Module | None] = {"sub": self.sub, "warm": self.generator, "difference": self.generator, "critic": self.critic}
        return tuple(module for module in (named[player],) if module is not None)

    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Before the generator learns: RMS and extreme of r_0, its units and κ."""
        return scale.measure(self, stage, batches)

    # -- the pieces -----------------------------------------------------------------------------------------------------------------

    def noise(self, streams: Streams, like: Image) -> Image:
        """(B, C · cells, H, W): unit noise in cells of each size, smooth between them."""
        contrasts, height, width = like.shape[1:]
        maps = []
        for cell in self.config.compared.difference.cells:
            drawn = rng.normal(streams, (contrasts, max(1, height // cell), max(1, width // cell)))
            maps.append(drawn if cell == 1 else interpolate(drawn, size=(height, width), mode="bilinear"))
        return torch.cat(maps, dim=1).to(like.device)

    def difference(self, batch: LesionBatch, x_sub: Image, parts: Parts, noise: Image) -> Image:
        """r̂ in units of r_0's RMS, (B, C, H, W): within ±κ, 0 off the support and on missing contrasts."""
        once = torch.zeros(len(batch), device=batch.x.device)
        output = self.generator(noise, self.condition(batch.x, x_sub, batch.m, parts), once).float()
        bound = self.r_max.view(1, -1, 1, 1)
        return bound * torch.tanh(output / bound.clamp(min=1e-6)) * parts.support * parts.known

    def composition(self, batch: LesionBatch, x_sub: Image, parts: Parts, r: Image) -> Image:
        """x̂ of a deviation in units of r_0's RMS."""
        return decomposition.recompose(batch.x, x_sub, self.from_scaled(r), parts.S, kind=self.config.method.composition)

    # -- training -------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: LesionBatch, *, player: str, rng: Streams) -> dict[str, Tensor]:
        """`sub`: Eq. 3. `warm`: L1 to r_0. `critic` and `difference`: the hinge game, with f_sub fixed."""
        parts = self.parts(batch)
        x_sub = self.given(batch, parts, learns=player == "sub")
        if player == "sub":
            terms = {"sub": self.substrate_terms(x_sub, batch, parts)}
            return {**terms, "loss": terms["sub"]}
        if player == "critic":
            return self._critic_terms(batch, x_sub, parts, rng)
        return self._generator_terms(batch, x_sub, parts, rng, judged=player == "difference")

    def _critic_terms(self, batch: LesionBatch, x_sub: Image, parts: Parts, streams: Streams) -> dict[str, Tensor]:
        """Real lesions against drawn ones: at their own places, and on healthy tissue."""
        with torch.no_grad():
            fake = self.composition(batch, x_sub, parts, self.difference(batch, x_sub, parts, self.noise(streams, batch.x)))
        shifts, real, penalty = self._shifts(streams), ~batch.healthy, self.config.compared.difference.r1
        of_fake = self._scores(fake, batch.m, parts.S, parts.known, shifts)
        of_real, x = [fake.new_zeros(0)] * 2, batch.x[real]  # nothing real to show where all are holes
        if len(x):
            x = x.detach().requires_grad_(penalty > 0)
            of_real = list(self._scores(x, batch.m[real], parts.S[real], parts.known[real], shifts[real.cpu()]))
        terms = {name: losses.critic_loss(*both) for name, both in zip(("critic_patch", "critic_whole"), zip(of_real, of_fake, strict=True), strict=True)}
        loss = terms["critic_patch"] + terms["critic_whole"]
        if penalty:
            patches = avg_pool2d((parts.S[real] > 0).to(x.dtype), 4).sum(dim=(1, 2, 3))
            terms["slope"] = losses.slope(of_real[0], x, patches) + losses.slope(of_real[1], x, torch.ones_like(patches))
            loss = loss + 0.5 * penalty * terms["slope"]
        return {**terms, "loss": loss}

    def _generator_terms(self, batch: LesionBatch, x_sub: Image, parts: Parts, streams: Streams, *, judged: bool) -> dict[str, Tensor]:
        """`judged`: the critic's word, what is held of r_0 and how far two draws lie apart; else L1 to r_0. The others are logged."""
        settings = self.config.compared.difference
        drawn = self.difference(batch, x_sub, parts, self.noise(streams, batch.x))
        # A healthy hole has no lesion to learn from.
        where = parts.support * parts.known * (~batch.healthy).to(batch.x.dtype)[:, None, None, None]
        r0 = self.to_scaled(decomposition.deviation(batch.x, x_sub, where))
        terms = {"pat": losses.masked_mean((drawn - r0).abs(), where), "low": losses.low_pass_loss(drawn, r0, where)}
        terms["nothing"] = losses.low_pass_loss(torch.zeros_like(r0), r0, where)  # `low` of no lesion at all
        if not judged:
            return {**terms, "loss": terms["pat"]}
        x_hat = self.composition(batch, x_sub, parts, drawn)
        patch, whole = self._scores(x_hat, batch.m, parts.S, parts.known, self._shifts(streams))
        terms["adversary"] = -losses.mean_or_0(patch) - whole.mean()
        loss = settings.adversary * terms["adversary"] + settings.anchor * terms["low"]
        # Logged where nothing depends on it, too: a generator that is deaf to its noise is the usual failure.
        with torch.set_grad_enabled(settings.seek > 0 and torch.is_grad_enabled()):
            other = self.difference(batch, x_sub, parts, self.noise(streams, batch.x))
            terms["spread"] = losses.low_pass_loss(other, drawn, parts.support * parts.known)
        return {**terms, "loss": loss + settings.seek * (settings.apart - terms["spread"]).clamp(min=0.0)}

    def _shifts(self, streams: Streams) -> Tensor:
        """(B, 2), each 0…7 pixels."""
        return torch.stack([rng.integers(streams, 0, 7), rng.integers(streams, 0, 7)], dim=1)

    def _scores(self, x: Image, m: Mask, S: Mask, known: Image, shifts: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N803 - the paper's letter
        """The critic's scores of patches and windows that are moved by `shifts`: its patches lie on a grid, on which dots could be set that suit them."""
        assert self.critic is not None
        moved = [augment.rolled(field, shifts) for field in (x * known, m, S)]
        return self.critic(*moved, known.expand_as(x))

    # -- synthesis ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """One pass; `steps` has no meaning here. Noise is keyed by (seed, subject, z), so a window draws the same lesion in any batch."""
        parts = self.parts(batch)
        x_sub = self.substrate(batch.x, parts.support, parts.known)
        r = self.difference(batch, x_sub, parts, self.noise(self.streams(batch, controls.seed), batch.x))
        return self.composed(batch, x_sub, self.from_scaled(r), controls)
