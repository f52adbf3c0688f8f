"""Encodings of one float32 vector: deltas down, client updates up.

`decode(encode(v))` *is* the value both ends go on with, so only decoding has to be the same everywhere, and
it is one exact or correctly rounded operation per value. A body is the spec's groups in order, each in its
own encoding, all numbers little-endian, nothing between them, so its length is known before it arrives:

    float32   the values
    float16   one int16 exponent e per tensor, then the values h as IEEE half; v = h * 2**e. The exponent
              brings the tensor's largest value just below 2**15, so nothing overflows and small deltas
              do not vanish
    int8      per block of 256 values of a tensor (the last one shorter) one float32 scale, all blocks of
              the group first, then one byte q in -127..127 per value; v = q * scale, in float32

Decoding refuses wrong lengths, exponents out of range and scales that are negative or not finite. Whether
the *values* are finite and small enough is for `ssd.updates.fold` to judge, which reads them anyway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view
from ssd.updates.spec import ParameterSpec, check_vector

PIECE_VALUES = 1 << 20
BLOCK = 256
MIN_EXPONENT, MAX_EXPONENT = -125, 113
_HALF_BITS = 15
_LARGEST_HALF = np.float32(32752.0)  # the half just below 2**15; times 2**113 it is still a float32
_LARGEST_SCALE = np.nextafter(
    np.finfo(np.float32).max / np.float32(127), np.float32(0)
)  # times 127 is finite
_SCRATCH_VALUES = 1 << 17


class MalformedUpdate(ValueError):
    """Bytes that no encoder of ours produces."""


class NotFinite(MalformedUpdate):
    """A NaN or an infinity where a number is needed."""


class Encoding(StrEnum):
    """How the values of a group travel."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class _Segment:
    """A run of values decoded alike: a whole group in float32, else one tensor."""

    encoding: Encoding
    offset: int
    size: int
    header: int
    """Byte position of the segment's exponent or first scale."""
    payload: int
    name: str


