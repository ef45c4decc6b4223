"""PathoSyn: VAE-GAN on toy windows: closed forms of its terms, who learns from what, what a draw may change, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pathosyn import decomposition as dec
from pathosyn import losses, rng
from pathosyn.compared import Compared, VaeGan
from pathosyn.config import Config, Networks, Train, default, paper
from pathosyn.framework.codes import Decoder, Encoder, PatchGan
from pathosyn.framework.coding import Coded
from pathosyn.methods import build
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
MISSING = [[1, 1], [1, 0], [0, 1]]


def made(preset: Any = None, *, random: bool = True, **settings: Any) -> Any:
    torch.manual_seed(0)
    compared = Compared(vaegan=replace(VaeGan(latent=3, widths=(8,) * 5), **settings))
    networks = Networks(sub=(8,) * 5, critic=(8, 8, 8))
    method = build(Config(contrasts=("t1", "flair"), networks=networks, method=preset or default(), name="vaegan", compared=compared))
    for parameter in method.parameters():
        if random and not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    method.r_max.fill_(9.0)
    return method


@pytest.fixture(scope="module")
def tiny() -> Any:
    """With random last layers, so that every input counts."""
    return made().eval()


def streams(keys: range) -> list[torch.Generator]:
    return [rng.generator("test", i) for i in keys]


def moved(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_the_code_is_a_map_of_128_numbers_for_64_by_64_pixels() -> None:
    widths = (8, 8, 8, 8, 8)
    code = Encoder(5, VaeGan().latent, widths)(torch.zeros(1, 5, 64, 96))
    assert code.shape == (1, 8, 4, 6) and code[..., :4].numel() == 128
    assert not Decoder(8, 3, 2, widths)(code, torch.ones(1, 3, 64, 96)).any(), "r̂ = 0 to begin with"
    assert PatchGan(2, (8, 8, 8))(*(torch.zeros(1, c, 32, 64) for c in (2, 1, 1, 2))).shape == (1, 1, 8, 16)


def test_how_bright_a_lesion_is_passes_both_ways() -> None:
    """With nothing but the paths past the blocks, which a norm at either end would cut, twice the deviation is twice the code, and twice the code twice r̂."""
    torch.manual_seed(0)
    encoder, decoder = Encoder(2, 3, (8,) * 5), Decoder(3, 1, 2, (8,) * 5)
    nn.init.normal_(decoder.last.weight)
    for module in (encoder, decoder):
        for name, parameter in module.named_parameters():
            if "conv2" in name or "bias" in name:
                nn.init.zeros_(parameter)
    r = torch.zeros(1, 2, 64, 64)
    r[..., 20:40, 24:44] = 1.0
    code = encoder(r)
    assert code.abs().max() > 1e-3 and torch.allclose(encoder(2 * r), 2 * code, rtol=1e-3, atol=1e-6)
    once, twice = (decoder(c, torch.zeros(1, 1, 64, 64)) for c in (code, 2 * code))
    assert once.abs().max() > 1e-4 and torch.allclose(twice, 2 * once, rtol=1e-3, atol=1e-6)


def test_a_code_is_not_lost_on_the_way() -> None:
    """To begin with it has about the size of what is coded, and what D_r hands to its last layer past the blocks that of the code."""
    torch.manual_seed(0)
    encoder, decoder, seen = Encoder(3, 8, (16, 32, 48, 64, 96)), Decoder(8, 3, 3, (16, 32, 48, 64, 96)), []
    for block in decoder.blocks:
        nn.init.zeros_(block.conv2.weight)
    decoder.last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    r, condition = torch.randn(4, 3, 64, 64), torch.zeros(4, 3, 64, 64)
    assert 0.5 < encoder(r).std() < 2
    for code in (torch.zeros(4, 8, 4, 4), torch.randn(4, 8, 4, 4)):
        decoder(code, condition)
    assert 0.3 < (seen[1] - seen[0]).std() < 2


def test_between_cells_a_code_is_linear() -> None:
    """With nothing but the middle of each kernel on the way, a code that rises evenly comes out as a slope, without a step at a cell's border."""
    decoder = Decoder(1, 1, 1, (8,) * 5)
    for name, parameter in decoder.named_parameters():
        if "norm" not in name:
            nn.init.zeros_(parameter)
    with torch.no_grad():
        for layer in (*decoder.join, decoder.last):
            layer.weight[0, 0, 1, 1] = 1.0
    code = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    rise = decoder(code, torch.zeros(1, 1, 128, 128))[0, 0, 64, 16:112].detach().diff()
    assert torch.allclose(rise, torch.full_like(rise, 1 / 16), atol=1e-5)


