"""Colour operations on a batch of images with one factor per image.

The definitions are torchvision's (`adjust_brightness`, `adjust_contrast`, `adjust_saturation`, `adjust_hue`,
`rgb_to_grayscale`), which are the ones SimCLR's recipe is stated in. Images are float [B, C, S, S] in [0, 1];
factors are [B].
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)


def greyscale(images: Tensor) -> Tensor:
    """[B, C, S, S] -> [B, 1, S, S] luma; an image with one channel is its own."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def blend(images: Tensor, others: Tensor | float, factors: Tensor) -> Tensor:
    """Factor · image + (1 − factor) · other, clamped to [0, 1]; a factor of 1 changes nothing."""
    weight = factors[:, None, None, None]
    return (weight * images).add_((1.0 - weight) * others).clamp_(0.0, 1.0)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black."""
    return blend(images, 0.0, factors)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's mean luma."""
    return blend(images, greyscale(images).mean(dim=(1, 2, 3), keepdim=True), factors)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's greyscale version; needs three channels."""
    return blend(images, greyscale(images), factors)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue by `turns` of the colour circle (−0.5 to 0.5), keeping HSV saturation and value."""
    largest, arg = images.max(dim=1)
    chroma = largest - images.amin(dim=1)
    divisor = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    red, green, blue = images.unbind(dim=1)
    # The hue in sixths of a turn, measured from whichever channel is the largest.
    sixths = torch.where(
        arg == 0,
        (green - blue) / divisor,
        torch.where(arg == 1, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    sixths = sixths + 6.0 * turns[:, None, None]
    channels = []
    for offset in (5.0, 3.0, 1.0):
        position = torch.remainder(sixths + offset, 6.0)
        channels.append(largest - chroma * torch.minimum(position, 4.0 - position).clamp(0.0, 1.0))
    return torch.stack(channels, dim=1)
