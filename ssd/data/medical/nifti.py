"""NIfTI-1 and NIfTI-2 volumes: planes across an anatomical axis, in scaled values.

The volume is turned to the closest canonical orientation (right, anterior, superior), so that `axial` means the same
for every scanner; a plane is shown with anterior (axial) or superior (coronal, sagittal) upwards. Of a series of volumes
the first counts. `cal_min` and `cal_max` of the header are the file's own window, if they are set.
"""

from __future__ import annotations

import gzip
import io
import math
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np

from ssd.data.images.deep import Window
from ssd.data.medical.plane import MAX_BYTES, MAX_FRAMES, Axis, Plane, UnreadableVolume

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_SECOND = 540
"""Size of a NIfTI-2 header, its first number, in the file's own byte order."""


def nifti_plane(file: BinaryIO, packed: bool, frame: int | None, max_pixels: int, axis: Axis) -> Plane:
    """See `ssd.data.medical.reading.read_plane`; `packed`: by gzip."""
    stream = cast("BinaryIO", gzip.GzipFile(fileobj=file)) if packed else file
    first = stream.read(4)
    stream.seek(0)
    second = _SECOND in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))
    kind: Any = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    header = kind.header_class.from_fileobj(stream)
    needed = _bytes(header)
    stream.seek(0)
    # Never more than the header says: a small file may unpack to anything.
    canonical: Any = nibabel.as_closest_canonical
    image = canonical(kind.from_stream(io.BytesIO(stream.read(needed))))
    across = _AXES[axis]
    frames = image.shape[across]
    index = frames // 2 if frame is None else frame
    place: list[Any] = [slice(None), slice(None), slice(None), *[0] * (len(image.shape) - 3)]
    place[across] = index
    values = np.asarray(image.dataobj[tuple(place)])
    if values.size > max_pixels:
        raise UnreadableVolume(f"planes of {values.shape[0]} x {values.shape[1]} values")
    # The second axis of a plane points upwards, the rows of a picture go down.
    window, scale = _ranges(header)
    return Plane(values=np.ascontiguousarray(np.rot90(values)), frames=frames, window=window, scale=scale)


def _bytes(header: Any) -> int:
    """How many bytes of the file count; raises UnreadableVolume."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise UnreadableVolume(f"a NIfTI file of {dtype} values")
    if not 3 <= len(shape) <= 7 or min(shape) < 1 or max(shape[:3]) > MAX_FRAMES:
        raise UnreadableVolume(f"a NIfTI file of shape {tuple(int(each) for each in shape)}")
    needed = int(header.get_data_offset()) + math.prod(int(each) for each in shape) * int(dtype.itemsize)
    if needed > MAX_BYTES:
        raise UnreadableVolume(f"a NIfTI file of {needed} bytes, the limit is {MAX_BYTES}")
    return needed


def _ranges(header: Any) -> tuple[Window | None, Window | None]:
    """What the header says becomes black and white, and what its values can be."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    window = (low, high) if math.isfinite(low) and math.isfinite(high) and high > low else None
    dtype = header.get_data_dtype()
    if dtype.kind == "f":
        return window, None
    slope, inter = (float(each or 0.0) for each in header.get_slope_inter())
    info = np.iinfo(dtype)
    ends = sorted(each * (slope or 1.0) + inter for each in (float(info.min), float(info.max)))
    return window, (ends[0], ends[1])
