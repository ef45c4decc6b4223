"""Built once a session through the command line: a prepared file, a short run of each preset, and scans in every storage a user may bring."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

NETWORKS = (
    *("--networks.sub", "8", "8", "8", "8", "8", "--networks.eps", "8", "8"),
    *("--networks.coarse", "8", "8", "--networks.critic", "8", "8", "8"),
)
STEPS, FIRST_STAGE, VALIDATE = 8, 4, 5
CHECKPOINTS = 3
"""Checkpoints fall on 3 (first stage), 4 (its end), 6 (the third's) and 8 (the fourth's; the second is step 5 alone)."""
SETTINGS = (
    *("--scale", "tiny", *NETWORKS, "--m.steps", "2", "--m.adversary", "0.1", "--device", "cpu", "--threads", "1"),
    *("--train.precision", "32-true", "--train.batch-pixels", "2048", "--train.lr-warmup", "2", "--train.substrate-share", str(FIRST_STAGE / STEPS)),
    *("--train.structure-share", str(1 / STEPS), "--train.sharpen-share", str(2 / STEPS)),
    *("--train.steps", str(STEPS), "--train.validate-every", str(VALIDATE), "--train.checkpoint-every", str(CHECKPOINTS)),
)
PAPER = ("--preset", "paper", "--m.inpaint", "harmonic", "--m.steps", "2", "--m.adversary", "0")

Cli = Callable[..., int]


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`pathosyn …` in this process; returns the exit code."""
    import torch

    from pathosyn.cli import main

    torch.set_num_threads(1)
    return lambda *words: main([str(word) for word in words])


@pytest.fixture(scope="session", autouse=True)
def _short_looks() -> Iterator[None]:
    """Validation and previews show a few windows only; what they do with them stays as it is."""
    from pathosyn import train
    from pathosyn.training import monitor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "WINDOWS", 8)
        patch.setattr(train, "preview", partial(monitor.preview, windows=2))
        yield