def test_the_scans_own_grain_reaches_the_draw(tiny: Any, batch_of: Batches) -> None:
    """D_r answers to the noise of which the grain is made, where eps_theta would see it, and not in `paper`, which has none."""
    batch = batch_of()
    for method, answers in ((tiny, True), (made(paper()), False)):
        parts = method.parts(batch)
        coded = method.coded(batch, parts, method.fill(batch))
        whites = [torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
        once, twice = (method.decoded(coded.mean, coded.condition, batch.x, parts, white) for white in whites)
        assert bool((once != twice).any()) is answers
        assert once.any()


def test_a_patch_of_the_critic_sees_36_pixels() -> None:
    critic, x = PatchGan(1, (8, 8, 8)), torch.zeros(1, 1, 96, 96, requires_grad=True)
    for norm in [n for n in critic.modules() if isinstance(n, nn.GroupNorm)]:
        norm.forward = lambda values: values  # type: ignore[method-assign] # it looks at all of the window
    critic(x, *(torch.zeros(1, 1, 96, 96) for _ in range(3)))[0, 0, 12, 12].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().sum(dim=1).nonzero()[:, 0]
    assert int(rows[-1] - rows[0]) + 1 <= 36 + 2, "and the 3×3 mean reaches one pixel beyond"
    assert int(rows[-1] - rows[0]) + 1 >= 24


def test_kl_in_closed_form() -> None:
    """Against torch's own; 0 where the code is N(0, 1)."""
    mean, log_var = (torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    blank = torch.zeros(2, 2, 1, 1)
    coded = Coded(blank, blank, blank, torch.ones(2, 1, 2, 2), mean, log_var)
    theirs = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (0.5 * log_var).exp()), torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(coded.kl(), theirs, atol=1e-5)
    assert not replace(coded, mean=mean * 0, log_var=mean * 0).kl().any()
    noise = torch.ones_like(mean)
    assert torch.allclose(coded.sample(noise), mean + (0.5 * log_var).exp()) and not replace(coded, cells=torch.zeros(2, 1, 2, 2)).sample(noise).any()


def test_terms_where_the_decoder_knows_the_truth_or_nothing(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """r̂ = r_0 costs the KL alone and composes the scan itself; r̂ = 0 leaves all of r_0's power."""
    method, batch = made(), batch_of()
    method.r_scale.copy_(torch.tensor([0.5, 2.0]))
    parts = method.parts(batch)
    f = method.fill(batch)
    r0 = method.to_scaled(dec.deviation(batch.x, f, parts.support))
    power = losses.masked_mean(r0**2, parts.support).item()
    for truth, expected, left in ((r0, 0.0, 0.0), (0 * r0, power, 1.0), (1.5 * r0, 0.25 * power, 0.25)):
        monkeypatch.setitem(method._modules, "decoder", Fixed(truth))
        terms = method.losses(batch, player="vae", rng=streams(range(3)))
        assert float(terms["rec"]) == pytest.approx(expected, rel=1e-4, abs=1e-10) and float(terms["left"]) == pytest.approx(left, abs=1e-6)
        assert terms["kl"] > 0
    monkeypatch.setitem(method._modules, "decoder", Fixed(r0))
    terms = method.losses(batch, player="vae", rng=streams(range(3)))
    assert all(float(terms[name]) < 1e-6 for name in ("pat", "ring", "leak", "syn"))
    assert float(terms["loss"]) == pytest.approx(0.0, abs=1e-6) and terms["kl"] < 6, "nats below the free ones cost nothing"
    priced = made(free=0.0)
    priced.load_state_dict(method.state_dict(), strict=False)
    monkeypatch.setitem(priced._modules, "decoder", Fixed(r0))
    terms = priced.losses(batch, player="vae", rng=streams(range(3)))
    assert float(terms["loss"]) == pytest.approx(2e-3 * float(terms["kl"]), abs=1e-6) and terms["kl"] > 0
    where = (parts.S == 1).expand_as(batch.x)
    assert torch.allclose(method.reconstruct(batch).x_hat[where], batch.x[where], atol=1e-5)


class Fixed(nn.Module):
    """A network that answers with one image, whatever it is shown."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: torch.Tensor) -> torch.Tensor:
        return self.answer


def test_loss_is_eq_15_with_the_squared_error_in_the_place_of_eq_9(tiny: Any, batch_of: Batches) -> None:
    lam = tiny.config.method.weights
    with torch.no_grad():
        terms = {name: float(value) for name, value in tiny.losses(batch_of(), player="gan", rng=streams(range(3))).items()}
    dev = lam.pat * terms["pat"] + lam.ring * terms["ring"] + lam.leak * terms["leak"]
    expected = lam.diff * terms["rec"] + lam.dev * dev + lam.syn * terms["syn"] + 0.1 * terms["adversary"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_critics_words_in_closed_form(tiny: Any, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic that says 3 of the real window and .5 of all others; λ_adv's term is minus the mean of what it says of the others."""
    batch = batch_of()

    class Says(nn.Module):
        def forward(self, x: torch.Tensor, m: torch.Tensor, S: torch.Tensor, flags: torch.Tensor) -> torch.Tensor:  # noqa: N803
            # moved alike, so that a real window has the real one's mean
            real = (x.mean(dim=(1, 2, 3)) - batch.x.mean(dim=(1, 2, 3))).abs() < 1e-6
            return torch.where(real, 3.0, 0.5)[:, None, None, None].expand(-1, 1, x.shape[2] // 4, x.shape[3] // 4)

    monkeypatch.setitem(tiny._modules, "critic", Says())
    with torch.no_grad():
        judged = tiny.losses(batch, player="critic", rng=streams(range(3)))
        played = tiny.losses(batch, player="gan", rng=streams(range(3)))
    found = [float(judged[name]) for name in ("critic_real", "critic_rec", "critic_drawn", "loss")]
    assert found == pytest.approx([0.0, 1.5, 1.5, 1.5]) and float(played["adversary"]) == pytest.approx(-0.5)


def test_the_critics_slope_is_priced_at_real_windows(batch_of: Batches) -> None:
    terms = {}
    for r1 in (0.0, 1.0, 4.0):
        method, batch = made(r1=r1), batch_of()
        terms[r1] = method.losses(batch, player="critic", rng=streams(range(3)))
        assert not batch.x.requires_grad
    assert "slope" not in terms[0.0] and terms[1.0]["slope"] > 0
    for r1 in (1.0, 4.0):
        assert terms[r1]["loss"].item() == pytest.approx((terms[0.0]["loss"] + 0.5 * r1 * terms[r1]["slope"]).item(), rel=1e-5)


@pytest.mark.parametrize("preset", [default, paper])
@pytest.mark.parametrize("player", ["sub", "vae", "gan", "critic"])
def test_each_player_moves_its_own(preset: Any, player: str, batch_of: Batches) -> None:
    """With all of them free to move. Through the critic's word gradients reach the critic, too: the loop clears them."""
    method = made(preset())
    method.losses(batch_of(), player=player, rng=streams(range(3)))["loss"].backward()
    expected = {"sub": ["sub"], "vae": ["encoder", "decoder"], "gan": ["encoder", "decoder"], "critic": ["critic"]}[player]
    assert list(method.modules_of(player)) == [getattr(method, name) for name in expected]
    touched = [name for name in ("sub", "encoder", "decoder", "critic") if moved(getattr(method, name))]
    assert touched == expected + ["critic"] * (player == "gan")


@pytest.mark.parametrize("player", ["vae", "gan", "critic"])
def test_batch_is_the_mean_of_its_samples(player: str, tiny: Any, batch_of: Batches) -> None:
    batch = batch_of(present=[[1, 1], [1, 0], [1, 1]], healthy=(False, False, True))
    with torch.no_grad():
        together = tiny.losses(batch, player=player, rng=streams(range(3)))
        alone = [tiny.losses(batch.shard(i, 3), player=player, rng=streams(range(i, i + 1))) for i in range(3)]
    for name, value in together.items():
        assert float(value) == pytest.approx(sum(float(terms[name]) for terms in alone) / 3, rel=2e-4, abs=1e-6), name
    assert not any(float(value) for value in alone[2].values()), "a healthy hole has no deviation to learn"


@pytest.mark.parametrize("player", ["vae", "gan"])
def test_a_missing_contrast_changes_nothing_and_comes_out_as_0(player: str, tiny: Any, batch_of: Batches) -> None:
    batch = batch_of(present=MISSING)
    junk = replace(batch, x=batch.x + 9.0 * (1 - batch.present[:, :, None, None].float()))
    with torch.no_grad():
        ours, theirs = (tiny.losses(b, player=player, rng=streams(range(3))) for b in (batch, junk))
    assert {name: float(value) for name, value in ours.items()} == {name: float(value) for name, value in theirs.items()}
    drawn = tiny.synthesize(junk, controls=Controls())
    assert torch.equal(drawn.r, tiny.synthesize(batch, controls=Controls()).r) and not drawn.x_hat[~batch.present].any() and not drawn.r[~batch.present].any()


def test_a_draw_changes_the_support_alone_and_severity_scales_it(tiny: Any, batch_of: Batches) -> None:
    batch = batch_of(healthy=(True, True, True))
    drawn = tiny.synthesize(batch, controls=Controls(seed=4))
    outside = (batch.S == 0).expand_as(batch.x)
    assert torch.equal(drawn.x_hat[outside], batch.x[outside]) and not drawn.r[outside].any() and drawn.r.any()
    assert torch.equal(tiny.synthesize(batch, controls=Controls(seed=4, severity=0.0)).x_hat, batch.x)
    twice, once = (tiny.synthesize(batch, controls=Controls(seed=4, severity=s)).x_hat - batch.x for s in (2.0, 1.0))
    assert torch.allclose(twice, 2 * once, atol=1e-5)
    lesion, f = batch_of(), tiny.fill(batch_of())
    redrawn = [tiny.synthesize(lesion, controls=Controls(seed=4, severity=s)).x_hat for s in (0.0, 1.0, 2.0)]
    assert torch.allclose(redrawn[0], dec.heal(lesion.x, f, lesion.S)), "its own lesion is taken out first"
    assert torch.allclose(redrawn[2] - redrawn[0], 2 * (redrawn[1] - redrawn[0]), atol=1e-5)


def test_a_draw_is_keyed_by_seed_subject_and_slice(tiny: Any, batch_of: Batches) -> None:
    batch = batch_of()
    together = tiny.synthesize(batch, controls=Controls(seed=1))
    for i in range(3):
        torch.testing.assert_close(tiny.synthesize(batch.shard(i, 3), controls=Controls(seed=1)).x_hat, together.x_hat[i : i + 1], atol=1e-5, rtol=1e-5)
    for other in (tiny.synthesize(batch, controls=Controls(seed=2)), tiny.synthesize(replace(batch, z=[7, 8, 9]), controls=Controls(seed=1))):
        assert not torch.allclose(other.r, together.r, atol=1e-3)


def test_a_drawn_deviation_is_held_within_the_datas_extremes(batch_of: Batches) -> None:
    method, batch = made(), batch_of()
    method.r_scale.copy_(torch.tensor([0.5, 2.0]))
    method.r_max.copy_(torch.tensor([0.01, 0.02]))
    drawn = method.synthesize(batch, controls=Controls()).r.abs().amax(dim=(0, 2, 3))
    assert drawn.tolist() == pytest.approx([0.005, 0.04])


def test_the_code_speaks_only_of_cells_with_support(tiny: Any, batch_of: Batches) -> None:
    batch = batch_of(1)
    corner = torch.zeros(1, 1, 32, 32)
    corner[..., 2:9, 18:30] = 1.0
    batch = replace(batch, m=corner, S=corner)
    parts = tiny.parts(batch)
    assert tiny.cells(parts)[0, 0].tolist() == [[0.0, 1.0], [0.0, 0.0]]
    with torch.no_grad():
        coded = tiny.coded(batch, parts, tiny.fill(batch))
    assert (coded.sample(torch.ones_like(coded.mean))[0] != 0).any(dim=0).tolist() == [[False, True], [False, False]]


def test_stages_and_what_they_measure(batch_of: Batches) -> None:
    method = made(adversary_share=0.25)
    method.config = replace(method.config, train=Train(substrate_share=0.2))
    assert [(stage.name, stage.players, round(stage.share, 6)) for stage in method.stages] == [
        ("substrate", ("sub",), 0.2),
        ("vae", ("vae",), 0.6),
        ("adversary", ("critic", "gan"), 0.2),
    ]
    method.config = replace(method.config, train=Train(substrate_share=0.0))
    assert [stage.share for stage in method.stages] == [0.75, 0.25]
    alone = made(adversary=0.0)
    assert alone.critic is None and [stage.name for stage in alone.stages] == ["substrate", "vae"]
    method.r_max.zero_()
    assert method.begin("adversary", [batch_of()]) == {} and method.r_scale.tolist() == [1.0, 1.0]
    found = method.begin("vae", [batch_of()])
    with torch.no_grad():
        r = ((batch_of().x - method.fill(batch_of())) * batch_of().D)[:, 0][batch_of().D[:, 0] > 0]
    assert found["r_scale"][0] == pytest.approx(float(r.square().mean().sqrt()), rel=1e-5) and method.r_scale[0] == pytest.approx(found["r_scale"][0])


def test_it_learns_three_windows(batch_of: Batches) -> None:
    """Three smooth deviations in the same place and in the same scan, so that the code alone can tell them apart."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    batch = batch_of()
    m, S = (field[2:].expand(3, -1, -1, -1) for field in (batch.m, batch.S))  # noqa: N806
    waves = torch.stack([torch.stack([(x * (i + 1) / 12).sin(), (y * (i + 1) / 12).cos()]) for i in range(3)]) * (S == 1)
    batch = replace(batch, m=m, S=S, x=waves, x_sub=torch.zeros_like(waves))
    method = made(random=False)
    optimizer = torch.optim.Adam([*method.encoder.parameters(), *method.decoder.parameters()], lr=8e-3)
    rec = []
    for step in range(75):
        optimizer.zero_grad()
        terms = method.losses(batch, player="vae", rng=[rng.generator(step, i) for i in range(3)])
        terms["loss"].backward()
        optimizer.step()
        rec.append(float(terms["rec"]))
    assert rec[0] == pytest.approx(float(losses.masked_mean(waves**2, batch.D))) and sum(rec[-10:]) / 10 < 0.4 * rec[0]
    assert float(terms["kl"]) > 0.5, "and the code is used"


def test_widths_that_do_not_fit_are_refused() -> None:
    for widths in ((8, 8), (8, 8, 8, 8, 9)):
        with pytest.raises(ValueError, match="widths"):
            made(widths=widths)


def test_the_command_line_refuses_numbers_that_no_training_can_have() -> None:
    from pathosyn.cli.train import _faults, parse

    bad = ["--compared.vaegan.latent", "0", "--compared.vaegan.adversary-share", "2", "--compared.vaegan.kl", "-1", "--compared.vaegan.widths", "8", "8"]
    found = {fault.where for fault in _faults(parse(["--data", "d", "--run", "r", "--method", "vaegan", *bad]))}
    assert found == {"--compared.vaegan.latent", "--compared.vaegan.adversary-share", "--compared.vaegan.kl", "--compared.vaegan.widths"}
