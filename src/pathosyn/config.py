"""Every setting, once: the field is the default, the flag, the help and the record (STYLE, rule 9).

Two presets of the method (`default`, `paper`) and three of scale (`tiny`, `small`, `full`) are functions that return a config.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_type_hints

from pathosyn.compared import Compared

T = TypeVar("T")

CONTRASTS = ("t1", "t1ce", "t2", "flair")
"""The canonical contrast names, in the order in which channels are stored."""


@dataclass(frozen=True)
class Geometry:
    """From a mask to the support, the blend map and the windows. Shared by prepare, train and insert; travels in the weights."""

    grid_mm: float = 1.0
    """In-plane spacing of the working grid, mm."""
    grow_mm: float = 1.5
    """S is 1 on the lesion grown by this much: manual masks cut the infiltrating rim short by 1-2 px."""
    feather_mm: float = 3.0
    """S falls smoothly from 1 to 0 over this distance beyond the grown lesion."""
    margin_mm: float = 10.0
    """Healthy context that a window shows around the support at the least."""
    buckets: tuple[int, ...] = (64, 96, 128, 160, 192, 256)
    """Window sides in pixels; multiples of 32, so that windows batch and every down-sampling divides."""


@dataclass(frozen=True)
class Weights:
    """The λ's of Eqs. 3, 13 and 15. No values are printed in the paper; ours are the smallest round numbers at which no term dominates."""

    out: float = 1.0
    inside: float = 1.0
    diff: float = 1.0
    pat: float = 0.1
    ring: float = 0.1
    leak: float = 0.0
    dev: float = 1.0
    syn: float = 0.1


