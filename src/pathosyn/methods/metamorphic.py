"""Meta-Auto: the metamorphic auto-encoder (Bône, Vernhet, Colliot, Durrleman, MICCAI 2020), on whole slices and with a lesion where a mask says.

velocity    v = K ∗ momentum(z_s), φ = exp(v)
image       x̂ = (Σ_k w_k(z_s) template_k + appearance(z_a, m ∘ φ⁻¹)) ∘ φ

As in the source: a learned template, a code of the shape z_s and one of the appearance z_a, both variational; a momentum smoothed by a Gaussian kernel and
integrated by scaling and squaring; an appearance that is added before the warp; decoders without biases, so that codes of 0 mean the template itself.
Ours: several contrasts and heights, hence several templates (`compared.MetaAuto.templates`); the mask; two encoders, as the paper's Table I calls it. Left
out: the source's layer that makes the norm of the velocity that of its code, since most of 64 numbers end up unused and would set the norm by chance. The
velocity's norm is a term of the loss instead. The appearance is not smoothed: a lesion has an outline.

Nothing here keeps the background: the appearance may change the image everywhere, with the lesion and without.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, one_hot

from pathosyn import losses, warps
from pathosyn.blocks.unets import SLOPE, Convolution
from pathosyn.compared import MetaAuto as Settings
from pathosyn.config import Config
from pathosyn.errors import Fault, InputError
from pathosyn.protocol import Method, Stage
from pathosyn.rng import generator, normal
from pathosyn.types import Controls, Float, Image, LesionBatch, Mask, Synthesis

CELL = 8
"""The velocity is decoded on cells of so many pixels,"""
FLOW = 2
"""and integrated on every so many: it is smooth, and that is four times as fast."""
SQUARINGS = 6
DEEP = 32
"""Pixels of a cell at the lowest resolution."""
NARROW = -4.0
"""Logarithm of the codes' variance at the start: noise of 1 would hide the codes from the decoders for long."""
ROUNDS = 10
"""Of k-means."""
Code = Float[Tensor, "B n"]


@dataclass(frozen=True)
class Posterior:
    """What an encoder knows of a code: N(mean, exp(logvar)), each (B, n)."""

    mean: Code
    logvar: Code

    def draw(self, eps: Code) -> Code:
        """A code, from unit noise (B, n)."""
        return self.mean + (0.5 * self.logvar).exp() * eps

    @property
    def kl(self) -> Tensor:
        """KL to N(0, I) of each sample, nats, (B,)."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1.0 - self.logvar).sum(dim=1)


@dataclass(frozen=True)
class Shape:
    """What a shape's code means: the mixed template (B, C, H, W), the displacements of φ and of φ⁻¹ (B, 2, H, W), the squared norm of the velocity (B,)."""

    template: Image
    u: warps.Vectors
    back: warps.Vectors
    norm: Float[Tensor, "B"]


