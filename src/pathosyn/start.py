"""What a training begins with: fresh weights, or those of another training, which may have known less."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pathosyn.checkpoint import load
from pathosyn.config import Config
from pathosyn.methods import build
from pathosyn.reuse import going_on

if TYPE_CHECKING:
    from pathosyn.methods.pathosyn import PathoSyn


def beginning(config: Config, start_from: Path | None) -> PathoSyn:
    """Fresh weights, or those of a file under the settings that `going_on` leaves; in training mode. InputError as `load`."""
    torch.manual_seed(config.train.seed)  # also for the critic, which a weight file does not hold
    if start_from is None:
        return build(config)
    loaded = load(start_from)
    method = build(going_on(loaded.config, config))
    # What the weights do not hold yet, a critic or the network of this coarse form, starts afresh.
    afresh = ("coarse.", "look") if method.rough and not loaded.method.rough else ("critic.",)
    known = {name: grown(value, method.state_dict()[name].shape) for name, value in loaded.method.state_dict().items() if not name.startswith(afresh)}
    new = method.load_state_dict(known, strict=False)
    assert not new.unexpected_keys and all(name.startswith(("critic.", "coarse.", "rough_", "look")) for name in new.missing_keys)
    return method.train()


def grown(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A first layer that now sees more channels, its weights on the new ones 0: at first nothing changes."""
    if weight.shape == shape:
        return weight
    wider = weight.new_zeros(shape)
    wider[:, : weight.shape[1]] = weight
    return wider
