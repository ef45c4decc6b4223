"""A subject of slices.h5 read without HDF5 in the way: the uncompressed arrays are views into one memory map, the small compressed planes go through h5py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np


@dataclass(frozen=True)
class Mapped:
    """One subject's arrays in this process.

    planes  slice → (C, H, W) float16; index, blend, inp as in `store`; ends[z] … ends[z + 1] is where the support's pixels of slice z stand in these
    seg, head  (Z, H, W) datasets
    """

    planes: list[np.ndarray]
    index: np.ndarray
    blend: np.ndarray
    inp: np.ndarray
    ends: np.ndarray
    seg: h5py.Dataset
    head: h5py.Dataset

    def support(self, z: int) -> tuple[np.ndarray, np.ndarray, slice]:
        """Rows and columns of the support in slice z, and where its values stand."""
        height, width = self.planes[0].shape[-2:]
        where = slice(int(self.ends[z]), int(self.ends[z + 1]))
        rows, columns = np.divmod(self.index[where] - z * height * width, width)
        return rows, columns, where


def mapped(group: h5py.Group, whole: np.ndarray) -> Mapped:
    """The subject of `group`, whose file is mapped as the bytes `whole`."""
    image = group["image"]
    offsets = np.empty(image.shape[0], np.int64)
    chunks: list[Any] = []
    image.id.chunk_iter(chunks.append)
    for chunk in chunks:
        offsets[chunk.chunk_offset[0]] = chunk.byte_offset
    shape = image.shape[1:]
    planes = [np.ndarray(shape, image.dtype, whole, int(offset)) for offset in offsets]
    index, blend, inp = (_flat(group[name], whole) for name in ("support_index", "support_blend", "support_inp"))
    ends = np.searchsorted(index, np.arange(len(planes) + 1) * (shape[-2] * shape[-1]))
    return Mapped(planes, index, blend, inp, ends, group["seg"], group["foreground"])


def _flat(dataset: h5py.Dataset, whole: np.ndarray) -> np.ndarray:
    """A contiguous dataset as a view into the file."""
    if not dataset.size:
        return dataset[()]
    return np.ndarray(dataset.shape, dataset.dtype, whole, dataset.id.get_offset())
