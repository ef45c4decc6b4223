"""What of trained weights may change: going on from them with another training, and drawing with them in another way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pathosyn import compared
from pathosyn.compared import Compared
from pathosyn.config import Config, Method

FREE = (
    "times",
    "solver",
    "eta",
    "spacing",
    "steps",
    "warmup",
    "noise_mm",
    "context",
    "coarse",
    "hold",
    "skew",
    "gather",
    "anatomy",
    "stop_at_fluid",
    "level",
    "drawn_forms",
    "adversary",
    "low",
    "patches",
    "shared",
    "lay",
    "anchor",
    "weights",
)
"""The decisions that may change between a training and the one that goes on from its weights: how to train and how to draw, not what a number means."""


MORE = ("grain", "roughness", "appearance", "attune", "shared_grain", "tails", "borders", "fisher_z", "log_spreads")
"""What a network may be shown on top of what it was trained with; what it knows it keeps."""


def going_on(trained: Config, asked: Config) -> Config:
    """The config of a training that starts from the weights of another: the weights' own, but for `train`, the critic, and what is `FREE`."""
    method = replace(trained.method, **{name: getattr(asked.method, name) for name in FREE})
    # A network that the weights do not hold yet may have any size and scale; one that they hold keeps both.
    coarse = asked.networks.coarse
    method = replace(method, **{name: getattr(trained.method, name) or getattr(asked.method, name) for name in MORE})
    if asked.train.structure_share:  # the network of forms can learn what roughness is now
        method = replace(method, rough_of=asked.method.rough_of)
    # A new network of forms makes the one that learned from the old one untrue.
    holds = trained.method.distilled and not asked.train.structure_share
    method = replace(method, distilled=bool(asked.train.distil_share) or (holds and asked.method.distilled))
    if trained.method.coarse > 1:
        method, coarse = replace(method, coarse=trained.method.coarse), trained.networks.coarse
    if trained.method.space == "latent":  # E_r and D_r, which stay, are shown it
        method = replace(method, context=trained.method.context, grain=trained.method.grain)
    networks = replace(trained.networks, critic=asked.networks.critic, coarse=coarse)
    return replace(trained, method=method, networks=networks, train=asked.train, compared=kept(trained.compared, asked.compared))


def kept(trained: Compared, asked: Compared) -> Compared:
    """The settings of the compared methods under which weights were trained, but for what is free."""
    made = {of: replace(getattr(trained, of), **{name: getattr(getattr(asked, of), name) for name in free}) for of, free in compared.FREE.items()}
    return replace(trained, **made)


def chosen(method: Method, text: str) -> Method:
    """The method with `FREE` decisions made anew: "solver=ddim,steps=50,hold=False". ValueError for others, which decide what the weights mean. Who names a
    solver, its steps or their spacing asks for the network of several calls."""
    found: dict[str, Any] = {}
    for name, _, value in (pair.partition("=") for pair in text.split(",")):
        if name not in (*FREE, "distilled"):
            raise ValueError(f"{name}: expected one of {', '.join(FREE)}, distilled")
        found[name] = value == "True" if value in ("True", "False") else _number(value)
    if {"solver", "eta", "spacing", "steps"} & set(found):
        found.setdefault("distilled", False)
    return replace(method, **found)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
