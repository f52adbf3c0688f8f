"""Which of the two kinds a file is, and a plane out of it. The libraries are imported when a file of theirs is met."""

from __future__ import annotations

import gzip
import zlib
from functools import cache
from importlib.util import find_spec
from typing import BinaryIO

from ssd.data.medical.plane import Axis, Plane

_DICOM_AT, _DICOM = 128, b"DICM"  # PS3.10, section 7.1
_NIFTI_AT, _NIFTI = (344, 4), (b"n+1\0", b"n+2\0")  # NIfTI-1 and NIfTI-2, single files
_GZIP = b"\x1f\x8b"
_HEAD = 352


@cache
def installed() -> bool:
    """Whether the extra `medical` is there."""
    return find_spec("pydicom") is not None and find_spec("nibabel") is not None


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
