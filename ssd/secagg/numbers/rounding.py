"""Stochastic rounding: real values onto integers without bias, with randomness that can be made again.

x becomes floor(x + u) with u uniform in [0, 1), so its mean is x. u comes from AES-CTR under a key that is a function of
a participant's secret and of (run, round, base, client): quantising the same update again gives the same integers, so
a mask is never used on different bytes. Arithmetic is float64: float32 has no bits left for u beside a large integer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssd.secagg.numbers.prg import Keystream, chunk_room
from ssd.updates.fixed_point import FloatArray

CHUNK_VALUES = 1 << 14
_UNIT = np.float64(2.0**-32)


class RoundingStream:
    """Uniform 32-bit words of one key, in order; the i-th word of a client belongs to its i-th narrow value."""

    def __init__(self, key: bytes) -> None:
        self._stream = Keystream(key)
        self._room = chunk_room(4 * CHUNK_VALUES)

    def next(self, n: int) -> NDArray[np.uint32]:
        """The next n <= `CHUNK_VALUES` words, overwritten by the next call."""
        self._stream.read_into(self._room, 4 * n)
        return self._room[: 4 * n].view("<u4")


class StochasticRounder:
    """Rounds chunks in reused scratch memory."""

    def __init__(self, stream: RoundingStream | None) -> None:
        """Without a stream u is 1/2: rounding to the nearest integer."""
        self._stream = stream
        self._values = np.empty(CHUNK_VALUES, np.float64)
        self._uniform = np.empty(CHUNK_VALUES, np.float64)

    def round_into(self, values: FloatArray, factor: float, largest: float, out: NDArray[np.int32]) -> None:
        """Write floor(x + u), x = values * factor clipped to +-largest, to `out`, of at most `CHUNK_VALUES` values.

        No result is outside +-ceil(largest): where adding u to a large x rounds up to the next integer, it is
        brought back.
        """
        x, u = self._values[: values.size], self._uniform[: values.size]
        np.multiply(values, factor, out=x, dtype=np.float64)
        np.clip(x, -largest, largest, out=x)
        if self._stream is None:
            u.fill(0.5)
        else:
            np.multiply(self._stream.next(values.size), _UNIT, out=u, dtype=np.float64)
        np.add(x, u, out=x)
        np.floor(x, out=x)
        np.minimum(x, np.ceil(largest), out=x)
        np.copyto(out, x, casting="unsafe")
