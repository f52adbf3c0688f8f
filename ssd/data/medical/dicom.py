"""DICOM (PS3): one frame as numbers in the units of its modality, with the window that the file declares.

Values go through the modality transformation (PS3.3, C.11.1: Hounsfield units for CT). The first window of interest
(C.11.2) is the file's own window; beside it stands what its stored bits can say. Of MONOCHROME1 the lowest value is the
brightest. Colour becomes RGB. Frames stand as they are stored.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from ssd.data.images.deep import Window
from ssd.data.medical.plane import MAX_FRAMES, Plane, UnreadableVolume

# What the library finds odd it quotes, and the words of a file may be a patient's.
warnings.filterwarnings("ignore", module=r"pydicom\b")
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
_PLAIN_BITS = 8
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420")


def dicom_plane(file: BinaryIO, frame: int | None, max_pixels: int) -> Plane:
    """See `ssd.data.medical.reading.read_plane`."""
    # Deflated files unpack to whatever they say; the header before that part is never compressed.
    head = pydicom.dcmread(file, specific_tags=["TransferSyntaxUID"], stop_before_pixels=True)
    syntax = UID(str(head.file_meta.TransferSyntaxUID))
    if syntax == DeflatedExplicitVRLittleEndian:
        raise UnreadableVolume("a deflated DICOM file: store it with another transfer syntax")
    file.seek(0)
    data = pydicom.dcmread(file)
    if not any(name in data for name in _PIXELS):
        raise UnreadableVolume("a DICOM file without pixels (a report, a plan or the like)")
    frames = int(data.get("NumberOfFrames") or 1)
    rows, columns = int(data.Rows), int(data.Columns)
    if rows * columns > max_pixels or frames > MAX_FRAMES or min(rows, columns, frames) < 1:
        raise UnreadableVolume(f"{frames} frames of {columns} x {rows} pixels")
    index = frames // 2 if frame is None else frame
    try:
        values = pixel_array(data, index=index)
    except (RuntimeError, NotImplementedError) as error:
        raise UnreadableVolume(f"a DICOM file compressed as {syntax.name}") from error
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        return Plane(values=_eight_bits(apply_color_lut(values, data), 16), frames=frames, window=None)
    if values.ndim == 3:
        if kind not in _COLOURS or values.shape[-1] != 3:
            raise UnreadableVolume(f"a DICOM file of {kind} with {values.shape[-1]} samples a pixel")
        return Plane(values=_eight_bits(values, int(data.BitsStored)), frames=frames, window=None)
    measured = np.asarray(apply_modality_lut(values, data))
    return Plane(
        values=measured,
        frames=frames,
        window=_window(data),
        scale=_scale(data),
        inverted=kind == "MONOCHROME1",
    )


def _window(data: Any) -> Window | None:
    """The first window of interest (PS3.3, C.11.2.1.2.1), in modality units; None: there is none."""
    centre, width = (_first(data.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width < 1.0:
        return None
    low = centre - 0.5 - (width - 1.0) / 2.0
    return low, low + max(width - 1.0, 1.0)


def _first(value: object) -> float | None:
    """The first of one or several numbers; None without a finite one."""
    several = list(value) if isinstance(value, MultiValue) else [value]
    if not several or several[0] in (None, ""):
        return None
    number = float(str(several[0]))
    return number if math.isfinite(number) else None


def _scale(data: Any) -> Window | None:
    """What the stored bits can say, in modality units; None for floating point and for tables."""
    if "BitsStored" not in data or "PixelData" not in data or "ModalityLUTSequence" in data:
        return None
    bits, signed = int(data.BitsStored), bool(data.get("PixelRepresentation"))
    if not 1 <= bits <= 32:
        return None
    stored = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    slope, intercept = (_first(data.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    low, high = sorted(each * (slope or 1.0) + (intercept or 0.0) for each in stored)
    return low, high


def _eight_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if values.dtype == np.uint8 and bits <= _PLAIN_BITS:
        return values.astype(np.uint8)
    return (values.astype(np.uint64) >> max(0, bits - _PLAIN_BITS)).clip(0, 255).astype(np.uint8)
