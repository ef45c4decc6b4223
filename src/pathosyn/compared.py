"""Settings of the methods that PathoSyn is compared with, a class each: `pathosyn train --method vaegan --compared.vaegan.latent 8 …`.

What a method's source leaves open is decided in docs/decisions.md, and each decision is a field here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class VaeGan:
    """PathoSyn: VAE-GAN. E_r and D_r code the deviation; a PatchGAN judges the composed window."""

    latent: int = 8
    """Channels of the code on a grid of 1/16: 128 numbers for a patch of 64 × 64 pixels, the paper's latent of 128."""


@dataclass(frozen=True)
class Latent:
    """Brain-LDM and MaskDiff-Inpaint: an autoencoder of whole slices and the diffusion of its code."""

    side: int = 256
    """Whole slices are padded to so many pixels square, a multiple of 32."""
    widths: tuple[int, ...] = (24, 48, 64)
    """Of encoder and decoder at 1/2, 1/4 … of the slice's resolution; the last is the code's grid, 32 × 32 for a slice of 256."""
    blocks: int = 1
    """Residual blocks a level, in encoder, decoder and denoiser."""
    code: int = 8
    """Channels of the code, one number for 24 of the slice (three contrasts). The sources have 3 and 4 for one contrast and for colours: of our three contrasts
    the best linear code with 4 gives back 22 dB, with 8 it gives back 25."""
    denoiser: tuple[int, ...] = (32, 64, 96)
    """Widths of the network that diffuses the code, one a resolution level, attention at the last."""
    critic: tuple[int, int, int] = (16, 32, 64)
    """Widths of the critic of patches; it is not shipped with the weights."""
    kl: float = 1e-3
    """λ of the code's KL divergence from unit normals, a mean over its numbers: enough to keep it bounded. The sources have 1e-6 times its sum."""
    detail: float = 0.1
    """λ of the L1 between the local roughness of slice and reconstruction, in place of the sources' perceptual loss, whose network was trained on photographs
    and is not ours to ship. It joins with the critic: to a decoder that has learned nothing else, stripes are the easiest roughness."""
    adversary: float = 0.01
    """λ of the critic's word; 0: no critic."""
    air: float = 0.3
    """Weight of a pixel outside the head, where a slice is constant, beside 1 inside: three quarters of a slice would otherwise be most of the loss."""
    autoencoder_share: float = 0.6
    """Share of the steps that go to the autoencoder; 0 with weights that lend theirs (`--from`)."""
    adversary_share: float = 0.3
    """Share of the autoencoder's steps, the last ones, in which roughness and the critic have a word."""
    prediction: Literal["eps", "v"] = "v"
    """What the denoiser puts out. v, with zero terminal SNR: eps starts a draw from noise that the training never showed, and the brightness of a whole slice
    comes out wrong (Lin et al. 2024). The sources have eps."""
    steps: int = 50
    """Calls of DDIM, the paper's."""
    empty: float = 0.25
    """Brain-LDM: share of slices without lesion, and so with an empty mask, in the diffusion's training."""
    background: float = 0.1
    """MaskDiff-Inpaint: weight of a cell of the background in the diffusion loss, beside 1 in the foreground."""
    resample: int = 0
    """MaskDiff-Inpaint: how often each step of a draw is taken back and done anew (RePaint's jumps, of one step)."""
    paste: bool = True
    """MaskDiff-Inpaint: outside the support the given slice itself, as for all other methods. False: the decoded slice everywhere."""


LATENT_FREE = ("kl", "detail", "adversary", "air", "autoencoder_share", "adversary_share", "steps", "empty", "background", "resample", "paste")
"""What may change between a training and one that starts from its weights: how to train and to draw, not what a code means."""


@dataclass(frozen=True)
class MetaAuto:
    """The metamorphic auto-encoder: a template, a diffeomorphism from one code and an additive appearance from another."""

    side: int = 256
    """Whole slices are padded to so many pixels square, a multiple of 32."""


@dataclass(frozen=True)
class DifferenceGan:
    """Difference GAN: a bounded difference in one pass, composed through the blend map."""


@dataclass(frozen=True)
class Compared:
    """All of them; a training uses its own method's."""

    vaegan: VaeGan = field(default_factory=VaeGan)
    latent: Latent = field(default_factory=Latent)
    meta: MetaAuto = field(default_factory=MetaAuto)
    difference: DifferenceGan = field(default_factory=DifferenceGan)
