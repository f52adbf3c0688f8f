"""The ordered parameter spec: what every position of the flat float32 vector means.

Both sides check the spec's digest before they look at a single byte of a model or an update. Tensors lie
back to back without gaps, groups are contiguous and keep their declared order. The digest of a model
version is taken over the spec's digest and the little-endian float32 values, so it is the same on every
host that holds the version, however the version got there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd.digest import byte_view, json_digest, little_endian

SPEC_FORMAT = "ssd-spec-v1"
MAX_SIZE = 1 << 40


class SpecError(ValueError):
    """A spec (or its JSON form) is not well formed, or a vector does not fit it."""


class Kind(StrEnum):
    """What a tensor is for."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    VARIANCE = "variance"
    """A running variance: clamped to >= 0 in every model version."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor's place in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int
    group: str
    kind: Kind

    @property
    def size(self) -> int:
        """Number of values; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def where(self) -> slice:
        """The tensor's slice of the vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class ParameterSpec:
    """The tensors of a model in order; equal specs have equal digests."""

    tensors: tuple[TensorSpec, ...]
    size: int = field(init=False, compare=False)
    """Number of float32 values of the whole vector."""
    digest: str = field(init=False, compare=False, repr=False)
    groups: Mapping[str, slice] = field(init=False, compare=False, repr=False)
    """Each group's slice of the vector, in declared order."""

    def __post_init__(self) -> None:
        _check(self.tensors)
        groups: dict[str, slice] = {}
        for tensor in self.tensors:
            start = groups[tensor.group].start if tensor.group in groups else tensor.offset
            groups[tensor.group] = slice(start, tensor.offset + tensor.size)
        described = [[t.name, list(t.shape), t.group, t.kind.value] for t in self.tensors]
        object.__setattr__(self, "size", sum(tensor.size for tensor in self.tensors))
        object.__setattr__(self, "digest", json_digest({"format": SPEC_FORMAT, "tensors": described}))
        object.__setattr__(self, "groups", groups)

    @classmethod
    def build(cls, entries: Iterable[tuple[str, Sequence[int], str, Kind]]) -> ParameterSpec:
        """Lay out (name, shape, group, kind) entries back to back.

        Raises:
            SpecError: no entries, a name twice, a dimension below one, or a group in two pieces.
        """
        tensors = []
        offset = 0
        for name, shape, group, kind in entries:
            tensor = TensorSpec(name, tuple(shape), offset, group, Kind(kind))
            _check_shape(tensor)
            tensors.append(tensor)
            offset += tensor.size
        return cls(tuple(tensors))

    def to_json(self) -> dict[str, Any]:
        """A JSON object holding every tensor and the digest."""
        return {
            "format": SPEC_FORMAT,
            "digest": self.digest,
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "offset": tensor.offset,
                    "group": tensor.group,
                    "kind": tensor.kind.value,
                }
                for tensor in self.tensors
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ParameterSpec:
        """The inverse of `to_json`.

        Raises:
            SpecError: the value is not such an object, or its digest is not that of its tensors.
        """
        try:
            known = value["format"] == SPEC_FORMAT
            tensors = tuple(
                TensorSpec(t["name"], tuple(t["shape"]), t["offset"], t["group"], Kind(t["kind"]))
                for t in value["tensors"]
            )
            digest = value["digest"]
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"not a parameter spec: {error!r}") from error
        if not known:
            raise SpecError(f"unknown spec format {value['format']!r}")
        spec = cls(tensors)
        if spec.digest != digest:
            raise SpecError(f"the spec's digest is {spec.digest}, not {digest!r}")
        return spec


def model_digest(spec: ParameterSpec, vector: NDArray[np.float32]) -> str:
    """Hex SHA-256 of the spec's digest (32 bytes) followed by the values as little-endian float32.

    Raises:
        SpecError: the vector is not float32 [spec.size].
    """
    check_vector(spec, vector)
    hasher = hashlib.sha256(bytes.fromhex(spec.digest))
    hasher.update(byte_view(little_endian(vector)))
    return hasher.hexdigest()


def clamp_variances(spec: ParameterSpec, vector: NDArray[np.float32]) -> None:
    """Set every negative running variance of the vector to +0, in place."""
    for tensor in spec.tensors:
        if tensor.kind is Kind.VARIANCE:
            values = vector[tensor.where]
            # Not np.maximum: which zero it returns for (-0, +0) depends on the processor.
            values[values <= 0] = 0


def check_vector(spec: ParameterSpec, vector: NDArray[np.float32]) -> None:
    """Raise `SpecError` unless the vector is float32 [spec.size]."""
    if vector.dtype != np.float32 or vector.shape != (spec.size,):
        raise SpecError(f"expected float32 [{spec.size}], got {vector.dtype} {list(vector.shape)}")


def _check_shape(tensor: TensorSpec) -> None:
    for extent in tensor.shape:
        if type(extent) is not int or extent < 1:
            raise SpecError(f"tensor {tensor.name!r} has the shape {tensor.shape}")


def _check(tensors: tuple[TensorSpec, ...]) -> None:
    if not tensors:
        raise SpecError("a spec needs at least one tensor")
    names: set[str] = set()
    groups: list[str] = []
    offset = 0
    for tensor in tensors:
        if not all(type(name) is str and name for name in (tensor.name, tensor.group)):
            raise SpecError(f"a tensor and its group need names, not {tensor.name!r} and {tensor.group!r}")
        if tensor.name in names:
            raise SpecError(f"tensor {tensor.name!r} is there twice")
        names.add(tensor.name)
        _check_shape(tensor)
        if type(tensor.offset) is not int or tensor.offset != offset:
            raise SpecError(f"tensor {tensor.name!r} starts at {tensor.offset}, expected {offset}")
        offset += tensor.size
        if offset > MAX_SIZE:
            raise SpecError(f"a spec of more than {MAX_SIZE} values")
        if not groups or groups[-1] != tensor.group:
            if tensor.group in groups:
                raise SpecError(f"group {tensor.group!r} is not contiguous")
            groups.append(tensor.group)
