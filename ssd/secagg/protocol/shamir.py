"""Shamir's secret sharing (CACM 1979) of 32-byte secrets over the integers modulo p = 2**256 - 189.

p is the largest prime below 2**256: all but 189 of the 32-byte strings are elements, so a uniform secret is drawn
by rejection that practically never rejects, and a share is 32 bytes as well. Shares are the values of a uniform
polynomial of degree t - 1 at x = 1, 2, ...; any t of them give its value at zero, fewer say nothing about it.

Python's integers do not run in constant time: who can time a participant's process is outside the threat model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

P = 2**256 - 189
SECRET_NBYTES = 32
MAX_X = 2**32 - 1
MIN_THRESHOLD = 2

Entropy = Callable[[int], bytes]
"""n uniform, secret bytes; `os.urandom` outside tests."""


class ShareRefused(ValueError):
    """A secret, a set of holders or a set of shares that must not be worked with."""


def random_secret(entropy: Entropy) -> bytes:
    """A uniform field element, as 32 bytes big-endian."""
    return _random_element(entropy).to_bytes(SECRET_NBYTES, "big")


def split(secret: bytes, threshold: int, xs: Sequence[int], entropy: Entropy) -> dict[int, bytes]:
    """One 32-byte share for each x; any `threshold` of them determine the secret.

    Raises:
        ShareRefused: the secret is not 32 bytes below p, an x is zero, negative, too large or there twice, or the
            threshold is not in 2..len(xs).
    """
    value = _element(secret, "the secret")
    _check_xs(xs)
    if type(threshold) is not int or not MIN_THRESHOLD <= threshold <= len(xs):
        raise ShareRefused(f"a threshold of {threshold!r} with {len(xs)} holders")
    descending = [_random_element(entropy) for _ in range(threshold - 1)]
    shares = {}
    for x in xs:
        y = 0
        for coefficient in descending:
            y = (y + coefficient) * x % P
        shares[x] = ((y + value) % P).to_bytes(SECRET_NBYTES, "big")
    return shares


def combine(shares: Mapping[int, bytes], *, threshold: int = MIN_THRESHOLD) -> bytes:
    """The secret that the given shares {x: y} determine, as the polynomial of degree < len(shares) through all.

    The result is only as good as the shares: a wrong one gives a wrong secret, so compare the result with what its
    owner committed to. With more shares than the threshold the result is the same if all are right.

    Raises:
        ShareRefused: fewer than `threshold` shares, an x that is no x, a y that is not 32 bytes below p.
    """
    if len(shares) < max(threshold, MIN_THRESHOLD):
        raise ShareRefused(f"{len(shares)} shares, {max(threshold, MIN_THRESHOLD)} needed")
    xs = tuple(sorted(shares))
    _check_xs(xs)
    values = [_element(shares[x], f"the share of {x}") for x in xs]
    total = sum(c * y for c, y in zip(coefficients_at_zero(xs), values, strict=True))
    return (total % P).to_bytes(SECRET_NBYTES, "big")


@lru_cache(maxsize=128)
def coefficients_at_zero(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's coefficients: the product over j != i of x_j / (x_j - x_i), for every i, modulo p.

    They depend on the holders alone, and on a complete graph the same holders answer for every secret.
    """
    product = 1
    for x in xs:
        product = product * x % P
    # prod(x_j, j != i) / prod(x_j - x_i, j != i) = product / (x_i * prod(x_j - x_i, j != i)).
    denominators = []
    for x in xs:
        denominator = x
        for other in xs:
            if other != x:
                denominator = denominator * (other - x) % P
        denominators.append(denominator)
    return tuple(product * inverse % P for inverse in _inverses(denominators))


def _inverses(values: list[int]) -> list[int]:
    """Montgomery's trick: the inverses of many non-zero elements for the price of one."""
    prefix = [1]
    for value in values:
        prefix.append(prefix[-1] * value % P)
    running = pow(prefix[-1], -1, P)
    inverses = [0] * len(values)
    for i in range(len(values) - 1, -1, -1):
        inverses[i] = prefix[i] * running % P
        running = running * values[i] % P
    return inverses


def _random_element(entropy: Entropy) -> int:
    while True:
        drawn = entropy(SECRET_NBYTES)
        if len(drawn) != SECRET_NBYTES:
            raise ShareRefused(f"the entropy source gave {len(drawn)} bytes, not {SECRET_NBYTES}")
        value = int.from_bytes(drawn, "big")
        if value < P:
            return value


def _element(encoded: bytes, what: str) -> int:
    if len(encoded) != SECRET_NBYTES:
        raise ShareRefused(f"{what} has {len(encoded)} bytes, not {SECRET_NBYTES}")
    value = int.from_bytes(encoded, "big")
    if value >= P:
        raise ShareRefused(f"{what} is not below 2**256 - 189")
    return value


def _check_xs(xs: Sequence[int]) -> None:
    if any(type(x) is not int or not 1 <= x <= MAX_X for x in xs):
        raise ShareRefused("a holder's x must be an integer in 1..2**32 - 1")
    if len(set(xs)) != len(xs):
        raise ShareRefused("two holders have the same x")
