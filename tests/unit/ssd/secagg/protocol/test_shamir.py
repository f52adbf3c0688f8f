"""Secret sharing: any t shares give the secret, fewer say nothing, and what is no share is refused."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.secagg.protocol import shamir
from ssd.secagg.protocol.shamir import P, ShareRefused, combine, random_secret, split


def counting_entropy(seed: bytes) -> Callable[[int], bytes]:
    """A fixed sequence of bytes, for frozen vectors only."""
    blocks = (hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in itertools.count())
    return lambda n: next(blocks)[:n]


def by_elimination(points: list[tuple[int, int]]) -> int:
    """f(0) of the polynomial through the points, by Gauss-Jordan on Vandermonde's matrix: shares no formula with us."""
    size = len(points)
    rows = [[pow(x, power, P) for power in range(size)] + [y] for x, y in points]
    for column in range(size):
        pivot = next(r for r in range(column, size) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], P - 2, P)
        rows[column] = [value * inverse % P for value in rows[column]]
        for r in range(size):
            factor = rows[r][column]
            if r != column and factor:
                rows[r] = [(a - factor * b) % P for a, b in zip(rows[r], rows[column], strict=True)]
    return rows[0][size]


FROZEN = [
    (
        "0000000000000000000000000000000000000000000000000000000000000001",
        2,
        {
            1: "c8a0bef1604b56a78f154ec0d140b6ebd61cb5850cb0178e238eae35aa09dce7",
            2: "91417de2c096ad4f1e2a9d81a2816dd7ac396b0a19602f1c471d5c6b5413ba8a",
            3: "59e23cd420e203f6ad3fec4273c224c38256208f261046aa6aac0aa0fe1d982d",
        },
    ),
    (
        "0000000000000000000000000000000000000000000000000000000000000000",
        3,
        {
            1: "a063df299239812eea54eabc81e4b4770e8df5042735026c3e984e68106cf210",
            2: "2c5a2a54aa174080c4ab4e7c12e121be9ba23c2248fab1d5ceb7a785c2e86cdf",
            5: "55ab93df1389f347f3b74fcd2064be783a04fe188dafce02683ff320a6b20bde",
            9: "c41a08acef1e478ffd31450eb06055814de128cc9d35696daa5843335ddfa452",
        },
    ),
    (
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff42",
        3,
        {
            1: "c2cd9a3637fd0147227c635b021da5a5b0890702c7761eb6d01ad17993eba0b4",
            2: "bed677353951cd83d652892e1a71c192d211e0582486e2e8b7a2d4a34437e456",
            3: "f41a96fd03fe64b61b82717948fc53c7649a8c0017324c95b698097d10e4ca28",
            4: "6299f98d9802c6ddf20c1c3c8dbd5c43682309fa9f785bbdccfa7006f9f252e7",
            5: "0a549ee6f55ef3fb59ef8977e8b4db06dcab5a47bd591060faca0840ff607dd6",
        },
    ),
    (
        "980144e66414d1b752ed4e8c3159876ebcc623e611b97d05be8b099518ff08be",
        5,
        {
            1: "5f79f40d4f3d1da7091de13d8874c21eac34cd122a1e8905fe08acc96fa83032",
            7: "d1353016b32e7b7e8317adde1aa9da510943cb22817b83ab704848495cd8ae7b",
            100: "54ef769c5bde98b42e7f684b33119dbb5accffc47f5e01a53999297af5c259f5",
            1000: "9ad2afe65445fbf984d6046f92626d2fef9a92a5f5fcaef8ae78d47a19c664f9",
            65537: "6313ea6bd75395ae74d409aae7d065bf5d8d4ffa22e22343d7dc6987156651b5",
            4294967295: "6322a1c1a89d381ff0c8a5002437f4e99d87a7d2641aafce33c2b717dd96683b",
        },
    ),
]
"""(secret, threshold, xs, shares), made once by Horner's rule written on its own and checked by elimination."""


@pytest.mark.parametrize(("secret", "threshold", "shares"), FROZEN)
def test_the_frozen_vectors_come_out(secret: str, threshold: int, shares: dict[int, str]) -> None:
    made = split(bytes.fromhex(secret), threshold, list(shares), counting_entropy(secret.encode()))
    assert {x: y.hex() for x, y in made.items()} == shares
    for chosen in itertools.combinations(shares, threshold):
        assert combine({x: made[x] for x in chosen}, threshold=threshold).hex() == secret
        assert by_elimination([(x, int(shares[x], 16)) for x in chosen]) == int(secret, 16)


def test_the_modulus_is_the_largest_prime_of_256_bits() -> None:
    def probably_prime(n: int) -> bool:
        d, s = n - 1, 0
        while d % 2 == 0:
            d, s = d // 2, s + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
            x = pow(base, d, n)
            if x not in (1, n - 1) and not any((x := x * x % n) == n - 1 for _ in range(s - 1)):
                return False
        return True

    assert P == 2**256 - 189
    assert probably_prime(P)
    assert not any(probably_prime(n) for n in range(P + 2, 2**256, 2))


