"""Pseudo-random numbers of the synthetic method: the same bits on every host. This module imports no torch."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ssd.random_stream import RandomStream

_TILE = 65521  # prime, so no power-of-two structure repeats across tiles


def key(purpose: str, *labels: str | int) -> bytes:
    """Eight bytes that depend on every label."""
    return RandomStream("synthetic", purpose, *labels).seed64().to_bytes(8, "little")


def fill(out: NDArray[np.float32], seed: bytes, scale: float) -> None:
    """Fill with pseudo-random values of either sign, magnitudes from `scale` down to scale / 4096.

    One tile is drawn from SHAKE-256 and laid out again and again, shifted and shrunk each time: exact
    float32 operations, so the bits are the same on every host.
    """
    raw = np.frombuffer(hashlib.shake_256(seed).digest(4 * _TILE), "<u4")
    mantissa = ((raw >> 8).astype(np.int32) - (1 << 23)).astype(np.float32)
    tile = np.ldexp(mantissa, -23 - (raw & 0xFF).astype(np.int32) % 13).astype(np.float32)
    doubled = np.concatenate((tile, tile))
    tiles = -(-out.size // _TILE)
    for number in range(tiles):
        piece = out[number * _TILE : (number + 1) * _TILE]
        shift = number * 9973 % _TILE
        factor = np.float32(scale * (1.0 - 0.5 * number / tiles))
        np.multiply(doubled[shift : shift + piece.size], factor, out=piece)
