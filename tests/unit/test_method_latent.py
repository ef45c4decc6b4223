"""The autoencoder of slices, the units of its code, and Brain-LDM on it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d, pixel_unshuffle

from pathosyn import losses, rng
from pathosyn.blocks.autoencoders import Neighbours, ResidualBlock, SliceDecoder, SliceEncoder, factor
from pathosyn.compared import Compared, Latent
from pathosyn.config import Config
from pathosyn.errors import InputError
from pathosyn.framework import latents
from pathosyn.framework.latents import LatentMethod, head, refuse_unfit, roughness, seen
from pathosyn.methods import build
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
Maker = Callable[..., LatentMethod]
PLAYERS = ("autoencoder", "judged", "critic", "eps")


def streams(count: int = 3) -> list[torch.Generator]:
    return [rng.generator("test", i) for i in range(count)]


def one_of(batch: LesionBatch, b: int) -> LesionBatch:
    return batch.shard(b, len(batch))


def moved(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


@pytest.fixture(scope="module")
def ldm(make_latent: Maker) -> LatentMethod:
    return make_latent("brain-ldm")


# -- the autoencoder ----------------------------------------------------------------------------------------------------------------


def test_a_code_is_smaller_by_the_factor_and_the_decoder_is_as_large_as_the_slice() -> None:
    widths = (8, 8, 16)
    mean, log_variance = SliceEncoder(3, 5, widths, 1)(torch.randn(2, 3, 64, 32), torch.ones(2, 3, 1, 1))
    assert factor(widths) == 8 and mean.shape == log_variance.shape == (2, 5, 8, 4)
    assert SliceDecoder(3, 5, widths, 1)(mean).shape == (2, 3, 64, 32)


def test_a_residual_block_starts_as_what_came_in() -> None:
    x = torch.randn(1, 8, 6, 6)
    block = ResidualBlock(8, 8)
    nn.init.zeros_(block.conv2.bias)
    assert torch.equal(block(x), x)


def test_the_head_is_what_differs_from_the_border_in_any_contrast_that_is_there(batch_of: Batches) -> None:
    x = torch.full((1, 2, 32, 32), -3.0)
    x[0, 0, 4:10, 4:10], x[0, 1, 8:14, 8:14] = 1.0, -2.0
    both, first = (head(x, torch.tensor([[1.0, there]])[:, :, None, None])[0, 0] for there in (1.0, 0.0))
    assert int(first.sum()) == 36 and int(both.sum()) == 36 + 36 - 4 and bool(both[13, 13])


def test_roughness_tells_a_blur_from_the_truth_but_not_where_grain_lies() -> None:
    grain = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    other = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(1))
    blurred = torch.nn.functional.avg_pool2d(grain, 3, 1, 1)
    mean = [roughness(x)[:, :1].mean() for x in (grain, other, blurred)]
    assert abs(mean[1] / mean[0] - 1) < 0.01 and mean[2] < 0.4 * mean[0]


def test_the_terms_of_the_autoencoder_as_written_out(ldm: LatentMethod, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """KL of N(1, e⁰) is ½; an error of 2 on the head and of 1 outside counts as `air` says."""
    batch = batch_of(1)
    x = torch.full_like(batch.x, -1.0)
    x[..., 8:24, 8:24] = 1.0
    inside = torch.zeros(1, 1, 32, 32)
    inside[..., 8:24, 8:24] = 1.0
    monkeypatch.setattr(ldm.encoder, "forward", lambda x, known: (torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)))
    monkeypatch.setattr(ldm.decoder, "forward", lambda code: x + 1.0 + inside)
    batch, lam = replace(batch, x=x), ldm.settings
    terms, last = (ldm.losses(batch, player=player, rng=streams(1)) for player in ("autoencoder", "judged"))
    air = lam.air
    assert terms["kl"] == pytest.approx(0.5) and float(terms["l1"]) == pytest.approx((2 * 256 + air * 768) / (256 + air * 768))
    assert float(terms["loss"]) == pytest.approx(float(terms["l1"]) + lam.kl * 0.5) and float(terms["detail"]) > 0.01
    sharper = lam.detail * last["detail"] + lam.adversary * last["adversary"]
    assert (last["loss"] - terms["loss"]).item() == pytest.approx(sharper.item(), rel=1e-4) and last["adversary"].item() != 0.0


def test_validation_says_how_well_slices_are_given_back(ldm: LatentMethod, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of 1/100 of the range everywhere is 40 dB."""
    batch = batch_of(2)
    spread = torch.quantile(batch.x.flatten(2), 0.995, dim=2) - torch.quantile(batch.x.flatten(2), 0.005, dim=2)
    monkeypatch.setattr(ldm.decoder, "forward", lambda code: batch.x + 0.01 * spread[:, :, None, None])
    with torch.no_grad():
        terms = ldm.losses(batch, player="autoencoder", rng=streams(2))
    assert float(terms["psnr"]) == pytest.approx(40.0, abs=1e-3) == float(terms["psnr_head"])
    assert "psnr" not in ldm.losses(batch, player="autoencoder", rng=streams(2))


