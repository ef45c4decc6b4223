"""fit(): the one generative training loop. It does not know which method it trains (DESIGN §8).

Every draw is keyed by (seed, step, sample), so a resumed run, another batch split or another number of processes sees the same batches and
noise. The same command again resumes; stop + resume ends in the same weights as a straight run, bit for bit on one CPU.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pathosyn import rng
from pathosyn.checkpoint import Provenance, save_weights
from pathosyn.config import Config, Train
from pathosyn.data.nifti import file_sha256
from pathosyn.data.population import fingerprint, population
from pathosyn.data.slices import Slices
from pathosyn.errors import refuse
from pathosyn.framework.base import Framework
from pathosyn.optim import averaging, fabric_for, learning_rate, precision
from pathosyn.progress import Track, track
from pathosyn.protocol import Method, Stage
from pathosyn.runfolder import RunFolder, package_version
from pathosyn.training import feed
from pathosyn.training.monitor import Running, preview, validate
from pathosyn.training.start import beginning
from pathosyn.writing import refuse_unwritable

if TYPE_CHECKING:
    from lightning_fabric import Fabric


LOG_EVERY = 50


@dataclass(frozen=True)
class Session:
    """What stays the same through a run."""

    fabric: Fabric
    method: Method
    train: Slices
    held_out: Slices | None
    folder: RunFolder
    parent: str
    population: dict[str, Any]
    bar: Track

    @property
    def settings(self) -> Train:
        """The optimisation's settings."""
        return self.method.config.train


@dataclass(frozen=True)
class Players:
    """The modules that a stage moves, their running averages and their optimisers, by player; `running`: what metrics.csv does not have yet."""

    modules: dict[str, nn.ModuleList]
    averages: dict[str, AveragedModel]
    optimizers: dict[str, torch.optim.Optimizer]
    running: Running


def fit(data: str | Path, run: str | Path, config: Config, *, start_from: str | Path | None = None, device: str = "auto", progress: bool = True) -> Path:
    """Train `config` on the training subjects of `data` into `run`; returns the weight file.

    `start_from`: a weight file to start from (fine-tuning). Its contrasts, geometry, networks and what its numbers mean are kept; `config.train` and
    the `reuse.FREE` decisions of the method are used, and its `rough_of` where the stage `structure` has a share: the weights' statistics of roughness are then
    measured anew.
    InputError: unreadable data, no lesion to learn from, a run folder with other settings, data that lacks every contrast of the weights."""
    data, run, start_from = Path(data), Path(run), Path(start_from) if start_from else None
    refuse_unwritable(run, "--run")
    method = beginning(config, start_from)
    train = feed.training_slices(data, method.config)
    held_out = feed.validation_slices(data, method.config)
    seen, held_out = feed.seen_by(method, train), feed.seen_by(method, held_out) if held_out else None
    fabric = fabric_for(config.train, device)
    settings = replace(config.train, precision=precision(config.train, fabric.device.type))
    method.config = config = replace(method.config, train=settings)
    folder = RunFolder(run)
    parent = file_sha256(start_from) if start_from else ""
    if fabric.is_global_zero:
        folder.open(config, data=fingerprint(train), parent=parent)
        if grown := feed.grown(seen, config.train, fabric.world_size):
            print(f"warning: {grown}", file=sys.stderr)
    fabric.barrier()
    state = folder.load_state(fabric.device)
    fabric.barrier()  # every process has cut metrics.csv before one writes to it
    done = state["step"] if state else 0
    with track(config.train.steps, "train", "steps", done=done, show=progress and fabric.is_global_zero) as bar:
        session = Session(fabric, method.to(fabric.device), seen, held_out, folder, parent, population(train), bar)
        _run_stages(session, state)
    if fabric.is_global_zero:
        _export(session, method, config.train.steps)
    fabric.barrier()
    return folder.weights


