"""Brain-LDM: Pinaya et al. 2022, "Brain imaging generation with latent diffusion models". Whole slices, drawn from noise.

The source makes volumes, conditioned on age, sex and volumes of brain and ventricles, which lesion data sets do not have. Here the denoiser is
shown the mask, the blend map and which contrasts there are, beside the noised code; two dimensions, as all methods in the comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pathosyn import diffusion, rng
from pathosyn.config import Config
from pathosyn.latents import LatentMethod, seen
from pathosyn.types import Controls, Image, LesionBatch, Soft, Synthesis


class BrainLdm(LatentMethod):
    """An autoencoder of slices and the diffusion of its code, given a mask. Nothing of the given slice is in what is drawn."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, condition=2 + len(config.contrasts))

    @property
    def empty(self) -> float:
        """The draw's healthy counterpart is drawn with an empty mask, which has to be learned."""
        return self.settings.empty

    def condition(self, m: Soft, S: Soft, known: Image) -> Tensor:  # noqa: N803 - the paper's letter
        """m, S and the flags on the code's grid, (B, 2 + C, h, w)."""
        marks = self.cells(torch.cat([m, S], dim=1))
        return torch.cat([marks, known.expand(-1, -1, *marks.shape[2:])], dim=1)

    def diffusion_terms(self, batch: LesionBatch, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Eq. 9 on the code. A hole over healthy tissue is no lesion: such slices come with an empty mask."""
        x, known = seen(batch)
        lesion = (~batch.healthy).to(x.dtype)[:, None, None, None]
        with torch.no_grad():
            code = self.encode(x, known)
        return self.noised_terms(code, self.condition(batch.m * lesion, batch.S * lesion, known), streams)

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Two slices from the same noise, one with the mask and one with an empty one: x_sub is the second, r the difference, all over the slice."""
        _, known = seen(batch)
        marks = self.condition(batch.m, batch.S, known)
        both = torch.cat([marks, self.condition(torch.zeros_like(batch.m), torch.zeros_like(batch.S), known)])
        noise = rng.normal(self.streams(batch, controls), (self.settings.code, *marks.shape[2:])).to(batch.x.device).repeat(2, 1, 1, 1)
        code = diffusion.sample_deviation(
            lambda z, t: self.estimate(z, both, t), lambda _: noise, torch.ones_like(noise[:, :1]), self.schedule, self.times(steps), solver="ddim"
        )
        drawn, x_sub = self.decode(code, known.repeat(2, 1, 1, 1)).chunk(2)
        r = drawn - x_sub
        return Synthesis(x_hat=x_sub + controls.severity * r, x_sub=x_sub, r=r, S=batch.S, m=batch.m, seeds=[controls.seed] * len(batch))
