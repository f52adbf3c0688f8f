"""Our own random stream: a versioned SHA-256 counter, the same on every host and in every release.

Whatever decides who takes part, which image comes when, or which dimension a client owns is drawn from
here, never from a library's generator, whose streams may change between releases. Streams are separated
by their labels: `RandomStream("cohort", seed, round)` and `RandomStream("partition", seed)` are unrelated.

    key     = SHA-256("ssd-stream-v1" | every label: type byte, length as u32, bytes)
    block i = SHA-256(key | i as u64), read as four little-endian 64-bit words

`normal`, `gamma` and `dirichlet` use the C library's logarithm and may differ in the last bit between
platforms; store what you derive from them (partitions are files) instead of drawing it again elsewhere.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import TypeVar

STREAM_DOMAIN = b"ssd-stream-v1"

T = TypeVar("T")
_WORD = 1 << 64


class RandomStream:
    """A stream of unbiased draws, fixed by its labels."""

    def __init__(self, *labels: str | int) -> None:
        hasher = hashlib.sha256(STREAM_DOMAIN)
        for label in labels:
            hasher.update(_encode_label(label))
        self._key = hasher.digest()
        self._counter = 0
        self._words: list[int] = []

    def seed64(self) -> int:
        """The next 64-bit word; seeds a generator of another library."""
        if not self._words:
            block = hashlib.sha256(self._key + self._counter.to_bytes(8, "little")).digest()
            self._counter += 1
            self._words = list(reversed(struct.unpack("<4Q", block)))
        return self._words.pop()

    def below(self, n: int) -> int:
        """A uniform integer in [0, n), without modulo bias.

        Raises:
            ValueError: n is not in 1..2**64.
        """
        if not 1 <= n <= _WORD:
            raise ValueError(f"cannot draw below {n}")
        limit = _WORD - _WORD % n
        while True:
            word = self.seed64()
            if word < limit:
                return word % n

    def permutation(self, n: int) -> list[int]:
        """A uniform permutation of 0..n-1 (Fisher-Yates from the end)."""
        items = list(range(n))
        for last in range(n - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
        return items

    def sample(self, items: Sequence[T], k: int) -> list[T]:
        """Draw k different items in random order; every ordered choice is equally likely.

        Raises:
            ValueError: there are fewer than k items.
        """
        if not 0 <= k <= len(items):
            raise ValueError(f"cannot sample {k} of {len(items)}")
        pool = list(items)
        for first in range(k):
            other = first + self.below(len(pool) - first)
            pool[first], pool[other] = pool[other], pool[first]
        return pool[:k]

    def uniform(self) -> float:
        """A multiple of 2**-53 in [0, 1)."""
        return (self.seed64() >> 11) * 2.0**-53

    def normal(self) -> float:
        """A standard normal value (Marsaglia's polar method; the second value is thrown away)."""
        while True:
            x = 2.0 * self.uniform() - 1.0
            y = 2.0 * self.uniform() - 1.0
            s = x * x + y * y
            if 0.0 < s < 1.0:
                return x * math.sqrt(-2.0 * math.log(s) / s)

    def gamma(self, shape: float) -> float:
        """A Gamma(shape, 1) value; see `log_gamma`."""
        return math.exp(self.log_gamma(shape))

    def log_gamma(self, shape: float) -> float:
        """The logarithm of a Gamma(shape, 1) value, which for small shapes is too small for a float.

        Marsaglia and Tsang, "A simple method for generating gamma variables" (2000), with their boost
        for shapes below one.

        Raises:
            ValueError: the shape is not positive and finite.
        """
        if not (shape > 0.0 and math.isfinite(shape)):
            raise ValueError(f"a gamma shape must be positive, not {shape}")
        if shape < 1.0:
            return self.log_gamma(shape + 1.0) + math.log(1.0 - self.uniform()) / shape
        d = shape - 1.0 / 3.0
        c = 1.0 / math.sqrt(9.0 * d)
        while True:
            x = self.normal()
            v = 1.0 + c * x
            if v <= 0.0:
                continue
            log_v = 3.0 * math.log(v)
            if math.log(1.0 - self.uniform()) < 0.5 * x * x + d - d * math.exp(log_v) + d * log_v:
                return math.log(d) + log_v

    def dirichlet(self, concentration: float, size: int) -> list[float]:
        """One draw of the symmetric Dirichlet distribution: `size` shares >= 0 that sum to one.

        Raises:
            ValueError: the size is not positive, or the concentration not positive and finite.
        """
        if size < 1:
            raise ValueError(f"a Dirichlet draw needs at least one share, not {size}")
        logs = [self.log_gamma(concentration) for _ in range(size)]
        largest = max(logs)
        shares = [math.exp(value - largest) for value in logs]
        total = math.fsum(shares)
        return [share / total for share in shares]


def _encode_label(label: str | int) -> bytes:
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise TypeError(f"a stream label is a string or an integer, not {label!r}")
    kind = b"s" if isinstance(label, str) else b"i"
    body = str(label).encode("utf-8")
    return kind + len(body).to_bytes(4, "little") + body
