"""What a labelled image goes through before a classifier sees it: augmentation, then normalisation.

`crop_flip` is the usual recipe for small photographs: zeros are put around the image (an eighth of its side, 4 pixels
at 32 × 32), a window of the original size is cut out anywhere, and half of the images are mirrored. Every image gets
parameters of its own, drawn on the CPU, as in `ssd.data.views.views`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

Augmentation = Literal["none", "crop_flip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """`(x - mean) / std` for x in [0, 1]; one value for all channels or one for each. Off by default."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std need as many values, got {self.mean} and {self.std}")
        if min(self.std) <= 0.0:
            raise ValueError(f"std must be positive, got {self.std}")

    def check(self, channels: int) -> None:
        """Raise `ValueError` unless the normalisation fits images of so many channels."""
        if len(self.mean) not in (1, channels):
            raise ValueError(f"mean and std have {len(self.mean)} values, the images {channels} channels")

    def __call__(self, images: Tensor) -> Tensor:
        """[B, C, S, S] float in [0, 1], normalised."""
        if self == Normalisation():
            return images
        mean, std = (torch.tensor(values, device=images.device) for values in (self.mean, self.std))
        return (images - mean[:, None, None]) / std[:, None, None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Turns stored images into a classifier's input."""

    size: int
    """Side of the images the classifier takes."""
    normalisation: Normalisation
    augmentation: Augmentation = "none"

    def training(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """[B, C, V, V] uint8, V >= size, to [B, C, size, size] float32 on the same device; `generator` on the CPU."""
        fitted = self._fitted(images)
        if self.augmentation == "crop_flip":
            fitted = crop_flip(fitted, generator)
        return self.normalisation(fitted)

    def plain(self, images: Tensor) -> Tensor:
        """Prepares images without augmentation; floating-point images in [0, 1] are taken as they are."""
        return self.normalisation(self._fitted(images))

    def _fitted(self, images: Tensor) -> Tensor:
        values = images.to(torch.float32) / 255.0 if images.dtype == torch.uint8 else images
        if images.shape[-1] == self.size:
            return values
        return interpolate(values, size=self.size, mode="bilinear", align_corners=False, antialias=True)


def crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """[B, C, S, S] to the same shape: each image shifted by up to S // 8 pixels, half of them mirrored.

    `generator` is on the CPU; its state advances by an amount that depends only on B.
    """
    count, _, _, size = images.shape
    border = size // 8
    shifts = torch.randint(0, 2 * border + 1, (count, 2), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5
    places = torch.arange(size)
    rows = places + shifts[:, :1]
    columns = torch.where(flips[:, None], places.flip(0), places) + shifts[:, 1:]
    rows, columns = (index.to(images.device, non_blocking=True) for index in (rows, columns))
    members = torch.arange(count, device=images.device)[:, None, None]
    padded = pad(images, (border, border, border, border))
    return padded[members, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
