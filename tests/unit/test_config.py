"""What a training that goes on from weights keeps of them, and what it may be asked anew."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from pathosyn import compared
from pathosyn.compared import Compared, VaeGan
from pathosyn.config import Config, Geometry, Method, Networks, Train, Weights, default, from_dict, paper, to_dict
from pathosyn.reuse import FREE, MORE, chosen, going_on

TRAINED = Config(contrasts=("t1", "flair"), geometry=Geometry(grow_mm=2.5), method=paper(), networks=Networks(sub=(8,) * 5, critic=(8, 8, 8)))
ASKED = Config(contrasts=("t2",), method=default(), networks=Networks(critic=(16, 16, 16)), train=Train(steps=7, lr=0.5))
KEPT = sorted({f.name for f in fields(Method)} - set(FREE) - set(MORE))


def test_free_decisions_are_fields_of_the_method() -> None:
    assert set(FREE) < {f.name for f in fields(Method)} and len(set(FREE)) == len(FREE)


def test_the_test_sees_each_kind_of_field_change() -> None:
    told = {name for name in (f.name for f in fields(Method)) if getattr(TRAINED.method, name) != getattr(ASKED.method, name)}
    assert told & set(FREE) and told - set(FREE)


@pytest.mark.parametrize("name", FREE)
def test_how_to_train_and_to_draw_is_as_asked(name: str) -> None:
    other = {"solver": "dpm2m", "spacing": "leading", "times": "uniform", "context": "outside", "weights": Weights(pat=9.0)}
    asked = replace(ASKED, method=replace(ASKED.method, **{name: other.get(name, 77)}))
    assert getattr(going_on(TRAINED, asked).method, name) == other.get(name, 77)


@pytest.mark.parametrize("name", KEPT)
def test_what_a_number_means_stays_as_it_was_trained(name: str) -> None:
    without_forms = replace(ASKED, train=replace(ASKED.train, structure_share=0.0))
    assert getattr(going_on(TRAINED, without_forms).method, name) == getattr(TRAINED.method, name)


def test_what_roughness_is_may_be_learned_anew_with_the_forms() -> None:
    assert going_on(TRAINED, ASKED).method.rough_of == "finest" != TRAINED.method.rough_of


@pytest.mark.parametrize("name", MORE)
def test_what_eps_theta_is_shown_may_grow_but_not_shrink(name: str) -> None:
    assert getattr(going_on(TRAINED, ASKED).method, name) and getattr(going_on(ASKED, TRAINED).method, name)
    assert not getattr(going_on(TRAINED, TRAINED).method, name)


def test_contrasts_geometry_and_networks_stay_and_the_training_is_new() -> None:
    found = going_on(TRAINED, ASKED)
    assert (found.contrasts, found.geometry, found.name) == (TRAINED.contrasts, TRAINED.geometry, TRAINED.name)
    assert found.networks == replace(TRAINED.networks, critic=(16, 16, 16)) and found.train == ASKED.train


@pytest.mark.parametrize("of", compared.FREE)
def test_of_the_other_methods_how_to_train_and_to_draw_is_as_asked(of: str) -> None:
    trained, names = getattr(Compared(), of), [f.name for f in fields(getattr(Compared(), of))]
    asked = replace(ASKED, compared=replace(Compared(), **{of: replace(trained, **dict.fromkeys(names, 77))}))
    found = getattr(going_on(TRAINED, asked).compared, of)
    free = set(compared.FREE[of])
    assert free < set(names) and all(getattr(found, name) == (77 if name in free else getattr(trained, name)) for name in names)


def test_flags_that_weights_override_are_named(tmp_path: Path) -> None:
    from pathosyn.checkpoint import Provenance, save_weights
    from pathosyn.cli.train import parse
    from pathosyn.methods import build

    config = Config(contrasts=("t1",), networks=Networks(sub=(8,) * 5, critic=(8,) * 3), name="vaegan", compared=Compared(vaegan=VaeGan(widths=(8,) * 5)))
    save_weights(tmp_path / "w.safetensors", build(config), Provenance())
    flags = ["--data", "d.h5", "--run", "r", "--method", "vaegan", "--from", str(tmp_path / "w.safetensors")]
    assert parse([*flags, "--compared.vaegan.adversary-share", "0.9", "--compared.vaegan.r1", "0"]).ignored() == []
    assert parse([*flags, "--compared.vaegan.latent", "3", "--m.fill"]).ignored() == ["--compared.vaegan.latent"]


def test_going_on_as_before_changes_nothing() -> None:
    assert going_on(TRAINED, TRAINED) == TRAINED


def test_a_config_survives_json() -> None:
    import json

    for config in (TRAINED, ASKED):
        assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ValueError, match="Method has no field warp"):
        from_dict(Config, {"method": {"warp": 1}})


def test_how_to_draw_may_be_chosen_anew_by_name() -> None:
    made = chosen(default(), "solver=dpm2m,eta=0.5,steps=7,hold=False,gather=False")
    assert made == replace(default(), solver="dpm2m", eta=0.5, steps=7, hold=False, gather=False)
    assert chosen(made, "hold=True,gather=True") == replace(made, hold=True, gather=True)


@pytest.mark.parametrize("text", ["prediction=eps", "coarse=1,tanh_delta=3", "nonsense=1", ""])
def test_what_the_weights_mean_may_not(text: str) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        chosen(default(), text)
