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
    widths: tuple[int, ...] = (16, 32, 48, 64, 96)
    """Of E_r and D_r, from full resolution to that of the code; the paper says nothing of them."""
    kl: float = 1e-3
    """λ of the KL divergence in nats a cell, beside the squared error in units of r_0's power. The evidence bound of a Gaussian of variance σ² asks for
    2σ²/(256 C): 10⁻³ where a little over a third of the power of three contrasts is left unexplained."""
    adversary: float = 0.1
    """λ_adv, as printed; 0: no critic, a VAE."""
    adversary_share: float = 0.3
    """Share of the steps after f_sub's in which the critic plays; the paper says nothing of it."""


@dataclass(frozen=True)
class Latent:
    """Brain-LDM and MaskDiff-Inpaint: an autoencoder of whole slices and the diffusion of its code."""

    side: int = 256
    """Whole slices are padded to so many pixels square, a multiple of 32."""


@dataclass(frozen=True)
class MetaAuto:
    """The metamorphic auto-encoder: a template, a diffeomorphism from one code and an additive appearance from another."""

    side: int = 256
    """Whole slices are padded to so many pixels square, a multiple of 32."""
    templates: int = 8
    """The source has one, of slices at one height. Ours lie at all heights of many heads: so many templates are mixed, by weights from the shape's code."""
    shape: int = 64
    """Numbers in the code of the shape. Its authors' scripts for BraTS use 10 or fewer, for slices at one height; those that are not needed the KL empties."""
    appearance: int = 64
    """Numbers in the code of the appearance; there 5 or fewer, for one contrast."""
    widths: tuple[int, ...] = (16, 24, 32, 48, 64)
    """Of the encoders at 1/2 … 1/32 of the resolution, and of the decoders back; multiples of 8."""
    kernel_px: float = 12.0
    """σ of the Gaussian kernel of the velocity, pixels: gyri follow their lobe, not each its own way."""
    kl: float = 1e-3
    """λ of the KL's (nats) of both codes to N(0, I) beside the mean squared error. The evidence bound has 2 × residual variance / numbers of a slice, if each
    were an observation of its own; neighbours are not, and this counts a residual of 1 once in some 10 × 10 pixels. In the run with a tenth
    of it (and a higher rate, and larger decoders' weights at the start) the appearance drew the anatomy, and the code of the shape said little."""
    free: float = 8.0
    """Nats of the appearance's code that cost nothing (free bits): without them it held .4 after 400 steps, and every draw looked alike."""
    smoothness: float = 0.02
    """λ of the velocity's squared norm, a mean over cells of 8 pixels, in cells."""
    anatomy: Literal["sampled", "encoded"] = "sampled"
    """Where a draw takes the code of the shape from. sampled: N(0, I), the source's way to generate. encoded: the scan with its lesion hidden, so that the
    lesion is drawn into (something near) the subject's own anatomy. Read at the draw alone."""


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
