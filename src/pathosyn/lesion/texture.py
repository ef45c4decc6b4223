"""How alike two textures are, whatever the place of each grain: distances between the distributions of small patches.

A mean-squared loss compares pixel with pixel, and its best answer to a texture that nobody can predict is none at all. Here the patches of a drawn
lesion are compared with the patches of the real one as two clouds of points: the sliced Wasserstein distance (Rabin et al. 2011) on the bands of a
Laplacian pyramid (as a metric: Karras et al. 2018), for all contrasts together, so that detail that they share counts too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, one_hot, pad

from pathosyn.lesion import moments
from pathosyn.types import Image, Mask

BANDS = 4
"""x less its 3×3 mean; that less the 7×7 mean; that less the 15×15 mean; and x itself."""
FILTERS = 24
"""Directions on which patches are projected, at each call anew."""
TISSUE = 1.0
"""Normalised units: within ± this lies grey and white matter, whose spread is one; beyond it fluid, air, fat and bone."""
CLIP = 4.0
"""Edges in the fine detail are held to so many times its median size."""
QUIET = 1.5
"""As `CLIP`, where a healed place is to have the noise of the scan and not shreds of its sulci."""
LEAST = 16
"""Pixels that a region must have: fewer make no distribution."""


def box_mean(x: Image, radius: int) -> Image:
    """The mean over a square of 2 · radius + 1 pixels; beyond the edge the border is repeated.

    Rows, then columns, as sums of moved copies: on a CPU much faster than pooling with a stride of 1."""
    rows = _box_sum(pad(x, (0, 0, radius, radius), mode="replicate"), 2 * radius + 1, dim=2)
    return _box_sum(pad(rows, (radius, radius, 0, 0), mode="replicate"), 2 * radius + 1, dim=3) / (2 * radius + 1) ** 2


def _box_sum(x: Image, size: int, *, dim: int) -> Image:
    """Sums of `size` neighbours along `dim`, where all of them lie within x."""
    count = x.shape[dim] - size + 1
    total = x.narrow(dim, 0, count) + x.narrow(dim, 1, count)
    for k in range(2, size):
        total += x.narrow(dim, k, count)
    return total


def bands(x: Image) -> Image:
    """(B, C, H, W) → (B, BANDS · C, H, W), band by band. The first three and what the widest mean leaves add up to x."""
    means = [x, *(box_mean(x, r) for r in (1, 3, 7))]
    return torch.cat([*(near - far for near, far in pairwise(means)), x], dim=1)


def directions(contrasts: int, generator: torch.Generator) -> Tensor:
    """(FILTERS, BANDS · C, 3, 3), random unit vectors on `generator`: a quarter see one band of one contrast, a quarter all bands of one contrast, half one
    band of all contrasts, through one and the same 3×3 filter, so that detail which the contrasts share shows.

    Projections of everything at once would hardly notice the finest band, nor what is shared."""
    w = torch.randn(FILTERS, BANDS, contrasts, 3, 3, generator=generator)
    alike = torch.randn(FILTERS, 1, 1, 3, 3, generator=generator) * torch.randn(FILTERS, 1, contrasts, 1, 1, generator=generator)
    band = one_hot(torch.randint(BANDS, (FILTERS,), generator=generator), BANDS)
    contrast = one_hot(torch.randint(contrasts, (FILTERS,), generator=generator), contrasts)
    kind = torch.arange(FILTERS)[:, None] % 4
    w = torch.where((kind >= 2)[:, :, None, None, None], alike, w)
    w = w * torch.where(kind == 1, 1, band)[:, :, None, None, None] * torch.where(kind >= 2, 1, contrast)[:, None, :, None, None]
    w = w.reshape(FILTERS, BANDS * contrasts, 3, 3)
    return w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def regions(m: Mask, S: Mask) -> Sequence[Mask]:  # noqa: N803 - the paper's letter
    """Where textures are compared, each (B, 1, H, W): the lesion; its rim, 2 pixels to both sides; the rest of the support, where it fades out."""
    wide, narrow = max_pool2d(m, 5, stride=1, padding=2), 1.0 - max_pool2d(1.0 - m, 5, stride=1, padding=2)
    return m, wide - narrow, ((S > 0) & (m == 0)).to(m.dtype)


def distance(drawn: Image, real: Image, places: Sequence[Mask], around: Mask, filters: Tensor) -> Tensor:
    """Mean over regions and directions of W1 between the projected patches of `drawn` and `real` (B, C, H, W), in units of their spread on `around`.
    `filters`: `directions` for all samples, or (B, …) for each its own.

    Per sample, then over the batch; 0 for a sample without a region of `LEAST` pixels. 0 where the two hold the same patches in any order. The unit is
    not the lesion's own spread: a lesion that happens to be smooth would count for more than a rough one, and draws would come out too smooth."""
    seen = bands(torch.cat([drawn, real]).float())
    with torch.no_grad():
        units = torch.stack([_spread(theirs[:, near > 0]) for theirs, near in zip(seen[len(real) :], around[:, 0], strict=True)])
    # Each band of each contrast in its own unit: a mixture of them would hear the loudest alone. Without a unit there is nothing (a missing contrast).
    seen = seen * torch.where(units > 1e-4, 1.0 / units.clamp(min=1e-4), 0.0).repeat(2, 1)[:, :, None, None]
    seen = pad(seen, (1,) * 4, mode="replicate")
    total = seen.new_zeros(())
    for b in range(len(real)):
        ours, theirs = conv2d(seen[b :: len(real)], filters if filters.dim() == 4 else filters[b])
        unit = _spread(theirs[:, around[b, 0] > 0].detach())
        parts = [_gap(ours[:, where], theirs[:, where], unit) for where in (place[b, 0] > 0 for place in places) if int(where.sum()) >= LEAST]
        if parts:
            total = total + torch.stack(parts).mean()
    return total / len(real)


