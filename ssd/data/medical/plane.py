"""One plane out of a medical file: its numbers, and what may be asked of a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from ssd.data.images.deep import Window

Axis: TypeAlias = Literal["axial", "coronal", "sagittal"]
ENDINGS = (".dcm", ".dicom", ".nii", ".nii.gz")
MAX_FRAMES = 8192
"""Planes of one file at most."""
MAX_BYTES = 2 << 30
"""A volume takes at most so much memory, unpacked."""


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


def is_medical_name(name: str) -> bool:
    """Whether a file of that name is one of the two kinds."""
    return name.lower().endswith(ENDINGS)
