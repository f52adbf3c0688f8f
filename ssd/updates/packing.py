"""Exact sums as bytes: int64 values packed without loss, each block at its own width.

The sum of a worker's clients needs far fewer than 64 bits per value, but how many depends on the layer. Of
every 4,096 values (the last block may be shorter) the smallest is stored once, and of each value only its
distance to it, in the fewest whole bytes that hold the largest distance:

    header    per block the minimum (int64), then per block the width in bytes (0..8), then zero bytes up to
              a multiple of 8
    payload   per block the distances as byte planes: the low 4 bytes of all values if the width has bit 2,
              the next 2 bytes if it has bit 1, the next byte if it has bit 0; width 8 is plain uint64

All numbers are little-endian. The packing is canonical: one sum has exactly one packed form and `unpack`
refuses every other (a width larger than needed, a minimum that is not one, distances that leave int64,
padding that is not zero). The receiver says how many values it expects, so nothing a sender writes can make
it allocate more than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ssd.digest import Buffer, byte_view
from ssd.updates.codec import MalformedUpdate

BLOCK_VALUES = 4096
_BATCH_BLOCKS = 16  # 512 KiB of int64 at a time stays in cache
_PLANES = ((4, np.dtype("<u4")), (2, np.dtype("<u2")), (1, np.dtype("u1")))
_WIDEST = np.array([(1 << (8 * width)) - 1 for width in range(8)], np.uint64)
_MAX_INT64 = np.int64(np.iinfo(np.int64).max)


def max_packed_nbytes(n: int) -> int:
    """The most bytes n packed values can take."""
    return _header_nbytes(n) + 8 * n


def pack_int64(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The canonical packed form of int64 [n], as bytes in an array; extra memory is about the result."""
    blocks = _block_count(values.size)
    minima, widths = np.empty(blocks, np.int64), np.empty(blocks, np.uint8)
    for first, rows in _batches(values):
        here = slice(first, first + rows.shape[0])
        minima[here] = rows.min(axis=1)
        spread = np.subtract(rows.max(axis=1).view(np.uint64), minima[here].view(np.uint64))
        widths[here] = _width_of(spread)
    lengths = _block_lengths(values.size)
    header = _header_nbytes(values.size)
    body = np.empty(header + int((lengths * widths).sum()), np.uint8)
    body[: 8 * blocks].view("<i8")[:] = minima
    body[8 * blocks : 9 * blocks] = widths
    body[9 * blocks : header] = 0
    position = header
    for first, rows in _batches(values):
        for start, stop in _runs(widths[first : first + rows.shape[0]]):
            run, width = rows[start:stop], int(widths[first + start])
            minimum = minima[first + start : first + stop, None].view(np.uint64)
            distances = np.subtract(run.view(np.uint64), minimum)
            nbytes = run.size * width
            out = body[position : position + nbytes].reshape(run.shape[0], -1)
            _write_planes(distances, width, out)
            position += nbytes
    return body


def packed_nbytes(packed: Buffer, n: int) -> int:
    """How many of the leading bytes are n packed values, going by their header.

    Raises:
        MalformedUpdate: the header is cut short, names a width above 8, or its padding is not zero; or
            there are fewer bytes than it announces.
    """
    view = byte_view(packed)
    nbytes = _header_nbytes(n) + int((_block_lengths(n) * _read_header(view, n)[1]).sum())
    if view.nbytes < nbytes:
        raise MalformedUpdate(f"{view.nbytes} bytes, the block widths announce {nbytes}")
    return nbytes


