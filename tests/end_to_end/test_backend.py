"""`--backend onnxruntime` through the command line: the file's own background, the same lesion within a grey value, and the name on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pathosyn import backends

Cli = Callable[..., int]


@pytest.mark.skipif(any(find_spec(name) is None for name in backends.PACKAGES["onnxruntime"]), reason="the extra onnxruntime is not installed")
def test_insert_draws_the_same_lesion_and_says_with_what(insert: Cli, subject: Path, tmp_path: Path) -> None:
    shown = {}
    for backend in backends.BACKENDS:
        assert insert(subject, tmp_path / backend, "--backend", backend) == 0
        (folder,) = (tmp_path / backend).iterdir()
        sidecar = json.loads((folder / f"{folder.name}.json").read_text())
        assert sidecar["backend"] == backend and sidecar["voxels"]["changed_outside_support"] == 0
        shown[backend] = {name: np.asarray(nib.load(folder / file).dataobj, np.float64) for name, file in sidecar["files"].items()}
    for contrast, image in shown["torch"].items():
        assert np.abs(image - shown["onnxruntime"][contrast]).max() <= max(1.0, 1e-3 * np.abs(image).max())