def test_each_player_moves_its_own_modules(make_latent: Maker, batch_of: Batches) -> None:
    ldm = make_latent("brain-ldm")
    parts = {"autoencoder": (ldm.encoder, ldm.decoder), "judged": (ldm.encoder, ldm.decoder), "critic": (ldm.critic,), "eps": (ldm.eps,)}
    for player in PLAYERS:
        ldm.zero_grad(set_to_none=True)
        ldm.losses(batch_of(2), player=player, rng=streams(2))["loss"].backward()
        assert tuple(ldm.modules_of(player)) == parts[player] and all(moved(module) for module in parts[player])
        others = {module for modules in parts.values() for module in modules} - set(parts[player]) - ({ldm.critic} if player == "judged" else set())
        assert not any(moved(module) for module in others), player


@pytest.mark.parametrize("name", ["brain-ldm", "maskdiff-inpaint"])
@pytest.mark.parametrize("player", PLAYERS)
def test_losses_of_a_batch_are_the_mean_of_its_slices_and_missing_contrasts_do_not_count(name: str, player: str, make_latent: Maker, batch_of: Batches) -> None:
    method, batch = make_latent(name), batch_of(2, present=[[1, 1], [1, 0]])
    together = method.losses(batch, player=player, rng=streams(2))["loss"]
    if player not in ("judged", "critic"):  # the critic's patches are counted together
        alone = [method.losses(one_of(batch, b), player=player, rng=[streams(2)[b]])["loss"] for b in range(2)]
        assert together.item() == pytest.approx(sum(loss.item() for loss in alone) / 2, rel=1e-4)
    other = replace(batch, x=batch.x + 7.0 * (~batch.present)[:, :, None, None])
    assert float(method.losses(other, player=player, rng=streams(2))["loss"].detach()) == pytest.approx(together.item(), rel=1e-6)


def replace_kernels(back: Neighbours, step: float) -> Neighbours:
    other = copy.deepcopy(back)
    other.kernels += step * torch.randn(back.kernels.shape, generator=torch.Generator().manual_seed(0))
    return other


