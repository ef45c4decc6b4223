"""pathosyn train."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pathosyn.cli.limits import flag, outside
from pathosyn.cli.sources import use_threads
from pathosyn.compared import FREE, Compared
from pathosyn.config import Config, Method, Networks, Train, default, paper, scaled
from pathosyn.errors import Fault, InputError
from pathosyn.reuse import going_on


@dataclasses.dataclass(frozen=True)
class TrainVerb:
    """Train the generator on a slices.h5. The same command again resumes where the run stopped."""

    data: Path
    """File that `pathosyn prepare` wrote."""
    run_folder: Annotated[Path, tyro.conf.arg(name="run")]
    """Folder for the run: config, environment, metrics, previews, checkpoint, weights."""
    method_name: Annotated[str, tyro.conf.arg(name="method")] = "pathosyn"
    """Which generative method: pathosyn, vaegan, brain-ldm, maskdiff-inpaint, meta-auto or difference-gan."""
    preset: Literal["default", "paper"] = "default"
    """default: what we ship. paper: the print with its typos mended."""
    scale: Literal["tiny", "small", "full"] = "small"
    """tiny: minutes, for a demo. small: an hour or two on two cores. full: one GPU."""
    start_from: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Weight file or name to start from (fine-tuning). Contrasts and networks stay, and the method but for how to train and how to draw. Weights of another
    method lend their f_sub; then --train.substrate-share 0 trains the rest alone."""
    contrasts: tuple[str, ...] = ()
    """Contrasts to learn, a subset of the data's; all of them if not given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    """CPU threads; 0: as many as torch sees fit."""
    train: Train = dataclasses.field(default_factory=Train)
    m: Method = dataclasses.field(default_factory=Method)
    """Single decisions of the method, over the preset's."""
    networks: Networks = dataclasses.field(default_factory=Networks)
    compared: Compared = dataclasses.field(default_factory=Compared)
    """What the other methods need; a training reads its own method's."""

    def run(self) -> int:
        """Train; prints where the weights are."""
        from pathosyn.data.store import read_header
        from pathosyn.optim import first_process
        from pathosyn.train import fit
        from pathosyn.weights import find

        use_threads(self.threads)
        start_from = find(self.start_from) if self.start_from else None
        if faults := _faults(self):
            raise InputError(faults)
        for name in self.ignored():
            print(f"warning: {name} is not used: going on from weights keeps theirs", file=sys.stderr)
        header = read_header(self.data)
        contrasts = self.contrasts or header.contrasts
        config = Config(contrasts, header.geometry, self.m, self.networks, self.train, self.method_name, self.compared)
        try:
            weights = fit(self.data, self.run_folder, config, start_from=start_from, device=self.device)
        except OSError as error:
            error.filename = error.filename or str(self.run_folder)  # a write knows no name
            raise
        if not first_process():
            return 0
        draws = f"generate --data {self.data} --method {self.method_name} --out DIR" if self.method_name != "pathosyn" else "insert SUBJECT_DIR --out DIR"
        print(f"weights: {weights}\nnext: pathosyn {draws} --weights {weights}")
        return 0

    def ignored(self) -> list[str]:
        """Flags that were set and that --from overrides."""
        if not self.start_from or (trained := _trained(self.start_from)) is None or trained.name != self.method_name:
            return []
        kept = going_on(trained, dataclasses.replace(trained, method=self.m, networks=self.networks, train=self.train, compared=self.compared))
        others = ((f"compared.{of}", getattr(trained.compared, of), getattr(self.compared, of), getattr(kept.compared, of)) for of in FREE)
        groups = (("m", trained.method, self.m, kept.method), ("networks", trained.networks, self.networks, kept.networks), *others)
        lost = [
            f"{name}.{f.name}"
            for name, own, asked, used in groups
            for f in dataclasses.fields(asked)
            if getattr(asked, f.name) not in (getattr(own, f.name), getattr(used, f.name))  # what nobody set is the weights' own
        ]
        if self.contrasts and self.contrasts != trained.contrasts:
            lost.append("contrasts")
        return [flag(name) for name in lost]


def _trained(weights: Path) -> Config | None:
    """The config in a weight file; None where it cannot be read, which `load` will say better."""
    from pathosyn.checkpoint import read_config
    from pathosyn.weights import find

    try:
        return read_config(find(weights))
    except InputError:
        return None


