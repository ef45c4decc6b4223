"""What the methods on the code of a whole slice share: the autoencoder, the code's units, and the diffusion of it.

autoencoder  x → (μ, σ²) → z = μ + σ ε → x̂, by L1 and KL divergence and, in its last steps, local roughness and a critic of patches
code         (μ - mean) / std, channel by channel over the training slices, the quieter the less a channel brings to the image
denoiser     on [code_t, condition], DDIM

The diffusion sees each slice as it is or mirrored, so that there are two codes of it, made once: to code a slice costs more than a step of the denoiser on it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pathosyn import diffusion, losses, rng
from pathosyn.augment import mirrored
from pathosyn.blocks.autoencoders import GROUPS, PatchCritic, SliceDecoder, SliceEncoder, factor
from pathosyn.compared import Latent
from pathosyn.config import Config
from pathosyn.errors import Fault, InputError
from pathosyn.networks import DeviationNetwork, fine_detail
from pathosyn.protocol import Method, Stage
from pathosyn.types import Controls, Image, LesionBatch, Mask, Times

SLICES, CODES = 4, 16
"""Slices a step, in units of `batch_pixels`, of the autoencoder and of the diffusion, whose code is cheap."""
MEASURED = 8
"""Every so many batches of the training slices make the code's statistics."""
BLANK = 0.25
"""A pixel that differs less from the slice's border, in normalised units, is air."""
LOUDNESS = 0.5
"""Exponent of what a channel of the code brings to the image, beside the channel that brings most: the spread at which the denoiser sees it. With 0, all
alike, seven channels of detail that nobody can predict drown the one that holds the anatomy; with 1 they would vanish in the last step's noise."""
CLEAREST = 25.0
"""The most that an error of the code counts beside one at pure noise: the quietest channels, at a fifth of the loudest, show at that noise."""
KEPT = 2**15
"""Codes that a training keeps, 1 GiB of those of 256 × 256 pixels; beyond it they are made each time."""
CELL = 8
"""Pixels over which roughness is averaged."""