@given(st.data(), st.integers(0, P - 1), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_any_threshold_many_shares_give_the_secret(data: st.DataObject, secret: int, holders: int) -> None:
    threshold = data.draw(st.integers(2, holders))
    xs = data.draw(st.lists(st.integers(1, shamir.MAX_X), min_size=holders, max_size=holders, unique=True))
    shares = split(
        secret.to_bytes(32, "big"), threshold, xs, counting_entropy(data.draw(st.binary(max_size=4)))
    )
    chosen = data.draw(st.permutations(xs))[: data.draw(st.integers(threshold, holders))]
    assert int.from_bytes(combine({x: shares[x] for x in chosen}, threshold=threshold), "big") == secret
    points = [(x, int.from_bytes(shares[x], "big")) for x in chosen]
    assert by_elimination(points) == secret


def test_one_share_fewer_fits_every_secret() -> None:
    shares = split(bytes(32), 3, [1, 2, 3], counting_entropy(b"fewer"))
    known = {x: shares[x] for x in (1, 2)}
    for other in (0, 1, P - 1, 12345):
        # The share at 3 that makes the secret `other` exists, so the two known ones cannot rule it out.
        l1, l2, l3 = shamir.coefficients_at_zero((1, 2, 3))
        y1, y2 = (int.from_bytes(known[x], "big") for x in (1, 2))
        y3 = (other - l1 * y1 - l2 * y2) * pow(l3, -1, P) % P
        assert int.from_bytes(combine({**known, 3: y3.to_bytes(32, "big")}, threshold=3), "big") == other


def test_the_coefficients_are_fresh_for_every_secret() -> None:
    entropy = counting_entropy(b"fresh")
    first, second = split(bytes(32), 2, [1, 2], entropy), split(bytes(32), 2, [1, 2], entropy)
    assert first != second


def test_a_draw_that_is_no_element_is_drawn_again() -> None:
    draws = [P.to_bytes(32, "big"), b"\xff" * 32, (P - 1).to_bytes(32, "big")]
    assert random_secret(lambda n: draws.pop(0)) == (P - 1).to_bytes(32, "big")
    assert not draws


def test_the_top_coefficient_may_be_zero() -> None:
    """A uniform polynomial of degree *at most* t - 1: excluding zero would tell something about the secret."""
    shares = split((7).to_bytes(32, "big"), 2, [1, 2], bytes)
    assert set(shares.values()) == {(7).to_bytes(32, "big")}


@pytest.mark.parametrize(
    ("secret", "threshold", "xs"),
    [
        (bytes(31), 2, [1, 2]),
        (bytes(33), 2, [1, 2]),
        (P.to_bytes(32, "big"), 2, [1, 2]),
        (bytes(32), 1, [1, 2]),
        (bytes(32), 0, [1, 2]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), True, [1, 2]),
        (bytes(32), 2, [0, 1, 2]),
        (bytes(32), 2, [1, 1]),
        (bytes(32), 2, [-1, 2]),
        (bytes(32), 2, [1, 2**32]),
        (bytes(32), 2, [1, 1 + P]),
        (bytes(32), 2, [1, 2.0]),
    ],
)
def test_what_cannot_be_shared_is_refused(secret: bytes, threshold: int, xs: list[int]) -> None:
    with pytest.raises(ShareRefused):
        split(secret, threshold, xs, counting_entropy(b""))


@pytest.mark.parametrize(
    "change",
    [
        {0: bytes(32)},
        {1: P.to_bytes(32, "big")},
        {1: b"\xff" * 32},
        {1: bytes(31)},
        {1: b""},
        {-1: bytes(32)},
        {2**32: bytes(32)},
        {1 + P: bytes(32)},
    ],
)
def test_what_is_no_share_is_refused(change: dict[int, bytes]) -> None:
    shares = split(bytes(32), 2, [1, 2, 3], counting_entropy(b"refused"))
    with pytest.raises(ShareRefused):
        combine({**shares, **change}, threshold=2)


def test_too_few_shares_are_refused() -> None:
    shares = split(bytes(32), 3, [1, 2, 3], counting_entropy(b"few"))
    for count in range(3):
        with pytest.raises(ShareRefused, match="3 needed"):
            combine({x: shares[x] for x in list(shares)[:count]}, threshold=3)
    with pytest.raises(ShareRefused, match="2 needed"):
        combine({1: shares[1]}, threshold=0)


def test_a_short_entropy_source_is_refused() -> None:
    with pytest.raises(ShareRefused, match="entropy"):
        random_secret(lambda n: bytes(n - 1))


def test_a_wrong_share_gives_a_wrong_secret() -> None:
    """Why every rebuilt secret is compared with its commitment."""
    shares = split(bytes(32), 2, [1, 2], counting_entropy(b"wrong"))
    changed = bytes([shares[1][0] ^ 1]) + shares[1][1:]
    assert combine({**shares, 1: changed}) != bytes(32)
