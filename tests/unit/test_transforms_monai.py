"""`RandLesiond` in MONAI's pipelines: metadata, chance, workers."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, NormalizeIntensityd, RandFlipd

from pathosyn.data.phantom import make_phantoms
from pathosyn.errors import InputError
from pathosyn.transforms import RandLesiond

CONTRASTS = ("t1", "flair")


@pytest.fixture(scope="module")
def lesion_of(tiny_weights: Callable[[Sequence[str]], Path]) -> Callable[..., RandLesiond]:
    """(keys, contrasts, **fields) → a transform with tiny weights and small lesions, always done unless asked otherwise."""
    weights = str(tiny_weights(CONTRASTS))

    def made(keys: Any = "image", contrasts: Sequence[str] = CONTRASTS, **fields: Any) -> RandLesiond:
        return RandLesiond(keys, contrasts, **{"prob": 1.0, "weights": weights, "sizes_mm": (8.0, 12.0)} | fields)

    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (made,) = make_phantoms(tmp_path_factory.mktemp("monai"), subjects=1, seed=3, slices=5, size_px=(80, 96))
    return made


@pytest.fixture(scope="module")
def volume(folder: Path) -> dict[str, Any]:
    """A phantom as MONAI loads it: x, y, z; left-posterior-superior."""
    paths = {"image": [str(folder / f"{folder.name}_{name}.nii.gz") for name in CONTRASTS], "label": str(folder / f"{folder.name}_seg.nii.gz")}
    return Compose([LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])])(paths)


@pytest.fixture(scope="module")
def plane(volume: dict[str, Any]) -> dict[str, Any]:
    """The first slice, which has no lesion, as plain tensors in slices order."""
    return {key: torch.as_tensor(np.ascontiguousarray(value.numpy()[:, ::-1, ::-1, 0].transpose(0, 2, 1))) for key, value in volume.items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in ("image", "label"))


def test_metatensors_stay_what_they_are(volume: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    before = {key: value.clone() for key, value in volume.items()}
    made = lesion_of(label_value=7)(volume)
    assert same(volume, before)
    for key in ("image", "label"):
        assert isinstance(made[key], MetaTensor) and made[key].dtype == volume[key].dtype and made[key].shape == volume[key].shape
        assert torch.equal(made[key].affine, volume[key].affine) and made[key].meta["filename_or_obj"] == volume[key].meta["filename_or_obj"]
    new = made["label"][0] == 7
    assert new.any() and torch.equal(made["label"][0][~new], volume["label"][0][~new])
    changed = (made["image"] != volume["image"]).any(dim=0)
    assert changed[new].float().mean() > 0.9 and not changed[volume["label"][0] > 0].any()


def test_the_affine_says_which_axes_the_slices_are(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    """One slice given plainly, and as the x, y, z of a file that runs to the left and to the back: the same lesion."""
    plain = lesion_of(spacing=(1.0, 1.0)).set_random_state(3)(plane)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    stored = {key: MetaTensor(value.transpose(1, 2).flip(1, 2)[..., None].clone(), affine=affine) for key, value in plane.items()}
    made = lesion_of().set_random_state(3)(stored)
    assert not torch.equal(plain["image"], plane["image"])
    for key in ("image", "label"):
        assert torch.equal(made[key].as_tensor()[..., 0].flip(1, 2).transpose(1, 2), plain[key])


def test_a_key_a_contrast(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    together = lesion_of(spacing=(1.0, 1.0)).set_random_state(3)(plane)
    apart = {"t1": plane["image"][:1].short(), "flair": plane["image"][1:], "label": plane["label"]}
    made = lesion_of(("t1", "flair"), spacing=(1.0, 1.0)).set_random_state(3)(apart)
    assert torch.equal(made["flair"], together["image"][1:]) and torch.equal(made["label"], together["label"])
    assert made["t1"].dtype == torch.int16 and (made["t1"] - together["image"][:1]).abs().max() <= 0.5


def test_probability_0_is_the_identity_and_1_is_not(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    made = lesion_of(spacing=(1.0, 1.0), prob=0.0)(plane)
    assert all(made[key] is plane[key] for key in plane)
    half = lesion_of(spacing=(1.0, 1.0), prob=0.5).set_random_state(0)
    done = [not same(half(plane), plane) for _ in range(12)]
    assert any(done) and not all(done)


def test_a_seeded_pipeline_repeats_itself(volume: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    pipeline = Compose([NormalizeIntensityd("image", nonzero=True, channel_wise=True), lesion_of(), RandFlipd(["image", "label"], prob=0.5)])
    first, again, other = (pipeline.set_random_state(seed)({k: v.clone() for k, v in volume.items()}) for seed in (1, 1, 2))
    assert same(first, again) and not same(first, other)
    alone = lesion_of()
    assert len({float(alone.set_random_state(seed)(volume)["image"].sum()) for seed in range(3)}) == 3


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])  # a new process imports torch and MONAI
def test_workers_draw(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond], start: str) -> None:
    def epoch(workers: int) -> list[dict[str, Any]]:
        data = Dataset([plane] * 4, lesion_of(spacing=(1.0, 1.0)).set_random_state(0))
        context = start if workers else None
        torch.manual_seed(0)
        return list(DataLoader(data, batch_size=2, num_workers=workers, multiprocessing_context=context))

    made = epoch(1)
    assert len(made) == 2
    images = [image for batch in made for image in batch["image"]]
    assert all(not torch.equal(image, plane["image"]) for image in images) and not torch.equal(images[0], images[1])
    if start == "fork":
        assert all(same(a, b) for a, b in zip(made, epoch(1), strict=True))


def test_what_a_cache_holds_is_not_drawn_on(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    lesion = lesion_of(spacing=(1.0, 1.0), pool=1)
    data = CacheDataset([plane], lesion, progress=False)
    first, again = data[0], data[0]
    assert same(first, again) and lesion.pool.drawn == 1 and not same(first, plane)
    sent = pickle.loads(pickle.dumps(lesion))  # as to a spawned worker
    assert sent.pool.size == 1 and same(sent(plane), first) and sent.pool.drawn == 1


def test_only_where_it_is_allowed(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    nowhere = {**plane, "brain": torch.zeros_like(plane["label"])}
    assert same(lesion_of(spacing=(1.0, 1.0), allowed_key="brain")(nowhere), plane)


def test_numpy_arrays_stay_arrays(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    arrays = {"image": plane["image"].numpy().astype(np.float64), "label": plane["label"].numpy().astype(np.int64)}
    made = lesion_of(spacing=(1.0, 1.0))(arrays)
    assert isinstance(made["image"], np.ndarray) and made["image"].dtype == np.float64 and made["label"].dtype == np.int64
    assert made["label"].any()


def test_what_cannot_be_meant(plane: dict[str, Any], lesion_of: Callable[..., RandLesiond]) -> None:
    with pytest.raises(InputError, match="give spacing= in mm"):
        lesion_of()(plane)
    with pytest.raises(InputError, match=r"^keys: found 3 keys"):
        lesion_of(("a", "b", "c"))
