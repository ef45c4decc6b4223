"""`pathosyn train`: what a run leaves behind, and that stopping it anywhere changes nothing."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pathosyn import train as loop
from pathosyn.checkpoint import load
from pathosyn.types import LesionBatch

Cli = Callable[..., int]
PAPER = ("--preset", "paper", "--m.inpaint", "harmonic", "--m.steps", "2", "--m.adversary", "0")


class Killed(BaseException):
    """Power cut: nothing in the program may catch it."""


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same_end(run: Path, other: Path) -> None:
    assert (run / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    assert (run / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()


def changed(then: dict[str, torch.Tensor], now: dict[str, torch.Tensor], network: str) -> float:
    """The share of a network's tensors that are not the same to the bit."""
    names = [name for name in now if name.startswith(network)]
    return sum(not torch.equal(then[name], now[name]) for name in names) / len(names)


def stop_after_checkpoint(patch: pytest.MonkeyPatch, at: int) -> None:
    original = loop._checkpoint

    def checkpoint(*given: object) -> None:
        original(*given)  # type: ignore[arg-type]
        if given[2] == at:
            raise KeyboardInterrupt

    patch.setattr(loop, "_checkpoint", checkpoint)


def kill_in(patch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """`name` of the loop's module is reached for the `at`-th time and never returns."""
    calls = iter(range(1, 1000))
    original = getattr(loop, name)

    def killed(*given: object, **named: object) -> object:
        if next(calls) == at:
            raise Killed
        return original(*given, **named)

    patch.setattr(loop, name, killed)


def killed_and_straight(train: Cli, folder: Path, at: int, *flags: object) -> None:
    """A training into `straight`, and one into `run` that is killed in its `at`-th step and taken up again, end alike."""
    assert train(folder / "straight", *flags) == 0
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, "_step", at)
        with pytest.raises(Killed):
            train(folder / "run", *flags)
    assert train(folder / "run", *flags) == 0
    same_end(folder / "run", folder / "straight")


# -- stop + resume = straight run -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 4, 6])
def test_a_run_stopped_at_a_checkpoint_ends_as_if_it_had_not_been(train: Cli, straight: Path, tmp_path: Path, at: int) -> None:
    """3 lies in the first stage, 4 and 6 between the stages. From 4 on f_sub does not move by a bit."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after_checkpoint(patch, at)
        assert train(run) == 130
    assert torch.load(run / "state.pt", weights_only=True)["step"] == at
    then, now = load_file(run / "weights.safetensors"), load_file(straight / "weights.safetensors")
    assert changed(then, now, "sub.") == (1.0 if at < 4 else 0.0)
    assert changed(then, now, "eps.") > 0.9
    assert torch.equal(then["r_scale"], torch.ones(4)) == (at <= 4) and not torch.equal(now["r_scale"], torch.ones(4))
    assert train(run) == 0
    same_end(run, straight)


@pytest.mark.parametrize("where, at", [("_step", 3), ("_step", 6), ("_step", 8), ("_step", 10), ("_look", 2), ("save_weights", 3)])
def test_a_killed_run_ends_as_if_it_had_not_been(train: Cli, straight: Path, tmp_path: Path, where: str, at: int) -> None:
    """Before the first checkpoint, between two of them, between critic and network, in the last step, while validating, and between state and weights."""
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, where, at)
        with pytest.raises(Killed):
            train(run)
    assert train(run) == 0
    same_end(run, straight)


def test_a_run_stopped_within_the_adversarial_stage_ends_as_if_it_had_not_been(train: Cli, straight: Path, tmp_path: Path) -> None:
    """At step 7, by a checkpoint that the straight run does not write; critic, averages and both optimisers come back."""
    run, flags = tmp_path / "run", ("--train.checkpoint-every", 7)
    with pytest.MonkeyPatch.context() as patch:
        stop_after_checkpoint(patch, 7)
        assert train(run, *flags) == 130
    at_7 = torch.load(run / "state.pt", weights_only=True)
    assert at_7["step"] == 7 and set(at_7["optimizers"]) == set(at_7["averages"]) == {"critic", "sharp"}
    assert train(run, *flags) == 0
    ends = [torch.load(folder / "state.pt", weights_only=True) for folder in (run, straight)]
    for part in ("method", "averages"):
        ours, theirs = (end[part] if part == "method" else {f"{p}.{k}": v for p, held in end[part].items() for k, v in held.items()} for end in ends)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (run / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
    assert changed(at_7["method"], ends[0]["method"], "critic.") > 0.8 and changed(at_7["method"], ends[0]["method"], "eps.") > 0.9
    assert changed(at_7["method"], ends[0]["method"], "sub.") == 0.0


def test_the_critic_learns_from_its_own_loss_alone(train: Cli, tmp_path: Path) -> None:
    """Each player starts from no gradient, whatever the other's loss passed through."""
    from pathosyn.methods.pathosyn import PathoSyn

    left: list[tuple[str, float]] = []
    original = PathoSyn.losses

    def losses(self: PathoSyn, batch: LesionBatch, *, player: str, rng: object) -> dict[str, torch.Tensor]:
        mine = [p.grad for part in self.modules_of(player) for p in part.parameters() if p.grad is not None]
        left.append((player, sum(float(grad.abs().sum()) for grad in mine)))
        return original(self, batch, player=player, rng=rng)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PathoSyn, "losses", losses)
        patch.setattr(loop, "_look", lambda *_: None)
        assert train(tmp_path / "run") == 0
    assert [player for player, _ in left][-4:] == ["critic", "sharp"] * 2
    assert not [(player, grad) for player, grad in left if grad > 0]


