"""Two random views of every image, made for a whole batch at once on the training device.

Every image gets parameters of its own (torchvision's v2 transforms draw one set per call, which would give a
batch one crop). All parameters are drawn on the CPU from an explicit generator and then moved: the views of a
batch are the same on every device, no global generator is touched, and the device never waits for a count.

The recipe and its order are SimCLR's: random resized crop, flip, colour jitter in random order, random grey. No
blur and no mean/std normalisation, as in the official SSD code. For one-channel images saturation, hue and grey
do not exist; brightness and contrast remain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ssd.data.views.colour import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, greyscale
from ssd.data.views.geometry import affine_maps, draw_crops, snapped, warp

BRIGHTNESS, CONTRAST, SATURATION, HUE, NOTHING = range(5)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOptions:
    """How views are drawn; the defaults are the official SSD code's."""

    preset: Literal["official", "fedu2", "digits", "none"] = "official"
    """Which set of values the others started from; a name only."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Crop area as a share of the image."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Crop width over height."""
    snap: bool = False
    """Crops are whole pixels, as torchvision's (official code); otherwise they lie anywhere."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    rotation_degrees: float = 0.0
    """Rotation is uniform within plus or minus this."""
    jitter: float = 0.8
    """Probability of colour jitter."""
    brightness: float = 0.8
    """Factor uniform in max(0, 1 − b) to 1 + b; likewise contrast and saturation."""
    contrast: float = 0.8
    saturation: float = 0.8
    hue: float = 0.2
    """Turns of the colour circle, uniform within plus or minus this."""
    grey: float = 0.2
    """Probability of dropping the colour."""

    def __post_init__(self) -> None:
        if not 0.0 < self.scale[0] <= self.scale[1] <= 1.0:
            raise ValueError(f"scale must be 0 < low <= high <= 1, got {self.scale}")
        if not 0.0 < self.ratio[0] <= 1.0 <= self.ratio[1]:
            raise ValueError(f"ratio must be 0 < low <= 1 <= high, got {self.ratio}")
        for name in ("flip", "jitter", "grey"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation", "rotation_degrees"):
            if getattr(self, name) < 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0.0 <= self.hue <= 0.5:
            raise ValueError(f"hue must be 0 to 0.5, got {self.hue}")


PRESETS: Mapping[str, ViewOptions] = {
    "official": ViewOptions(),
    "fedu2": ViewOptions(preset="fedu2", scale=(0.2, 1.0)),
    # A mirrored or tightly cropped digit is another digit.
    "digits": ViewOptions(
        preset="digits",
        scale=(0.5, 1.0),
        flip=0.0,
        rotation_degrees=15.0,
        brightness=0.4,
        contrast=0.4,
        grey=0.0,
    ),
    "none": ViewOptions(preset="none", scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0),
}


class Views:
    """Draws views of batches; holds no state but its options."""

    def __init__(self, options: ViewOptions, size: int | None = None) -> None:
        """Views of `size` x `size` pixels; None: as large as the images they are drawn from."""
        self._options = options
        self._size = size

    def pair(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Two views of every image.

        Args:
            images: [B, C, S, S] uint8, on any device.
            generator: on the CPU; its state advances by an amount that depends only on B and C.

        Returns:
            [2B, C, V, V] float32 in [0, 1] on the images' device: first view of all images, then second. V is
            the size the views were made for, or S.

        """
        return self.one(torch.cat([images, images]), generator)

    def one(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """One view of every image: [B, C, S, S] uint8 -> [B, C, V, V] float32 in [0, 1]."""
        options = self._options
        count, channels = images.shape[:2]
        boxes = draw_crops(count, scale=options.scale, ratio=options.ratio, generator=generator)
        if options.snap:
            boxes = snapped(boxes, images.shape[-1])
        chances = torch.rand(count, 4, generator=generator)
        limit = math.radians(options.rotation_degrees)
        angles = limit * (2.0 * chances[:, 0] - 1.0)
        maps = affine_maps(boxes, chances[:, 1] < options.flip, angles)
        views = warp(images.to(torch.float32) / 255.0, maps.to(images.device, non_blocking=True), self._size)
        if options.jitter > 0.0:
            views = _jitter(views, chances[:, 2] < options.jitter, options, generator)
        if options.grey > 0.0 and channels == 3:
            chosen = (chances[:, 3] < options.grey).to(images.device, non_blocking=True)
            views = torch.where(chosen[:, None, None, None], greyscale(views), views)
        return views


def _jitter(images: Tensor, chosen: Tensor, options: ViewOptions, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue in an order of its own for every `chosen` image ([B] bool).

    Changes `images` in place and returns them.
    """
    count, channels = images.shape[:2]
    draws = torch.rand(count, 8, generator=generator)
    strengths = torch.tensor([options.brightness, options.contrast, options.saturation])
    lowest = (1.0 - strengths).clamp(min=0.0)
    factors = torch.cat(
        [lowest + (1.0 + strengths - lowest) * draws[:, 4:7], options.hue * (2.0 * draws[:, 7:] - 1.0)], dim=1
    )
    # Which operation each image gets in each slot; images that share one are then handled together.
    operations = torch.where(chosen[:, None], draws[:, :4].argsort(dim=1), NOTHING)
    ranked = operations.argsort(dim=0, stable=True)
    sizes = one_hot(operations, NOTHING + 1).sum(dim=0).tolist()
    ranked, factors = (table.to(images.device, non_blocking=True) for table in (ranked, factors))
    for slot in range(4):
        groups = torch.split(ranked[:, slot], sizes[slot])
        for operation, adjust in _ADJUSTMENTS[channels]:
            members = groups[operation]
            if members.numel():
                changed = adjust(images[members], factors[members, operation])
                images.index_copy_(0, members, changed)
    return images


_ADJUSTMENTS = {
    1: ((BRIGHTNESS, adjust_brightness), (CONTRAST, adjust_contrast)),
    3: (
        (BRIGHTNESS, adjust_brightness),
        (CONTRAST, adjust_contrast),
        (SATURATION, adjust_saturation),
        (HUE, adjust_hue),
    ),
}