class VectorCodec:
    """Encodes and decodes vectors of one spec; immutable, may be shared between threads."""

    def __init__(self, spec: ParameterSpec, encodings: Mapping[str, Encoding]) -> None:
        if set(encodings) != set(spec.groups):
            raise ValueError(f"encodings for {sorted(encodings)}, but the groups are {list(spec.groups)}")
        self.spec = spec
        self.encodings = {group: Encoding(encodings[group]) for group in spec.groups}
        self._segments, self.nbytes = _lay_out(spec, self.encodings)

    def encode(self, vector: NDArray[np.float32]) -> bytearray:
        """The body of float32 [spec.size]; exactly `nbytes` long.

        Raises:
            NotFinite: the vector holds a NaN or an infinity; names the tensor or group.
            SpecError: the vector does not fit the spec.
        """
        body = bytearray(self.nbytes)
        self.encode_into(vector, memoryview(body))
        return body

    def encode_into(self, vector: NDArray[np.float32], body: memoryview) -> None:
        """Like `encode`, into existing writable bytes of length `nbytes` (left half written if refused)."""
        check_vector(self.spec, vector)
        if body.nbytes != self.nbytes:
            raise ValueError(f"{body.nbytes} bytes of room, {self.nbytes} needed")
        for segment in self._segments:
            values = np.ascontiguousarray(vector[segment.offset : segment.offset + segment.size])
            largest = _largest(values)
            if not math.isfinite(largest):
                raise NotFinite(f"{segment.name!r} holds a value that is not finite")
            if segment.encoding is Encoding.FLOAT32:
                np.frombuffer(body, "<f4", segment.size, segment.payload)[:] = values
            elif segment.encoding is Encoding.FLOAT16:
                _encode_half(body, segment, values, largest)
            else:
                _encode_int8(body, segment, values)

    def decode(self, body: Buffer) -> NDArray[np.float32]:
        """The float32 [spec.size] vector of a body.

        Raises:
            MalformedUpdate: wrong length, an exponent out of range, a scale that is no scale.
        """
        out = np.empty(self.spec.size, np.float32)
        self.decode_into(body, out)
        return out

    def decode_into(self, body: Buffer, out: NDArray[np.float32]) -> None:
        """Like `decode`, into an existing contiguous vector (left half written if the body is refused)."""
        check_vector(self.spec, out)
        for offset, piece in self.iter_decoded(body, scratch=np.empty(_SCRATCH_VALUES, np.float32)):
            out[offset : offset + piece.size] = piece

    def iter_decoded(
        self, body: Buffer, *, scratch: NDArray[np.float32] | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The vector in order, as (offset, values) pieces; extra memory is one piece.

        A piece has at most `PIECE_VALUES` values, or as many as `scratch` holds (at least 256). A piece may
        be a read-only view of the body. With `scratch` it may also lie in there and be overwritten by the
        next one. The length is checked before the first piece.

        Raises:
            MalformedUpdate: as `decode`, at the piece that is malformed.
        """
        view = byte_view(body)
        if view.nbytes != self.nbytes:
            raise MalformedUpdate(f"{view.nbytes} bytes, expected {self.nbytes}")
        limit = PIECE_VALUES if scratch is None else scratch.size
        step = limit - limit % BLOCK
        if step <= 0:
            raise ValueError(f"the scratch must hold at least {BLOCK} values")
        return self._pieces(view.toreadonly(), step, scratch)

    def _pieces(
        self, view: memoryview, step: int, scratch: NDArray[np.float32] | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for segment in self._segments:
            for start in range(0, segment.size, step):
                count = min(step, segment.size - start)
                if segment.encoding is Encoding.FLOAT32:
                    stored = np.frombuffer(view, "<f4", count, segment.payload + 4 * start)
                    yield segment.offset + start, stored.astype(np.float32, copy=False)
                    continue
                out = np.empty(count, np.float32) if scratch is None else scratch[:count]
                if segment.encoding is Encoding.FLOAT16:
                    _decode_half(view, segment, start, out)
                else:
                    _decode_int8(view, segment, start, out)
                yield segment.offset + start, out


def _lay_out(spec: ParameterSpec, encodings: Mapping[str, Encoding]) -> tuple[tuple[_Segment, ...], int]:
    segments: list[_Segment] = []
    position = 0
    for group, where in spec.groups.items():
        encoding = encodings[group]
        if encoding is Encoding.FLOAT32:
            size = where.stop - where.start
            segments.append(_Segment(encoding, where.start, size, position, position, group))
            position += 4 * size
            continue
        tensors = [tensor for tensor in spec.tensors if tensor.group == group]
        half = encoding is Encoding.FLOAT16
        headers = [2 if half else 4 * -(-tensor.size // BLOCK) for tensor in tensors]
        header, payload = position, position + sum(headers)
        for tensor, header_bytes in zip(tensors, headers, strict=True):
            segments.append(_Segment(encoding, tensor.offset, tensor.size, header, payload, tensor.name))
            header += header_bytes
            payload += tensor.size * (2 if half else 1)
        position = payload
    return tuple(segments), position


def _largest(values: NDArray[np.float32]) -> float:
    """The largest magnitude; NaN if there is one (numpy's extrema hand NaN through)."""
    return max_nan(float(values.max()), -float(values.min()))


def max_nan(a: float, b: float) -> float:
    """The larger number, NaN if either is NaN (Python's own `max` depends on the order)."""
    return a + b if math.isnan(a) or math.isnan(b) else max(a, b)


def _encode_half(body: memoryview, segment: _Segment, values: NDArray[np.float32], largest: float) -> None:
    exponent = 0
    if largest > 0.0:
        exponent = max(math.frexp(largest)[1] - _HALF_BITS, MIN_EXPONENT)
    np.frombuffer(body, "<i2", 1, segment.header)[0] = exponent
    halves = np.frombuffer(body, "<f2", segment.size, segment.payload)
    factor = np.float32(math.ldexp(1.0, -exponent))
    for start in range(0, segment.size, _SCRATCH_VALUES):
        scaled = values[start : start + _SCRATCH_VALUES] * factor
        if exponent == MAX_EXPONENT:
            np.clip(scaled, -_LARGEST_HALF, _LARGEST_HALF, out=scaled)
        halves[start : start + scaled.size] = scaled


def _decode_half(view: memoryview, segment: _Segment, start: int, out: NDArray[np.float32]) -> None:
    exponent = int(np.frombuffer(view, "<i2", 1, segment.header)[0])
    if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
        raise MalformedUpdate(f"{segment.name!r} has the exponent {exponent}")
    np.copyto(out, np.frombuffer(view, "<f2", out.size, segment.payload + 2 * start))
    # A forged half may be NaN, or overflow here; that is what the fold's check looks for.
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(out, np.float32(math.ldexp(1.0, exponent)), out=out)


def _encode_int8(body: memoryview, segment: _Segment, values: NDArray[np.float32]) -> None:
    scales = np.frombuffer(body, "<f4", -(-segment.size // BLOCK), segment.header)
    quants = np.frombuffer(body, np.int8, segment.size, segment.payload)
    for start in range(0, segment.size, _SCRATCH_VALUES):
        piece = values[start : start + _SCRATCH_VALUES]
        starts = np.arange(0, piece.size, BLOCK)
        scale = np.maximum.reduceat(np.abs(piece), starts) / np.float32(127.0)
        np.minimum(scale, _LARGEST_SCALE, out=scale)
        scales[start // BLOCK : start // BLOCK + scale.size] = scale
        # Where the scale is 0 every value is (nearly) 0 and any divisor gives the quotient 0.
        divisor = np.repeat(np.where(scale > 0, scale, np.ones_like(scale)), BLOCK)[: piece.size]
        # A scale that was rounded down could send its largest value past 127.
        np.clip(np.rint(piece / divisor), -127, 127, out=divisor)
        quants[start : start + piece.size] = divisor


def _decode_int8(view: memoryview, segment: _Segment, start: int, out: NDArray[np.float32]) -> None:
    blocks = -(-out.size // BLOCK)
    scales = np.frombuffer(view, "<f4", blocks, segment.header + 4 * (start // BLOCK))
    quants = np.frombuffer(view, np.int8, out.size, segment.payload + start)
    if not np.isfinite(scales).all():
        raise NotFinite(f"{segment.name!r} has a scale that is not finite")
    if np.signbit(scales).any():
        raise MalformedUpdate(f"{segment.name!r} has a negative scale")
    if quants.min() < -127:
        raise MalformedUpdate(f"{segment.name!r} holds the value -128")
    np.copyto(out, quants)
    # A forged scale may overflow here; the infinity is what the fold's check looks for.
    with np.errstate(over="ignore"):
        whole = out.size - out.size % BLOCK
        np.multiply(
            out[:whole].reshape(-1, BLOCK), scales[: whole // BLOCK, None], out=out[:whole].reshape(-1, BLOCK)
        )
        if whole < out.size:
            np.multiply(out[whole:], scales[-1], out=out[whole:])
