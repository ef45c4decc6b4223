"""Meta-Auto on toy slices: what codes of 0 mean, who sees what, where the lesion lies, and that it learns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pathosyn import rng, warps
from pathosyn.compared import Compared
from pathosyn.compared import MetaAuto as Settings
from pathosyn.config import Config
from pathosyn.errors import InputError
from pathosyn.methods import build
from pathosyn.methods.metamorphic import MetaAuto, Posterior
from pathosyn.types import Controls, LesionBatch

Batches = Callable[..., LesionBatch]
SMALL = Settings(side=32, templates=3, shape=6, appearance=5, widths=(8, 8, 8, 8, 16))
SOME = [[1, 1], [1, 0], [0, 1]]


def small(**fields: object) -> MetaAuto:
    """Seeded weights; templates, and decoders large enough that every input counts."""
    torch.manual_seed(0)
    method = build(Config(contrasts=("t1", "flair"), name="meta-auto", compared=Compared(meta=replace(SMALL, **fields))))  # type: ignore[arg-type]
    assert isinstance(method, MetaAuto)
    with torch.no_grad():
        method.templates.images.normal_()
        method.look.last.weight.mul_(50)
        method.momentum.last.weight.mul_(50)
    return method


def streams(count: int, first: int = 0) -> list[torch.Generator]:
    return [rng.generator("test", i) for i in range(first, first + count)]


def codes(method: MetaAuto, count: int, *, size: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, method.settings.shape, generator=draw), size * torch.randn(count, method.settings.appearance, generator=draw)


def test_codes_of_0_mean_the_templates_mean_and_nothing_else(batch_of: Batches) -> None:
    method, m = small(), batch_of().m
    shape = method.shaped(torch.zeros(3, 6))
    mean = method.templates.images.mean(dim=0).expand(3, -1, -1, -1)
    assert not shape.u.any() and not shape.back.any() and not shape.norm.any()
    torch.testing.assert_close(shape.template, mean)
    torch.testing.assert_close(method.image(shape, torch.zeros(3, 5), torch.zeros_like(m)), mean, rtol=0, atol=1e-5)
    assert (method.image(shape, torch.zeros(3, 5), m) - mean).abs().max() > 0.1  # and the mask alone means a lesion


def test_the_image_is_the_template_with_the_appearance_seen_through_the_flow() -> None:
    """The order of the source: added first, warped then."""
    method = small()
    of_shape, of_appearance = codes(method, 2)
    shape, none = method.shaped(of_shape), torch.zeros(2, 1, 32, 32)
    added = method.look(of_appearance, none)
    torch.testing.assert_close(method.image(shape, of_appearance, none), warps.warp(shape.template + added, shape.u))
    assert (warps.warp(shape.template, shape.u) + added - method.image(shape, of_appearance, none)).abs().max() > 0.01


@pytest.mark.parametrize("size", [0.25, 0.5, 1.0])
def test_no_code_folds_the_plane_and_the_way_back_is_the_inverse(size: float) -> None:
    method = small(side=64).requires_grad_(False)
    shape = method.shaped(codes(method, 40, size=size)[0])
    assert float(shape.u.abs().max()) > 1.0 * size
    assert float(warps.jacobian(shape.u).min()) > 0.0 and float(warps.jacobian(shape.back).min()) > 0.0
    around = shape.u + warps.warp(shape.back, shape.u)
    assert float(around[:, :, 16:48, 16:48].abs().max()) < 0.05 * float(shape.u.abs().max())


def test_a_mask_that_is_carried_back_comes_to_lie_where_it_was(batch_of: Batches) -> None:
    method, m = small(), batch_of().m
    shape = method.shaped(codes(method, 3, size=2.0)[0])
    there = warps.warp(m, shape.back)
    again = warps.warp(there, shape.u)
    assert (there - m).abs().sum() > 0.2 * m.sum() and (again - m).abs().sum() < 0.3 * m.sum()
    assert torch.equal((again > 0.5).float(), m) or ((again > 0.5).float() - m).abs().sum() < 0.08 * m.sum()


def test_the_kl_is_that_of_two_normals() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(4, 7, generator=draw), torch.randn(4, 7, generator=draw)
    posterior = Posterior(mean, logvar)
    truth = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros(()), torch.ones(()))).sum(dim=1).mean()
    torch.testing.assert_close(posterior.kl.mean(), truth)
    noise = torch.randn(4, 7, generator=draw)
    torch.testing.assert_close(posterior.draw(noise), mean + logvar.exp().sqrt() * noise)


def test_the_code_of_the_shape_knows_nothing_of_the_lesion(batch_of: Batches) -> None:
    method, batch = small(), batch_of()
    code = method.encode_shape(batch).mean
    for under in (9.0, torch.inf, torch.nan):
        assert torch.equal(method.encode_shape(replace(batch, x=torch.where(batch.D > 0, under, batch.x))).mean, code)
    assert not torch.equal(method.encode_shape(replace(batch, x=batch.x + 0.1 * (1 - batch.D))).mean, code)
    seen = method.encode_appearance(batch).mean
    assert not torch.equal(method.encode_appearance(replace(batch, x=batch.x + 0.1 * batch.D)).mean, seen)
    assert not torch.equal(method.encode_appearance(replace(batch, m=torch.zeros_like(batch.m))).mean, seen)


def test_losses_of_a_batch_are_the_mean_of_its_slices_and_say_what_they_sum(batch_of: Batches) -> None:
    method, batch = small().eval(), batch_of(present=SOME)
    together = method.losses(batch, player="auto", rng=streams(3))
    alone = [method.losses(batch.shard(i, 3), player="auto", rng=streams(1, i)) for i in range(3)]
    assert set(together) == {"rec", "rec_lesion", "kl_shape", "kl_appearance", "norm", "loss", "psnr", "psnr_mean"}
    for name, value in together.items():
        assert value.item() == pytest.approx(float(torch.stack([terms[name].detach() for terms in alone]).mean()), rel=2e-4), name
    nats = method.encode_appearance(batch).kl
    assert (nats > 8).any(), "more than the free ones"
    total = together["rec"] + 1e-3 * (together["kl_shape"] + (nats - 8).clamp(min=0).mean()) + 0.02 * together["norm"]
    torch.testing.assert_close(together["loss"], total)


def test_the_error_is_that_of_the_image_on_what_is_known(batch_of: Batches) -> None:
    """With codes that have no spread the loss is that of `reconstruct`; and a contrast that the subject lacks counts for nothing."""
    method, batch = small().eval(), batch_of(present=SOME)
    with torch.no_grad():
        for encoder in (method.shape_encoder, method.appearance_encoder):
            half = encoder.head.bias.numel() // 2
            encoder.head.bias[half:] = -100.0
    made = method.reconstruct(batch)
    known = batch.present[:, :, None, None].float().expand_as(made)
    error = torch.stack([((made - batch.x)[i] ** 2)[known[i] > 0].mean() for i in range(3)]).mean()
    terms = method.losses(batch, player="auto", rng=streams(3))
    assert terms["rec"].item() == pytest.approx(float(error), rel=0.02)
    on_lesion = torch.stack([((made - batch.x)[i] ** 2)[(known * batch.m)[i] > 0].mean() for i in range(3)]).mean()
    assert terms["rec_lesion"].item() == pytest.approx(float(on_lesion), rel=0.02) and abs(float(on_lesion / error) - 1) > 0.05
    assert not made[known == 0].any()
    other = replace(batch, x=torch.where(known > 0, batch.x, 9.0))
    changed = method.losses(other, player="auto", rng=streams(3))
    assert all(changed[name].item() == value.item() for name, value in terms.items())


@pytest.mark.parametrize("moved", ["shape_encoder", "appearance_encoder"])
def test_training_draws_both_codes(moved: str, batch_of: Batches) -> None:
    """Where one encoder alone has spread, other noise still gives another image."""
    method, batch = small().requires_grad_(False), batch_of()
    for name in ("shape_encoder", "appearance_encoder"):
        bias = method.get_submodule(name).head.bias
        bias[len(bias) // 2 :] = 0.0 if name == moved else -100.0
    first, second = (float(method.losses(batch, player="auto", rng=streams(3, start))["rec"]) for start in (0, 50))
    assert abs(first - second) > 0.01 * first


def test_a_gradient_reaches_every_weight(batch_of: Batches) -> None:
    method = small()
    method.losses(batch_of(), player="auto", rng=streams(3))["loss"].backward()
    moved = {id(p) for module in method.modules_of("auto") for p in module.parameters()}
    assert all(id(p) in moved and p.grad is not None and bool(p.grad.any()) for p in method.parameters())


def test_a_draw_is_keyed_by_its_seed_subject_and_slice(batch_of: Batches) -> None:
    method, batch = small(), batch_of(present=SOME)
    known = batch.present[:, :, None, None].float().expand_as(batch.x)
    for anatomy in ("sampled", "encoded"):
        method.config = replace(method.config, compared=Compared(meta=replace(SMALL, anatomy=anatomy)))  # type: ignore[arg-type]
        drawn = method.synthesize(batch, controls=Controls(seed=4))
        for i in range(3):
            one = method.synthesize(batch.shard(i, 3), controls=Controls(seed=4))
            torch.testing.assert_close(one.x_hat[0], drawn.x_hat[i], rtol=1e-4, atol=1e-4)
        for other, seed in ((batch, 5), (replace(batch, subject=["a", "b", "c"]), 4), (replace(batch, z=[7, 8, 9]), 4)):
            assert (method.synthesize(other, controls=Controls(seed=seed)).x_sub - drawn.x_sub).abs().amax(dim=(1, 2, 3)).min() > 0.01
        assert not drawn.x_hat[known == 0].any() and not drawn.x_sub[known == 0].any()
        torch.testing.assert_close(drawn.x_hat, drawn.x_sub + drawn.r)
        assert torch.equal(drawn.m, batch.m) and torch.equal(drawn.S, batch.S) and drawn.seeds == [4, 4, 4]


def test_severity_scales_what_the_mask_adds_and_an_empty_mask_adds_nothing(batch_of: Batches) -> None:
    method, batch = small(), batch_of()
    whole, none = (method.synthesize(batch, controls=Controls(severity=s)) for s in (1.0, 0.0))
    assert torch.equal(none.x_hat, none.x_sub) and torch.equal(none.x_sub, whole.x_sub) and whole.r.abs().max() > 0.1
    torch.testing.assert_close(method.synthesize(batch, controls=Controls(severity=2.5)).x_hat, whole.x_sub + 2.5 * whole.r)
    empty = method.synthesize(replace(batch, m=torch.zeros_like(batch.m)), controls=Controls())
    assert not empty.r.any() and torch.equal(empty.x_sub, whole.x_sub)


def test_where_the_anatomy_of_a_draw_comes_from(batch_of: Batches) -> None:
    """sampled: the scan plays no part. encoded: it does, and its own lesion still does not."""
    batch = batch_of()
    outside, inside = (replace(batch, x=batch.x + 0.5 * where) for where in (1 - batch.D, batch.D))
    sampled, encoded = small(), small(anatomy="encoded")
    assert torch.equal(sampled.synthesize(outside, controls=Controls()).x_hat, sampled.synthesize(batch, controls=Controls()).x_hat)
    own = encoded.synthesize(batch, controls=Controls())
    assert torch.equal(encoded.synthesize(inside, controls=Controls()).x_hat, own.x_hat)
    assert not torch.equal(encoded.synthesize(outside, controls=Controls()).x_sub, own.x_sub)


def test_templates_start_as_means_of_like_slices_without_their_lesions(batch_of: Batches) -> None:
    """Two kinds of slices, bright below and bright above: the groups are those, and a contrast's mean is over slices that have it."""
    method, made = small(templates=2), batch_of(4, present=[[1, 1], [1, 0], [1, 1], [1, 1]])
    with torch.no_grad():
        method.templates.images.zero_()
    kind = torch.zeros(4, 1, 32, 32)
    kind[0::2, :, 16:], kind[1::2, :, :16] = 5.0, 4.0
    known = made.present[:, :, None, None].float()
    healthy = (kind + 0.1 * made.x_ph) * known
    batch = replace(made, x=(healthy + 3.0 * made.m) * known, x_ph=healthy)
    found = method.begin("metamorphic", [batch.shard(0, 2), batch.shard(1, 2)])
    below, above = healthy[[0, 2]].mean(dim=0), torch.stack([healthy[[1, 3], 0].mean(dim=0), healthy[3, 1]])
    assert found["template_slices"] == [2.0, 2.0]
    distance = [[float((image - truth).abs().max()) for truth in (below, above)] for image in method.templates.images.detach()]
    assert min(distance[0]) < 1e-5 and min(distance[1]) < 1e-5 and abs(distance[0][0] - distance[1][0]) > 1.0
    torch.testing.assert_close(method.mean, torch.stack([batch.x[:, 0].mean(dim=0), batch.x[[0, 2, 3], 1].mean(dim=0)]))
    before = method.templates.images.clone()
    assert method.begin("metamorphic", [replace(batch, x_ph=batch.x_ph + 1.0)]) == {} and torch.equal(method.templates.images, before)


