"""What training and evaluation need from a data set: a way to get batches of images by index.

Images are uint8 [C, S, S] on the CPU, already at the run's size and channel count; whatever a source does to get
there is deterministic. Randomness belongs to `ssd.data.views.views`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFormat:
    """The image shape a run's method asks for."""

    size: int
    """Height and width in pixels."""
    channels: int
    """1 (grey) or 3 (RGB)."""

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ValueError(f"image size must be at least 4 pixels, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, got {self.channels}")


@runtime_checkable
class ImageSource(Protocol):
    """A finite, indexable set of images.

    Behaviour: `batch` may be called with any indices in 0 .. len - 1, in any order, repeatedly, and always gives
    the same bits for the same index. `labels` is None if there are none. Training calls `batch` from a thread that
    reads ahead: large torch operations in it take cores from the training (`run.threads` above 1), numpy's do not.
    """

    @property
    def format(self) -> ImageFormat:
        """The shape of every image."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """[len] int64 class labels, or None."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def batch(self, indices: Sequence[int]) -> Tensor:
        """[B, C, S, S] uint8 on the CPU, in the order of `indices`."""
        ...


class TensorImages:
    """Images held in memory."""

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        """Keep `images` ([N, C, S, S] uint8) and, if given, `labels` ([N] integers).

        Raises:
            ValueError: wrong type or shape, or a different number of labels.

        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
            raise ValueError(
                f"expected square uint8 images [N, C, S, S], got {images.dtype} {tuple(images.shape)}"
            )
        if labels is not None and labels.shape != (images.shape[0],):
            raise ValueError(f"{images.shape[0]} images but labels of shape {tuple(labels.shape)}")
        self._format = ImageFormat(size=images.shape[2], channels=images.shape[1])
        self._images = images
        self._labels = None if labels is None else labels.to(torch.int64)

    @property
    def format(self) -> ImageFormat:
        """The shape of every image."""
        return self._format

    @property
    def labels(self) -> Tensor | None:
        """[len] int64 class labels, or None."""
        return self._labels

    def __len__(self) -> int:
        """The number of images."""
        return self._images.shape[0]

    def batch(self, indices: Sequence[int]) -> Tensor:
        """[B, C, S, S] uint8 on the CPU, in the order of `indices`."""
        # numpy copies the rows, not torch: torch would start one OpenMP team more for the thread that reads ahead,
        # whose members wait busily on the cores that the training needs.
        return torch.from_numpy(self._images.numpy()[np.asarray(indices, dtype=np.int64)])


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeData:
    """Labelled images an evaluator measures a model version on."""

    train: ImageSource
    test: ImageSource
    name: str
    clients: Mapping[str, Sequence[int]] | None = None
    """Which images of `train` are which client's, if that is known: uniformity within and between clients needs it."""


def expect_images(data: object, image: ImageFormat, *, margin: bool = False) -> ImageSource:
    """`data` if it is an image source of the configured format.

    With `margin` its images may be larger: folders of photographs decode a little more than training shows.

    Raises:
        TypeError: not an image source.
        ValueError: images of another format.
    """
    if not isinstance(data, ImageSource):
        raise TypeError(f"expected a source of images, got {type(data).__name__}")
    fits = data.format.size >= image.size if margin else data.format.size == image.size
    if data.format.channels != image.channels or not fits:
        raise ValueError(f"the method is configured for {image}, the data gives {data.format}")
    return data


def expect_labels(source: ImageSource, classes: int) -> Tensor:
    """The source's labels, [len] int64, all below `classes`.

    Raises:
        ValueError: there are none, or one is out of range; the message says what to change.
    """
    if source.labels is None:
        raise ValueError(
            'the method needs labels and these images have none; for folders set `labels = "folders"`'
        )
    if len(source) and not 0 <= int(source.labels.min()) <= int(source.labels.max()) < classes:
        raise ValueError(
            f"labels go from {int(source.labels.min())} to {int(source.labels.max())}, the method is configured "
            f"for {classes} classes; set `classes`"
        )
    return source.labels