class Encoder(nn.Module):
    """(B, in, side, side) → the posterior of a code of `numbers`."""

    def __init__(self, before: int, numbers: int, widths: Sequence[int], side: int) -> None:
        super().__init__()
        steps = zip((before, *widths), widths, strict=False)
        self.down = nn.Sequential(*(Convolution(above, below, stride=2, groups=8) for above, below in steps))
        self.head = nn.Linear(widths[-1] * (side // DEEP) ** 2, 2 * numbers)
        with torch.no_grad():
            self.head.bias[numbers:] = NARROW

    def forward(self, x: Image) -> Posterior:
        """x is (B, in, side, side)."""
        mean, logvar = self.head(self.down(x).flatten(1)).float().chunk(2, dim=1)
        return Posterior(mean, logvar.clamp(-12.0, 4.0))


class Decoder(nn.Module):
    """A code, and at each resolution `shown` channels of a picture, → (B, after, side, side). Without biases: from 0 and 0 comes 0."""

    def __init__(self, numbers: int, after: int, widths: Sequence[int], side: int, shown: int = 0) -> None:
        super().__init__()
        self.grid = side >> len(widths)
        self.first = nn.Linear(numbers, widths[0] * self.grid**2, bias=False)
        layers = zip(widths, (*widths[1:], widths[-1] // 2), strict=True)
        self.up = nn.ModuleList([nn.Conv2d(before + shown, behind, 3, padding=1, bias=False) for before, behind in layers])
        self.last = nn.Conv2d(widths[-1] // 2, after, 3, padding=1, bias=False)
        for weight in self.up.parameters():
            nn.init.kaiming_normal_(weight, a=SLOPE)
        nn.init.normal_(self.last.weight, std=0.01)

    def forward(self, code: Code, shown: Image | None = None) -> Image:
        """`shown` is (B, shown, side, side)."""
        x = self.first(code).unflatten(1, (-1, self.grid, self.grid))
        for layer in self.up:
            x = interpolate(x, scale_factor=2.0, mode="nearest")
            x = x if shown is None else torch.cat([x, avg_pool2d(shown, shown.shape[-1] // x.shape[-1])], dim=1)
            x = leaky_relu(layer(x), SLOPE)
        return self.last(x).float()


class Templates(nn.Module):
    """Learned images (K, C, side, side), and which mixture of them a shape's code means."""

    def __init__(self, numbers: int, count: int, contrasts: int, side: int) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.zeros(count, contrasts, side, side))
        self.logits = nn.Linear(numbers, count)
        nn.init.zeros_(self.logits.bias)

    def forward(self, code: Code) -> Image:
        """(B, n) → (B, C, side, side)."""
        weights = self.logits(code).float().softmax(dim=1)
        with torch.autocast(code.device.type, enabled=False):
            return torch.einsum("bk,kcyx->bcyx", weights, self.images)


class MetaAuto(Method):
    """Two encoders, the templates and two decoders; one stage, one player."""

    mean: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        meta, contrasts = config.compared.meta, len(config.contrasts)
        if faults := _faults(meta):
            raise InputError(faults)
        self.whole = meta.side
        up = tuple(reversed(meta.widths))
        self.shape_encoder = Encoder(2 * contrasts + 1, meta.shape, meta.widths, meta.side)
        self.appearance_encoder = Encoder(2 * contrasts + 1, meta.appearance, meta.widths, meta.side)
        self.templates = Templates(meta.shape, meta.templates, contrasts, meta.side)
        self.momentum = Decoder(meta.shape, 2, up[:2], meta.side // CELL)
        self.look = Decoder(meta.appearance, contrasts, up, meta.side, shown=1)
        self.register_buffer("mean", torch.zeros(contrasts, meta.side, meta.side))

    @property
    def settings(self) -> Settings:
        """This method's own."""
        return self.config.compared.meta

    @property
    def stages(self) -> Sequence[Stage]:
        """One, on slices with their lesion."""
        return (Stage("metamorphic", ("auto",), 1.0, lambda _: 0.0),)

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """`auto`: all of it."""
        return self.shape_encoder, self.appearance_encoder, self.templates, self.momentum, self.look

    # -- the pieces -----------------------------------------------------------------------------------------------------------------

    def encode_shape(self, batch: LesionBatch) -> Posterior:
        """The shape's code, from the slice with the support hidden: nothing of the lesion reaches it."""
        known, visible = _known(batch), 1.0 - batch.D
        x = torch.where(visible > 0, batch.x, torch.zeros((), device=batch.x.device)) * known
        return self.shape_encoder(torch.cat([x, visible, known.expand_as(x)], dim=1))

    def encode_appearance(self, batch: LesionBatch) -> Posterior:
        """The appearance's code, from the slice and the mask."""
        known = _known(batch)
        return self.appearance_encoder(torch.cat([batch.x * known, batch.m, known.expand_as(batch.x)], dim=1))

    def shaped(self, code: Code) -> Shape:
        """What a shape's code means."""
        v, norm = warps.velocity(self.momentum(code), sigma=self.settings.kernel_px / CELL)
        v = warps.enlarged(v, CELL // FLOW)
        u, back = (warps.enlarged(warps.flow(sign * v, squarings=SQUARINGS), FLOW) for sign in (1.0, -1.0))
        return Shape(self.templates(code), u, back, norm)

    def image(self, shape: Shape, appearance: Code, m: Mask) -> Image:
        """(template + appearance) ∘ φ, with a lesion where m is 1, (B, C, H, W); m is (B, 1, H, W) in the image, and is carried back to the template."""
        return warps.warp(shape.template + self.look(appearance, warps.warp(m, shape.back)), shape.u)

    @torch.no_grad()
    def reconstruct(self, batch: LesionBatch) -> Image:
        """x̂ of the codes' means."""
        return self.image(self.shaped(self.encode_shape(batch).mean), self.encode_appearance(batch).mean, batch.m) * _known(batch)

    # -- training -------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """The mean slice, and the templates' start: the means of so many groups of like slices (k-means at 1/8 of the resolution), without their lesions
        (x_ph). Returns how many slices each is made of. What is known already stays."""
        if bool(self.mean.any()):
            return {}
        seen = torch.cat([_thumbnails(batch) for batch in batches])
        count = self.settings.templates
        belongs = one_hot(_grouped(seen, count), count).float()
        sums, slices = torch.zeros_like(self.templates.images), torch.zeros(count, self.mean.shape[0], device=seen.device)
        done = 0
        for batch in batches:
            own = belongs[done : done + len(batch)]
            sums += torch.einsum("bk,bcyx->kcyx", own, batch.x_ph * _known(batch))
            self.mean += (batch.x * _known(batch)).sum(dim=0)
            slices += own.T @ batch.present.float()
            done += len(batch)
        self.mean /= slices.sum(dim=0).clamp(min=1.0)[:, None, None]
        empty = (slices == 0)[:, :, None, None]
        self.templates.images.copy_(torch.where(empty, self.mean, sums / slices.clamp(min=1.0)[:, :, None, None]))
        return {"template_slices": belongs.sum(dim=0).tolist()}

    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """`rec`: mean squared error on contrasts that are there, and `rec_lesion` of it on the lesion; `kl_shape` and `kl_appearance`, nats; `norm` of the
        velocity. When not training also `psnr` of the reconstruction beside `psnr_mean` of the mean training slice, the floor."""
        meta, known = self.settings, _known(batch).expand_as(batch.x)
        eps = normal(rng, (meta.shape + meta.appearance,)).to(batch.x.device).split([meta.shape, meta.appearance], dim=1)
        of_shape, of_appearance = self.encode_shape(batch), self.encode_appearance(batch)
        shape = self.shaped(of_shape.draw(eps[0]))
        error = (self.image(shape, of_appearance.draw(eps[1]), batch.m) - batch.x) ** 2
        terms = {
            "rec": losses.masked_mean(error, known),
            "rec_lesion": losses.masked_mean(error.detach(), known * batch.m),
            "kl_shape": of_shape.kl.mean(),
            "kl_appearance": of_appearance.kl.mean(),
            "norm": shape.norm.mean(),
        }
        priced = terms["kl_shape"] + (of_appearance.kl - meta.free).clamp(min=0.0).mean()
        terms["loss"] = terms["rec"] + meta.kl * priced + meta.smoothness * terms["norm"]
        if not self.training:
            terms |= {"psnr": _psnr(self.reconstruct(batch), batch.x, batch), "psnr_mean": _psnr(self.mean.expand_as(batch.x), batch.x, batch)}
        return terms

    # -- synthesis ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Both codes from N(0, I), keyed by (seed, subject, z); with `anatomy="encoded"` the shape's is the scan's own. x_sub is the image of an empty mask,
        r what the mask changes, wherever that is; of the scan itself nothing is kept."""
        meta, known = self.settings, _known(batch)
        streams = [generator(controls.seed, s, z) for s, z in zip(batch.subject, batch.z, strict=True)]
        shape_code, appearance_code = normal(streams, (meta.shape + meta.appearance,)).to(batch.x.device).split([meta.shape, meta.appearance], dim=1)
        shape = self.shaped(self.encode_shape(batch).mean if meta.anatomy == "encoded" else shape_code)
        x_sub = self.image(shape, appearance_code, torch.zeros_like(batch.m)) * known
        r = self.image(shape, appearance_code, batch.m) * known - x_sub
        return Synthesis(x_hat=x_sub + controls.severity * r, x_sub=x_sub, r=r, S=batch.S, m=batch.m, seeds=[controls.seed] * len(batch))


def _known(batch: LesionBatch) -> Image:
    """1 on contrasts that the subject has, (B, C, 1, 1)."""
    return batch.present[:, :, None, None].to(batch.x.dtype)


def _thumbnails(batch: LesionBatch) -> Float[Tensor, "B pixels"]:
    """Each slice without lesion at 1/8 of the resolution, the mean of its contrasts: missing ones do not tell slices apart."""
    known = _known(batch)
    return avg_pool2d((batch.x_ph * known).sum(dim=1) / known.sum(dim=1).clamp(min=1.0), CELL).flatten(1)


def _grouped(points: Float[Tensor, "n pixels"], count: int) -> Tensor:
    """k-means, started from points evenly spread in order of their sum: the group of each, (n,), 0…count - 1. A group may be empty."""
    order = points.sum(dim=1).argsort(stable=True)
    centres = points[order[torch.linspace(0, len(order) - 1, count).round().long().to(order.device)]]
    nearest = torch.cdist(points, centres).argmin(dim=1)
    for _ in range(ROUNDS):
        own = one_hot(nearest, count).float()
        size = own.sum(dim=0)[:, None]
        centres = torch.where(size > 0, own.T @ points / size.clamp(min=1.0), centres)
        nearest = torch.cdist(points, centres).argmin(dim=1)
    return nearest


def _psnr(estimate: Image, truth: Image, batch: LesionBatch) -> Tensor:
    """dB over whole slices, the mean over slices and contrasts that are there; the peak is the slice's range between its 0.5 and 99.5 percentiles."""
    low, high = (torch.quantile(truth.flatten(2), q, dim=2) for q in (0.005, 0.995))
    mse = (estimate - truth).square().mean(dim=(2, 3))
    values = 10.0 * ((high - low).square().clamp(min=1e-12) / mse.clamp(min=1e-12)).log10()
    per_slice = (values * batch.present).sum(dim=1) / batch.present.sum(dim=1).clamp(min=1)
    return per_slice.mean()


def _faults(meta: Settings) -> list[Fault]:
    faults = []
    if meta.side < DEEP or meta.side % DEEP:
        faults.append(Fault("--compared.meta.side", str(meta.side), f"a multiple of {DEEP}", "give one, 256 say"))
    if len(meta.widths) != 5 or any(width < 8 or width % 8 for width in meta.widths):
        faults.append(Fault("--compared.meta.widths", " ".join(map(str, meta.widths)), "5 multiples of 8", "give one a resolution"))
    for name, value in (("templates", meta.templates), ("shape", meta.shape), ("appearance", meta.appearance)):
        if value < 1:
            faults.append(Fault(f"--compared.meta.{name}", str(value), "at least 1", "give a larger number"))
    if not meta.kernel_px > 0:
        faults.append(Fault("--compared.meta.kernel-px", f"{meta.kernel_px:g}", "above 0", "give σ in pixels"))
    return faults
