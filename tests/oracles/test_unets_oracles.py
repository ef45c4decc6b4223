"""Our U-Nets are MONAI's, layer by layer: the same names, and the same output from the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pathosyn.blocks.unets import DiffusionUNet, SubstrateUNet
from pathosyn.networks import GROUPS

basic = pytest.importorskip("monai.networks.nets.basic_unet")
diffusion = pytest.importorskip("monai.networks.nets.diffusion_model_unet")


def weighted(network: nn.Module) -> nn.Module:
    """Weights everywhere, also where a training starts from 0."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("widths, blocks", [((8, 16, 24), 1), ((16, 32, 64, 64), 2)])
def test_eps_theta_is_monais(widths: tuple[int, ...], blocks: int) -> None:
    theirs = weighted(
        diffusion.DiffusionModelUNet(
            spatial_dims=2,
            in_channels=5,
            out_channels=3,
            channels=widths,
            attention_levels=[False] * (len(widths) - 1) + [True],
            num_res_blocks=blocks,
            num_head_channels=math.gcd(32, widths[-1]),
            norm_num_groups=GROUPS,
        )
    )
    ours = DiffusionUNet(5, 3, widths, blocks, widths[-1] // math.gcd(32, widths[-1]), GROUPS).eval()
    ours.load_state_dict(theirs.state_dict())
    x, t = torch.randn(2, 5, 32, 48), torch.tensor([1, 777])
    torch.testing.assert_close(ours(x, t), theirs(x, t), rtol=1e-4, atol=1e-5)


def test_f_sub_is_monais() -> None:
    widths = (8, 16, 24, 32, 40)
    theirs = weighted(
        basic.BasicUNet(
            spatial_dims=2,
            in_channels=7,
            out_channels=3,
            features=(*widths, widths[0]),
            act=("leakyrelu", {"negative_slope": 0.1, "inplace": True}),
            norm=("group", {"num_groups": GROUPS}),
        )
    )
    ours = SubstrateUNet(7, 3, widths, GROUPS).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 7, 32, 48)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_a_training_starts_where_monais_does() -> None:
    """The layers that start at 0 are the same, and the others have the same spread."""
    theirs = diffusion.DiffusionModelUNet(
        spatial_dims=2,
        in_channels=5,
        out_channels=3,
        channels=(64, 128),
        attention_levels=[False, True],
        num_res_blocks=1,
        num_head_channels=32,
        norm_num_groups=GROUPS,
    )
    ours = DiffusionUNet(5, 3, (64, 128), 1, 4, GROUPS)
    for name, value in theirs.state_dict().items():
        mine = ours.state_dict()[name]
        assert bool(mine.any()) == bool(value.any()), name
        if value.numel() > 4000:
            assert float(mine.std()) == pytest.approx(float(value.std()), rel=0.1), name