def test_joint_training_resumes_to_the_bit_too(train: Cli, paper_straight: Path, tmp_path: Path) -> None:
    """Killed twice, after the checkpoint at 3 and after the one at 6; both networks learn all the way."""
    run = tmp_path / "run"
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            kill_in(patch, "_step", 5)
            with pytest.raises(Killed):
                train(run, *PAPER)
    assert torch.load(run / "state.pt", weights_only=True)["step"] == 6
    then = load_file(run / "weights.safetensors")
    # What a power cut in the middle of a write leaves is not taken for a checkpoint.
    (run / ".state.pt.part").write_bytes(b"cut")
    (run / ".weights.safetensors.part").write_bytes(b"cut")
    assert train(run, *PAPER) == 0
    same_end(run, paper_straight)
    now = load_file(run / "weights.safetensors")
    assert changed(then, now, "sub.") > 0.9 and changed(then, now, "eps.") > 0.9


def test_the_same_command_on_a_finished_run_changes_nothing(train: Cli, straight: Path, tmp_path: Path, contents: Callable[[Path], dict[str, str]]) -> None:
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    with pytest.MonkeyPatch.context() as patch:
        kill_in(patch, "_step", 1)
        assert train(run) == 0
    assert contents(run) == contents(straight)


def test_another_seed_is_another_run(train: Cli, straight: Path, tmp_path: Path) -> None:
    assert train(tmp_path / "other", "--train.seed", 1, "--train.validate-every", 100) == 0
    ours, theirs = (load_file(run / "weights.safetensors") for run in (straight, tmp_path / "other"))
    # A layer that starts at 0 and has had one step may still be there.
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours if name.endswith("conv.weight") and ours[name].any())


# -- what a run leaves behind -----------------------------------------------------------------------------------------------------------


def test_run_folder_of_a_staged_run(straight: Path, prepared: Path) -> None:
    config = json.loads((straight / "config.json").read_text())["config"]
    assert config["contrasts"] == ["t1", "t1ce", "t2", "flair"]
    assert config["train"]["steps"] == 8 and config["method"]["joint"] is False and config["geometry"]["buckets"] == [32, 64]
    environment = json.loads((straight / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"] == torch.__version__
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))
    logged = {(row["step"], row["stage"], row["partition"], row["metric"]) for row in rows(straight)}
    for partition in ("train", "validation"):
        assert {m for _, s, p, m in logged if (s, p) == ("substrate", partition)} >= {"sub", "loss"}
        assert {m for _, s, p, m in logged if (s, p) == ("deviation", partition)} >= {"diff", "pat", "ring", "leak", "dev", "syn", "std_r0", "loss"}
    assert {m for _, s, p, m in logged if (s, p) == ("sharpen", "validation")} >= {"adversary", "low", "loss"}
    assert {m for _, s, p, m in logged if (s, p) == ("structure", "validation")} >= {"diff", "pat", "loss"}
    assert {m for _, s, p, m in logged if (s, p) == ("sharpen", "train")} >= {"critic_patch", "critic_whole", "adversary", "low", "loss", "lr"}
    assert {("4", "substrate", "validation", name) for name in ("psnr_sub", "psnr_inp")} <= logged
    assert {step for step, _, p, _ in logged if p == "validation"} == {"4", "5", "6", "8"}
    statistics = {(a, c) for a in ("r_scale", "r_max", "rough_mean", "rough_std") for c in config["contrasts"]}
    statistics |= {(a, str(k)) for a in ("look_mean", "look_std") for k in range(6 * 4 + 6 + 6 + 4 + 4)}
    assert {(m.split(".")[0], m.split(".")[1]) for _, _, _, m in logged if "." in m} == statistics
    assert all(np.isfinite(float(row["value"])) for row in rows(straight))
    assert len({(r["step"], r["stage"], r["partition"], r["metric"]) for r in rows(straight)}) == len(rows(straight)), "a row twice"
    assert not [path.name for path in straight.iterdir() if path.name.endswith(".part")]


