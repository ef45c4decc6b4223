"""PathoSyn in latent space: what it starts from, the units of its code, Eq. 9 on it, and draws that stay on the support."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pathosyn import diffusion, rng
from pathosyn.checkpoint import Loaded, Provenance, load, save_weights
from pathosyn.compared import Compared, VaeGan
from pathosyn.config import Config, Method, Networks, default
from pathosyn.errors import InputError
from pathosyn.lesion import texture
from pathosyn.methods import build
from pathosyn.methods.deviation_latent import GRAIN, LatentPathoSyn
from pathosyn.reuse import going_on
from pathosyn.training.start import beginning
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
SEEN = Provenance(steps=1)
LATENT = Method(space="latent")


def config(name: str = "vaegan", **method: Any) -> Config:
    compared = Compared(vaegan=VaeGan(latent=3, widths=(8,) * 5))
    networks = Networks(sub=(8,) * 5, eps=(8, 16, 16), critic=(8, 8, 8))
    return Config(contrasts=("t1", "flair"), networks=networks, method=replace(default(), **method), name=name, compared=compared)


def filled_in(method: Any) -> Any:
    """Layers that start at 0 are given weights, so that every input counts."""
    for parameter in method.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return method


@pytest.fixture(scope="module")
def vaegan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    method = filled_in(build(config()))
    method.r_scale.copy_(torch.tensor([0.5, 1.7]))
    method.r_max.copy_(torch.tensor([3.0, 4.0]))
    path = tmp_path_factory.mktemp("vaegan") / "w.safetensors"
    save_weights(path, method, SEEN)
    return path


@pytest.fixture
def latent(vaegan: Path) -> Any:
    return filled_in(beginning(config("pathosyn", space="latent"), vaegan)).eval()


def streams(keys: range) -> list[torch.Generator]:
    return [rng.generator("test", i) for i in keys]


def test_it_starts_with_the_vaegans_networks_and_units(vaegan: Path) -> None:
    asked = config("pathosyn", space="latent", context="outside", grain=False)
    asked = replace(asked, compared=Compared(), networks=replace(asked.networks, sub=(16,) * 5))
    method = beginning(asked, vaegan)
    assert isinstance(method, LatentPathoSyn)
    mine, theirs = method.state_dict(), load(vaegan).any_method.state_dict()
    shared = [name for name in theirs if name.partition(".")[0] in ("sub", "encoder", "decoder", "r_scale", "r_max")]
    assert len(shared) == len(theirs) and all(torch.equal(mine[name], theirs[name]) for name in shared)
    assert method.config.compared.vaegan.latent == 3 and method.config.method.context == "blend" and method.config.method.grain, "E_r was shown the scan so"
    assert [stage.players for stage in method.stages] == [("eps",)] and method.modules_of("eps") == (method.eps,)


def test_pixels_are_still_where_pathosyn_works() -> None:
    assert not isinstance(build(config("pathosyn")), LatentPathoSyn) and isinstance(build(config("pathosyn", space="latent")), LatentPathoSyn)


def test_a_training_in_latent_space_needs_an_encoder(tmp_path: Path) -> None:
    save_weights(tmp_path / "pixel.safetensors", build(config("pathosyn")), SEEN)
    for start, told in ((None, "latent without --from"), (tmp_path / "pixel.safetensors", "hold no E_r and D_r")):
        with pytest.raises(InputError) as caught:
            beginning(config("pathosyn", space="latent"), start)
        (fault,) = caught.value.faults
        assert told in fault.found and "--method vaegan" in fault.remedy and "\n" not in str(fault)


def test_what_it_lends_back_and_goes_on_with(vaegan: Path, latent: Any, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", latent, SEEN)
    again = beginning(config("pathosyn"), tmp_path / "w.safetensors")
    assert isinstance(again, LatentPathoSyn), "what the weights mean stays"
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in latent.state_dict().items())
    back = beginning(config(), tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(value, back[name]) for name, value in load(vaegan).any_method.state_dict().items())
    kept = going_on(replace(latent.config, method=replace(latent.config.method, grain=False)), config("pathosyn", context="outside")).method
    assert (kept.space, kept.context, kept.grain) == ("latent", "blend", False)
    assert going_on(config("pathosyn"), config("pathosyn", context="outside")).method.context == "outside"


def test_a_method_without_codes_lends_no_settings_of_one(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", build(replace(config("pathosyn"), compared=Compared())), SEEN)
    assert beginning(config(), tmp_path / "w.safetensors").config.compared.vaegan.latent == 3


def test_begin_gives_the_code_mean_0_and_spread_1(latent: Any, batch_of: Batches) -> None:
    """Of samples: by drawing many."""
    batch = batch_of(3, healthy=(False, True, False))
    found = latent.begin("deviation", [batch.shard(0, 2), batch.shard(1, 2)])
    assert found["code_mean"] == latent.code_mean.tolist() and found["code_std"] == latent.code_std.tolist()
    with torch.no_grad():
        coded = latent.coded(batch, latent.parts(batch), latent.fill(batch))
    there, draw = coded.there[:, 0] > 0, torch.Generator().manual_seed(1)
    assert there.sum() == 8, "of a healthy hole none"
    many = torch.cat([coded.sample(torch.randn(coded.mean.shape, generator=draw)).permute(0, 2, 3, 1)[there] for _ in range(4000)])
    scaled = (many - latent.code_mean) / latent.code_std
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(3), atol=0.03) and torch.allclose(scaled.std(dim=0), torch.ones(3), atol=0.03)
    assert latent.begin("deviation", [batch]) == {}, "what is known stays"


def test_eq_9_as_written_out(latent: Any, batch_of: Batches) -> None:
    batch = batch_of()
    latent.code_mean.copy_(torch.tensor([0.5, -1.0, 0.0]))
    latent.code_std.copy_(torch.tensor([2.0, 0.7, 0.5]))
    parts = latent.parts(batch)
    with torch.no_grad():
        given = latent.losses(batch, player="eps", rng=streams(range(3)))
        coded = latent.coded(batch, parts, latent.fill(batch))
        expected = 0.0
        for i, stream in enumerate(streams(range(3))):
            eta = torch.randn(3, 2, 2, generator=stream)
            u = int(torch.randint(1, 1001, (1,), generator=stream))
            t, eps = -(-(u**2) // 1000), torch.randn(3, 2, 2, generator=stream)
            ab = float(latent.schedule.alpha_bar[t])
            z = coded.mean[i] + (0.5 * coded.log_var[i]).exp() * eta
            z = (z - latent.code_mean[:, None, None]) / latent.code_std[:, None, None]
            seen = torch.cat([(ab**0.5 * z + (1 - ab) ** 0.5 * eps), avg_pool2d(coded.condition[i], 16)])
            output = latent.eps.net(seen[None], torch.tensor([t]))[0]
            expected += float(((ab**0.5 * eps - (1 - ab) ** 0.5 * z - output) ** 2).mean()) / 3
    assert float(given["loss"]) == float(given["diff"]) == pytest.approx(expected, rel=1e-3)


def test_only_the_denoiser_learns_and_holes_teach_nothing(latent: Any, batch_of: Batches) -> None:
    latent.requires_grad_(True)
    latent.losses(batch_of(), player="eps", rng=streams(range(3)))["loss"].backward()
    touched = {name.partition(".")[0] for name, p in latent.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert touched == {"eps"}
    with torch.no_grad():
        assert not latent.losses(batch_of(healthy=(True,) * 3), player="eps", rng=streams(range(3)))["loss"]
        mixed = latent.losses(batch_of(healthy=(False, True, False)), player="eps", rng=streams(range(3)))["loss"]
        alone = [latent.losses(batch_of().shard(i, 3), player="eps", rng=streams(range(i, i + 1)))["loss"] for i in (0, 2)]
    assert float(mixed) == pytest.approx(sum(map(float, alone)) / 3, rel=1e-3)


def test_a_denoiser_that_knows_the_code_draws_its_decoding(latent: Any, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the noise but the grain's: D_r of the true code, projected, in normalised units. A code beyond four spreads is held there."""
    batch = batch_of(2)
    latent.code_mean.copy_(torch.tensor([0.5, -1.0, 0.0]))
    latent.code_std.copy_(torch.tensor([2.0, 1.0, 0.5]))
    parts, x_sub = latent.parts(batch), latent.fill(batch)
    truth = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    truth[0, 0, 0, 0] = 7.0
    monkeypatch.setattr(latent, "estimate", lambda z, shown, t: (z, truth))
    code = truth.clamp(-4, 4) * latent.code_std[:, None, None] + latent.code_mean[:, None, None]
    condition = latent.condition(batch.x, x_sub, batch.m, parts)
    with torch.no_grad():
        bound = latent.r_max[:, None, None]
        white = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(3))
        grain = texture.own_grain(batch.x * parts.known, 1.0 - parts.support, white) * parts.known
        decoded = latent.decoder(code * latent.cells(parts), torch.cat([condition, grain], dim=1))
        expected = diffusion.project(decoded.clamp(-bound, bound), parts.support) * latent.r_scale[:, None, None]
    for seed in (4, 5):
        other = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(seed))
        drawn = latent.draw(batch, x_sub, lambda k, other=other: white if k == GRAIN else other)
        torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)
    assert expected.any() and not drawn[(parts.support == 0).expand_as(drawn)].any()


