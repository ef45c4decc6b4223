"""What several test files need: the real scans where they are at hand, and a cohort of tiny phantoms."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pathosyn.data.phantom import make_phantoms

NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f", "seg": "seg"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Two test workers on two cores; a test that never imported torch must not pay for it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the repository; they are never committed."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "README.md").is_file():
        pytest.skip("real scans are not here: ../shared/data beside the repository is missing")
    return folder


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven tiny subjects (48×56×6 voxels, int16); read only, copy what a test changes.

    phantom_000…003 complete, BraTS-2020 names · phantom_004 without t1ce · phantom_005 BraTS-2023 names, labels 1 2 3 · healthy_000 without seg.
    """
    root = tmp_path_factory.mktemp("cohort") / "tiny"
    folders = make_phantoms(root, subjects=6, seed=7, slices=6, size_px=(48, 56), healthy=1)
    (folders[4] / "phantom_004_t1ce.nii.gz").unlink()
    _rename_to_2023(folders[5])
    return root


def _rename_to_2023(folder: Path) -> None:
    """The same subject as BraTS 2023 would hold it: other suffixes, ET is 3."""
    for old, new in NAMES_2023.items():
        source, target = folder / f"{folder.name}_{old}.nii.gz", folder / f"{folder.name}-{new}.nii.gz"
        if old == "seg":
            seg = nib.load(source)
            labels = np.asarray(seg.dataobj)
            nib.save(nib.Nifti1Image(np.where(labels == 4, 3, labels).astype(np.int16), seg.affine), target)
            source.unlink()
        else:
            source.rename(target)