def test_a_fresh_autoencoder_begins_as_the_best_linear_one(batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block's own code loses the variance along the directions that it has no room for (Eckart and Young); with the codes around it less is lost, and no
    other linear way back loses less still."""
    monkeypatch.setattr(latents, "MEASURED", 1)
    latent = Latent(side=32, widths=(8, 16), denoiser=(8, 16), code=4, adversary=0.0)
    fresh, batch = build(Config(contrasts=("t1", "flair"), name="brain-ldm", compared=Compared(latent=latent))), batch_of(3)
    assert isinstance(fresh, LatentMethod) and not fresh.reconstruct(batch).any()
    said = fresh.begin("autoencoder", [batch])
    about = pixel_unshuffle(batch.x - batch.x.mean((0, 2, 3), keepdim=True), 4).permute(0, 2, 3, 1).reshape(-1, 32).double()
    lost = torch.linalg.eigvalsh(about.T @ about / len(about))[:-4].sum() / 32
    blocks, back = fresh.encoder.linear, fresh.decoder.linear
    code = blocks.code_of(batch.x)
    own = conv_transpose2d(code * blocks.spread[:, None, None], blocks.kernels, stride=4) + blocks.middle[:, None, None]
    assert ((own - batch.x) ** 2).mean().item() == pytest.approx(lost.item(), rel=1e-4)
    least = ((fresh.reconstruct(batch) - batch.x) ** 2).mean().item()
    assert least < 0.999 * lost.item()
    values = losses.psnr_inside(fresh.reconstruct(batch), batch.x, torch.ones_like(batch.x))
    assert said == {"psnr": [pytest.approx(sum(values[c::2]) / 3, rel=1e-5) for c in range(2)]}, "what learning has to better"
    for sign in (-1.0, 1.0):
        other = replace_kernels(back, sign * 0.01)
        assert ((other.image_of(code) - batch.x) ** 2).mean().item() > least
    assert fresh.encoder(*seen(batch))[0].square().mean((0, 2, 3)).tolist() == pytest.approx([1.0] * 4, rel=1e-3)
    before = fresh.encoder.linear.kernels.clone()
    assert fresh.begin("autoencoder", [batch_of(2)]) == {}
    assert torch.equal(fresh.encoder.linear.kernels, before), "what goes on from weights keeps theirs"


# -- the code's units and the stages ------------------------------------------------------------------------------------------------


def test_the_diffusion_begins_with_codes_of_mean_0_and_spreads_by_what_they_bring(
    make_latent: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel that brings most to the image has spread 1, one that brings a quarter of it spread ½."""
    monkeypatch.setattr(latents, "MEASURED", 2)
    ldm, batches = make_latent("brain-ldm"), [batch_of(3), batch_of(2)]
    ldm.begin("autoencoder-sharpen", batches)
    assert float(ldm.code_std[1]) == 2.0, "not yet"
    ldm.encoder.linear.spread.copy_(torch.tensor([2.0, 8.0, 0.5, 2.0]))
    found = ldm.begin("diffusion", batches)
    code = ldm.encode(*seen(batches[0]))
    assert code.mean((0, 2, 3)).tolist() == pytest.approx([0.0] * 4, abs=1e-4)
    assert code.std((0, 2, 3), correction=0).tolist() == pytest.approx([0.5, 1.0, 0.25, 0.5], rel=1e-3)
    assert found["code_std"] == ldm.code_std.tolist() and len(found["psnr"]) == 2


def test_a_reconstruction_does_not_depend_on_the_code_s_units(ldm: LatentMethod, batch_of: Batches) -> None:
    batch = batch_of(2, present=[[1, 1], [1, 0]])
    x, known = seen(batch)
    back = ldm.reconstruct(batch)
    assert torch.allclose(back, ldm.decoder(ldm.encoder(x, known)[0]) * known, atol=1e-5) and not back[1, 1].any()


@pytest.mark.parametrize(
    "fields, names",
    [
        ({}, ["autoencoder", "autoencoder-sharpen", "diffusion"]),
        ({"adversary": 0.0}, ["autoencoder", "autoencoder-sharpen", "diffusion"]),
        ({"adversary": 0.0, "detail": 0.0}, ["autoencoder", "diffusion"]),
        ({"autoencoder_share": 0.0}, ["diffusion"]),
    ],
)
def test_stages_are_those_with_a_share(fields: dict[str, float], names: list[str], make_latent: Maker) -> None:
    method = make_latent("brain-ldm", **fields)
    assert [stage.name for stage in method.stages] == names and sum(stage.share for stage in method.stages) == pytest.approx(1.0)
    assert (method.critic is not None) == (method.settings.adversary > 0 and "autoencoder" in names)
    assert all(tuple(method.modules_of(player)) for stage in method.stages for player in stage.players)


@pytest.mark.parametrize(
    "fields, flag",
    [
        ({"widths": (8, 12)}, "widths"),
        ({"denoiser": ()}, "denoiser"),
        ({"side": 48, "widths": (8, 8), "denoiser": (8, 8)}, "side"),
        ({"side": 96, "widths": (8, 8, 8, 8), "denoiser": (8, 8, 8)}, "side"),
        ({"empty": 1.5}, "empty"),
        ({"air": -1.0}, "air"),
        ({"autoencoder_share": float("nan")}, "autoencoder-share"),
    ],
)
def test_settings_of_which_no_network_can_be_made_are_refused_in_a_line(fields: dict[str, object], flag: str) -> None:
    with pytest.raises(InputError) as error:
        refuse_unfit(replace(Latent(), **fields))  # type: ignore[arg-type]
    assert str(error.value).startswith(f"--compared.latent.{flag}: found") and "\n" not in str(error.value)
    refuse_unfit(Latent())


@pytest.mark.parametrize("t, weight", [(1000, 1.0), (10, latents.CLEAREST)])
def test_an_error_of_the_code_counts_as_that_of_v_up_to_a_limit(t: int, weight: float, make_latent: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    method, code = make_latent("brain-ldm", prediction="r0"), torch.randn(2, 4, 8, 8)
    monkeypatch.setattr(rng, "integers", lambda streams, low, high: torch.full((len(streams),), t))
    monkeypatch.setattr(method.eps, "forward", lambda *_: code + 0.3)
    found = method.noised_terms(code, torch.zeros(2, 4, 8, 8), streams(2))
    assert found["loss"].item() == pytest.approx(weight * 0.09, rel=1e-4)


def test_a_slice_is_coded_once_and_anew_where_anything_of_it_is_another(make_latent: Maker, batch_of: Batches) -> None:
    method, batch, asked = make_latent("brain-ldm"), batch_of(2), []

    def made(one: LesionBatch) -> torch.Tensor:
        asked.append(one.subject[0])
        return one.x.mean((2, 3), keepdim=True)

    fields = ("x", "S", "present")
    first, again = method.once(batch, made, *fields), method.once(batch, made, *fields)
    assert torch.equal(first, again) and torch.allclose(first, batch.x.mean((2, 3), keepdim=True)) and len(asked) == 2
    other = batch.x.clone()
    other[1, 0, 3, 3] += 1.0
    method.once(replace(batch, x=other), made, *fields)
    moved = replace(batch, S=torch.stack([batch.S[0], batch.S[1].flip(-1) + 0.5]))
    method.once(moved, made, *fields)
    assert len(asked) == 4, "one slice of each"
    method.once(batch, made, "x")
    method.once(moved, made, "x")
    assert len(asked) == 6, "what is not of its fields does not count"
    method.once(batch, method.coded, *fields)
    assert torch.allclose(method.once(batch, method.coded, *fields), method.encode(*seen(batch)), atol=1e-5), "another kind of code is not the same"
    assert not copy.deepcopy(method)._kept and method._kept, "a copy makes its own"
    method.begin("diffusion", [batch])
    method.once(batch, made, *fields)
    assert len(asked) == 8, "with another autoencoder, nothing is known"


def test_a_hole_elsewhere_is_no_other_slice(make_latent: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch = make_latent("brain-ldm"), batch_of(2, healthy=(True, True))
    monkeypatch.setattr(latents, "mirrored", lambda batch, _: batch)
    for shift in (0, 3):
        method.losses(replace(batch, S=batch.S.roll(shift, -1), m=batch.m.roll(shift, -1)), player="eps", rng=streams(2))
    assert len(method._kept) == 2


def test_no_more_codes_are_kept_than_there_is_room_for(make_latent: Maker, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "KEPT", 1)
    method, batch = make_latent("brain-ldm"), batch_of(3)
    assert torch.equal(method.once(batch, method.coded, "x"), method.once(batch, method.coded, "x")) and len(method._kept) == 1


def test_the_diffusion_sees_half_of_the_slices_mirrored(ldm: LatentMethod, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(ldm, "diffusion_terms", lambda batch, streams: given.append(batch) or {})
    batch = batch_of(2)
    for i in range(8):
        ldm.losses(batch, player="eps", rng=[rng.generator("half", i, b) for b in range(2)])
    same = [torch.equal(one.x[b], batch.x[b]) for one in given for b in range(2)]
    other = [torch.equal(one.x[b], batch.x[b].flip(-1)) and torch.equal(one.S[b], batch.S[b].flip(-1)) for one in given for b in range(2)]
    assert 3 < sum(same) < 13 and all(a != b for a, b in zip(same, other, strict=True))
    assert [stage.name for stage in ldm.stages if stage.plain] == ["diffusion"]


# -- Brain-LDM ----------------------------------------------------------------------------------------------------------------------


def test_the_denoiser_is_shown_mask_head_air_and_flags_and_no_mask_where_there_is_no_lesion(
    ldm: LatentMethod, batch_of: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(latents, "mirrored", lambda batch, _: batch)
    hook = ldm.eps.register_forward_pre_hook(lambda _, given: shown.append(given[1]))
    batch = batch_of(2, healthy=(False, True), present=[[1, 1], [0, 1]])
    x = torch.full_like(batch.x, -2.0)
    x[:, :, 8:24, 8:16] = batch.x[:, :, 8:24, 8:16] + 3.0
    ldm.losses(replace(batch, x=x), player="eps", rng=streams(2))
    hook.remove()
    (marks,) = shown
    assert marks[0, 0].sum() * 16 == batch.m[0].sum() and float(marks[0, 1].sum()) * 16 == pytest.approx(float(batch.S[0].sum()))
    assert not marks[1, :2].any() and marks[:, 3:5, 0, 0].tolist() == [[1, 1], [0, 1]]
    inside = torch.zeros(8, 8)
    inside[2:6, 2:4] = 1
    assert torch.equal(marks[:, 2], inside.expand(2, -1, -1)), "the head, on cells of 4 × 4"
    assert marks[:, 5:, 7, 3].tolist() == [[-2, -2], [0, -2]], "what its air holds, everywhere"


def test_a_perfect_denoiser_draws_the_slices_that_it_knows(ldm: LatentMethod, batch_of: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mask one code, with an empty one another: x_sub and r follow, and severity scales r."""
    batch = batch_of(2)
    known = seen(batch)[1]
    ill, well = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    seen_masks = []

    def estimate(code: torch.Tensor, condition: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen_masks.append(condition[:, 0].sum((1, 2)) > 0)
        return torch.cat([ill, well])

    monkeypatch.setattr(ldm, "estimate", estimate)
    drawn = {severity: ldm.synthesize(batch, controls=Controls(severity=severity), steps=4) for severity in (0.0, 1.0, 2.0)}
    assert seen_masks[0].tolist() == [True, True, False, False] and len(seen_masks) == 12
    assert torch.allclose(drawn[1.0].x_hat, ldm.decode(ill, known), atol=1e-4) and torch.allclose(drawn[1.0].x_sub, ldm.decode(well, known), atol=1e-5)
    assert torch.equal(drawn[0.0].x_hat, drawn[0.0].x_sub) and torch.allclose(drawn[2.0].x_hat, drawn[2.0].x_sub + 2 * drawn[1.0].r)
    assert torch.equal(drawn[1.0].S, batch.S) and torch.equal(drawn[1.0].m, batch.m)


def test_without_a_mask_the_slice_is_its_own_healthy_counterpart(ldm: LatentMethod, batch_of: Batches) -> None:
    batch = batch_of(1)
    empty = ldm.synthesize(replace(batch, m=batch.m * 0, S=batch.S * 0), controls=Controls())
    assert empty.r.abs().max() < 1e-5 and ldm.synthesize(batch, controls=Controls()).r.abs().max() > 1e-3


def test_a_draw_is_of_seed_subject_and_slice_not_of_the_batch_or_the_anatomy(ldm: LatentMethod, batch_of: Batches) -> None:
    """Of the given slice only where its head lies, and what its air holds."""
    batch = batch_of(3, present=[[1, 1], [1, 0], [1, 1]])
    x = torch.full_like(batch.x, -2.0)
    x[:, :, 8:24, 8:24] = batch.x[:, :, 8:24, 8:24].abs()
    batch = replace(batch, x=x)
    drawn = ldm.synthesize(batch, controls=Controls(seed=4))
    other = torch.where(batch.x[1:2] >= 0, 3.0 - batch.x[1:2].clamp(max=3.0), batch.x[1:2])
    alone = ldm.synthesize(replace(one_of(batch, 1), x=other), controls=Controls(seed=4))
    assert torch.allclose(alone.x_hat, drawn.x_hat[1:2], atol=1e-4) and not drawn.x_hat[1, 1].any()
    assert (ldm.synthesize(one_of(batch, 1), controls=Controls(seed=5)).x_hat - alone.x_hat).abs().max() > 1e-2


@pytest.mark.parametrize("player", ["autoencoder", "eps"])
def test_a_tiny_network_learns_two_slices_by_heart(player: str, make_latent: Maker, batch_of: Batches) -> None:
    method, batch = make_latent("brain-ldm", widths=(16, 16), denoiser=(16, 16)), batch_of(2)
    smooth = torch.nn.functional.avg_pool2d(batch.x, 9, 1, 4) * 5
    batch = replace(batch, x=smooth)
    method.begin("diffusion", [batch])
    optimizer = torch.optim.Adam([p for module in method.modules_of(player) for p in module.parameters()], lr=5e-3)
    values = []
    for _ in range(30):
        loss = method.losses(batch, player=player, rng=streams(2))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]