def test_total_is_the_weighted_sum_of_the_logged_terms(straight: Path, paper_straight: Path) -> None:
    """Eq. 15 with each run's own λ's, on validation (where the terms are not averaged over steps), and the last stage's terms with theirs."""
    for run, stage, step in ((straight, "deviation", "6"), (straight, "sharpen", "8"), (paper_straight, "joint", "8")):
        method = json.loads((run / "config.json").read_text())["config"]["method"]
        lam = method["weights"]
        row = {r["metric"]: float(r["value"]) for r in rows(run) if r["stage"] == stage and r["partition"] == "validation" and r["step"] == step}
        if stage == "sharpen":
            total = sum(method[name] * row[name] for name in ("adversary", "low", "patches", "shared", "lay")) + method["anchor"] * row["diff"]
            assert row["loss"] == pytest.approx(total, rel=1e-3)
            continue
        assert row["loss"] == pytest.approx(row.get("sub", 0.0) + lam["diff"] * row["diff"] + lam["dev"] * row["dev"] + lam["syn"] * row["syn"], rel=1e-3)
        assert row["dev"] == pytest.approx(lam["pat"] * row["pat"] + lam["ring"] * row["ring"] + lam["leak"] * row["leak"], rel=1e-3)


def test_previews_are_pictures_with_something_in_them(straight: Path, paper_straight: Path) -> None:
    from PIL import Image

    shown = ["deviation-0000006.png", "sharpen-0000008.png", "structure-0000005.png", "substrate-0000004.png"]
    assert sorted(p.name for p in (straight / "previews").iterdir()) == shown
    assert sorted(p.name for p in (paper_straight / "previews").iterdir()) == ["joint-0000005.png", "joint-0000008.png"]
    for path in (straight / "previews").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 100 and len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_run_folder_of_a_joint_run(paper_straight: Path) -> None:
    terms = {row["metric"] for row in rows(paper_straight) if row["partition"] == "train" and row["stage"] == "joint"}
    assert terms >= {"sub", "diff", "pat", "ring", "leak", "dev", "syn", "std_r0", "loss", "lr"}
    tensors = load_file(paper_straight / "weights.safetensors")
    assert torch.equal(tensors["r_scale"], torch.ones(4)) and not tensors["r_max"].any(), "the print knows neither scale nor clamp"


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    from pathosyn.config import Train

    settings = Train(lr=2.0, lr_warmup=10)
    rates = [loop.learning_rate(step, 100, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and max(rates) < 2.0 and int(np.argmax(rates)) == 9
    assert all(a > b for a, b in pairwise(rates[9:]))
    assert rates[50] == pytest.approx(1.0) and rates[100] == pytest.approx(0.0)
    critic = [loop.learning_rate(step, 100, Train(lr=2.0, critic_lr=5.0, lr_warmup=10), player="critic") for step in range(101)]
    assert critic == pytest.approx([2.5 * rate for rate in rates]), "its own rate, the same course"


def test_weights_say_what_they_have_seen(straight: Path, prepared: Path) -> None:
    told = load(straight / "weights.safetensors").provenance
    assert told.subjects == {"train": ["healthy_000", "phantom_000", "phantom_001", "phantom_002", "phantom_004"], "validation": ["phantom_003"]}
    assert told.steps == 8 and told.parent == "" and len(told.data) == 64
    assert set(told.population["intensity"]) == {"t1", "t1ce", "t2", "flair"} and told.population["intensity"]["t1ce"]["subjects"] == 4
    assert 0 < told.population["area_mm2"][0] < told.population["area_mm2"][1]


# -- fine-tuning ------------------------------------------------------------------------------------------------------------------------


def test_fine_tuning_starts_from_the_weights_and_keeps_what_they_are(train: Cli, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a learning rate of next to nothing only the statistics of r_0 may differ; contrasts, method and networks are the parent's, whatever is asked."""
    parent = straight / "weights.safetensors"
    run = tmp_path / "run"
    flags = ("--from", parent, "--train.lr", "1e-12", "--train.steps", 2, "--contrasts", "t1")
    assert train(run, *flags, "--m.prediction", "r0", "--networks.sub", 16, 16, 16, 16, 16) == 0
    warned = [line.split()[1] for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ") and "is not used: going on from weights" in line]
    assert sorted(warned) == ["--contrasts", "--m.prediction", "--networks.sub"], "one line a flag that was set, and none for what the weights say anyway"
    before, after = load_file(parent), load_file(run / "weights.safetensors")
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-10) for name in before if not name.startswith("r_"))
    child, old = load(run / "weights.safetensors"), load(parent)
    assert (child.config.contrasts, child.config.geometry, child.config.method, child.config.networks) == (
        old.config.contrasts,
        old.config.geometry,
        old.config.method,
        old.config.networks,
    )
    assert child.config.train.steps == 2 and child.provenance.parent == old.sha256


def test_fine_tuning_may_train_and_draw_in_another_way(train: Cli, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`reuse.FREE` comes from the command line, without a warning; what is not given stays the weights' own."""
    parent, run = straight / "weights.safetensors", tmp_path / "run"
    flags = ("--train.steps", 2, "--m.steps", 3, "--m.solver", "dpm2m", "--m.adversary", 0, "--m.patches", 0)
    assert train(run, "--from", parent, *flags) == 0
    assert "not used" not in capsys.readouterr().err
    child, old = load(run / "weights.safetensors").config, load(parent).config
    assert child.method == replace(old.method, steps=3, solver="dpm2m", adversary=0.0, patches=0.0) != old.method
    assert {row["stage"] for row in rows(run)} <= {"substrate", "structure", "deviation"}, "no adversary, no critic"


def test_fine_tuning_moves_f_sub_and_resumes(train: Cli, straight: Path, tmp_path: Path) -> None:
    parent = straight / "weights.safetensors"
    flags = ("--from", parent, "--train.seed", 3, "--train.validate-every", 100)
    killed_and_straight(train, tmp_path, 8, *flags)
    before, after = load_file(parent), load_file(tmp_path / "straight" / "weights.safetensors")
    assert changed(before, after, "sub.") > 0.9 and changed(before, after, "eps.") > 0.9


def test_a_student_is_taught_on_top_of_weights_resumes_draws_and_is_dropped_when_its_teacher_moves(
    train: Cli, cli: Cli, straight: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent, shares = straight / "weights.safetensors", ("--train.substrate-share", 0, "--train.structure-share", 0, "--train.sharpen-share", 0)
    flags = ("--from", parent, "--train.distil-share", 1, *shares, "--train.steps", 6)
    killed_and_straight(train, tmp_path, 5, *flags)
    assert "not used" not in capsys.readouterr().err
    before, after = load_file(parent), load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before), "nothing else moves"
    teacher = {name.replace("coarse.", "student.", 1): value for name, value in before.items() if name.startswith("coarse.")}
    assert changed(teacher, after, "student.") > 0.9
    steps = [row for row in rows(tmp_path / "run") if row["stage"] == "distil"]
    assert {row["metric"] for row in steps} >= {"distil", "untaught", "loss"}
    drawn = {}
    for name, calls in (("one", ()), ("several", ("--steps", 2))):
        flags = ("--data", prepared, "--weights", tmp_path / "run" / "weights.safetensors", "--out", tmp_path / name, *calls)
        assert cli("generate", *flags, "--purpose", "train", "--per-subject", 1, "--threads", 1) == 0
        drawn[name] = (tmp_path / name / "windows.h5").read_bytes()
    assert drawn["one"] != drawn["several"]
    assert train(tmp_path / "moved", "--from", tmp_path / "run" / "weights.safetensors", "--train.steps", 2) == 0
    assert not load(tmp_path / "moved" / "weights.safetensors").config.method.distilled and "not used" not in capsys.readouterr().err


# -- refusals ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, named",
    [
        (("--train.lr", "0.5"), "config.train.lr"),
        (("--train.seed", "9"), "config.train.seed"),
        (("--preset", "paper", "--m.inpaint", "harmonic"), "config.method.composition"),
        (("--contrasts", "t1", "flair"), "config.contrasts"),
        (("--networks.eps", "8", "16"), "config.networks.eps"),
    ],
)
def test_other_settings_on_the_same_run_are_refused(
    train: Cli, straight: Path, contents: Callable[[Path], dict[str, str]], capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], named: str
) -> None:
    before = contents(straight)
    assert train(straight, *flags) == 2
    told = capsys.readouterr().err
    assert named in told and "new --run" in told and "Traceback" not in told
    assert contents(straight) == before


def test_other_data_or_another_parent_on_the_same_run_is_refused(
    cli: Cli, train: Cli, straight: Path, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    other = Path(shutil.copy(prepared, tmp_path / "other.h5"))
    with h5py.File(other, "r+") as file:
        file["subjects/phantom_001"].attrs["checksum"] += 1
    assert train(straight, "--from", straight / "weights.safetensors") == 2
    assert "from = " in capsys.readouterr().err
    assert train(straight, "--data", other) == 2
    assert "data = " in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(train: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    assert train(tmp_path) == 2
    assert "other files" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_preset_and_data_must_have_one_inp_target(train: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--preset", "paper") == 2
    assert "--inpaint biharmonic" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_weights(train: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From step 5 on; the checkpoints at 6 and 8 must not be written."""
    from pathosyn.methods.pathosyn import PathoSyn

    original, calls = PathoSyn.losses, iter(range(1000))

    def losses(self: PathoSyn, batch: object, *, player: str, rng: object) -> dict[str, torch.Tensor]:
        terms = original(self, batch, player=player, rng=rng)  # type: ignore[arg-type]
        factor = torch.nan if self.training and next(calls) >= 4 else 1.0
        return {name: value * factor for name, value in terms.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PathoSyn, "losses", losses)
        assert train(tmp_path / "run", "--train.validate-every", 100) == 2
    told = capsys.readouterr().err
    assert "not finite" in told and "--train.lr" in told
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 4 and all(torch.isfinite(value).all() for value in load_file(tmp_path / "run" / "weights.safetensors").values())


# -- several processes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_the_shares_of_a_batch_add_up_to_it(straight: Path, paper_straight: Path, prepared: Path, preset: str) -> None:
    """The mean of two processes' gradients is the gradient of the whole batch, also where the samples that a term leaves out (no lesion pixel
    in the window, so no ring; no support) fall to the processes unevenly."""
    from pathosyn import rng
    from pathosyn.data.slices import Slices

    method = load((straight if preset == "default" else paper_straight) / "weights.safetensors").method.double().train().requires_grad_(True)
    slices = Slices(prepared, "train")
    pixels = slices.windows["lesion_pixels"]
    rows = [*np.flatnonzero(pixels > 0)[:3], int(np.flatnonzero(pixels == 0)[0])]
    batch = in_double(slices.lesion(rows))

    def gradient(rank: int, world: int) -> list[torch.Tensor]:
        method.zero_grad()
        streams = [rng.generator("noise", i) for i in range(4)]
        method.losses(batch.shard(rank, world), player="both", rng=streams[rank::world])["loss"].backward()
        return [p.grad.clone() for p in method.parameters() if p.grad is not None]

    whole = gradient(0, 1)
    # Three share four samples unevenly; an estimate is rounded to 32 bit, which halves undo exactly and thirds do not.
    for world, close in ((2, 1e-12), (3, 1e-7)):
        shares = [[len(batch.shard(rank, world)) / 4 * g for g in gradient(rank, world)] for rank in range(world)]
        apart = max(float((w - sum(parts)).abs().max()) for w, *parts in zip(whole, *shares, strict=True))
        assert apart < close * max(float(w.abs().max()) for w in whole)


def in_double(batch: LesionBatch) -> LesionBatch:
    return replace(batch, **{name: getattr(batch, name).double() for name in ("x", "m", "S", "x_ph")})


@pytest.mark.slow
def test_two_processes_end_where_one_does(prepared: Path, settings: Callable[..., list[str]], tmp_path: Path) -> None:
    """To rounding, since sums are taken in another order. A bias that a normalisation takes out again has a gradient of nothing but rounding,
    of which Adam makes steps of full length: biases may differ by that. Without a critic, whose hinge is a mean over all patches of a process's share.
    Two interpreters start, which alone takes ten seconds."""
    script = tmp_path / "pathosyn_main.py"  # the second process runs the first one's command again
    script.write_text("from pathosyn.cli import main\nif __name__ == '__main__':\n    raise SystemExit(main())\n")
    for processes in (1, 2):
        words = [
            "train",
            "--data",
            prepared,
            "--run",
            tmp_path / str(processes),
            *settings("--train.batch-pixels", 8192, "--m.adversary", 0, "--train.devices", processes),
        ]
        start = [sys.executable, script, *words]
        done = subprocess.run([*map(str, start)], capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / str(n) / "weights.safetensors") for n in (1, 2))
    for name in one:
        assert float((one[name] - two[name]).abs().max()) < (1e-4 if not name.endswith("bias") else 8 * 1e-3), name
    for ours, theirs in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert {**ours, "value": ""} == {**theirs, "value": ""}
        # std_r0 is a root of a mean over the batch: the mean of two roots is not quite it.
        assert float(ours["value"]) == pytest.approx(float(theirs["value"]), rel=0.05 if ours["metric"] == "std_r0" else 1e-3), ours
