"""What makes it fast is in the structure: how often the networks are called, on how many pixels, and what is imported first. No test here looks at a clock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pathosyn.config import default
from pathosyn.data.masks import blend_map
from pathosyn.methods.pathosyn import PathoSyn
from pathosyn.scan import volume

Maker = Callable[..., PathoSyn]
SPACING = (5.0, 1.0, 1.0)


def target(method: PathoSyn, side: int, *radii: float) -> volume.Target:
    """One slice for each radius, a round lesion in the middle of each."""
    y, x = np.mgrid[:side, :side] - side / 2
    m = np.stack([(y**2 + x**2) <= radius**2 for radius in radii])
    scan = np.random.default_rng(0).normal(size=(len(radii), len(method.config.contrasts), side, side)).astype(np.float32)
    return volume.Target.of(method, scan, m, blend_map(m, SPACING, method.config.geometry), np.ones(scan.shape[1], bool), 1.0)


def calls(method: PathoSyn, one: volume.Target) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of what each network is given in a whole draw, batch and pixels."""
    seen: dict[str, list[tuple[int, ...]]] = {}
    hooks = [
        getattr(method, name).register_forward_pre_hook(lambda _, inputs, name=name: seen.setdefault(name, []).append((len(inputs[0]), *inputs[0].shape[2:])))
        for name in ("sub", "coarse", "eps")
    ]
    cpu = torch.device("cpu")
    x_sub = volume.substrate(method, one, device=cpu)
    volume.deviation(method, one, x_sub, volume.noise_field(one, SPACING[0], 2.0, 0), key=(0,), steps=None, device=cpu)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.fixture
def method(make_method: Maker) -> PathoSyn:
    return make_method(default(), steps=5).eval()


def test_a_draw_is_steps_calls_on_the_coarse_grid_and_one_at_full_resolution(method: PathoSyn) -> None:
    """All windows of a side together, whatever their number."""
    seen = calls(method, target(method, 128, 8.0, 9.0, 10.0))
    assert seen == {"sub": [(3, 64, 64)], "coarse": [(3, 16, 16)] * 5, "eps": [(3, 64, 64)]}


def test_the_cost_follows_the_lesion_and_not_the_image(method: PathoSyn) -> None:
    small, large = (calls(method, target(method, side, 8.0)) for side in (96, 384))
    assert small == large
    longer = calls(method, target(method, 384, 60.0))
    assert [height for _, height, _ in longer["eps"]] == [160] and [height for _, height, _ in longer["coarse"]] == [40] * 5


def test_memory_is_bounded_by_the_batch_and_not_by_the_volume(method: PathoSyn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "BATCH_PIXELS", 4 * 64 * 64)
    assert [count for count, *_ in calls(method, target(method, 96, *[8.0] * 10))["eps"]] == [4, 4, 2]


@pytest.mark.parametrize(
    "module, heavy",
    [
        ("pathosyn.cli", ["torch", "monai", "scipy", "nibabel", "h5py", "matplotlib", "pandas", "sklearn", "skimage", "lightning_fabric", "onnxruntime"]),
        ("pathosyn.insert", ["monai", "matplotlib", "pandas", "sklearn", "skimage", "lightning_fabric", "onnxruntime", "nilearn"]),
        ("pathosyn.methods.pathosyn", ["monai", "matplotlib", "pandas", "sklearn", "skimage", "lightning_fabric", "nibabel", "h5py"]),
    ],
)
def test_what_is_not_needed_is_not_imported(module: str, heavy: list[str]) -> None:
    code = f"import sys, {module}\nprint([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
