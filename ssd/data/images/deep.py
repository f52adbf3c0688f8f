"""Pixels of more than 8 bits: brought to 8 by a range that is declared, never by a guess per image.

Equal values must stay equal between images, so a picture is never stretched to its own extremes. Integers of 16 bits
are scaled from 0 to 65535 and floating point from 0 to 1, unless the worker's `[data] window` says which values
become black and white (12-bit X-rays in 16-bit files: `[0, 4095]`). Values that lie outside of a range nobody declared
are refused: what a camera or scanner means by them is not in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Window: TypeAlias = tuple[float, float]
"""The values that become 0 and 255."""
SIXTEEN: Window = (0.0, 65535.0)
UNIT: Window = (0.0, 1.0)
NARROW = 0.1
"""All images together use less than this share of their range: the window is probably another."""


class OutsideError(ValueError):
    """Values outside of the range that is assumed where none is declared."""


@dataclass(frozen=True, slots=True)
class Extremes:
    """Smallest and largest value of deep images."""

    low: float
    high: float
    floating: bool
    scale: Window | None = None
    """The range that the files themselves say their values can have; None: 16 bits, or 0 to 1."""

    def joined(self, other: Extremes | None) -> Extremes:
        """Of both."""
        if other is None:
            return self
        floating = self.floating or other.floating
        return Extremes(
            min(self.low, other.low), max(self.high, other.high), floating, self.scale or other.scale
        )

    @property
    def range(self) -> Window:
        """Which values become black and white where no window is declared."""
        return self.scale or (UNIT if self.floating else SIXTEEN)


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels have more than 8 bits as Pillow gives them: 16 and 32-bit grey, and floating point."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def extremes(values: NDArray[np.generic]) -> Extremes:
    """Of the finite values; 0 and 0 if there is none."""
    floating = values.dtype.kind == "f"
    finite = values[np.isfinite(values)] if floating else values
    if finite.size == 0:
        return Extremes(0.0, 0.0, floating)
    return Extremes(float(finite.min()), float(finite.max()), floating)


def outside(found: Extremes) -> bool:
    """Whether such values need a window."""
    low, high = found.range
    return found.low < low or found.high > high


def to_bytes(values: NDArray[np.generic], window: Window | None) -> NDArray[np.uint8]:
    """uint8 of the same shape; not-a-number becomes black.

    Args:
        values: unsigned 16-bit, signed 32-bit, or floating point.
        window: what becomes 0 and 255, beyond it cut off; None: 0 to 65535 for integers, 0 to 1 for floating point.

    Raises:
        OutsideError: no window, and a finite value outside of that range.
    """
    if window is None:
        found = extremes(values)
        low, high = UNIT if found.floating else SIXTEEN
        if outside(found):
            raise OutsideError(
                f"values from {found.low:g} to {found.high:g}, and {low:g} to {high:g} is assumed: "
                "set [data] window to the values of black and white"
            )
        if not found.floating:
            return (values.astype(np.uint32) >> 8).astype(np.uint8)
        window = UNIT
    low, high = window
    plain = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return ((plain - low) * (255.0 / (high - low))).round().clip(0, 255).astype(np.uint8)


def narrowness(found: Extremes | None, window: Window | None) -> str:
    """A sentence where all images together use a small part of their range; empty otherwise."""
    if found is None:
        return ""
    low, high = window or found.range
    used = (min(found.high, high) - max(found.low, low)) / (high - low)
    if used >= NARROW:
        return ""
    return (
        f"the images of more than 8 bits use {max(0.0, 100 * used):.1f} % of the range {low:g} to {high:g} (their values "
        f"reach from {found.low:g} to {found.high:g}), so few grey levels are left: set [data] window to the values "
        "of black and white"
    )
