"""Random resized crop, flip and small rotation of a batch, with parameters of its own for every image.

One affine map per image, applied by one bilinear `grid_sample`. The distribution of crops is SimCLR's (and
torchvision's): area uniform in `scale`, aspect ratio log-uniform in `ratio`, position uniform; ten tries to fit,
then the largest centred crop within the ratio limits. Crops are not whole pixels unless `snapped`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

ATTEMPTS = 10


def draw_crops(
    count: int, *, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Crop boxes of square images, [count, 4] float32 = centre x, centre y, half width, half height.

    Coordinates are those of `affine_grid`: the image spans −1 to 1. `generator` is on the CPU.
    """
    draws = torch.rand(count, ATTEMPTS, 2, generator=generator)
    areas = scale[0] + (scale[1] - scale[0]) * draws[:, :, 0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    roots = torch.exp(0.5 * (low + (high - low) * draws[:, :, 1]))
    sizes = torch.stack([areas.sqrt() * roots, areas.sqrt() / roots], dim=2)
    fits = (sizes <= 1.0).all(dim=2)
    first = fits.to(torch.uint8).argmax(dim=1)
    chosen = sizes[torch.arange(count), first]
    fallback = torch.tensor([min(1.0, ratio[1]), min(1.0, 1.0 / ratio[0])])
    chosen = torch.where(fits.any(dim=1, keepdim=True), chosen, fallback)
    centres = (2.0 * torch.rand(count, 2, generator=generator) - 1.0) * (1.0 - chosen)
    return torch.cat([centres, chosen], dim=1)


def snapped(boxes: Tensor, size: int) -> Tensor:
    """Crop boxes [B, 4] as `draw_crops` gives them, moved to whole pixels of images of `size` x `size` pixels.

    Width and height are rounded, and a corner's place within the room that is left becomes one of the whole pixels there,
    each equally likely: torchvision's distribution.
    """
    halves = boxes[:, 2:]
    slack = 1.0 - halves
    place = torch.where(slack > 0.0, (boxes[:, :2] / slack.clamp_min(1e-12) + 1.0) / 2.0, 0.0)
    pixels = (halves * size).round().clamp(1, size)
    corner = torch.minimum((place * (size - pixels + 1.0)).floor(), size - pixels).clamp_min(0.0)
    return torch.cat([(2.0 * corner + pixels) / size - 1.0, pixels / size], dim=1)


def affine_maps(boxes: Tensor, flips: Tensor, angles: Tensor) -> Tensor:
    """[B, 2, 3] maps from output to input coordinates.

    Args:
        boxes: [B, 4] from `draw_crops`.
        flips: [B] bool, mirror left and right.
        angles: [B] radians, rotation about the crop's centre.

    """
    x, y, half_width, half_height = boxes.unbind(dim=1)
    half_width = torch.where(flips, -half_width, half_width)
    cos, sin = angles.cos(), angles.sin()
    rows = [cos * half_width, -sin * half_height, x, sin * half_width, cos * half_height, y]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3)


def warp(images: Tensor, maps: Tensor, size: int | None = None) -> Tensor:
    """[B, C, S, S] float images sampled through [B, 2, 3] maps to `size` pixels (None: S); outside repeats the border."""
    size = size or images.shape[-1]
    grid = affine_grid(maps, [*images.shape[:2], size, size], align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