def test_a_template_for_which_there_are_no_slices_is_the_mean(batch_of: Batches) -> None:
    method, batch = small(templates=8), batch_of(2)
    method.begin("metamorphic", [batch])
    mean = batch.x.mean(dim=0)
    alike = [bool(torch.allclose(image, mean, atol=1e-6)) for image in method.templates.images]
    assert sum(alike) == 6


def test_psnr_stands_beside_that_of_the_mean_slice_and_only_when_not_training(batch_of: Batches) -> None:
    method, batch = small(), batch_of()
    assert "psnr" not in method.losses(batch, player="auto", rng=streams(3))
    batch = replace(batch, x=torch.linspace(0, 1, 32 * 32).view(1, 1, 32, 32).expand(3, 2, -1, -1))
    method.eval().mean.copy_(batch.x[0] + 0.0099)
    terms = method.losses(batch, player="auto", rng=streams(3))
    assert terms["psnr_mean"].item() == pytest.approx(40.0, abs=0.01)  # a range of 0.99, off by 0.0099
    assert terms["psnr"].item() < 20.0


def test_a_tiny_one_learns_two_slices_by_heart(batch_of: Batches) -> None:
    """Two disks of unlike size and place, one with a lesion: far below the mean slice's error, and the lesion lies where the mask says."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    heads = torch.stack([((y - 15) ** 2 + (x - c) ** 2 < radius**2).float() for c, radius in ((14, 9), (18, 12))])[:, None]
    made = batch_of(2)
    healthy = (heads * torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)).contiguous()
    batch = replace(made, x=healthy + 2.0 * made.m, x_ph=healthy)
    method = small(templates=1, kl=1e-4)
    with torch.no_grad():
        method.templates.images.zero_()
        method.look.last.weight.div_(5)
        method.momentum.last.weight.div_(5)
    method.begin("metamorphic", [batch])
    floor = float((method.mean - batch.x).square().mean())
    optimizer = torch.optim.AdamW(method.parameters(), lr=7e-3)
    for step in range(100):
        optimizer.zero_grad()
        method.losses(batch, player="auto", rng=streams(2, 10 * step))["loss"].backward()
        optimizer.step()
    made_again = method.reconstruct(batch)
    assert float((made_again - batch.x).square().mean()) < 0.3 * floor
    shape, appearance = method.shaped(method.encode_shape(batch).mean), method.encode_appearance(batch).mean
    r = made_again - method.image(shape, appearance, torch.zeros_like(batch.m))
    inside, outside = float((r * batch.m).sum() / (2 * batch.m.sum())), float((r.abs() * (1 - batch.D)).sum() / (2 * (1 - batch.D).sum()))
    assert inside > 1.0 and outside < 0.2 * inside


def test_settings_that_no_network_can_have_are_named_at_once() -> None:
    with pytest.raises(InputError) as told:
        small(side=100, widths=(8, 12), templates=0, kernel_px=0.0)
    assert [fault.where for fault in told.value.faults] == [f"--compared.meta.{name}" for name in ("side", "widths", "templates", "kernel-px")]
