"""Settings of the methods that PathoSyn is compared with, a class each: `pathosyn train --method vaegan --compared.vaegan.latent 8 …`.

What a method's source leaves open is decided in docs/decisions.md, and each decision is a field here.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VaeGan:
    """PathoSyn: VAE-GAN. E_r and D_r code the deviation; a PatchGAN judges the composed window."""

    latent: int = 8
    """Channels of the code on a grid of 1/16: 128 numbers for a patch of 64 × 64 pixels, the paper's latent of 128."""
    widths: tuple[int, ...] = (16, 32, 48, 64, 96)
    """Of E_r and D_r, from full resolution to that of the code; the paper says nothing of them."""
    kl: float = 2e-3
    """λ of the KL divergence in nats a cell, beside the mean squared error in units of r_0's power; the paper says nothing of it. The evidence bound of a
    Gaussian of variance σ² asks for 2σ²/(n C), n the pixels of support in a cell: about half of 256, and σ² = .4 with three contrasts gives this."""
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
