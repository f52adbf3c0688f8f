"""Decodes one image file to one square of pixels, whatever a camera or a tool wrote into it.

Rules: only common raster formats are tried (some of Pillow's others start external programs); the first frame
counts; EXIF rotation is applied; transparency is composited on white; palettes, CMYK and other colour spaces become RGB
or grey; deeper pixels are brought to 8 bits as `ssd.data.images.deep` says (no stretching of single images).
The header is checked against a pixel limit before anything is decoded, and big JPEGs are decoded at a fraction
of their size. What the decoder accepts is an image: a flipped bit inside a JPEG is not noticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ssd.data.images.deep import Extremes, OutsideError, Window, extremes, is_deep, to_bytes
from ssd.data.images.png_text import without_texts
from ssd.data.medical.plane import ENDINGS, Axis, Plane, UnreadableVolume, is_medical_name
from ssd.data.medical.reading import installed as reads_medical
from ssd.data.medical.reading import read_plane

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm".split()  # noqa: SIM905 - easier to read
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 89_478_485
"""Pillow's own threshold for a suspected decompression bomb; a decode needs up to 8 bytes per pixel."""
_ORIENTATION = 0x0112
_BANDS, _BITS, _SAMPLE_FORMAT = 277, 258, 339  # TIFF 6.0, tags
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_USUAL_TILE = 1024 * 1024
_SAMPLES = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


Opener: TypeAlias = Callable[[], BinaryIO]
"""Opens a file's bytes, a new seekable stream at every call; raises OSError."""


class Refusal(StrEnum):
    """Why a file is not used."""

    EMPTY = "empty file"
    NOT_AN_IMAGE = "not an image"
    CORRUPT = "corrupt or truncated"
    PIXELS = "pixels of a kind that is not read"
    RANGE = "values outside of the declared range"
    TOO_MANY_PIXELS = "too many pixels"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large a file"
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
    window: Window | None = None
    """For more than 8 bits: see `ssd.data.images.deep`."""
    axis: Axis = "axial"
    """Of volumes: across which axis planes are cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a whole decode says of a file."""

    width: int
    """Before rotation."""
    height: int
    extremes: Extremes | None
    """Of pixels of more than 8 bits; None: 8 bits or fewer, or the file says itself what becomes black and white."""
    frames: int = 1
    """Images in the file: planes of a volume, frames of a DICOM file. Of other files the first counts."""


def extensions() -> frozenset[str]:
    """Endings of files that are opened, in lower case: `EXTENSIONS`, and those of the extras that are installed."""
    heic = {".heic", ".heif"} if _heic() else set()
    return EXTENSIONS | heic | (set(ENDINGS) if reads_medical() else set())


@cache
def _heic() -> bool:
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
    return True


def is_image_name(name: str) -> bool:
    """Whether a file of that name is opened as an image."""
    ending = os.path.splitext(name)[1].lower()
    return ending in extensions() or (reads_medical() and is_medical_name(name))


def decode(source: Path | Opener, how: Decoding, frame: int = 0) -> NDArray[np.uint8]:
    """The centred square of an image file, or of one of its frames, scaled to uint8 [channels, side, side].

    Raises:
        RefusedImageError: the file is no image this program can use.
    """
    return _decode(_opener(source), how, frame)[1]


def measure(
    source: Path | Opener,
    max_pixels: int = MAX_PIXELS,
    window: Window | None = None,
    axis: Axis = "axial",
) -> Measured:
    """Decode the whole file as training would, of several frames the one in the middle, and say what it is.

    Raises:
        RefusedImageError: as `decode`.
    """
    how = Decoding(side=32, channels=3, max_pixels=max_pixels, window=window, axis=axis)
    return _decode(_opener(source), how, None)[0]


def _opener(source: Path | Opener) -> Opener:
    if not isinstance(source, Path):
        return source
    path = source
    return lambda: open(path, "rb")


