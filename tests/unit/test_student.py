"""The network that draws forms in one call: when it draws, what it learns, and when it is no longer true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pathosyn import diffusion, rng
from pathosyn.checkpoint import Provenance, load, save_weights
from pathosyn.config import Config, Train, default, paper
from pathosyn.methods import build
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.reuse import chosen, going_on
from pathosyn.training.start import beginning
from pathosyn.types import LesionBatch

Maker = Callable[..., PathoSyn]
Batches = Callable[..., LesionBatch]


def streams(batch: LesionBatch, name: str = "student") -> list[torch.Generator]:
    return [rng.generator(name, s, z) for s, z in zip(batch.subject, batch.z, strict=True)]


class Says(nn.Module):
    """A network that always gives back one number, and remembers the times that it was asked at."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.asked: list[int] = []

    def forward(self, r_t: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        self.asked.append(int(t[0]))
        return self.value.expand_as(r_t)


@pytest.fixture
def method(make_method: Maker) -> PathoSyn:
    """Untaught yet; forms are drawn as r_0."""
    made = make_method(default(), distilled=True, gather=False)
    made.rough_std.fill_(1.0)
    return made


def one_form(method: PathoSyn, batch: LesionBatch, steps: int | None = None) -> Tensor:
    parts = method.parts(batch)
    shown = method.condition_form(batch, method.fill(batch), parts, None)
    noise = rng.normal(streams(batch), (4, batch.x.shape[-2] // 4, batch.x.shape[-1] // 4))
    with torch.no_grad():
        return method.sample_form(shown, parts, lambda _: noise, steps)


def test_the_student_draws_from_its_stage_on_and_only_where_no_calls_are_asked_for(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of(2)
    assert not method.one_call and method.calls() == 4 and torch.equal(one_form(method, batch), one_form(method, batch, 4)), "random weights draw nothing"
    method.begin("distil", [batch_of(3)])
    assert method.one_call and method.calls() == 1 and method.calls(7) == 7
    assert torch.equal(one_form(method, batch), one_form(method, batch, 1)), "it begins as its teacher"
    with torch.no_grad():
        next(method.student.parameters()).add_(0.3)  # type: ignore[union-attr]
    assert not torch.equal(one_form(method, batch), one_form(method, batch, 1)) and method.student is not method.coarse
    method.config = replace(method.config, method=chosen(method.config.method, "steps=4"))
    assert not method.one_call and torch.equal(one_form(method, batch), one_form(method, batch, 4))


def test_it_is_asked_once_at_pure_noise(method: PathoSyn, batch_of: Batches) -> None:
    method.begin("distil", [batch_of(3)])
    method.student = Says(0.5)  # type: ignore[assignment]
    form = one_form(method, batch_of(2))
    assert method.student.asked == [method.schedule.T] and set(form.unique().tolist()) <= {0.0, 0.5}


def test_the_last_call_has_the_same_noise_after_it(method: PathoSyn, batch_of: Batches) -> None:
    batch, asked = batch_of(1), []

    def noise(k: int) -> Tensor:
        asked.append(k)
        return torch.zeros_like(batch.x)

    last = []
    for taught in (False, True):
        if taught:
            method.begin("distil", [batch_of(3)])
        asked.clear()
        method.draw(batch, method.fill(batch), noise)
        last.append([k for k in asked if k < 1000][-2:])
    assert last[0] == last[1]


def test_the_loss_is_the_distance_to_what_the_teacher_draws_and_moves_the_student_alone(method: PathoSyn, batch_of: Batches) -> None:
    batch = batch_of(3, present=[[1, 1], [1, 0], [1, 1]])
    method.begin("distil", [batch_of(3)])
    method.coarse, method.student = Says(0.5), Says(0.2)  # type: ignore[assignment]
    terms = method.losses(batch, player="student", rng=streams(batch))
    assert terms["distil"].item() == pytest.approx(0.09, rel=1e-4) and terms["untaught"].item() == pytest.approx(0.0, abs=1e-9)
    assert terms["loss"] is terms["distil"]
    assert len(method.coarse.asked) == method.config.method.steps + 1 and method.student.asked == [method.schedule.T]
    terms["loss"].backward()
    assert method.student.value.grad is not None and float(method.student.value.grad) == pytest.approx(-0.6, rel=1e-3)
    assert method.coarse.value.grad is None and all(p.grad is None for p in method.sub.parameters())


def test_teacher_and_student_start_from_the_same_noise_and_are_told_the_same(method: PathoSyn, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, starts = batch_of(2), []
    real = diffusion.sample_deviation

    def spied(estimate: object, noise: Callable[[int], Tensor], *rest: object, **more: object) -> Tensor:
        starts.append(noise(0))
        return real(estimate, noise, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(diffusion, "sample_deviation", spied)
    method.begin("distil", [batch_of(3)])
    method.losses(batch, player="student", rng=streams(batch))
    assert len(starts) == 3 and torch.equal(starts[0], starts[2]) and starts[0].std() > 0.5


def test_a_healthy_hole_teaches_nothing(method: PathoSyn, batch_of: Batches) -> None:
    method.begin("distil", [batch_of(3)])
    batch = batch_of(2, healthy=(True, True))
    assert method.losses(batch, player="student", rng=streams(batch))["loss"].item() == 0.0


def test_it_has_a_stage_where_it_is_asked_for(make_method: Maker) -> None:
    method = make_method(default(), distilled=True)
    assert "distil" not in [stage.name for stage in method.stages]
    method.config = replace(method.config, train=replace(method.config.train, distil_share=0.05))
    stages = method.stages
    assert [stage.name for stage in stages] == ["substrate", "structure", "distil", "deviation", "sharpen"]
    assert stages[2].players == ("student",) and stages[2].share == 0.05 and sum(stage.share for stage in stages) == pytest.approx(1.0)
    assert [*method.modules_of("student")] == [method.student]


# -- weights ------------------------------------------------------------------------------------------------------------------------


def asked(structure: float, distil: float, *, distilled: bool = True) -> Config:
    return Config(method=replace(default(), distilled=distilled), train=Train(structure_share=structure, distil_share=distil))


@pytest.mark.parametrize(
    ("had", "structure", "distil", "has"),
    [(True, 0.0, 0.0, True), (True, 0.4, 0.0, False), (True, 0.4, 0.1, True), (False, 0.0, 0.0, False), (False, 0.4, 0.0, False), (False, 0.0, 0.5, True)],
)
def test_a_training_that_moves_the_teacher_drops_the_student_unless_it_teaches_it(had: bool, structure: float, distil: float, has: bool) -> None:
    trained = Config(method=replace(default(), distilled=had))
    assert going_on(trained, asked(structure, distil)).method.distilled is has
    assert not going_on(trained, asked(0.0, 0.0, distilled=False)).method.distilled, "and one may leave it out"


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_fresh_weights_hold_one_where_it_has_a_share(share: float) -> None:
    assert (beginning(asked(0.4, share, distilled=False), None).student is not None) is (share > 0)  # type: ignore[attr-defined]


def test_weights_keep_it_and_a_training_may_take_it_up_or_leave_it(method: PathoSyn, batch_of: Batches, tmp_path: Path) -> None:
    method.begin("distil", [batch_of(3)])
    with torch.no_grad():
        next(method.student.parameters()).add_(0.3)  # type: ignore[union-attr]
    save_weights(tmp_path / "w.safetensors", method, Provenance())
    again = load(tmp_path / "w.safetensors").method
    assert again.one_call and torch.allclose(one_form(again, batch_of(2)), one_form(method, batch_of(2)), atol=1e-5)
    kept, dropped = (beginning(replace(method.config, train=Train(structure_share=share)), tmp_path / "w.safetensors") for share in (0.0, 0.4))
    assert kept.one_call and not dropped.one_call and dropped.student is None  # type: ignore[attr-defined]
    save_weights(tmp_path / "d.safetensors", dropped, Provenance())
    taken = beginning(replace(method.config, train=Train(structure_share=0.0, distil_share=1.0)), tmp_path / "d.safetensors")
    assert taken.student is not None and not taken.one_call  # type: ignore[attr-defined]
    both = beginning(replace(method.config, train=Train(structure_share=0.4, distil_share=0.1)), tmp_path / "w.safetensors")
    assert both.student is not None and not both.one_call, "while its teacher moves, the old one may not draw"  # type: ignore[attr-defined]


def test_weights_of_another_method_lend_f_sub_to_a_training_that_makes_one(method: PathoSyn, tmp_path: Path) -> None:
    lender = build(replace(method.config, name="vaegan"))
    save_weights(tmp_path / "v.safetensors", lender, Provenance())
    made = beginning(replace(asked(0.4, 0.1, distilled=False), networks=method.config.networks), tmp_path / "v.safetensors")
    assert made.student is not None  # type: ignore[attr-defined]


def test_to_name_solver_steps_or_spacing_asks_for_the_first_network() -> None:
    shipped = replace(default(), distilled=True)
    assert [chosen(shipped, text).distilled for text in ("steps=4", "solver=ddim", "spacing=trailing", "eta=1", "hold=False")] == [False] * 4 + [True]
    assert chosen(shipped, "steps=4,distilled=True").distilled and not chosen(shipped, "distilled=False").distilled


def test_without_forms_there_is_no_student(make_method: Maker) -> None:
    assert make_method(paper(), distilled=True).student is None