def around(x: Image, S: Mask) -> Mask:  # noqa: N803
    """(B, 1, H, W): tissue that is no lesion, where every contrast is within ±`TISSUE`; the whole window where there is hardly any."""
    found = ((S == 0) & (x.abs() < TISSUE).all(dim=1, keepdim=True)).to(x.dtype)
    return torch.where(found.sum(dim=(2, 3), keepdim=True) >= LEAST, found, torch.ones_like(found))


def _gap(drawn: Tensor, real: Tensor, unit: Tensor) -> Tensor:
    """(K, n) and (K, n): the mean of W1 / `unit` over K, where there is a unit (a missing contrast's directions have none)."""
    there = unit > 1e-4
    gaps = (drawn.sort(dim=1).values - real.sort(dim=1).values).abs().mean(dim=1) / unit.clamp(min=1e-4)
    return (gaps * there).sum() / there.sum().clamp(min=1)


def _spread(values: Tensor) -> Tensor:
    """(K, n) → (K,): 1.48 times the median distance from the median, the standard deviation of a normal; edges count for little. Of every third value."""
    some = values[:, ::3]
    return 1.4826 * (some - some.median(dim=1, keepdim=True).values).abs().median(dim=1).values


def own_detail(x: Image, visible: Mask, *, clip: float = CLIP) -> tuple[Image, Mask]:
    """The scan's own fine detail (B, C, H, W), 0 off the tissue, and where that tissue lies (B, 1, H, W).

    x less its 7×7 mean, where that mean lies within ±`TISSUE` in every contrast and `visible` is 1; nothing where it is 0 is used."""
    x = torch.where(visible > 0, x.float(), 0.0)
    mean = box_mean(x, 3) / box_mean(visible, 3).clamp(min=1e-6)
    tissue = visible * (mean.abs() < TISSUE).all(dim=1, keepdim=True).to(x.dtype)
    detail = (x - mean) * tissue
    bound = clip * _quantile_where(detail.abs(), tissue, 0.5)
    return detail.clamp(-bound, bound), tissue


def finest(x: Image, where: Mask, *, clip: float = CLIP) -> Image:
    """x less its 3×3 mean (B, C, H, W), held within ±`clip` times its median size on `where` (B, 1, H, W), what is even to the bit left out; 0 off it. A rise
    over several pixels has little of it, but its bend."""
    detail = (x - box_mean(x, 1)) * where
    bound = clip * _quantile_where(detail.detach().abs(), where * (detail != 0), 0.5)
    return detail.clamp(-bound, bound)


