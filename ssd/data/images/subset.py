"""An image source that holds some images of another one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd.data.images.source import ImageFormat, ImageSource


class SubsetImages:
    """The images of `base` at `indices`, in that order, without a copy of them."""

    def __init__(self, base: ImageSource, indices: Sequence[int]) -> None:
        """Keep a view of `base`.

        Raises:
            IndexError: an index that `base` does not have.
        """
        self._base = base
        self._indices = torch.as_tensor(indices, dtype=torch.int64)
        if len(self._indices) and not 0 <= int(self._indices.min()) <= int(self._indices.max()) < len(base):
            raise IndexError(f"indices outside 0..{len(base) - 1}")
        self._labels = None if base.labels is None else base.labels[self._indices]

    @property
    def format(self) -> ImageFormat:
        """The shape of every image."""
        return self._base.format

    @property
    def labels(self) -> Tensor | None:
        """[len] int64 class labels, or None."""
        return self._labels

    def __len__(self) -> int:
        """The number of images."""
        return len(self._indices)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """[B, C, S, S] uint8 on the CPU, in the order of `indices`."""
        return self._base.batch(self._indices[torch.as_tensor(indices, dtype=torch.int64)].tolist())