def _decode(opener: Opener, how: Decoding, frame: int | None) -> tuple[Measured, NDArray[np.uint8]]:
    try:
        with opener() as file:
            plane = read_plane(file, frame, how.max_pixels, how.axis) if reads_medical() else None
            if plane is not None:
                return _of_plane(plane, how)
            try:
                return _opened(file, how)
            except ValueError as error:
                # Pillow's limits on what stands beside the pixels of a PNG, which are whole.
                bare = without_texts(file) if "MAX_TEXT" in str(error) or "too large" in str(error) else None
                if bare is None:
                    raise
                return _opened(bare, how)
    except RefusedImageError:
        raise
    except UnreadableVolume as error:
        raise RefusedImageError(Refusal.PIXELS, str(error)) from error
    except OutsideError as error:
        raise RefusedImageError(Refusal.RANGE, str(error)) from error
    except Exception as error:
        # Hostile bytes make Pillow's decoders raise nearly anything.
        kind = _tiff_pixels(opener) if isinstance(error, UnidentifiedImageError) else ""
        if kind:
            raise RefusedImageError(Refusal.PIXELS, f"a TIFF of {kind}") from error
        raise RefusedImageError(_refusal_of(error, opener), str(error)) from error


def _opened(file: BinaryIO, how: Decoding) -> tuple[Measured, NDArray[np.uint8]]:
    with Image.open(file, formats=_formats()) as image:
        width, height = image.size
        _check_size(image.size, how.max_pixels)
        _check_tiles(image, how.max_pixels)
        # At twice the needed size or more, so that the antialiased resize below decides how it looks.
        image.draft(None, (2 * how.side, 2 * how.side))
        image.load()
        found = extremes(np.asarray(image)) if is_deep(image) else None
        return Measured(width=width, height=height, extremes=found), _square(image, how)


def _of_plane(plane: Plane, how: Decoding) -> tuple[Measured, NDArray[np.uint8]]:
    height, width = plane.values.shape[:2]
    pixels, found = plane.values, None
    if pixels.ndim == 2:
        window = how.window or plane.window
        if window is None or how.window is not None:
            found = replace(extremes(pixels), scale=plane.scale)
        pixels = to_bytes(pixels, window or plane.scale)
        pixels = 255 - pixels if plane.inverted else pixels
    measured = Measured(width=width, height=height, extremes=found, frames=plane.frames)
    return measured, _square(Image.fromarray(pixels), how)


@cache
def _formats() -> tuple[str, ...]:
    """Returns those of `FORMATS` that this build of Pillow has; any other would make every file fail."""
    Image.init()
    wanted = (*FORMATS, "HEIF") if _heic() else FORMATS
    return tuple(name for name in wanted if name in Image.OPEN)


def _tiff_pixels(opener: Opener) -> str:
    """What the pixels of a TIFF are that Pillow does not know; empty if that cannot be said, or it is no TIFF."""
    try:
        with opener() as file:
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            bands, bits = directory.get(_BANDS, 1), directory.get(_BITS, (1,))
            sample = directory.get(_SAMPLE_FORMAT, (1,))[0]
            return f"{int(bands)} bands of {int(bits[0])}-bit {_SAMPLES.get(int(sample), 'unknown')} values"
    except Exception:  # noqa: BLE001 - hostile bytes; then the first error stands
        return ""


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise RefusedImageError(
            Refusal.TOO_MANY_PIXELS, f"{width} x {height} pixels, the limit is {max_pixels} in all"
        )


def _check_tiles(image: Image.Image, max_pixels: int) -> None:
    """A TIFF's decoder holds a whole tile, however small the image is (TIFF 6.0, section 15)."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        width, height = (int(tags.get(tag, 0)) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        largest = max(16 * image.size[0] * image.size[1], _USUAL_TILE)
        if width * height > min(largest, max_pixels):
            raise RefusedImageError(Refusal.TOO_MANY_PIXELS, f"tiles of {width} x {height} pixels")


def _square(image: Image.Image, how: Decoding) -> NDArray[np.uint8]:
    plain = _plain_mode(image, how.window)
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


def _plain_mode(image: Image.Image, window: Window | None) -> Image.Image:
    """The image as 8-bit L, RGB or RGBA."""
    if is_deep(image):
        return Image.fromarray(to_bytes(np.asarray(image), window))
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


def _refusal_of(error: Exception, opener: Opener) -> Refusal:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return Refusal.TOO_MANY_PIXELS
    if isinstance(error, UnidentifiedImageError):
        return Refusal.NOT_AN_IMAGE
    if isinstance(error, MemoryError):
        raise error
    # The operating system's errors carry a number; Pillow's own OSErrors do not.
    if isinstance(error, OSError) and error.errno is not None and not _can_read(opener):
        return Refusal.UNREADABLE
    return Refusal.CORRUPT


def _can_read(opener: Opener) -> bool:
    try:
        with opener() as file:
            file.read(1)
            file.seek(0, os.SEEK_END)
    except OSError:
        return False
    return True