def finest_spread(x: Image, visible: Mask, tissue: Mask) -> Tensor:
    """(B, C, 1, 1): RMS of `finest` on the tissue around which all pixels are `visible`; 0 where there is none."""
    open_tissue = tissue * (box_mean(visible, 1) > 0.999).to(tissue.dtype)
    return spread_of(finest(x, open_tissue), open_tissue)


def own_spread(x: Image, visible: Mask, *, clip: float = CLIP) -> Tensor:
    """(B, C, 1, 1): RMS of the scan's own fine detail; 0 where no tissue is seen."""
    return spread_of(*own_detail(x, visible, clip=clip))


def spread_of(detail: Image, tissue: Mask) -> Tensor:
    """`own_spread` of what `own_detail` found."""
    return (detail.square().sum(dim=(2, 3), keepdim=True) / tissue.sum(dim=(2, 3), keepdim=True).clamp(min=1.0)).sqrt()


def own_grain(x: Image, visible: Mask, white: Image, *, clip: float = CLIP) -> Image:
    """Noise (B, C, H, W) that has the amplitude, the correlation and what the contrasts share of the scan's own fine detail, the same in every direction.

    A Gaussian field with the mean of the power spectrum of `own_detail` over each circle, for all contrasts together: `white` (B, C, H, W; unit normal, or 0
    where none is needed) convolved, periodically, with its root. It is the asymptotic spot noise of Galerne et al. 2011 without a direction: which way the
    folds around a lesion run says nothing of its texture, and would be seen as a hatch."""
    return grain_of(*own_detail(x, visible, clip=clip), white)


def grain_of(detail: Image, tissue: Mask, white: Image) -> Image:
    """`own_grain` of what `own_detail` found."""
    white, size = white.float(), detail.shape[2:]
    root = _root(torch.fft.rfft2(detail / tissue.sum(dim=(2, 3), keepdim=True).clamp(min=1.0).sqrt()), size)
    grain = torch.fft.irfft2(torch.einsum("bijhw,bjhw->bihw", root.to(torch.cfloat), torch.fft.rfft2(white)), s=size)
    # Where the noise is 0 beyond a box, so much of the sum is missing.
    power = torch.fft.irfft2(root, s=size).square().sum(dim=2)
    lit = torch.fft.irfft2(torch.fft.rfft2(power) * torch.fft.rfft2((white[:, :1] != 0).to(power.dtype)), s=size)
    return grain / (lit / power.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)).clamp(min=0.05).sqrt()


def _root(spectrum: Tensor, size: torch.Size) -> Tensor:
    """(B, C, C, H, W/2 + 1): at each frequency L with L Lᵀ = the mean, over the frequencies as far from 0, of the real part of s s* of the contrasts' spectra s
    (B, C, H, W/2 + 1) of fields of `size`."""
    (height, width), contrasts = size, spectrum.shape[1]
    across, down = torch.fft.rfftfreq(width, device=spectrum.device), torch.fft.fftfreq(height, device=spectrum.device)
    ring = ((across[None].square() + down[:, None].square()).sqrt() * min(height, width)).round().long().flatten()
    # The half that a real field's spectrum leaves out is the mirror image of what is there: all but the first and, of an even width, the last column.
    times = torch.where((across == 0) | (across == 0.5), 1.0, 2.0).expand(height, -1).flatten()
    power = torch.einsum("bihw,bjhw->bijhw", spectrum, spectrum.conj()).real.flatten(3) * times
    rings = int(ring.max()) + 1
    count = times.new_zeros(rings).index_add_(0, ring, times).clamp(min=1.0)
    mean = (power.new_zeros(*power.shape[:3], rings).index_add_(3, ring, power) / count).permute(0, 3, 1, 2)
    # A contrast that is the same as another has a root all the same, and one that has no detail has none.
    own = mean.diagonal(dim1=2, dim2=3)
    least = 1e-5 * own.amax(dim=(1, 2), keepdim=True)[..., None] + 1e-20
    root = torch.linalg.cholesky(mean + least * torch.eye(contrasts, device=mean.device)) * (own.amax(dim=1) > 0)[:, None, :, None]
    return root.permute(0, 2, 3, 1)[..., ring].view(*power.shape[:3], height, -1)


