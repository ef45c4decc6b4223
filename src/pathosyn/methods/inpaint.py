"""MaskDiff-Inpaint: Corneanu et al. 2024, "LatentPaint: image inpainting in latent space with diffusion models". The lesion is painted into a slice.

At every step of the draw the background of the code is that of the given slice, noised as far, and only the foreground is the denoiser's. The source
lets the background reach the foreground through small learned modules inside a denoiser that was trained before; ours is trained for the task, so it
is shown the background's code and the mask beside the noised code, at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from pathosyn import decomposition, diffusion, rng
from pathosyn.blocks.autoencoders import factor
from pathosyn.config import Config
from pathosyn.framework.latents import LatentMethod, seen
from pathosyn.networks import smooth_fill
from pathosyn.types import Controls, Image, LesionBatch, Mask, Synthesis


class MaskDiff(LatentMethod):
    """Nothing of the slice under the support is seen by the draw: there the slice is filled smoothly from around before it is encoded."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, condition=config.compared.latent.code + 2 + len(config.contrasts))

    def background(self, batch: LesionBatch) -> Tensor:
        """The code of the slice with what lies under the support filled smoothly, (B, code, h, w)."""
        x, known = seen(batch)
        return self.encode(smooth_fill(x, 1.0 - batch.D), known)

    def foreground(self, batch: LesionBatch) -> Mask:
        """1 on the cells of the code that the support touches, and on their neighbours, which know of it through the encoder, (B, 1, h, w)."""
        cell = factor(self.settings.widths)
        return max_pool2d(max_pool2d(batch.D, cell), 3, stride=1, padding=1)

    def condition(self, batch: LesionBatch, background: Tensor) -> Tensor:
        """The background's code, the support, m and the flags on the code's grid, (B, code + 2 + C, h, w)."""
        known = seen(batch)[1].expand(-1, -1, *background.shape[2:])
        return torch.cat([background, self.cells(torch.cat([batch.D, batch.m], dim=1)), known], dim=1)

    def diffusion_terms(self, batch: LesionBatch, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Eq. 9 on the slice's code within the foreground, put into the background's as at the draw; there it counts little."""
        where = self.foreground(batch)
        background = self.once(batch, self.background, "x", "S", "present")
        code = torch.where(where > 0, self.once(batch, self.coded, "x", "present"), background)
        return self.noised_terms(code, self.condition(batch, background), streams, where + self.settings.background * (1.0 - where))

    def paint(self, batch: LesionBatch, background: Tensor, streams: Sequence[torch.Generator], times: Sequence[int]) -> Tensor:
        """DDIM on the foreground, and the background's own code, with the noise of the start, put beside it after every step; with `resample` each
        step but the last is taken back by fresh noise and done anew (Lugmayr et al. 2022), (B, code, h, w)."""
        shape, condition, where = tuple(background.shape[1:]), self.condition(batch, background), self.foreground(batch)
        everywhere, start = torch.ones_like(where), rng.normal(streams, shape).to(background.device)
        code = start
        for now, then in pairwise(times):
            t, s = (torch.full((len(code),), time, device=code.device) for time in (now, then))
            beside = diffusion.diffuse(background, s, start, everywhere, self.schedule)
            for left in range(self.settings.resample if then > 0 else 0, -1, -1):
                drawn = diffusion.ddim_step(code, self.estimate(code, condition, t), t, s, torch.zeros_like(code), self.schedule)
                moved = torch.where(where > 0, drawn, beside)
                if left:
                    share = diffusion.at(self.schedule.alpha_bar, t) / diffusion.at(self.schedule.alpha_bar, s)
                    fresh = rng.normal(streams, shape).to(code.device)
                    code = share.sqrt().to(code.dtype) * moved + (1.0 - share).sqrt().to(code.dtype) * fresh
            code = moved
        return code

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """x_sub is the background's code, decoded: the method has no other idea of a healthy slice. r is the difference to the painted one, on the support.
        Both are put into the given slice through S; without `paste` they stay as they are decoded, everywhere."""
        (x, known), background = seen(batch), self.background(batch)
        painted = self.decode(self.paint(batch, background, self.streams(batch, controls), self.times(steps)), known)
        filled, severity = self.decode(background, known), controls.severity
        if self.settings.paste:
            r = decomposition.deviation(painted, filled, batch.D)
            x_sub, x_hat = filled, self.pasted(batch, x, filled, r, severity)
            x_sub = decomposition.heal(x, filled, batch.S)
        else:
            r = painted - filled
            x_sub, x_hat = filled, filled + severity * r
        return Synthesis(x_hat=x_hat, x_sub=x_sub, r=r, S=batch.S, m=batch.m, seeds=[controls.seed] * len(batch))

    def pasted(self, batch: LesionBatch, x: Image, filled: Image, r: Image, severity: float) -> Image:
        """As all other methods compose: the slice's own lesion is taken out first, where it has one."""
        has_lesion = (~batch.healthy)[:, None, None, None]
        redrawn = decomposition.heal(x, filled, batch.S) + severity * batch.S * r
        return torch.where(has_lesion, redrawn, decomposition.recompose(x, filled, r, batch.S, severity=severity))
