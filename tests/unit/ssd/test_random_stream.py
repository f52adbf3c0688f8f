"""The random stream: its definition, its labels, and that its draws are fair."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.random_stream import RandomStream


def test_words_are_what_the_docstring_says() -> None:
    labels = b"s" + (6).to_bytes(4, "little") + b"cohort" + b"i" + (2).to_bytes(4, "little") + b"-7"
    key = hashlib.sha256(b"ssd-stream-v1" + labels).digest()
    stream = RandomStream("cohort", -7)
    for counter in range(3):
        block = hashlib.sha256(key + counter.to_bytes(8, "little")).digest()
        for word in range(4):
            assert stream.seed64() == int.from_bytes(block[8 * word : 8 * word + 8], "little")


def test_labels_separate_streams() -> None:
    labels: list[tuple[str | int, ...]] = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (1,),
        ("1",),
        (),
        ("",),
        (1, 1),
        (11,),
    ]
    assert len({RandomStream(*parts).seed64() for parts in labels}) == len(labels)
    assert RandomStream("a", 1).permutation(20) == RandomStream("a", 1).permutation(20)


@pytest.mark.parametrize("label", [True, 1.0, None, b"a"])
def test_other_labels_are_refused(label: object) -> None:
    with pytest.raises(TypeError):
        RandomStream(label)  # type: ignore[arg-type]  # the point of the test


@given(st.integers(1, 2**64), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_draws_below_n_are_below_n(n: int, seed: int) -> None:
    assert 0 <= RandomStream(seed).below(n) < n


def test_words_beyond_the_last_whole_multiple_are_thrown_away() -> None:
    # For n just above 2**63 almost half of all words must be rejected; a plain remainder would keep them.
    n = (1 << 63) + 1
    words, stream, kept = RandomStream("r"), RandomStream("r"), []
    while len(kept) < 20:
        word = words.seed64()
        if word < n:
            kept.append(word)
    assert [stream.below(n) for _ in range(20)] == kept


@pytest.mark.parametrize("n", [0, -1, 2**64 + 1])
def test_impossible_ranges_are_refused(n: int) -> None:
    with pytest.raises(ValueError):
        RandomStream().below(n)


def test_all_orders_come_up_equally_often() -> None:
    stream = RandomStream("fair")
    for draw in (lambda: stream.permutation(4), lambda: stream.sample(range(4), 4)):
        counts = Counter(tuple(draw()) for _ in range(4800))
        assert len(counts) == 24
        chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
        assert chi_square < 49.7, "beyond the 0.1 % point of 23 degrees of freedom"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_samples_are_different_members(n: int, k: int, seed: int) -> None:
    items = [f"client-{i}" for i in range(n)]
    if k > n:
        with pytest.raises(ValueError):
            RandomStream(seed).sample(items, k)
        return
    drawn = RandomStream(seed).sample(items, k)
    assert len(drawn) == k == len(set(drawn))
    assert set(drawn) <= set(items)
    assert items == [f"client-{i}" for i in range(n)], "the input is not shuffled"


def test_moments_of_the_distributions() -> None:
    stream = RandomStream("moments")
    n = 20_000
    uniform = [stream.uniform() for _ in range(n)]
    normal = [stream.normal() for _ in range(n)]
    assert all(0 <= value < 1 for value in uniform)
    assert math.isclose(sum(uniform) / n, 0.5, abs_tol=0.01)
    assert math.isclose(sum(normal) / n, 0.0, abs_tol=0.03)
    assert math.isclose(sum(value**2 for value in normal) / n, 1.0, abs_tol=0.04)
    for shape in (0.3, 1.0, 4.5):
        gamma = [stream.gamma(shape) for _ in range(n)]
        mean = sum(gamma) / n
        assert math.isclose(mean, shape, rel_tol=0.06)
        assert math.isclose(sum((value - mean) ** 2 for value in gamma) / n, shape, rel_tol=0.12)


@pytest.mark.parametrize("concentration", [1e-4, 0.1, 1.0, 100.0])
def test_dirichlet_shares_sum_to_one(concentration: float) -> None:
    stream = RandomStream("dirichlet")
    for _ in range(20):
        shares = stream.dirichlet(concentration, 10)
        assert len(shares) == 10
        assert min(shares) >= 0
        assert math.isclose(math.fsum(shares), 1.0)


def test_dirichlet_spread_follows_the_concentration() -> None:
    def largest(concentration: float) -> float:
        stream = RandomStream("spread")
        return sum(max(stream.dirichlet(concentration, 10)) for _ in range(50)) / 50

    assert largest(0.1) > 0.5 > largest(1.0) > 0.15 > largest(100.0)


@pytest.mark.parametrize("shape", [0.0, -1.0, math.nan, math.inf])
def test_impossible_shapes_are_refused(shape: float) -> None:
    with pytest.raises(ValueError):
        RandomStream().gamma(shape)
    with pytest.raises(ValueError):
        RandomStream().dirichlet(1.0, 0)
