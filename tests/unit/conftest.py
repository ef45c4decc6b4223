"""A tiny PathoSyn, as a method and as a file of weights, and toy windows for the unit tests of the method. torch and MONAI are imported on first use only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pathosyn.compared import Compared, Latent
from pathosyn.config import Config, Geometry, Method, Networks, default, paper

if TYPE_CHECKING:
    from pathosyn.framework.latents import LatentMethod
    from pathosyn.methods.pathosyn import PathoSyn
    from pathosyn.types import LesionBatch

SIDE = 32


def _make(method: Method, **fields: object) -> PathoSyn:
    import torch

    from pathosyn.methods import build

    torch.manual_seed(0)
    config = Config(contrasts=("t1", "flair"), networks=Networks(sub=(8, 8, 8, 8, 8), eps=(8, 16)), method=replace(method, **fields))  # type: ignore[arg-type]
    built = build(config)
    for parameter in built.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return built


@pytest.fixture(scope="session")
def make_method() -> Callable[..., PathoSyn]:
    """(preset, **fields of it) → a tiny method; layers that start at 0 are given weights, so that every input counts."""
    return _make


@pytest.fixture
def uneven() -> PathoSyn:
    """`default`, with another unit for each number of a lesion's looks."""
    import torch

    made = _make(default())
    numbers = len(made.look_mean)
    made.look_mean.copy_(torch.linspace(-1, 1, numbers))
    made.look_std.copy_(torch.linspace(0.5, 2, numbers))
    made.rough_std.fill_(1.0)
    return made


def _make_latent(name: str, **fields: object) -> LatentMethod:
    import torch

    from pathosyn.framework.latents import LatentMethod
    from pathosyn.methods import build

    torch.manual_seed(0)
    latent = replace(Latent(side=SIDE, widths=(8, 16), denoiser=(8, 16), critic=(8, 8, 8), code=4, steps=3), **fields)  # type: ignore[arg-type]
    built = build(Config(contrasts=("t1", "flair"), name=name, compared=Compared(latent=latent)))
    assert isinstance(built, LatentMethod)
    for parameter in built.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    built.code_mean.copy_(torch.tensor([0.5, -0.2, 0.0, 0.1]))
    built.code_std.copy_(torch.tensor([0.5, 2.0, 1.0, 0.1]))
    return built


@pytest.fixture(scope="session")
def make_latent() -> Callable[..., LatentMethod]:
    """("brain-ldm" or "maskdiff-inpaint", **fields of `Latent`) → a tiny one for slices of 32 px, a code of 4 × 8 × 8 in units of its own; no layer is 0."""
    return _make_latent


@pytest.fixture(scope="session")
def _two_methods() -> dict[str, PathoSyn]:
    return {"default": _make(default(), adversary=0.1, drawn_forms=0.0), "paper": _make(paper())}


@pytest.fixture
def tiny(_two_methods: dict[str, PathoSyn]) -> Iterator[dict[str, PathoSyn]]:
    """Both presets, `default` with a critic and with real forms alone, built once; gradients are cleared, statistics put back."""
    yield _two_methods
    for method in _two_methods.values():
        method.zero_grad(set_to_none=True)
        method.r_scale.fill_(1.0)
        method.r_max.fill_(0.0)


def _batch_of(count: int = 3, *, healthy: tuple[bool, ...] | None = None, present: list[list[int]] | None = None) -> LesionBatch:
    import torch

    from pathosyn.decomposition import feather
    from pathosyn.types import LesionBatch

    draw = torch.Generator().manual_seed(5)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    distance = torch.stack([((y - 15) ** 2 + (x - 16) ** 2).float().sqrt() - 3 - i for i in range(count)])[:, None].clip(min=0)
    known = torch.tensor(present).bool() if present else torch.ones(count, 2, dtype=torch.bool)
    scan, target = (torch.randn(count, 2, SIDE, SIDE, generator=draw) * known[:, :, None, None] for _ in range(2))
    return LesionBatch(
        x=scan,
        m=(distance == 0).float(),
        S=feather(distance, grow_mm=1.5, feather_mm=3.0),
        x_ph=target,
        present=known,
        healthy=torch.tensor(healthy or (False,) * count),
        subject=[f"s{i}" for i in range(count)],
        z=list(range(count)),
    )


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., LesionBatch]:
    """(count, healthy=…, present=…) → two-contrast windows of 32 px with disks of radius 3, 4, …; a missing contrast is 0."""
    return _batch_of


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """contrasts → a weight file of tiny networks of `default` that have learned nothing and take one call."""

    @cache
    def saved(contrasts: tuple[str, ...]) -> Path:
        import torch

        from pathosyn.checkpoint import Provenance, save_weights
        from pathosyn.methods import build

        torch.manual_seed(0)
        networks = Networks(sub=(8, 8, 8, 8, 8), eps=(8, 16), coarse=(8, 16))
        method = build(Config(contrasts, networks=networks, method=replace(default(), steps=1)))
        for parameter in method.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.05)
        path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
        save_weights(path, method, Provenance(population={"area_mm2": [20.0, 100.0]}))
        return path

    return lambda contrasts: saved(tuple(contrasts))


@pytest.fixture(scope="session")
def prepared_cohort(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, Sequence[str]]], Path]:
    """partition → subjects of the tiny cohort, as a slices file with windows of 64 pixels."""

    def of(partitions: Mapping[str, Sequence[str]]) -> Path:
        from pathosyn.data.prepare import prepare

        folder = tmp_path_factory.mktemp("cohort")
        lines = [f"{name},{partition}" for partition, names in partitions.items() for name in names]
        (folder / "split.csv").write_text("subject,partition\n" + "\n".join(lines) + "\n")
        geometry = Geometry(buckets=(64,), margin_mm=4.0)
        prepare([tiny_cohort], folder / "slices.h5", split=folder / "split.csv", geometry=geometry, workers=0, progress=False)
        return folder / "slices.h5"

    return of
