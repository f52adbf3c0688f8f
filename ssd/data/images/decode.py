"""Decodes one image file to one square of pixels, whatever a camera or a tool wrote into it.

Rules: only common raster formats are tried (some of Pillow's others start external programs); the first frame
counts; EXIF rotation is applied; transparency is composited on white; palettes, CMYK and other colour spaces become RGB
or grey; 16-bit values keep their high byte (no per-image stretching, so equal values stay equal between images).
The header is checked against a pixel limit before anything is decoded, and big JPEGs are decoded at a fraction
of their size. What the decoder accepts is an image: a flipped bit inside a JPEG is not noticed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm".split()  # noqa: SIM905 - easier to read
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 89_478_485
"""Pillow's own threshold for a suspected decompression bomb; a decode needs up to 8 bytes per pixel."""
_ORIENTATION = 0x0112
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Refusal(StrEnum):
    """Why a file is not used."""

    EMPTY = "empty file"
    NOT_AN_IMAGE = "not an image"
    CORRUPT = "corrupt or truncated"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_SMALL = "too small"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not a regular file"
    UNLABELLED = "not in a class folder"


class RefusedImageError(Exception):
    """An image file that cannot be used, and why."""

    def __init__(self, refusal: Refusal, detail: str) -> None:
        super().__init__(f"{refusal.value}: {detail}")
        self.refusal = refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """The options by which every file becomes a square of the same shape."""

    side: int
    channels: int
    max_pixels: int = MAX_PIXELS


def decode(path: Path, how: Decoding) -> NDArray[np.uint8]:
    """The centred square of an image file, scaled to uint8 [channels, side, side].

    Raises:
        RefusedImageError: the file is no image this program can use.
    """
    return _decode(path, how)[1]


def measure(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Decode the whole file as training would, and return its (width, height) before rotation.

    Raises:
        RefusedImageError: as `decode`.
    """
    return _decode(path, Decoding(side=32, channels=3, max_pixels=max_pixels))[0]


def _decode(path: Path, how: Decoding) -> tuple[tuple[int, int], NDArray[np.uint8]]:
    formats = _formats()
    try:
        with Image.open(path, formats=formats) as image:
            size = image.size
            _check_size(size, how.max_pixels)
            # At twice the needed size or more, so that the antialiased resize below decides how it looks.
            image.draft(None, (2 * how.side, 2 * how.side))
            image.load()
            return size, _square(image, how)
    except RefusedImageError:
        raise
    except Exception as error:
        # Hostile bytes make Pillow's decoders raise nearly anything.
        raise RefusedImageError(_refusal_of(error, path), str(error)) from error


@cache
def _formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that this build of Pillow has; any other would make every file fail."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise RefusedImageError(
            Refusal.TOO_MANY_PIXELS, f"{width} x {height} pixels, the limit is {max_pixels} in all"
        )


def _square(image: Image.Image, how: Decoding) -> NDArray[np.uint8]:
    plain = _plain_mode(image)
    width, height = plain.size
    edge = min(width, height)
    box = ((width - edge) / 2, (height - edge) / 2, (width + edge) / 2, (height + edge) / 2)
    # Pillow multiplies colours by alpha before it mixes pixels, so transparent ones do not bleed in.
    small = plain.resize((how.side, how.side), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    # A centred square may be turned after scaling as well as before; on few pixels it costs nothing.
    turn = _ROTATIONS.get(_orientation(image))
    if turn is not None:
        small = small.transpose(turn)
    if small.mode == "RGBA":
        small = Image.alpha_composite(Image.new("RGBA", small.size, (255, 255, 255, 255)), small)
    pixels = np.asarray(small.convert("L" if how.channels == 1 else "RGB"), dtype=np.uint8)
    return pixels[None] if how.channels == 1 else pixels.transpose(2, 0, 1)


def _plain_mode(image: Image.Image) -> Image.Image:
    """The image as 8-bit L, RGB or RGBA."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        # What older versions of Pillow make of a 16-bit grey PNG.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
        return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to lose a good image
        return 1


def _refusal_of(error: Exception, path: Path) -> Refusal:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return Refusal.TOO_MANY_PIXELS
    if isinstance(error, UnidentifiedImageError):
        return Refusal.NOT_AN_IMAGE
    if isinstance(error, MemoryError):
        raise error
    # The operating system's errors carry a number; Pillow's own OSErrors do not.
    if isinstance(error, OSError) and error.errno is not None and not _can_read(path):
        return Refusal.UNREADABLE
    return Refusal.CORRUPT


def _can_read(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.read(1)
            file.seek(0, os.SEEK_END)
    except OSError:
        return False
    return True
