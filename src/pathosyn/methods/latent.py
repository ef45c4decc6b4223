"""Brain-LDM: Pinaya et al. 2022, "Brain imaging generation with latent diffusion models". Whole slices, drawn from noise.

The source makes volumes, conditioned on age, sex and volumes of brain and ventricles. Here the denoiser is shown, beside the noised code, the mask, the
blend map, where the given slice's head lies in place of a brain's volume, what its air holds, and which contrasts there are; two dimensions, as all methods in
the comparison. So a lesion lies in the head that is drawn for it; nothing else of the given slice is in what is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pathosyn import diffusion, rng
from pathosyn.config import Config
from pathosyn.framework.latents import LatentMethod, air, head, seen
from pathosyn.types import Controls, LesionBatch, Synthesis


class BrainLdm(LatentMethod):
    """An autoencoder of slices and the diffusion of its code, given a mask and the outline of a head."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, condition=3 + 2 * len(config.contrasts))

    @property
    def empty(self) -> float:
        """The draw's healthy counterpart is drawn with an empty mask, which has to be learned."""
        return self.settings.empty

    def condition(self, batch: LesionBatch, lesion: Tensor) -> Tensor:
        """m and S times `lesion` (B, 1, 1, 1), the head, the flags and the air on the code's grid, (B, 3 + 2C, h, w)."""
        x, known = seen(batch)
        marks = self.cells(torch.cat([batch.m * lesion, batch.S * lesion, head(x, known)], dim=1))
        scan = torch.cat([known, air(x)], dim=1)
        return torch.cat([marks, scan.expand(-1, -1, *marks.shape[2:])], dim=1)

    def diffusion_terms(self, batch: LesionBatch, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Eq. 9 on the code. A hole over healthy tissue is no lesion: such slices come with an empty mask."""
        lesion = (~batch.healthy).to(batch.x.dtype)[:, None, None, None]
        code = self.once(batch, self.coded, "x", "present")
        return self.noised_terms(code, self.condition(batch, lesion), streams)

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Two slices from the same noise, one with the mask and one with an empty one: x_sub is the second, r the difference, all over the slice."""
        _, known = seen(batch)
        there = torch.ones_like(known[:, :1])
        marks = self.condition(batch, there)
        both = torch.cat([marks, self.condition(batch, 0.0 * there)])
        noise = rng.normal(self.streams(batch, controls), (self.settings.code, *marks.shape[2:])).to(batch.x.device).repeat(2, 1, 1, 1)
        code = diffusion.sample_deviation(
            lambda z, t: self.estimate(z, both, t), lambda _: noise, torch.ones_like(noise[:, :1]), self.schedule, self.times(steps), solver="ddim"
        )
        drawn, x_sub = self.decode(code, known.repeat(2, 1, 1, 1)).chunk(2)
        r = drawn - x_sub
        return Synthesis(x_hat=x_sub + controls.severity * r, x_sub=x_sub, r=r, S=batch.S, m=batch.m, seeds=[controls.seed] * len(batch))