def shared(x: Image, where: Mask, *, radius: int = 1) -> Tensor:
    """(B, C(C - 1)/2): correlation between the contrasts' detail on `where` (B, 1, H, W), pair by pair: the finest, x less its 3×3 mean; with `radius` 3 the
    next one, the 3×3 mean less the 7×7 mean. 0 where a contrast has none."""
    inner = x if radius == 1 else box_mean(x, 1)
    return moments.correlations(inner - box_mean(x, radius), where)


def shared_distance(drawn: Image, real: Image, m: Mask) -> Tensor:
    """Mean over the two finest details and the pairs of contrasts of how far apart what `drawn` and `real` share on the lesion lies, per sample, then over the
    batch; 0 for a lesion of fewer than `LEAST` pixels."""
    gaps = [(shared(drawn.float(), m, radius=radius) - shared(real.float(), m, radius=radius)).abs() for radius in (1, 3)]
    found = torch.cat(gaps, dim=1)
    return (found.sum(dim=1) / max(1, found.shape[1]) * (m.sum(dim=(1, 2, 3)) >= LEAST)).mean()


def sharing(grain: Image, where: Mask, wanted: Tensor) -> Image:
    """`grain` (B, C, H, W) mixed over its contrasts so that they share of the finest detail what is `wanted` (as `shared`) on `where`; each stays as strong.
    A sample whose `wanted` is NaN stays as it is, and so does one of fewer than `LEAST` pixels, whose own correlations are chance.

    In 32 bit whatever the autocast: correlations near 1 need it."""
    with torch.autocast(grain.device.type, enabled=False):
        fine, channels = grain.to(torch.promote_types(grain.dtype, torch.float32)), grain.shape[1]
        own = moments.covariance(fine - box_mean(fine, 1), where)
        now = moments.listed(own)
        told = wanted.isfinite() & (where.sum(dim=(2, 3)) >= LEAST)
        mix = moments.transport(moments.matrix(now, channels), moments.matrix(torch.where(told, wanted, now), channels))
        strength = own.diagonal(dim1=1, dim2=2).clamp(min=moments.QUIET).sqrt()[:, :, None, None]
        mixed = torch.einsum("bij,bjhw->bihw", mix.to(fine.dtype), fine / strength) * strength
        return torch.where(told.all(dim=1)[:, None, None, None], mixed.to(grain.dtype), grain)


def missing_grain(f: Image, x: Image, support: Mask, white: Image) -> Image:
    """What a smooth filling f lacks of the scan's own grain: noise (B, C, H, W), 0 off the support, with which f there is as rough as quiet tissue of the scan.

    `own_grain` scaled to the spread √(quiet² − has²), per contrast: the two are independent, so their powers add. `has` is f's own spread on the support, and
    `quiet` the lower quartile, off it, of the RMS over 7×7 pixels: where cortex folds, detail is no grain. Nothing of x on the support is used. `white` as
    `own_grain` takes it."""
    visible = 1.0 - support
    detail, tissue = own_detail(x, visible)
    local = (box_mean(detail.square(), 3) / box_mean(tissue, 3).clamp(min=1e-6)).sqrt()
    quiet, has = _quantile_where(local, tissue, 0.25), own_spread(f, support)
    lack = (quiet.square() - has.square()).clamp(min=0.0).sqrt() / own_spread(x, visible, clip=QUIET).clamp(min=1e-6)
    return own_grain(x, visible, white, clip=QUIET) * lack * support


def _quantile_where(values: Image, where: Mask, q: float) -> Tensor:
    """(B, C, 1, 1): the quantile of each channel over its pixels in `where`; 0 where there is none."""
    known = torch.where(where.expand_as(values) > 0, values, torch.nan).flatten(2)
    found = known.nanmedian(dim=2).values if q == 0.5 else known.nanquantile(q, dim=2)
    return found.nan_to_num(0.0)[:, :, None, None]
