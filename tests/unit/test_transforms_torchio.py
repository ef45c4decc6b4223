"""`RandLesion` in TorchIO: grids, history, chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pathosyn.data.phantom import make_phantoms
from pathosyn.errors import InputError

tio = pytest.importorskip("torchio", reason="TorchIO is an extra: pip install 'pathosyn[torchio]'")

CONTRASTS = {"t1": "t1", "dark": "flair"}


@pytest.fixture(scope="module")
def fields(tiny_weights: Callable[[Sequence[str]], Path]) -> dict[str, Any]:
    return {"weights": str(tiny_weights(("t1", "flair"))), "sizes_mm": (8.0, 12.0)}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A phantom with its lesion, from files."""
    (folder,) = make_phantoms(tmp_path_factory.mktemp("torchio"), subjects=1, seed=3, slices=5, size_px=(80, 96))
    image, label = (lambda name: folder / f"{folder.name}_{name}.nii.gz"), tio.LabelMap(folder / f"{folder.name}_seg.nii.gz")
    made = tio.Subject(t1=tio.ScalarImage(image("t1")), dark=tio.ScalarImage(image("flair")), t2=tio.ScalarImage(image("t2")), label=label)
    made.load()
    return made


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a[name].data, b[name].data) for name in ("t1", "dark", "t2", "label"))


def test_images_and_label_change_together_and_nothing_else(subject: Any, fields: dict[str, Any]) -> None:
    from pathosyn.transforms import RandLesion

    before = {name: subject[name].data.clone() for name in ("t1", "dark", "t2", "label")}
    made = RandLesion(CONTRASTS, p=1, label_value=9, **fields)(subject)
    assert all(torch.equal(subject[name].data, data) for name, data in before.items())
    new = made["label"].data == 9
    assert new.any() and torch.equal(made["label"].data[~new], before["label"][~new])
    assert torch.equal(made["t2"].data, before["t2"])
    for name in CONTRASTS:
        assert made[name].data.dtype == before[name].dtype and np.array_equal(made[name].affine, subject[name].affine)
        changed = made[name].data != before[name]
        assert changed[new].float().mean() > 0.8 and changed.float().mean() < 0.2 and not changed[before["label"] > 0].any()


def test_a_history_draws_the_same_lesion_again(subject: Any, fields: dict[str, Any]) -> None:
    from pathosyn.transforms import RandLesion

    made = tio.Compose([RandLesion(CONTRASTS, p=1, **fields), tio.RandomFlip(axes=0, flip_probability=1)])(subject)
    assert [type(t).__name__ for t in made.get_applied_transforms()] == ["Lesion", "Flip"]
    assert same(made.get_composed_history()(subject), made) and not same(made, subject)


def test_torchs_seed_decides(subject: Any, fields: dict[str, Any]) -> None:
    from pathosyn.transforms import RandLesion

    lesion, made = RandLesion(CONTRASTS, p=1, **fields), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(lesion(subject))
    assert same(made[0], made[1]) and not same(made[0], made[2])
    assert same(RandLesion(CONTRASTS, p=0, **fields)(subject), subject)


def test_a_pool_is_kept_between_calls(subject: Any, fields: dict[str, Any]) -> None:
    from pathosyn.transforms import RandLesion

    lesion = RandLesion(CONTRASTS, p=1, pool=1, **fields)
    first, again = lesion(subject), lesion(subject)
    assert lesion.pool.drawn == 1 and same(first, again) and not same(first, subject)
    assert same(first.get_composed_history()(subject), first)


def test_workers_draw(subject: Any, fields: dict[str, Any]) -> None:
    from pathosyn.transforms import RandLesion

    data = tio.SubjectsDataset([subject] * 2, transform=RandLesion(CONTRASTS, p=1, label_value=9, **fields))
    made = list(tio.SubjectsLoader(data, batch_size=1, num_workers=1))
    assert all((batch["label"][tio.DATA] == 9).any() for batch in made)
    assert not torch.equal(made[0]["dark"][tio.DATA], made[1]["dark"][tio.DATA])


def test_one_grid_for_all(subject: Any, fields: dict[str, Any]) -> None:
    from pathosyn.transforms import Lesion

    shorter = tio.Subject(t1=subject["t1"], dark=tio.Crop((2, 0, 0))(subject["dark"]), label=subject["label"])
    with pytest.raises(InputError, match=r"^dark: found another grid"):
        Lesion(CONTRASTS, **fields)(shorter)
    with pytest.raises(InputError, match=r"^severity: "):
        Lesion(CONTRASTS, severity=(0, 1))
