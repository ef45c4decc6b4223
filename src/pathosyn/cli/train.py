"""pathosyn train."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pathosyn.config import Config, Method, Networks, Train, default, paper, scaled
from pathosyn.errors import Fault, InputError, refuse


@dataclasses.dataclass(frozen=True)
class TrainVerb:
    """Train the generator on a slices.h5. The same command again resumes where the run stopped."""

    data: Path
    """File that `pathosyn prepare` wrote."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder for the run: config, environment, metrics, previews, checkpoint, weights."""
    method_name: Annotated[str, tyro.conf.arg(name="method")] = "pathosyn"
    """Which generative method."""
    preset: Literal["default", "paper"] = "default"
    """default: what we ship. paper: the print with its typos mended."""
    scale: Literal["tiny", "small", "full"] = "small"
    """tiny: minutes, for a demo. small: an hour or two on two cores. full: one GPU."""
    start_from: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Weight file to start from (fine-tuning). Its contrasts, networks and method are kept."""
    contrasts: tuple[str, ...] = ()
    """Contrasts to learn, a subset of the data's; all of them if not given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    """CPU threads; 0: as many as torch sees fit."""
    train: Train = dataclasses.field(default_factory=Train)
    m: Method = dataclasses.field(default_factory=Method)
    """Single decisions of the method, over the preset's."""
    networks: Networks = dataclasses.field(default_factory=Networks)

    def run(self) -> int:
        """Train; prints where the weights are."""
        import torch

        from pathosyn.data.store import read_header
        from pathosyn.train import fit

        if self.threads:
            torch.set_num_threads(self.threads)
        header = read_header(self.data)
        _check(self.train)
        if self.m.inpaint != header.inpaint:
            raise refuse(
                self.data,
                found=f"the {header.inpaint} Inp target",
                expected=f"{self.m.inpaint}, as the method asks",
                remedy=f"prepare again with --inpaint {self.m.inpaint}, or train with --m.inpaint {header.inpaint}",
            )
        contrasts = self.contrasts or header.contrasts
        config = Config(contrasts, header.geometry, self.m, self.networks, self.train, self.method_name)
        weights = fit(self.data, self.run_folder, config, start_from=self.start_from, device=self.device)
        print(f"weights: {weights}\nnext: pathosyn insert SUBJECT_DIR --out DIR --weights {weights}")
        return 0


def parse(arguments: list[str]) -> TrainVerb:
    """The preset and the scale set what the other flags default to, so they are read first."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    first.add_argument("--scale", default="small")
    early, _ = first.parse_known_args(arguments)
    networks, train = scaled(early.scale) if early.scale in ("tiny", "small", "full") else scaled("small")
    method = paper() if early.preset == "paper" else default()
    return tyro.cli(
        TrainVerb,
        args=arguments,
        prog="pathosyn train",
        default=TrainVerb(data=tyro.MISSING, run_folder=tyro.MISSING, train=train, m=method, networks=networks),
    )


def _check(train: Train) -> None:
    """Numbers that no run can have."""
    faults: list[Fault] = []
    for name in ("steps", "batch_pixels", "validate_every", "checkpoint_every", "devices", "nodes"):
        if getattr(train, name) < 1:
            faults.append(Fault(f"--train.{name.replace('_', '-')}", str(getattr(train, name)), "at least 1", "give a larger number"))
    if not train.lr > 0:
        faults.append(Fault("--train.lr", str(train.lr), "a positive learning rate", "give one, 1e-4 say"))
    if faults:
        raise InputError(faults)
