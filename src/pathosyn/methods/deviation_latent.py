"""PathoSyn in latent space: the diffusion of Alg. 1 on the code of r_0 under pre-trained E_r and D_r, its input in print, which no equation uses again.

code       z_0 = a sample of E_r(r_0, condition) on a grid of 1/16, each number with mean 0 and spread 1 over the training lesions
denoiser   eps_theta([z_t, the condition averaged over each cell], t)
deviation  r̂ = D_r(ẑ_0, condition) ⊙ D

f_sub, E_r and D_r are those of `vaegan` weights and stay as they are. The paper leaves open in which space its figures were made (DESIGN §3, 17); its
equations are those of `space="pixel"`. A sample of the code and not its mean: samples are what D_r learned to read, and a number that E_r does not use is
then unit noise, which is easily drawn, and not a tiny mean blown up. Eq. 9 alone: Eqs. 13 and 14 are what E_r and D_r learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pathosyn import diffusion, losses, rng
from pathosyn.config import Config
from pathosyn.framework.codes import Code
from pathosyn.framework.coding import CELL, Coding
from pathosyn.networks import DeviationNetwork
from pathosyn.protocol import Stage
from pathosyn.types import Controls, Image, LesionBatch, Synthesis

FARTHEST = 4.0
"""Standard deviations at which a drawn number of the code is held."""
FIELDS = 1000
"""Between the numbers of the noise fields from which one call draws: a field has a contrast's channels each, a code has more."""

GRAIN = -1
"""Number of the noise field of which D_r's grain is made: calls count from 0 up."""


class LatentPathoSyn(Coding):
    """f_sub, E_r, D_r, the code's statistics (buffers) and the network that diffuses it: the two deepest levels of `networks.eps`, since the smallest grid of
    codes, 2 × 2, can be halved once."""

    code_mean: Tensor
    code_std: Tensor
    looking = False
    """It is not told what a lesion is to look like."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        method, latent = config.method, config.compared.vaegan.latent
        if method.prediction == "eps" and method.zero_terminal_snr:
            raise ValueError("prediction='eps' cannot start at zero SNR, where z_T holds no code: set zero_terminal_snr=False")
        self.eps = DeviationNetwork(latent, 2 * len(config.contrasts) + 2, config.networks.eps[-2:], config.networks.blocks)
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_std", torch.ones(latent))
        self.schedule = diffusion.linear_schedule(method.timesteps, start=method.beta_start, end=method.beta_end, zero_terminal_snr=method.zero_terminal_snr)

    @property
    def stages(self) -> Sequence[Stage]:
        """One: f_sub is E_r's and D_r's, and another would leave another deviation. Twice the windows: the network is small, and cells are few."""
        return (Stage("deviation", ("eps",), 1.0, lambda _: 0.0, filled=True, varied=True, windows=2),)

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """`eps`."""
        return {"eps": (self.eps,)}[player]

    @torch.no_grad()
    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Mean and spread of the code's numbers over the cells of training lesions; what is known already stays. The units of r_0 are E_r's."""
        if bool(self.code_mean.any()):
            return {}
        means, variances = [], []
        for batch in batches:
            parts = self.parts(batch)
            coded = self.coded(batch, parts, self.fill(batch) if batch.x_sub is None else batch.x_sub)
            there = coded.there[:, 0] > 0
            means.append(coded.mean.permute(0, 2, 3, 1)[there].cpu())
            variances.append(coded.log_var.exp().permute(0, 2, 3, 1)[there].cpu())
        self.code_mean.copy_(torch.cat(means).mean(dim=0))
        self.code_std.copy_((torch.cat(means).var(dim=0, correction=0) + torch.cat(variances).mean(dim=0)).sqrt())
        return {"code_mean": self.code_mean.tolist(), "code_std": self.code_std.tolist()}

    def estimate(self, z_t: Code, shown: Image, t: Tensor) -> tuple[Code, Code]:
        """The network's output and the ẑ_0 that it means."""
        output = self.eps(z_t, shown, t).float()
        return output, diffusion.predict_r0(z_t, output, t, self.schedule, prediction=self.config.method.prediction)

    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Eq. 9 on the code, on the cells of lesion windows that hold any of the support; `code`: how far ẑ_0 is off, on average."""
        method, parts = self.config.method, self.parts(batch)
        with torch.no_grad():
            coded = self.coded(batch, parts, self.fill(batch) if batch.x_sub is None else batch.x_sub)
            code = coded.sample(self._white(rng, coded.mean))
            z_0 = (code - _spread(self.code_mean)) / _spread(self.code_std) * coded.cells
        t = diffusion.training_times(_times(rng, self.schedule.T), self.schedule.T, times=method.times).to(z_0.device)
        eps = self._white(rng, z_0)
        z_t = diffusion.diffuse(z_0, t, eps, coded.cells, self.schedule)
        output, z_0_hat = self.estimate(z_t, avg_pool2d(coded.condition, CELL), t)
        wanted = diffusion.target(z_0, eps, t, self.schedule, prediction=method.prediction)
        diff = losses.diffusion_loss(wanted, output, coded.there)
        return {"diff": diff, "code": losses.masked_mean((z_0_hat - z_0).abs(), coded.there), "loss": diff}

    def _white(self, streams: Sequence[torch.Generator], like: Code) -> Code:
        return rng.normal(streams, tuple(like.shape[1:])).to(like.device)

    # -- synthesis ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, batch: LesionBatch, x_sub: Image, noise: Callable[[int], Image], *, look: Tensor | None = None, steps: int | None = None) -> Image:
        """As `PathoSyn.draw`, which knows a `look`: a deviation in normalised units, 0 outside the support. `batch.x` is the scan without lesion; `noise(k)` is
        (B, C, H, W) and is averaged over the cells."""
        method, parts, latent = self.config.method, self.parts(batch), len(self.code_mean)
        condition, cells = self.condition(batch.x, x_sub, batch.m, parts), self.cells(parts)
        shown, several = avg_pool2d(condition, CELL), -(-latent // batch.x.shape[1])

        def over_cells(k: int) -> Code:
            fields = torch.cat([noise(k + FIELDS * field) for field in range(several)], dim=1)[:, :latent]
            # The mean of 16² unit normals, brought back to unit variance: the volume's noise field decides here too.
            return avg_pool2d(fields, CELL) * CELL

        times = diffusion.sampling_times(self.schedule.T, steps or method.steps, spacing=method.spacing)
        z_0 = diffusion.sample_deviation(
            lambda z, t: self.estimate(z, shown, t)[1],
            over_cells,
            cells,
            self.schedule,
            times,
            solver=method.solver,
            eta=method.eta,
            clamp=torch.full((1, 1, 1, 1), FARTHEST, device=cells.device),
        )
        code = (z_0 * _spread(self.code_std) + _spread(self.code_mean)) * cells
        return self.finished(self.decoded(code, condition, batch.x, parts, noise(GRAIN)), parts)

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Draw one lesion a window. Noise is keyed by (seed, subject, z)."""
        x_sub, streams = self.fill(batch), self.streams(batch, controls.seed)
        r = self.draw(batch, x_sub, lambda _: self._white(streams, batch.x), steps=steps)
        return self.composed(batch, x_sub, r, controls)


def _times(streams: Sequence[torch.Generator], last: int) -> Tensor:
    return rng.integers(streams, 1, last)


def _spread(values: Tensor) -> Tensor:
    """(K,) as (1, K, 1, 1)."""
    return values.view(1, -1, 1, 1)
