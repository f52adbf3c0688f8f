"""One plane out of a medical file, and which of the two kinds a file is."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, BinaryIO, Literal, TypeAlias

from numpy.typing import NDArray

from ssd.data.images.deep import Window

Axis: TypeAlias = Literal["axial", "coronal", "sagittal"]
ENDINGS = (".dcm", ".dicom", ".nii", ".nii.gz")
MAX_FRAMES = 8192
"""Planes of one file at most."""
MAX_BYTES = 2 << 30
"""A volume takes at most so much memory, unpacked."""
_DICOM_AT, _DICOM = 128, b"DICM"  # PS3.10, section 7.1
_NIFTI_AT, _NIFTI = (344, 4), (b"n+1\0", b"n+2\0")  # NIfTI-1 and NIfTI-2, single files
_GZIP = b"\x1f\x8b"
_HEAD = 352


@dataclass(frozen=True, kw_only=True, slots=True)
class Planes:
    """Which planes of volumes, and frames of DICOM files, are images."""

    axis: Axis = "axial"
    """Of volumes: across which axis they are cut."""
    which: Literal["all", "middle"] = "all"

    def chosen(self, frames: int) -> range:
        """Their numbers, of so many."""
        return range(frames) if self.which == "all" else range(frames // 2, frames // 2 + 1)

    @property
    def key(self) -> str:
        """What an index of files says of them; the size of a plane depends on the axis."""
        return "" if self.axis == "axial" else self.axis


ALL_PLANES = Planes()


class UnreadableVolume(ValueError):
    """A medical file whose pixels are of a kind that is not read; the message says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plane:
    """Numbers of one plane."""

    values: NDArray[Any]
    """[H, W] of any number type, or [H, W, 3] uint8."""
    frames: int
    """How many planes the file has."""
    window: Window | None
    """What the file itself says becomes black and white; None: it does not say."""
    scale: Window | None = None
    """The range that its values can have; None: unknown."""
    inverted: bool = False
    """The lowest value is the brightest."""


@cache
def installed() -> bool:
    """Whether the extra `medical` is there."""
    return find_spec("pydicom") is not None and find_spec("nibabel") is not None


def is_medical_name(name: str) -> bool:
    """Whether a file of that name is one of the two kinds."""
    return name.lower().endswith(ENDINGS)


def read_plane(file: BinaryIO, frame: int | None, max_pixels: int, axis: Axis) -> Plane | None:
    """A plane of a DICOM or NIfTI file; None if the file is neither.

    Args:
        file: seekable; it is left where it was only if it is neither.
        frame: which plane, from 0; None: the one in the middle.
        max_pixels: of a plane.
        axis: for volumes: along which planes are cut.

    Raises:
        UnreadableVolume: compressed in a way that is not read, too large, or without pixels.
        ValueError, KeyError, AttributeError, ...: damaged; the libraries raise nearly anything.
    """
    head = file.read(_HEAD)
    file.seek(0)
    if head[_DICOM_AT : _DICOM_AT + len(_DICOM)] == _DICOM:
        from ssd.data.medical.dicom import dicom_plane

        return dicom_plane(file, frame, max_pixels)
    packed = head.startswith(_GZIP)
    if packed:
        try:
            head = gzip.GzipFile(fileobj=file).read(_HEAD)
        except (OSError, EOFError, zlib.error):
            head = b""
        file.seek(0)
    if not _is_nifti(head):
        return None
    from ssd.data.medical.nifti import nifti_plane

    return nifti_plane(file, packed, frame, max_pixels, axis)


def _is_nifti(head: bytes) -> bool:
    return any(head[at : at + 4] in _NIFTI for at in _NIFTI_AT)