def iter_unpacked(packed: Buffer, n: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The values in order as (offset, int64 values) pieces of at most 64 Ki values.

    A piece is overwritten by the next one.

    Raises:
        MalformedUpdate: anything but the canonical packed form of n values, at the first piece that shows it.
    """
    view = byte_view(packed)
    expected = packed_nbytes(view, n)
    if view.nbytes != expected:
        raise MalformedUpdate(f"{view.nbytes} bytes, the block widths announce {expected}")
    return _pieces(view, n)


def unpack_int64(packed: Buffer, n: int) -> NDArray[np.int64]:
    """The n values of a packed form; raises as `iter_unpacked`."""
    out = np.empty(n, np.int64)
    for offset, piece in iter_unpacked(packed, n):
        out[offset : offset + piece.size] = piece
    return out


def _pieces(view: memoryview, n: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    minima, widths = _read_header(view, n)
    position = _header_nbytes(n)
    scratch = np.empty(_BATCH_BLOCKS * BLOCK_VALUES, np.uint64)
    for first, shape in _batch_shapes(n):
        distances = scratch[: shape[0] * shape[1]].reshape(shape)
        here = slice(first, first + shape[0])
        for start, stop in _runs(widths[here]):
            run, width = distances[start:stop], int(widths[first + start])
            nbytes = run.size * width
            stored = np.frombuffer(view, np.uint8, nbytes, position).reshape(run.shape[0], -1)
            _read_planes(stored, width, run)
            position += nbytes
        _check_canonical(distances, minima[here], widths[here])
        np.add(distances, minima[here, None].view(np.uint64), out=distances)
        yield first * BLOCK_VALUES, distances.reshape(-1).view(np.int64)


def _check_canonical(
    distances: NDArray[np.uint64], minima: NDArray[np.int64], widths: NDArray[np.uint8]
) -> None:
    largest = distances.max(axis=1)
    if (_width_of(largest) != widths).any():
        raise MalformedUpdate("a block is wider than its values need")
    if distances.min(axis=1).any():
        raise MalformedUpdate("a block's minimum is not its smallest value")
    room = np.subtract(_MAX_INT64.view(np.uint64), minima.view(np.uint64))
    if (largest > room).any():
        raise MalformedUpdate("a block leaves the range of int64")


def _read_header(view: memoryview, n: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    blocks, header = _block_count(n), _header_nbytes(n)
    if view.nbytes < header:
        raise MalformedUpdate(f"{view.nbytes} bytes, the header of {n} values alone has {header}")
    minima = np.frombuffer(view, "<i8", blocks).astype(np.int64, copy=False)
    widths = np.frombuffer(view, np.uint8, blocks, 8 * blocks)
    if blocks and int(widths.max()) > 8:
        raise MalformedUpdate(f"a block width of {int(widths.max())} bytes")
    if any(view[9 * blocks : header]):
        raise MalformedUpdate("the header's padding is not zero")
    return minima, widths


def _write_planes(distances: NDArray[np.uint64], width: int, out: NDArray[np.uint8]) -> None:
    if width == 8:
        out.view("<u8")[:] = distances
        return
    shift, column = 0, 0
    for nbytes, dtype in _PLANES:
        if width & nbytes:
            plane = out[:, column : column + nbytes * distances.shape[1]].view(dtype)
            source = distances if shift == 0 else np.right_shift(distances, np.uint64(shift))
            np.copyto(plane, source, casting="unsafe")
            shift += 8 * nbytes
            column += nbytes * distances.shape[1]


def _read_planes(stored: NDArray[np.uint8], width: int, out: NDArray[np.uint64]) -> None:
    if width == 8:
        out[:] = stored.view("<u8")
        return
    shift, column = 0, 0
    if width == 0:
        out[:] = 0
    for nbytes, dtype in _PLANES:
        if width & nbytes:
            plane = stored[:, column : column + nbytes * out.shape[1]].view(dtype)
            if shift == 0:
                np.copyto(out, plane)
            else:
                np.bitwise_or(out, np.left_shift(plane, np.uint64(shift), dtype=np.uint64), out=out)
            shift += 8 * nbytes
            column += nbytes * out.shape[1]


def _width_of(spread: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The fewest whole bytes (0..8) that hold each value."""
    widths: NDArray[np.uint8] = np.add.reduce(spread[:, None] > _WIDEST, axis=1, dtype=np.uint8)
    return widths


def _runs(widths: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """(start, stop) of each maximal run of equal widths."""
    edges = [0, *(np.flatnonzero(widths[1:] != widths[:-1]) + 1).tolist(), widths.size]
    yield from pairwise(edges)


def _batch_shapes(n: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """(first block, (blocks, values per block)) of each batch; a short last block is a batch of its own."""
    whole = n // BLOCK_VALUES
    for first in range(0, whole, _BATCH_BLOCKS):
        yield first, (min(_BATCH_BLOCKS, whole - first), BLOCK_VALUES)
    if n % BLOCK_VALUES:
        yield whole, (1, n % BLOCK_VALUES)


def _batches(values: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for first, shape in _batch_shapes(values.size):
        start = first * BLOCK_VALUES
        yield first, values[start : start + shape[0] * shape[1]].reshape(shape)


def _block_count(n: int) -> int:
    return -(-n // BLOCK_VALUES)


def _block_lengths(n: int) -> NDArray[np.int64]:
    lengths = np.full(_block_count(n), BLOCK_VALUES, np.int64)
    if n % BLOCK_VALUES:
        lengths[-1] = n % BLOCK_VALUES
    return lengths


def _header_nbytes(n: int) -> int:
    return -(-9 * _block_count(n) // 8) * 8
