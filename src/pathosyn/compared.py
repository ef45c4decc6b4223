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
    """Difference GAN: a bounded difference in one pass, composed through the blend map. λ's count beside r_0 in units of its RMS."""

    cells: tuple[int, ...] = (1, 8, 32)
    """The generator sees noise in cells of so many pixels a side, a map a contrast of each: grain, mottle, and the look of the whole lesion. The source
    multiplies its difference with noise that is smooth over a few voxels; that cannot change what a lesion looks like."""
    warm_up: float = 0.25
    """Share of the steps after f_sub's in which the generator learns r_0 itself (L1), without a critic. The source begins with a segmentor that knows
    tumours; we have none, and a critic alone needs more steps than we can give to say where to go."""
    healthy: float = 0.25
    """Share of the windows in the adversarial stage that are holes over healthy tissue, where only the drawn lesion is judged: what it is for in the source."""
    adversary: float = 1.0
    """λ of the critic's word, the main term. The source has .1 beside 1 for its frozen segmentor, which must find the tumour."""
    anchor: float = 0.0
    """λ of the L1 between the drawn deviation and r_0 averaged over 8 × 8 pixels. The source has no such term."""
    seek: float = 0.0
    """λ of the mode-seeking term (Mao et al. 2019): two draws of one window must lie `apart`. The source has no such term, and the critic alone leaves some
    diversity; with λ = 1 a short training buys it with blotches."""
    apart: float = 0.2
    """How far, as L1 between means over 8 × 8 pixels, where `seek` asks for it: about as far as PathoSyn's draws. Beyond it nothing is gained."""


@dataclass(frozen=True)
class Conventional:
    """Conventional augmentation: real slices changed by known transforms, in nnU-Net's ranges (Isensee et al. 2021) where it has them. Each copy is made
    once and not anew in every epoch, so what nnU-Net does to one case in five or ten is done to half of them or to all. All ranges 0: nothing changes."""

    flips: tuple[float, float] = (0.5, 0.5)
    """Probability of a flip up-down and of one left-right: nnU-Net mirrors along every axis."""
    rotation: float = 30.0
    """Degrees to either side: nnU-Net's for volumes. Its half turn for slices adds heads upside down, which the flips show already."""
    zoom: float = 0.35
    """Lengths times exp(u), |u| up to this: 0.7 to 1.4, nnU-Net's."""
    shear: float = 0.1
    """Along each axis, to either side. nnU-Net has none; a tenth is a tilt of six degrees."""
    elastic: float = 2.0
    """The most of the standard deviation, in pixels, by which control points are moved. nnU-Net has none by default; at 2 heads keep their outline."""
    elastic_spacing: int = 32
    """Pixels between control points."""
    chance: float = 0.5
    """Probability of each of the changes of intensity below, a contrast."""
    bias: float = 0.1
    """Coefficients of the bias field's logarithm (a polynomial of third degree), to either side, the same for all contrasts, as a coil has one field.
    nnU-Net has none."""
    gamma: float = 0.35
    """Exponents exp(u), |u| up to this, with mean and spread kept: 0.7 to 1.4, where nnU-Net has 0.7 to 1.5."""
    contrast: float = 0.25
    """Factors 1 + u, |u| up to this, on what differs from the mean: nnU-Net's."""
    noise: float = 0.1
    """The most of the noise's standard deviation, in units of the normalised scan: nnU-Net's."""


@dataclass(frozen=True)
class Compared:
    """All of them; a training uses its own method's."""

    vaegan: VaeGan = field(default_factory=VaeGan)
    latent: Latent = field(default_factory=Latent)
    meta: MetaAuto = field(default_factory=MetaAuto)
    difference: DifferenceGan = field(default_factory=DifferenceGan)