def _run_stages(session: Session, state: dict[str, Any] | None) -> None:
    method, done = session.method, state["step"] if state else 0
    if state:
        method.load_state_dict(state["method"])
    filled: Slices | None = None
    for stage, start, stop in _schedule(method.stages, session.settings.steps):
        if done >= stop:
            continue
        slices = session.train
        if stage.filled:
            assert isinstance(method, Framework)  # the others have no f_sub
            filled = filled or feed.filled(method, session.train, session.fabric)
            slices = filled
        slices = slices.plain() if stage.plain else slices
        if done == start:
            statistics = method.begin(stage.name, feed.Windows(slices, session.fabric.device))
            values = {f"{name}.{k}": v for name, row in statistics.items() for k, v in _named(row, method.config.contrasts)}
            if session.fabric.is_global_zero:
                session.folder.log(start, stage.name, "train", values)
        players = _players(session, stage, state if state and start < done else None)
        _run_steps(session, slices, stage, players, start, max(start, done), stop)
        done = stop


def _named(row: Sequence[float], contrasts: Sequence[str]) -> Iterable[tuple[str | int, float]]:
    """The values of one statistic: one a contrast, or else numbered."""
    return zip(contrasts, row, strict=True) if len(row) == len(contrasts) else enumerate(row)


def _players(session: Session, stage: Stage, state: dict[str, Any] | None) -> Players:
    """Only this stage's players may move; what a checkpoint inside the stage knew is put back."""
    settings = session.settings
    session.method.requires_grad_(False)
    modules = {player: nn.ModuleList(session.method.modules_of(player)).requires_grad_(True) for player in stage.players}
    averages = {p: AveragedModel(m, multi_avg_fn=averaging(settings.ema)) for p, m in modules.items()}
    optimizers: dict[str, torch.optim.Optimizer] = {
        # Fused: one pass over the weights in place of several.
        p: torch.optim.AdamW(m.parameters(), lr=settings.lr, betas=stage.betas, weight_decay=settings.weight_decay, fused=True)
        for p, m in modules.items()
    }
    running = Running()
    if state:
        running.values.update(state.get("running", {}))
        for player in stage.players:
            averages[player].load_state_dict(state["averages"][player])
            optimizers[player].load_state_dict(state["optimizers"][player])
    for optimizer in optimizers.values():
        session.fabric.setup_optimizers(optimizer)
    return Players(modules, averages, optimizers, running)


def _run_steps(session: Session, slices: Slices, stage: Stage, players: Players, start: int, done: int, stop: int) -> None:
    """Steps `done`…`stop` of a stage that began at `start`. On return the method holds the averaged weights."""
    settings, running = session.settings, players.running
    session.method.train()
    rank, world = session.fabric.global_rank, session.fabric.world_size
    for turn in feed.batches(slices, stage, settings, start, done, stop, rank=rank, world=world):
        step = turn.step
        for player in stage.players:
            rate = learning_rate(step - start, stop - start, settings, player=player)
            terms = _step(session, players.optimizers[player], turn, player=player, rate=rate)
            players.averages[player].update_parameters(players.modules[player])
            running.add(terms if player == stage.players[-1] else {name: value for name, value in terms.items() if name != "loss"})
        now, last = step + 1, step + 1 == stop
        session.bar.advance(1)
        if now % LOG_EVERY == 0 or last:
            means = running.take()
            session.bar.advance(0, note=f"{stage.name} loss {means['loss']:.4f}")
            if session.fabric.is_global_zero:
                session.folder.log(now, stage.name, "train", {**means, "lr": rate})
        if session.fabric.is_global_zero and (now % settings.validate_every == 0 or last):
            _look(session, stage, _averaged(session.method, players), now)
        if now % settings.checkpoint_every == 0 and not last:
            _checkpoint(session, players, now)
    for player, module in players.modules.items():
        module.load_state_dict(players.averages[player].module.state_dict())
    _checkpoint(session, players, stop)