@dataclass(frozen=True)
class Method:
    """The decisions of DESIGN §3, each a field. `default()` is what we ship, `paper()` is the print with its typos mended."""

    space: Literal["pixel", "latent"] = "pixel"
    """Where r_0 is diffused. pixel: as it is, as in all equations. latent: its code under E_r and D_r of `vaegan` weights, from which the training starts."""
    composition: Literal["preserve", "paper"] = "preserve"
    """preserve: x + S(f + r - x) on the grown support. paper: x_sub + G*m . r on the mask."""
    joint: bool = False
    """True: f_sub and eps_theta in one loop, r_0 carries the gradient (Alg. 1). False: staged, f_sub frozen before eps_theta starts."""
    prediction: Literal["eps", "v", "r0"] = "v"
    """What eps_theta puts out."""
    coarse_prediction: Literal["eps", "v", "r0"] = "r0"
    """What the network that diffuses coarse forms puts out; its loss is that of v, held at `diffusion.MOST` times that of r_0."""
    zero_terminal_snr: bool = True
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    times: Literal["uniform", "quadratic"] = "quadratic"
    """How a training step draws t. quadratic: t ∝ u², half of the steps at t < T/4, where the noise is no larger than the texture of a scan."""
    solver: Literal["ancestral", "ddim", "dpm2m", "sde-dpm2m"] = "dpm2m"
    eta: float = 0.0
    """Share of fresh noise a DDIM step adds: 0 deterministic, 1 ancestral variance."""
    spacing: Literal["trailing", "quadratic", "leading"] = "quadratic"
    """Where the sampling times lie. Solver, spacing and steps: by benchmarks/quality_steps.py, see docs/results.md."""
    steps: int = 4
    distilled: bool = False
    """Beside the network of forms lies a second one, taught to draw in one call, from the same noise, what the first draws in `steps` (Luhman and Luhman
    2021). It draws unless a number of calls is asked for. A training with `distil_share` makes it."""
    clamp_quantile: float = 0.9999
    """The estimate of r_0 is held within ±k, k this quantile of |r_0| on the training data, per contrast; 0: no clamp."""
    scale_residual: bool = True
    """Divide r_0 by its RMS on the support, per contrast."""
    tanh_delta: float = 0.0
    """δ of Eq. 5 in normalised units; 0: no saturation."""
    sigma_px: float = 2.0
    """σ of the Gaussian in the paper's S and in the ring weight (Eq. 11), pixels."""
    inpaint: Literal["harmonic", "biharmonic"] = "harmonic"
    """Inp(x, m): the pseudo-healthy target of Eq. 3."""
    fill: bool = True
    """f_sub corrects a smooth filling of the hole made from the same input, instead of starting from zeros."""
    warmup: float = 0.1
    """Share of the substrate's steps in which lesion windows with the Inp target are mixed in; 1: throughout, no healthy holes."""
    noise_mm: float = 2.0
    """Correlation length along z of the noise field, mm; 0: slices independent."""
    context: Literal["outside", "blend"] = "blend"
    """What eps_theta sees of the scan. outside: nothing of it under the support. blend: (1-S) of it in the feather, as the composition keeps it."""
    grain: bool = True
    """eps_theta also sees noise with the spectrum of the scan's own healthy tissue (`texture.own_grain`), from which to make the lesion's."""
    roughness: bool = True
    """The coarse form of r_0 holds, beside each cell's mean, how rough the cell is beside the scan's own grain; the last call draws texture as rough."""
    rough_of: Literal["cells", "finest"] = "finest"
    """What counts as rough. cells: all that the cells' means do not tell, the rise at the outline too, which then is drawn as dots. finest: what lies beyond
    the mean of 3×3 pixels (`texture.finest`), of the cell and those beside it, in the lesion as in the scan's tissue: no dots, and too even a grain if
    `tails` does not ask for another."""
    coarse: int = 4
    """The diffusion runs on r_0 averaged over `coarse` × `coarse` pixels (its structure), and one last call at full resolution at t = `level` draws the
    texture; 1: it runs on the pixels (the paper)."""
    cells: Literal["deviation", "intensity"] = "intensity"
    """What a cell's mean is of. deviation: r_0. intensity: on the lesion the scan itself, f + r_0, which does not carry f's faults; off it r_0."""
    appearance: bool = True
    """The network that draws the coarse form is told what the lesion is to look like: a few numbers (`appearance.measure`) of the lesion itself in training,
    of a training lesion of such a size at the draw."""
    fisher_z: bool = True
    """What contrasts share is averaged over lesions, and varied, as Fisher's z (`looks.natural`)."""
    log_spreads: bool = True
    """Standard deviations are averaged over lesions, and varied, as logarithms; and so is how sparse detail is."""
    attune: bool = True
    """What the scan's healthy tissue tells of a lesion's appearance (`surroundings`) is taken from there, and only the rest from a training lesion."""
    hold: bool = True
    """The drawn form is moved to the appearance that was asked for (`appearance.held`): told, the network comes near it, not to it. And so is
    what the last call makes of the form (`coarse.with_form`)."""
    skew: bool = True
    """With `hold`, the third moments of the form's cells, too: what enhances is a small bright part of a lesion (`moments.skewed`)."""
    gather: bool = True
    """Before that the means of the drawn form are smoothed within their regions (`gathering.gathered`): left alone, a large lesion is mottled."""
    shared_grain: bool = True
    """The grain that the last call sees shares between contrasts what the lesion asked for does (`appearance`), not what the scan's tissue does; with `hold`
    its result does, too."""
    tails: bool = True
    """With `hold`, the finest detail of that result is made as sparse as a training lesion's (`tails.sparser`): few edges in quiet tissue, or grain all
    over. How sparse is one more number of the appearance that is asked for, a contrast."""
    borders: bool = True
    """With `hold`, what of that result lies between its cells and its finest detail is gathered in borders and made as strong as a training lesion's
    (`borders.bordered`): sulci and strands in even tissue, where the last call draws a mottle. How strong is one more number of the appearance, a contrast."""
    anatomy: float = 1.0
    """Share of the scan's own tissue, as far as f does not hold it, that stays under a lesion drawn where there was none (`anatomy.through`)."""
    stop_at_fluid: bool = True
    """What is drawn or healed beyond the mask stops at fluid and bone (`data.tissue.solid`): a rim does not run into ventricles and sulci."""
    level: int = 60
    """The t of the last call. Its noise hides the seams of the cells, and not their means."""
    drawn_forms: float = 0.75
    """Share of the last stage's windows whose coarse form is drawn, as it will be, with the real lesion's looks: what `gather` flattened the last call then
    learns to put back."""
    adversary: float = 0.0
    """λ of the adversarial term on the last call's r̂_0: a critic tells composed windows from real ones, and eps_theta learns to pass; 0: none."""
    low: float = 1.0
    """λ of the L1 between r̂_0 and r_0 averaged over the cells at the last call: texture may change, structure may not."""
    patches: float = 1.0
    """λ of the distance between the patches of the composed lesion and of the real one at the last call (`texture.distance`)."""
    shared: float = 1.0
    """λ of how far what the contrasts share of their detail lies from what the real lesion's share (`texture.shared_distance`)."""
    lay: float = 1.0
    """λ of how far the lay of the composed lesion's detail, where it is strong and which way it runs, lies from the real one's (`lay.distance`)."""
    anchor: float = 0.05
    """λ of Eq. 9 beside them: what can be known of each pixel."""
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True)
class Networks:
    """Sizes. `sub` has five widths (stem and four down-samplings), `eps` one a resolution level."""

    sub: tuple[int, ...] = (24, 48, 64, 96, 128)
    eps: tuple[int, ...] = (16, 32, 64, 128)
    blocks: int = 1
    """Residual blocks a level in eps_theta."""
    coarse: tuple[int, ...] = (32, 64, 96)
    """Widths of the network that diffuses the coarse deviation, one a resolution level."""
    critic: tuple[int, ...] = (32, 64, 96)
    """Widths of the critic at full, half and quarter resolution; it is not shipped with the weights."""