class Kept(dict[int, Tensor]):
    """Codes by the content that they are of. A copy of a method, as validation makes one, makes its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return Kept()


class LatentMethod(Method):
    """Encoder, decoder, denoiser and the code's statistics (buffers `code_mean`, `code_std`, a number a channel); a method says what the denoiser is shown."""

    code_mean: Tensor
    code_std: Tensor

    def __init__(self, config: Config, *, condition: int) -> None:
        """`condition`: channels that the denoiser is shown beside the code. InputError for settings that fit no network."""
        super().__init__(config)
        settings, contrasts = config.compared.latent, len(config.contrasts)
        refuse_unfit(settings)
        self.whole = settings.side
        sizes = settings.code, settings.widths, settings.blocks
        self.encoder, self.decoder = SliceEncoder(contrasts, *sizes), SliceDecoder(contrasts, *sizes)
        self.eps = DeviationNetwork(settings.code, condition, settings.denoiser, settings.blocks)
        self.critic = PatchCritic(contrasts, settings.critic) if settings.adversary and settings.adversary_share and settings.autoencoder_share else None
        self._kept = Kept()
        self.register_buffer("code_mean", torch.zeros(settings.code))
        self.register_buffer("code_std", torch.ones(settings.code))
        steps = config.method.timesteps, config.method.beta_start, config.method.beta_end
        self.schedule = diffusion.linear_schedule(steps[0], start=steps[1], end=steps[2], zero_terminal_snr=settings.prediction != "eps")

    @property
    def settings(self) -> Latent:
        """Of both methods."""
        return self.config.compared.latent

    @property
    def empty(self) -> float:
        """Share of slices without lesion in the diffusion's training."""
        return 0.0

    @property
    def stages(self) -> Sequence[Stage]:
        """The autoencoder on slices with and without lesion, the last of it with what sharpens; then the diffusion of its code, with the autoencoder fixed."""
        share, critic = self.settings.autoencoder_share, ("critic",) if self.critic is not None else ()
        judged = share * self.settings.adversary_share if critic or self.settings.detail else 0.0
        stages = (
            Stage("autoencoder", ("autoencoder",), share - judged, lambda _: 0.5, windows=SLICES),
            Stage("autoencoder-sharpen", (*critic, "judged"), judged, lambda _: 0.5, betas=(0.5, 0.99), windows=SLICES),
            Stage("diffusion", ("eps",), 1.0 - share, lambda _: self.empty, windows=CODES, plain=True),
        )
        return tuple(stage for stage in stages if stage.share > 0)

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """`autoencoder`, and `judged`: the same in its last steps; `critic`; `eps`, the denoiser."""
        both = (self.encoder, self.decoder)
        named = {"autoencoder": both, "judged": both, "eps": (self.eps,), "critic": (self.critic,)}
        return tuple(module for module in named[player] if module is not None)

    @torch.no_grad()
    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Before a fresh autoencoder learns: its linear way, and how well that gives the training slices back (PSNR in dB, a contrast). Before the diffusion:
        how well they are given back then, and the code's mean and spread over them."""
        fresh = not self.encoder.linear.kernels.any()
        if fresh:
            slices = torch.cat([seen(batch)[0] for batch in islice(batches, 0, None, MEASURED)])
            self.encoder.linear.measure(slices)
            self.decoder.linear.measure(slices, self.encoder.linear)
        if stage != "diffusion":
            return {"psnr": self._given_back(batches)[0]} if fresh else {}
        self._kept.clear()
        psnr, mean, std = self._given_back(batches)
        self.code_mean.copy_(mean)
        heard = (self.encoder.linear.spread / self.encoder.linear.spread.max()) ** LOUDNESS
        self.code_std.copy_(std / heard)
        return {"code_mean": self.code_mean.tolist(), "code_std": self.code_std.tolist(), "psnr": psnr}

    def _given_back(self, batches: Iterable[LesionBatch]) -> tuple[list[float], Tensor, Tensor]:
        """PSNR of the slices' reconstructions, a contrast, and their code's mean and spread, a channel."""
        total, squares, cells = torch.zeros_like(self.code_mean).double(), torch.zeros_like(self.code_mean).double(), 0
        given_back: list[list[float]] = [[] for _ in self.config.contrasts]
        for batch in islice(batches, 0, None, MEASURED):
            x, known = seen(batch)
            mean = self.encoder(x, known)[0]
            total, squares, cells = total + mean.double().sum((0, 2, 3)), squares + mean.double().square().sum((0, 2, 3)), cells + mean[:, 0].numel()
            back, everywhere = self.decoder(mean), known.expand_as(x)
            for c, row in enumerate(given_back):
                row += losses.psnr_inside(back[:, c : c + 1], x[:, c : c + 1], everywhere[:, c : c + 1])
        psnr = [sum(row) / len(row) if row else 0.0 for row in given_back]
        return psnr, total / cells, (squares / cells - (total / cells) ** 2).clamp(min=1e-12).sqrt()

    # -- the autoencoder ------------------------------------------------------------------------------------------------------------

    def coded(self, batch: LesionBatch) -> Tensor:
        """The code of the slices as they are, (B, code, h, w)."""
        return self.encode(*seen(batch))

    def encode(self, x: Image, known: Image) -> Tensor:
        """The mean of the code of x (B, C, H, W), 0 in missing contrasts, in the denoiser's units, (B, code, h, w)."""
        return (self.encoder(x, known)[0] - _channels(self.code_mean)) / _channels(self.code_std)

    def decode(self, code: Tensor, known: Image) -> Image:
        """The way back; 0 in missing contrasts."""
        return self.decoder(code * _channels(self.code_std) + _channels(self.code_mean)) * known

    @torch.no_grad()
    def reconstruct(self, batch: LesionBatch) -> Image:
        """What the autoencoder makes of given slices, (B, C, H, W): Fig. 4's reconstruction."""
        x, known = seen(batch)
        return self.decode(self.encode(x, known), known)

    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """`autoencoder`, `judged` and `critic`: of the autoencoder. `eps`: of the diffusion."""
        if player != "eps":
            return self.autoencoder_terms(batch, player, rng)
        return self.diffusion_terms(mirrored(batch, rng), rng)

    def autoencoder_terms(self, batch: LesionBatch, player: str, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """L1 and KL; with roughness and the critic's word for `judged`; the critic's own loss. In validation: PSNR on slice and head, dB."""
        settings, (x, known) = self.settings, seen(batch)
        inside = head(x, known)
        with torch.set_grad_enabled(player != "critic" and torch.is_grad_enabled()):
            mean, log_variance = self.encoder(x, known)
            noise = rng.normal(streams, tuple(mean.shape[1:])).to(mean.device)
            back = self.decoder(mean + (0.5 * log_variance).exp() * noise) * known
        if player == "critic":
            real, fake = (self._scores(image, known, inside) for image in (x, back))
            return {"critic": losses.critic_loss(real, fake), "loss": losses.critic_loss(real, fake)}
        counts = (inside + settings.air * (1.0 - inside)) * known
        terms = {
            "l1": losses.masked_mean((back - x).abs(), counts),
            "detail": losses.masked_mean((roughness(back) - roughness(x)).abs(), avg_pool2d(counts, CELL).repeat(1, 2, 1, 1)),
            "kl": 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(),
        }
        terms["loss"] = terms["l1"] + settings.kl * terms["kl"]
        if player == "judged":
            terms["loss"] = terms["loss"] + settings.detail * terms["detail"]
            if self.critic is not None:
                terms["adversary"] = -losses.mean_or_0(self._scores(back, known, inside))
                terms["loss"] = terms["loss"] + settings.adversary * terms["adversary"]
        if not torch.is_grad_enabled():
            for name, where in (("psnr", known.expand_as(x)), ("psnr_head", inside * known)):
                found = losses.psnr_inside(back, x, where)
                terms[name] = x.new_tensor(sum(found) / max(1, len(found)))
        return terms

    def _scores(self, image: Image, known: Image, inside: Mask) -> Tensor:
        """The critic's scores of the patches on the head, (n,)."""
        assert self.critic is not None
        scores = self.critic(image, known)
        return scores[avg_pool2d(inside, inside.shape[-1] // scores.shape[-1]) >= 0.5]

    # -- the diffusion of its code --------------------------------------------------------------------------------------------------

    @abstractmethod
    def diffusion_terms(self, batch: LesionBatch, streams: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """The denoiser's loss on one batch."""

    @torch.no_grad()
    def once(self, batch: LesionBatch, made: Callable[[LesionBatch], Tensor], *of: str) -> Tensor:
        """`made` (B, …) of each slice, computed once of the same content of its fields `of`, as long as the autoencoder stands still. Slice by slice and in 32
        bit, so that no number depends on what else was in the batch, or on who asked first."""
        codes = []
        for i in range(len(batch)):
            one = batch.some(slice(i, i + 1))
            content = hash((made.__qualname__, *(getattr(one, name).cpu().numpy().tobytes() for name in of)))
            code = self._kept.get(content)
            if code is None:
                with torch.autocast(one.x.device.type, enabled=False):
                    code = made(one)[0]
                if len(self._kept) < KEPT:
                    self._kept[content] = code
            codes.append(code)
        return torch.stack(codes)

    def noised_terms(self, code: Tensor, condition: Tensor, streams: Sequence[torch.Generator], counts: Mask | None = None) -> dict[str, Tensor]:
        """Eq. 9 on a code (B, code, h, w) at any t; `counts` (B, 1, h, w) weighs its cells."""
        t = rng.integers(streams, 1, self.schedule.T).to(code.device)
        noise = rng.normal(streams, tuple(code.shape[1:])).to(code.device)
        everywhere = torch.ones_like(code[:, :1])
        output = self.eps(diffusion.diffuse(code, t, noise, everywhere, self.schedule), condition, t).float()
        wanted = diffusion.target(code, noise, t, self.schedule, prediction=self.settings.prediction)
        weight = diffusion.snr_weight(t, self.schedule, most=CLEAREST) if self.settings.prediction == "r0" else None
        loss = losses.diffusion_loss(wanted, output, everywhere if counts is None else counts, weight)
        return {"diff": loss, "loss": loss}

    def estimate(self, code_t: Tensor, condition: Tensor, t: Times) -> Tensor:
        """The clean code that the denoiser's output means."""
        output = self.eps(code_t, condition, t).float()
        return diffusion.predict_r0(code_t, output, t, self.schedule, prediction=self.settings.prediction)

    def times(self, steps: int | None) -> Sequence[int]:
        """Of a draw, evenly spaced from T to 0."""
        return diffusion.sampling_times(self.schedule.T, steps or self.settings.steps, spacing="trailing")

    def streams(self, batch: LesionBatch, controls: Controls) -> Sequence[torch.Generator]:
        """A generator a slice, keyed by (seed, subject, z)."""
        return [rng.generator(controls.seed, s, z) for s, z in zip(batch.subject, batch.z, strict=True)]

    def cells(self, field: Image) -> Tensor:
        """Averaged to the code's grid."""
        return avg_pool2d(field, factor(self.settings.widths))


def seen(batch: LesionBatch) -> tuple[Image, Image]:
    """The slices, 0 in missing contrasts, and which are there, (B, C, 1, 1)."""
    known = batch.present[:, :, None, None].to(batch.x.dtype)
    return batch.x * known, known


def air(x: Image) -> Image:
    """What a slice's border holds, the median of each contrast, (B, C, 1, 1)."""
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], dim=-1).median(dim=-1).values
    return border[:, :, None, None]


def head(x: Image, known: Image) -> Mask:
    """1 where any contrast differs from the slice's border, (B, 1, H, W): all of a slice whose air is not blank."""
    return (((x - air(x)).abs() * known) > BLANK).any(dim=1, keepdim=True).to(x.dtype)


def roughness(x: Image) -> Image:
    """How much fine detail there is in cells of `CELL` pixels, at full and at half resolution, (B, 2C, H/CELL, W/CELL): what a blur takes away and noise
    brings, wherever its pixels lie."""
    return torch.cat([avg_pool2d(fine_detail(x)[1], CELL), avg_pool2d(fine_detail(avg_pool2d(x, 2))[1], CELL // 2)], dim=1)


def refuse_unfit(settings: Latent) -> None:
    """InputError for settings of which no networks can be made."""
    faults = []
    for name, widths, most in (("widths", settings.widths, 4), ("denoiser", settings.denoiser, 6), ("critic", settings.critic, 3)):
        least, found = 3 if name == "critic" else 2, " ".join(map(str, widths)) or "no width"
        if not least <= len(widths) <= most or any(width < GROUPS or width % GROUPS for width in widths):
            faults.append(Fault(f"--compared.latent.{name}", found, f"{least}…{most} multiples of {GROUPS}", "give one a level"))
    grid = factor(settings.widths) * 2 ** (len(settings.denoiser) - 1)
    if settings.side < CELL or settings.side % 32 or (not faults and settings.side % grid):
        faults.append(Fault("--compared.latent.side", str(settings.side), f"a multiple of {max(32, grid)}", "give another side, or fewer widths"))
    for name in ("autoencoder_share", "adversary_share", "empty"):
        if not 0.0 <= getattr(settings, name) <= 1.0:
            faults.append(Fault(f"--compared.latent.{name.replace('_', '-')}", str(getattr(settings, name)), "0…1", "give a share"))
    for name, low in (("code", 1), ("blocks", 1), ("steps", 1), ("resample", 0), ("kl", 0), ("detail", 0), ("adversary", 0), ("air", 0), ("background", 0)):
        if not getattr(settings, name) >= low:
            faults.append(Fault(f"--compared.latent.{name}", str(getattr(settings, name)), f"at least {low}", "give a larger number"))
    if faults:
        raise InputError(faults)


def _channels(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