def parse(arguments: list[str]) -> TrainVerb:
    """The preset and the scale, or the weights to start from, set what the other flags default to, so they are read first."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="default")
    first.add_argument("--scale", default="small")
    first.add_argument("--method", default="pathosyn")
    first.add_argument("--from", dest="start_from", type=Path)
    early, _ = first.parse_known_args(arguments)
    networks, train = scaled(early.scale) if early.scale in ("tiny", "small", "full") else scaled("small")
    method, compared = paper() if early.preset == "paper" else default(), Compared()
    if early.start_from and (trained := _trained(early.start_from)):
        # another method's weights lend f_sub or an autoencoder
        networks, compared = dataclasses.replace(networks, sub=trained.networks.sub), trained.compared
        if trained.name == early.method:
            method, networks = trained.method, trained.networks
    return tyro.cli(
        TrainVerb,
        args=arguments,
        prog="pathosyn train",
        default=TrainVerb(data=tyro.MISSING, run_folder=tyro.MISSING, train=train, m=method, networks=networks, compared=compared),
    )


def _faults(verb: TrainVerb) -> list[Fault]:
    """Settings that no run can have. With --from, method and networks are those of the weights."""
    faults = outside("train", verb.train)
    for name in sorted({name for name in verb.contrasts if verb.contrasts.count(name) > 1}):
        faults.append(Fault("--contrasts", f"{name} twice", "each contrast once", "name it once"))
    if (total := verb.train.substrate_share + verb.train.structure_share + verb.train.distil_share + verb.train.sharpen_share) > 1:
        shares = "--train.substrate-share, --train.structure-share, --train.distil-share and --train.sharpen-share"
        faults.append(Fault(shares, f"{total:g} together", "at most 1; what is left goes to the stage deviation", "give smaller shares"))
    faults += outside("compared", verb.compared)
    widths = verb.compared.vaegan.widths
    if len(widths) != 5 or any(width < 8 or width % 8 for width in widths):
        found = " ".join(map(str, widths)) or "no width"
        faults.append(Fault("--compared.vaegan.widths", found, "5 multiples of 8, from full resolution to a sixteenth", "give one a level"))
    if verb.start_from:
        return faults
    faults += outside("m", verb.m) + outside("networks", verb.networks)
    if verb.m.distilled and not verb.train.distil_share:
        faults.append(Fault("--m.distilled", "no steps to teach it", "--train.distil-share above 0", "add --train.distil-share 0.05"))
    if not faults and verb.m.steps > verb.m.timesteps:
        faults.append(Fault("--m.steps", str(verb.m.steps), f"1…{verb.m.timesteps}", "give fewer, or more --m.timesteps"))
    if not faults and verb.m.coarse > 1 and verb.m.level > verb.m.timesteps:
        faults.append(Fault("--m.level", str(verb.m.level), f"1…{verb.m.timesteps}", "give a smaller one, or more --m.timesteps"))
    if verb.m.beta_end < verb.m.beta_start:
        faults.append(Fault("--m.beta-end", f"{verb.m.beta_end:g}", f"at least --m.beta-start, {verb.m.beta_start:g}", "give a larger one"))
    for name, kind in (("--m.prediction", verb.m.prediction), ("--m.coarse-prediction", verb.m.coarse_prediction if verb.m.coarse > 1 else "")):
        if kind == "eps" and verb.m.zero_terminal_snr:
            remedy = f"add --m.no-zero-terminal-snr, or use {name} v"
            faults.append(Fault(name, "eps with zero terminal SNR, where r_T holds no r_0", "v or r0 with it", remedy))
    for name, widths, least, most in (("sub", verb.networks.sub, 5, 5), ("eps", verb.networks.eps, 2, 6)):
        found = " ".join(map(str, widths)) or "no width"
        if not least <= len(widths) <= most:
            # Six levels halve a window five times, and every side is a multiple of 32.
            faults.append(Fault(f"--networks.{name}", found, f"{least} widths" if least == most else f"{least}…{most} widths", "give one a level"))
        if any(width < 8 or width % 8 for width in widths):
            faults.append(Fault(f"--networks.{name}", found, "every width a multiple of 8", "give multiples of 8, for the groups of group norm"))
    return faults