@dataclass(frozen=True)
class Train:
    """The optimisation: AdamW 1e-4, weight decay 1e-5, cosine, as printed; the budget is counted in optimiser steps."""

    steps: int = 9000
    substrate_share: float = 0.28
    """Staged training: share of the steps that go to f_sub."""
    structure_share: float = 0.4
    """Staged training: share of the steps that go to the diffusion of the coarse deviation."""
    distil_share: float = 0.0
    """Staged training: share of the steps that go to the network that draws forms in one call (`distilled`)."""
    sharpen_share: float = 0.25
    """Staged training with `patches` or an adversary: share of the steps that go to the last stage."""
    batch_pixels: int = 65536
    """Window pixels a step; the number of windows follows from their side."""
    lr: float = 1e-4
    critic_lr: float = 1e-3
    """The critic's own rate: it has to keep up with what it judges."""
    lr_warmup: int = 200
    weight_decay: float = 1e-5
    ema: float = 0.999
    clip_norm: float = 1.0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    seed: int = 0
    validate_every: int = 1500
    checkpoint_every: int = 250
    devices: int = 1
    nodes: int = 1


@dataclass(frozen=True)
class Config:
    """A whole run."""

    contrasts: tuple[str, ...] = ("t1", "t1ce", "flair")
    geometry: Geometry = field(default_factory=Geometry)
    method: Method = field(default_factory=Method)
    networks: Networks = field(default_factory=Networks)
    train: Train = field(default_factory=Train)
    name: str = "pathosyn"
    compared: Compared = field(default_factory=Compared)
    """What the other methods need."""


def default() -> Method:
    """What we would ship."""
    return Method()


def paper() -> Method:
    """The print, typos mended: ᾱ for α, S from m and not from its complement (DESIGN §3, column `paper`)."""
    return Method(
        composition="paper",
        joint=True,
        anchor=0.0,
        low=0.0,
        prediction="eps",
        coarse_prediction="eps",
        zero_terminal_snr=False,
        times="uniform",
        solver="ddim",
        spacing="trailing",
        steps=50,
        distilled=False,
        clamp_quantile=0.0,
        scale_residual=False,
        tanh_delta=3.0,
        inpaint="biharmonic",
        fill=False,
        warmup=1.0,
        noise_mm=0.0,
        context="outside",
        grain=False,
        roughness=False,
        rough_of="cells",
        coarse=1,
        cells="deviation",
        appearance=False,
        attune=False,
        hold=False,
        skew=False,
        gather=False,
        anatomy=0.0,
        stop_at_fluid=False,
        fisher_z=False,
        log_spreads=False,
        shared_grain=False,
        tails=False,
        borders=False,
        drawn_forms=0.0,
        adversary=0.0,
        patches=0.0,
        shared=0.0,
        lay=0.0,
        # Through Eq. 12 an error in ε̂ is 157 times larger in r̂_0 at T: with λ = 1 these two would be all of Eq. 15.
        weights=Weights(pat=1.0, ring=1.0, leak=0.1, dev=0.01, syn=0.01),
    )


def scaled(scale: Literal["tiny", "small", "full"]) -> tuple[Networks, Train]:
    """tiny: tests and the demo · small: an hour or two on two cores · full: one GPU, a day."""
    if scale == "tiny":
        quick = Train(steps=600, batch_pixels=32768, lr=1e-3, lr_warmup=50, ema=0.99, validate_every=200, checkpoint_every=100)
        return Networks(sub=(8, 16, 16, 24, 24), eps=(16, 32, 48)), quick
    if scale == "small":
        return Networks(), Train(lr=3e-4)
    long = Train(steps=300_000, batch_pixels=524_288, ema=0.9999, validate_every=5000, checkpoint_every=2000)
    return Networks(sub=(64, 128, 256, 512, 512), eps=(96, 192, 288, 384), blocks=2), long


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain data, for JSON."""
    return asdict(config)


def from_dict(kind: type[T], data: dict[str, Any]) -> T:
    """The inverse of `to_dict`. A field that this version does not know raises ValueError: it would silently change the meaning."""
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(data) - known:
        raise ValueError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    values = {}
    for name, value in data.items():
        if is_dataclass(hints[name]):
            value = from_dict(hints[name], value)  # type: ignore[arg-type]
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
