"""Scaling vectors: the persistent d_k of each client, alpha on its own dimensions and 1 elsewhere.

(SSD, arXiv 2508.01251, Eq. 6: the sets S_k disjoint, |S_k| about floor(d / K).) The published code hands
directions out by position in the round's sample; here a client's vector depends on its index in the run
alone, so it is the same in every round, on every worker, after any restart, whoever else enrols.

How dimensions are dealt. Think of an endless row of *passes*; each pass is a permutation of all d
dimensions, and client i takes the places [i * m, (i + 1) * m) of the row, m being the block. Therefore

  * **balanced**: over the first N clients, for every N, two dimensions' loads differ by at most one;
  * **disjoint**: the clients of one pass share nothing; in particular the first floor(d / m) clients get
    exactly what the `disjoint` allocation gives them, so `auto` needs no case distinction;
  * a client that straddles two passes still gets m different dimensions: the next pass deals first what the
    client does not hold yet.

Which permutations. Lay the dimensions out on q rows of m columns, q the smallest prime >= d / m, leaving the
last m * q - d places empty. Pass p deals the lines y = P_p(x) + b (mod q) for b = 0, 1, ..., where the
coefficients of the polynomial P_p without constant term are the digits of p in base q; pass 0 is the rows
themselves. Two lines with polynomials of degree at most one meet at most once in q consecutive columns, so

  * if d = m * q (no empty places), any two of the first q * q clients share at most ceil(m / q) dimensions,
    which no allocation can beat once there is a second pass (a client's m dimensions fall into the q
    clients of another pass);
  * otherwise lines are a little shorter than m and a client may hold the end of one and the beginning of the
    next. Measured, and asserted by the tests: at most 3 (rarely; 1 is the lower bound) for d = 512, m = 10
    and 2,000 clients, at most 8 (lower bound 6) for d = 512, m = 51 and 100 clients; random blocks give 4
    and 14. Beyond q * q clients the degree, and slowly the overlap, grows.

A block of more than half the dimensions cannot be spread; its clients take consecutive windows of one
permutation, balanced as above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssd.random_stream import RandomStream

ALLOCATIONS = ("disjoint", "balanced", "auto")


class ScalingError(ValueError):
    """No such scaling vector exists, or its JSON form is not well formed."""


@dataclass(frozen=True, slots=True)
class ScalingVector:
    """d_k as the dimensions it scales; on the wire it is this, never a dense array."""

    dimension: int
    indices: tuple[int, ...]
    """S_k, ascending."""
    alpha: float

    def __post_init__(self) -> None:
        whole = (self.dimension, *self.indices)
        if any(isinstance(value, bool) or not isinstance(value, int) for value in whole):
            raise ScalingError("dimension and indices are integers")
        if any(
            low >= high
            for low, high in zip((-1, *self.indices), (*self.indices, self.dimension), strict=True)
        ):
            raise ScalingError(f"the indices must ascend within 0..{self.dimension - 1}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ScalingError(f"alpha must be positive and finite, not {self.alpha}")

    def dense(self) -> NDArray[np.float64]:
        """d_k itself, float64 [dimension]."""
        vector = np.ones(self.dimension)
        vector[list(self.indices)] = self.alpha
        return vector

    def to_json(self) -> dict[str, Any]:
        """A JSON object holding every field."""
        return {"dimension": self.dimension, "indices": list(self.indices), "alpha": self.alpha}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ScalingVector:
        """The inverse of `to_json`.

        Raises:
            ScalingError: the value is not such an object.
        """
        try:
            return cls(value["dimension"], tuple(value["indices"]), float(value["alpha"]))
        except (KeyError, TypeError) as error:
            raise ScalingError(f"not a scaling vector: {error!r}") from error


def block_size(dimension: int, expected_clients: int, block: int | None) -> int:
    """Scaled dimensions per client: `block`, or max(1, floor(dimension / expected clients)).

    Raises:
        ScalingError: a number is not positive, or the block larger than the dimension.
    """
    if dimension < 1 or expected_clients < 1:
        raise ScalingError(f"{expected_clients} clients cannot share {dimension} dimensions")
    size = max(1, dimension // expected_clients) if block is None else block
    if not 1 <= size <= dimension:
        raise ScalingError(f"a block of {size} does not fit {dimension} dimensions")
    return size


def assign(
    index: int,
    *,
    dimension: int,
    expected_clients: int,
    block: int | None,
    allocation: str,
    alpha: float,
    seed: int,
    shuffle: bool = True,
) -> ScalingVector:
    """The scaling vector of the client with this index in the run (see the module docstring).

    `allocation`: `disjoint` refuses clients there is no room for; `balanced` and `auto` go on with the next
    pass. `shuffle`: dimensions are dealt in a permuted order, as in the published code, else in their own.

    Raises:
        ScalingError: the index is negative, a parameter out of range, or no disjoint block is left.
    """
    size = block_size(dimension, expected_clients, block)
    if allocation not in ALLOCATIONS:
        raise ScalingError(f"unknown allocation {allocation!r}; there are {', '.join(ALLOCATIONS)}")
    if index < 0:
        raise ScalingError(f"a client's index cannot be {index}")
    if allocation == "disjoint" and (index + 1) * size > dimension:
        raise ScalingError(
            f"client {index} finds no disjoint block of {size} in {dimension} dimensions; "
            f"there is room for {dimension // size} (use a smaller block, or allocation 'balanced')"
        )
    axes = RandomStream("scaling-axes", seed).permutation(dimension) if shuffle else range(dimension)
    return ScalingVector(
        dimension, tuple(sorted(axes[place] for place in _places(index, dimension, size))), alpha
    )


def rotated_basis(dimension: int, seed: int) -> NDArray[np.float32]:
    """A random orthonormal basis, float32 [dimension, dimension], Haar-distributed.

    QR is not bit-stable across libraries and threads: compute it once, store it as an artefact and serve it
    by digest; never recompute it.
    """
    generator = np.random.Generator(np.random.PCG64(RandomStream("rotated-basis", seed).seed64()))
    q, r = np.linalg.qr(generator.standard_normal((dimension, dimension)))
    # QR alone fixes the signs of R's diagonal by convention; undoing that makes Q uniform.
    return np.ascontiguousarray(q * np.where(np.diag(r) < 0, -1.0, 1.0), dtype=np.float32)


def _places(index: int, dimension: int, block: int) -> list[int]:
    """The places client `index` takes, before the axes are shuffled."""
    number, start = divmod(index * block, dimension)
    if 2 * block > dimension:
        return [(start + step) % dimension for step in range(block)]
    here = _dealt(number, dimension, block)[start : start + block]
    return here + _dealt(number + 1, dimension, block)[: block - len(here)]


def _dealt(number: int, dimension: int, block: int) -> list[int]:
    """Pass `number` as dealt: what the straddling client already holds comes after its share."""
    order = _pass_order(number, dimension, block)
    held = number * dimension % block
    if not held:
        return order
    # The end of the pass before is never touched by its own reordering, as 2 * block <= dimension.
    holds = set(_pass_order(number - 1, dimension, block)[-held:])
    share = [place for place in order if place not in holds][: block - held]
    taken = set(share)
    return share + [place for place in order if place not in taken]


def _pass_order(number: int, dimension: int, block: int) -> list[int]:
    """All places in the order of pass `number`: line after line, empty places skipped."""
    rows = _prime_from(-(-dimension // block))
    rises = []
    for column in range(block):
        rise, power, digits = 0, column, number
        while digits:
            digits, coefficient = divmod(digits, rows)
            rise = (rise + coefficient * power) % rows
            power = power * column % rows
        rises.append(rise)
    places = (
        (rise + line) % rows * block + column for line in range(rows) for column, rise in enumerate(rises)
    )
    return [place for place in places if place < dimension]


def _prime_from(n: int) -> int:
    """The smallest prime >= n."""
    candidate = max(n, 2)
    while any(candidate % divisor == 0 for divisor in range(2, math.isqrt(candidate) + 1)):
        candidate += 1
    return candidate