@pytest.fixture(scope="session")
def prepared(cli: Cli, tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slices.h5 of the tiny cohort with small windows: five subjects with a lesion, one without; phantom_003 validates, phantom_005 is test."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = ["subject,partition", "phantom_003,validation", "phantom_005,test"]
    rows += [f"{name},train" for name in ("phantom_000", "phantom_001", "phantom_002", "phantom_004", "healthy_000")]
    (folder / "split.csv").write_text("\n".join(rows) + "\n")
    flags = ("--split", folder / "split.csv", "--workers", 1, "--geometry.buckets", 32, 64, "--geometry.margin-mm", 4)
    assert cli("prepare", tiny_cohort, "--out", folder / "slices.h5", *flags) == 0
    return folder / "slices.h5"


@pytest.fixture(scope="session")
def settings() -> Callable[..., list[str]]:
    """Flags of a short training of tiny networks; flags that are given win."""
    return lambda *flags: _merged(SETTINGS, flags)


@pytest.fixture(scope="session")
def train(cli: Cli, prepared: Path, settings: Callable[..., list[str]]) -> Cli:
    """`train(run, *flags)`: a handful of steps of a tiny network."""
    return lambda run, *flags: cli("train", "--run", run, *settings("--data", prepared, *flags))


def _merged(settings: tuple[str, ...], flags: tuple[object, ...]) -> list[str]:
    """`settings` without the flags that are given again."""
    given = {str(flag) for flag in flags if str(flag).startswith("--")}
    kept, dropping = [], False
    for word in settings:
        if word.startswith("--"):
            dropping = word in given
        if not dropping:
            kept.append(word)
    return [*kept, *map(str, flags)]


@pytest.fixture(scope="session")
def straight(train: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted staged run."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train(run) == 0
    return run


@pytest.fixture(scope="session")
def paper_straight(train: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted joint run."""
    run = tmp_path_factory.mktemp("paper") / "run"
    assert train(run, *PAPER) == 0
    return run


@pytest.fixture(scope="session")
def weights(straight: Path) -> Path:
    return straight / "weights.safetensors"


@pytest.fixture
def subject(tiny_cohort: Path, tmp_path: Path) -> Path:
    """A copy of phantom_000 that a test may change."""
    return Path(shutil.copytree(tiny_cohort / "phantom_000", tmp_path / "in" / "phantom_000"))


@pytest.fixture
def insert(cli: Cli, weights: Path) -> Cli:
    """`insert(subject, out, *flags)` with the staged weights and few network calls."""
    return lambda subject, out, *flags: cli("insert", subject, "--out", out, *_merged(("--weights", str(weights), "--steps", "2", "--device", "cpu"), flags))


@pytest.fixture
def heal(cli: Cli, weights: Path) -> Cli:
    return lambda subject, out, *flags: cli("heal", subject, "--out", out, *_merged(("--weights", str(weights), "--device", "cpu"), flags))


# -- NIfTI as stored, read and written without the package ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A NIfTI file as it lies on disk: header fields, and voxels before slope and intercept."""

    header: nib.Nifti1Header
    voxels: np.ndarray
    affine: np.ndarray

    def canonical(self, values: np.ndarray | None = None) -> np.ndarray:
        """(X, Y, Z) in RAS+ order, unscaled."""
        array = self.voxels if values is None else values
        return nib.orientations.apply_orientation(array.reshape(array.shape[:3]), nib.io_orientation(self.affine))

    @property
    def spacing(self) -> np.ndarray:
        """Along the canonical axes, mm."""
        sizes = np.linalg.norm(self.affine[:3, :3], axis=0)
        return sizes[np.argsort(nib.io_orientation(self.affine)[:, 0])]

    def world(self, where: np.ndarray) -> np.ndarray:
        """(n, 3) world mm of the voxels of the file's own grid at which `where` is True."""
        return np.argwhere(where.reshape(where.shape[:3])) @ self.affine[:3, :3].T + self.affine[:3, 3]


@pytest.fixture(scope="session")
def read() -> Callable[[Path], Stored]:
    """`read(path)`: a file as stored; nibabel's image class would already have taken slope and intercept out of the header."""

    def of(path: Path) -> Stored:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
        size = nib.Nifti1Header.sizeof_hdr
        header = nib.Nifti1Header(data[:size], check=False)
        shape, dtype, start = header.get_data_shape(), header.get_data_dtype(), int(header["vox_offset"])
        voxels = np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=start).reshape(shape, order="F")
        return Stored(header, voxels, header.get_best_affine())

    return of


@dataclass(frozen=True)
class Storage:
    """How a scanner, a converter or a colleague may have stored a scan."""

    dtype: str = "int16"
    suffix: str = ".nii.gz"
    axes: str = "LPS"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slope: float = float("nan")
    inter: float = float("nan")
    four_d: bool = False
    turned: float = 0.0


@pytest.fixture(scope="session")
def restore(tiny_cohort: Path) -> Callable[..., Path]:
    """`restore(folder, storage)`: t1, flair and seg of a phantom, stored another way; returns the folder."""

    def of(folder: Path, storage: Storage, *, source: str = "phantom_000", contrasts: tuple[str, ...] = ("t1", "flair", "seg")) -> Path:
        folder.mkdir(parents=True)
        for contrast in contrasts:
            image = nib.as_closest_canonical(nib.load(tiny_cohort / source / f"{source}_{contrast}.nii.gz"))
            values, how = np.asarray(image.dataobj), storage
            if contrast == "seg":
                how = Storage("uint8", storage.suffix, storage.axes, storage.spacing, turned=storage.turned)
            _write(folder / f"{folder.name}_{contrast}{storage.suffix}", _as_dtype(values, how), how)
        return folder

    return of


def _as_dtype(values: np.ndarray, how: Storage) -> np.ndarray:
    dtype = np.dtype(how.dtype)
    if dtype.kind == "f":  # fractions that only this dtype holds
        return (values * (np.pi / 3)).astype(dtype)
    return values.astype(dtype) if values.max() <= np.iinfo(dtype).max else (values * (np.iinfo(dtype).max / values.max())).astype(dtype)


def _write(path: Path, canonical: np.ndarray, how: Storage) -> None:
    turn = np.deg2rad(how.turned)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(how.spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(canonical.shape) - 1) / 2 + (3.0, -2.0, 5.0)
    to = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(how.axes))
    voxels = nib.orientations.apply_orientation(canonical, to)
    affine = affine @ nib.orientations.inv_ornt_aff(to, canonical.shape)
    voxels = voxels[..., None] if how.four_d else voxels
    header = nib.Nifti1Header(endianness=">" if voxels.dtype.byteorder == ">" else "<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=2)
    header.set_xyzt_units("mm", "sec")
    header["descrip"], header["cal_max"], header["aux_file"] = b"sequence 7, as exported", 1234.5, b"aside"
    header["scl_slope"], header["scl_inter"], header["vox_offset"], header["magic"] = how.slope, how.inter, 352, b"n+1"
    data = header.binaryblock + b"\0" * 4 + voxels.tobytes(order="F")
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)


@pytest.fixture(scope="session")
def storage() -> type[Storage]:
    return Storage


@pytest.fixture(scope="session")
def reach() -> Callable[..., np.ndarray]:
    """`reach(mask, spacing)`: where S may exceed 0, by the geometry's two lengths and an exact distance transform on the file's own grid."""
    return lambda mask, spacing: ndimage.distance_transform_edt(~mask, sampling=spacing) < 1.5 + 3.0


@pytest.fixture(scope="session")
def sidecar() -> Callable[[Path], dict[str, Any]]:
    return lambda folder: json.loads((folder / f"{folder.name}.json").read_text())


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, str]]:
    """`contents(folder)`: relative name → SHA-256 of every file."""
    return lambda folder: {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}