def _step(session: Session, optimizer: torch.optim.Optimizer, turn: feed.Turn, *, player: str, rate: float) -> dict[str, float]:
    """One optimiser step on this process's share of the batch."""
    fabric, settings = session.fabric, session.settings
    for group in optimizer.param_groups:
        group["lr"] = rate
    streams = [rng.generator(settings.seed, "noise", turn.step, player, i) for i in turn.samples]
    with fabric.autocast():
        terms = session.method.losses(turn.batch.to(fabric.device), player=player, rng=streams)
    fabric.backward(turn.weight * terms["loss"])
    moved = [p for g in optimizer.param_groups for p in g["params"]]
    values = torch.stack([value.detach().float() for value in terms.values()]) * turn.weight
    if fabric.world_size > 1:
        values = _added_up(moved, values)
    norm = torch.nn.utils.clip_grad_norm_(moved, settings.clip_norm)
    if not torch.isfinite(norm):  # the weights of the last checkpoint are still good: none may be written over them
        remedy = "try a smaller --train.lr or --train.precision 32-true, in a new --run; if it stays, look at the data with `pathosyn check`"
        found = f"a gradient that is not finite (loss {terms['loss'].item():g})"
        raise refuse(f"training step {turn.step + 1}", found=found, expected="numbers", remedy=remedy)
    optimizer.step()
    # All of it: the one who plays against the critic has left gradients there, and the critic's next step may not add them to its own.
    session.method.zero_grad(set_to_none=True)
    return dict(zip(terms, values.tolist(), strict=True))


def _added_up(parameters: Sequence[nn.Parameter], values: Tensor) -> Tensor:
    """`values` (n,) added up over processes, and so are the gradients of `parameters`, which each process has weighed by its share of the batch.

    In one message, for at each of them whoever is early waits, and not by Fabric, which has all wait for each other before it sends one. Not by
    DistributedDataParallel either, which cannot have a player whose step leaves the other's weights alone."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    message = torch.cat([*(g.flatten() for g in gradients), values])
    torch.distributed.all_reduce(message)
    *sums, values = message.split([*(g.numel() for g in gradients), len(values)])
    for parameter, gradient in zip(parameters, sums, strict=True):
        parameter.grad = gradient.view_as(parameter)
    return values


def _schedule(stages: Sequence[Stage], steps: int) -> Iterator[tuple[Stage, int, int]]:
    """Each stage with its first step and the step after its last."""
    start, share = 0, 0.0
    for stage in stages:
        share += stage.share
        stop = round(steps * share)
        yield stage, start, stop
        start = stop


def _look(session: Session, stage: Stage, method: Method, step: int) -> None:
    """Validation metrics and a preview; on training windows, and called so, where the data has no validation lesions."""
    slices, partition = (session.held_out, "validation") if session.held_out else (session.train, "train-fixed")
    session.folder.log(step, stage.name, partition, validate(method, slices, player=stage.players[-1], device=session.fabric.device))
    preview(method, slices, session.folder.previews / f"{stage.name}-{step:07d}.png", device=session.fabric.device)


def _checkpoint(session: Session, players: Players, step: int) -> None:
    if not session.fabric.is_global_zero:
        return
    state = {
        "step": step,
        "method": session.method.state_dict(),
        "averages": {p: a.state_dict() for p, a in players.averages.items()},
        "optimizers": {p: o.state_dict() for p, o in players.optimizers.items()},
        "running": dict(players.running.values),
    }
    session.folder.save_state(state)
    _export(session, _averaged(session.method, players), step)


def _export(session: Session, method: Method, step: int) -> None:
    subjects = {"train": list(session.train.subjects)}
    if session.held_out:
        subjects["validation"] = list(session.held_out.subjects)
    provenance = Provenance(
        data=fingerprint(session.train),
        subjects=subjects,
        population=session.population,
        steps=step,
        parent=session.parent,
        pathosyn=package_version(),
    )
    save_weights(session.folder.weights, method, provenance)


def _averaged(method: Method, players: Players) -> Method:
    """A copy that holds the averaged weights: what is looked at and shipped."""
    shown = copy.deepcopy(method).requires_grad_(False)
    for player, average in players.averages.items():
        nn.ModuleList(shown.modules_of(player)).load_state_dict(average.module.state_dict())
    return shown.eval()
