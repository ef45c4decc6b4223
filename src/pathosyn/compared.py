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
    kl: float = 2e-3
    """λ of the KL divergence in nats a cell, beside the mean squared error in units of r_0's power; the paper says nothing of it. The evidence bound of a
    Gaussian of variance σ² asks for 2σ²/(n C), n the pixels of support in a cell: about half of 256, and σ² = .4 with three contrasts gives this."""
    free: float = 6.0
    """Nats a cell that cost nothing (free bits): without them a run of 900 steps had emptied the code to .4 by its middle, and drew every lesion alike."""
    adversary: float = 0.1
    """λ_adv, as printed; 0: no critic, a VAE."""
    adversary_share: float = 0.5
    """Share of the steps after f_sub's in which the critic plays; the paper says nothing of it."""
    r1: float = 1.0
    """λ of the critic's squared slope at real windows (R1); the paper says nothing of it. Without it a draw was covered with stripes."""


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
    the best linear code with 4 gives back 23 to 24 dB, with 8 it gives back 26 to 28."""
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
    prediction: Literal["eps", "v", "r0"] = "r0"
    """What the denoiser puts out, r0 being the clean code. eps, the sources', starts a draw from noise that the training never showed, and the brightness of a
    whole slice comes out wrong (Lin et al. 2024); v and r0 have zero terminal SNR. With v, after a thousand steps not even air was even."""
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
    r1: float = 0.0
    """λ of the critic's squared slopes at real windows (R1), of its patches' and of the whole's word. The source has no such term. With 1 draws have no
    stripes, but a game of some hundred steps leads further away from lesions (docs/results.md, "Cohorts and the methods")."""
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


FREE = {
    "vaegan": ("kl", "free", "adversary", "adversary_share", "r1"),
    "latent": ("kl", "detail", "adversary", "air", "autoencoder_share", "adversary_share", "steps", "empty", "background", "resample", "paste"),
    "meta": ("kl", "free", "smoothness", "anatomy"),
    "difference": ("warm_up", "healthy", "adversary", "anchor", "r1", "seek", "apart"),
}
"""What may change between a training and one that starts from its weights: how to train and to draw, not what a code means."""
