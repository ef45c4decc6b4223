"""What a training begins with: fresh weights, those of another training, which may have known less, or parts of another method's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from pathosyn.checkpoint import Loaded, load
from pathosyn.config import Config
from pathosyn.errors import InputError, refuse
from pathosyn.methods import build
from pathosyn.protocol import Method
from pathosyn.reuse import going_on, kept

LENT = ("sub.", "encoder.", "decoder.", "r_scale", "r_max")
"""What one method may lend to another: f_sub with the units of what it leaves, E_r and D_r."""
STUDENT = ("student.", "taught")
"""Of the network that draws forms in one call."""


def beginning(config: Config, start_from: Path | None) -> Method:
    """Fresh weights, or those of a file under the settings that `going_on` leaves, in training mode. Weights of another method lend what both have (`LENT`),
    and the settings on which that depends. InputError as `load`, and for a training in latent space that does not start from an E_r and a D_r."""
    torch.manual_seed(config.train.seed)  # also for the critic, which a weight file does not hold
    latent = config.name == "pathosyn" and config.method.space == "latent"
    config = replace(config, method=replace(config.method, distilled=config.method.distilled or config.train.distil_share > 0))
    if start_from is None:
        if latent:
            raise _without_encoder("--m.space", "latent without --from")
        return build(config)
    loaded = load(start_from)
    if latent and not _holds(loaded.any_method.state_dict(), "sub", "encoder", "decoder"):
        raise _without_encoder(start_from, f"weights of {loaded.config.name}, which hold no E_r and D_r of deviations")
    if loaded.config.name != config.name:
        return _lent(loaded, config)
    method = build(going_on(loaded.config, config))
    # What the weights do not hold yet, a critic or the network of this coarse form, starts afresh.
    known = loaded.any_method.state_dict()
    if config.name == "pathosyn" and "rough_mean" in method.state_dict() and "rough_mean" not in known:
        known = {name: value for name, value in known.items() if not name.startswith(("coarse.", "look"))}
    if "rough_mean" in known and method.config.method.rough_of != loaded.config.method.rough_of:
        known = _without_roughness(known, len(loaded.config.contrasts))
    if any(getattr(method.config.method, name) != getattr(loaded.config.method, name) for name in ("fisher_z", "log_spreads")):  # measured in another way
        known = {name: value for name, value in known.items() if not name.startswith(("looks", "look_around", "look_map"))}
    if loaded.config.method.tails and method.config.method.shared_grain > loaded.config.method.shared_grain:
        known = _without_last(known, len(loaded.config.contrasts) * (1 + loaded.config.method.borders))
    if "taught" not in method.state_dict() or config.train.structure_share or config.train.distil_share:  # until it is taught anew, it may not draw
        known = {name: value for name, value in known.items() if not name.startswith(STUDENT)}
    known = {name: grown(value, method.state_dict()[name].shape) for name, value in known.items() if not name.startswith("critic.")}
    new = method.load_state_dict(known, strict=False)
    assert not new.unexpected_keys and all(name.startswith(("critic.", "coarse.", "rough_", "look", *STUDENT)) for name in new.missing_keys)
    return method.train()


def _without_roughness(known: dict[str, torch.Tensor], contrasts: int) -> dict[str, torch.Tensor]:
    """Without what was measured of roughness and with it; the units of the other looks stay, in which the networks have learned them."""
    kept = {name: value.clone() for name, value in known.items() if not name.startswith(("rough_", "looks", "look_around", "look_map"))}
    for name in ("look_mean", "look_std"):
        if name in kept:
            for start in (contrasts, 3 * contrasts):  # means of both kinds, then standard deviations (`appearance.measure`)
                kept[name][start : start + contrasts] = 0.0
    return kept


def _without_last(known: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Without the last `count` looks, where others now come before them; they are measured again with these."""
    kept = {name: value for name, value in known.items() if not name.startswith(("looks", "look_around", "look_map"))}
    return kept | {name: kept[name][:-count] for name in ("look_mean", "look_std") if name in kept}


def _lent(loaded: Loaded, config: Config) -> Method:
    """A new method with f_sub (and E_r, D_r) of another's weights, under their geometry, contrasts, composition and Inp."""
    theirs, known = loaded.config, loaded.any_method.state_dict()
    same = {name: getattr(theirs.method, name) for name in ("composition", "fill", "scale_residual", "tanh_delta", "clamp_quantile", "inpaint", "sigma_px")}
    if _holds(known, "encoder"):
        same |= {"context": theirs.method.context, "grain": theirs.method.grain}  # E_r and D_r are shown it
    config = replace(
        config,
        contrasts=theirs.contrasts,
        geometry=theirs.geometry,
        method=replace(config.method, **same),
        networks=replace(config.networks, sub=theirs.networks.sub),
        compared=kept(theirs.compared, config.compared) if _holds(known, "encoder") else config.compared,
    )
    method = build(config)
    mine = method.state_dict()
    for part in LENT:
        here, there = ({name: value for name, value in state.items() if name.startswith(part)} for state in (mine, known))
        # A part of the same name that is built otherwise is another thing.
        if {name: value.shape for name, value in here.items()} == {name: value.shape for name, value in there.items()}:
            method.load_state_dict(there, strict=False)
    return method.train()


def _holds(known: dict[str, torch.Tensor], *modules: str) -> bool:
    """Whether weights hold all of these modules."""
    return set(modules) <= {name.partition(".")[0] for name in known}


def _without_encoder(where: str | Path, found: str) -> InputError:
    remedy = "train a VAE-GAN with `pathosyn train --method vaegan`, then give its weights as --from"
    return refuse(where, found=found, expected="weights of vaegan to start from", remedy=remedy)


def grown(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A first layer that now sees more channels, its weights on the new ones 0: at first nothing changes. Or statistics of more numbers, the new ones 0."""
    if weight.shape == shape:
        return weight
    wider = weight.new_zeros(shape)
    wider[tuple(slice(size) for size in weight.shape)] = weight
    return wider