def test_noise_of_pixels_becomes_unit_noise_of_cells(latent: Any, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, first = batch_of(2), []

    def sample(denoise: Any, noise: Callable[[int], Tensor], *_: Any, **__: Any) -> Tensor:
        first.append(noise(0))
        return first[0]

    monkeypatch.setattr(diffusion, "sample_deviation", sample)
    for trial in range(60):
        latent.draw(batch, batch.x, lambda k, trial=trial: rng.normal([rng.generator(trial, k, b) for b in range(2)], (2, 32, 32)))
    values = torch.stack(first).transpose(0, 2).flatten(1)
    assert values.shape[0] == 3 and torch.allclose(values.std(dim=1), torch.ones(3), atol=0.15)
    assert torch.corrcoef(values).fill_diagonal_(0).abs().max() < 0.2, "each number of the code has noise of its own"


def test_draws_are_keyed_leave_the_rest_alone_and_scale(latent: Any, batch_of: Batches) -> None:
    batch = batch_of(healthy=(True,) * 3, present=[[1, 1], [1, 0], [0, 1]])
    together = latent.synthesize(batch, controls=Controls(seed=1))
    outside = (batch.S == 0).expand_as(batch.x)
    assert torch.equal(together.x_hat[outside], batch.x[outside]) and together.r.any() and not together.r[~batch.present].any()
    alone = latent.synthesize(batch.shard(1, 3), controls=Controls(seed=1))
    torch.testing.assert_close(alone.x_hat, together.x_hat[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.equal(latent.synthesize(batch, controls=Controls(seed=2)).r, together.r)
    assert torch.equal(latent.synthesize(batch, controls=Controls(seed=1, severity=0.0)).x_hat, batch.x)


def test_it_learns_a_code_that_does_not_vary(vaegan: Path, batch_of: Batches) -> None:
    """From an answer of 0, whose error is 1: that of a code in its own units."""
    method, batch = beginning(config("pathosyn", space="latent", prediction="r0"), vaegan), batch_of()
    batch = replace(batch, x_sub=method.fill(batch))
    spread = method.encoder.last
    spread.weight.data[3:], spread.bias.data[3:] = 0.0, -12.0
    method.begin("deviation", [batch])
    optimizer = torch.optim.Adam(method.eps.parameters(), lr=1e-2)
    found = []
    for step in range(40):
        optimizer.zero_grad()
        loss = method.losses(batch, player="eps", rng=[rng.generator(step, i) for i in range(3)])["loss"]
        loss.backward()
        optimizer.step()
        found.append(float(loss))
    assert found[0] == pytest.approx(1.0, abs=0.05) and sum(found[-10:]) / 10 < 0.4


def test_other_backends_are_refused(latent: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    save_weights(tmp_path / "w.safetensors", latent, SEEN)
    with pytest.raises(InputError, match="latent space"):
        load(tmp_path / "w.safetensors", backend="onnxruntime")


def test_epsilon_prediction_cannot_start_at_zero_snr() -> None:
    with pytest.raises(ValueError, match="zero SNR"):
        build(config("pathosyn", space="latent", prediction="eps"))


def test_a_whole_scan_is_drawn_on(latent: Any, tmp_path: Path) -> None:
    """As `insert` does it: windows of a volume, their noise cut from the volume's."""
    import numpy as np

    from pathosyn.scan import volume

    save_weights(tmp_path / "w.safetensors", latent, SEEN)
    loaded: Loaded = load(tmp_path / "w.safetensors")
    m = np.zeros((3, 80, 80), bool)
    m[1, 30:40, 30:44] = True
    x = np.random.default_rng(0).normal(size=(3, 2, 80, 80)).astype(np.float32)
    target = volume.Target.of(loaded.method, x, m, m.astype(np.float32), np.ones(2, bool), 1.0)
    cpu = torch.device("cpu")
    f = volume.substrate(loaded.method, target, device=cpu)
    draws = [volume.deviation(loaded.method, target, f, volume.noise_field(target, 1.0, 2.0, key), key=(key,), steps=None, device=cpu) for key in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert draws[0].any() and not draws[0][~np.broadcast_to(m[:, None], x.shape)].any()
