"""Masked vectors look like noise whatever is under the mask; a weak generator does not, and fails here.

Seeds are fixed, so nothing is flaky; every threshold lies beyond a probability of one in a million. These tests find
a generator that is wired up wrongly, not one that a cryptographer would break: that AES-CTR is one is an assumption.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.fold_samples import sample_plan, sample_update
from ssd.secagg.numbers import prg
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masking import MaskKey, apply_masks
from ssd.secagg.numbers.mod_ring import ModRing

SIZE = 1 << 18
LOW_BITS = 45_000
"""More than twice the 19,937 bits of state of a Mersenne Twister."""
SIGMAS = 5.0
"""Of a normal deviate: beyond with a probability of 6e-7."""
CHI_SQUARE_BOUNDS = (158.0, 377.0)
"""Of 255 degrees of freedom: outside with a probability of about 1e-6 on either side."""

Words = NDArray[np.uint32]


def bytes_uneven(words: Words) -> bool:
    """Chi-square of the 256 byte values."""
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = words.nbytes / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return not CHI_SQUARE_BOUNDS[0] < statistic < CHI_SQUARE_BOUNDS[1]


def bits_uneven(words: Words) -> bool:
    """Monobit: the ones of every one of the 32 positions."""
    ones = np.array([int(((words >> np.uint32(bit)) & np.uint32(1)).sum()) for bit in range(32)])
    return bool((np.abs(ones - words.size / 2) > SIGMAS * np.sqrt(words.size) / 2).any())


def lags_correlated(words: Words) -> bool:
    """Correlation of the words with the 1st to 16th after them."""
    values = words.astype(np.float64)
    values -= values.mean()
    if not values.any():
        return True
    values /= values.std()
    found = [float(values[:-lag] @ values[lag:]) / (words.size - lag) for lag in range(1, 17)]
    return bool(np.abs(found).max() > SIGMAS / np.sqrt(words.size - 16))


def linear_complexity(bits: list[int]) -> int:
    """Berlekamp and Massey: the length of the shortest linear feedback shift register that makes the bits."""
    connection, before, length, last, history = 1, 1, 0, -1, 0
    for n, bit in enumerate(bits):
        history = history << 1 | bit
        if (history & connection).bit_count() & 1:
            kept = connection
            connection ^= before << (n - last)
            if 2 * length <= n:
                length, last, before = n + 1 - length, n, kept
    return length


def low_bits_linear(words: Words) -> bool:
    """The lowest bits of a good generator have a complexity of half their number, give or take a few."""
    bits = (words[:LOW_BITS] & np.uint32(1)).tolist()
    return abs(linear_complexity(bits) - LOW_BITS / 2) > 20


TESTS = (bytes_uneven, bits_uneven, lags_correlated, low_bits_linear)


def failures(words: Words) -> list[str]:
    return [test.__name__ for test in TESTS if test(words)]


def updates(kind: str) -> Words:
    """What is under the mask, as ring elements."""
    if kind == "zero":
        return np.zeros(SIZE, np.uint32)
    if kind == "largest":
        return np.full(SIZE, (1 << 23) - 1, np.uint32)
    values = np.random.default_rng(7).standard_normal(SIZE).astype(np.float32) * np.float32(1e-3)
    return ModRing(24, 1.0).quantise(values, 300, 10)


def masked(kind: str) -> Words:
    words = updates(kind)
    keys = [MaskKey(hashlib.sha256(f"{kind} {i}".encode()).digest(), 1 if i % 2 else -1) for i in range(3)]
    apply_masks(words, 0, keys)
    return words


@pytest.mark.parametrize("kind", ["zero", "largest", "real"])
def test_a_masked_vector_looks_like_noise(kind: str) -> None:
    assert failures(masked(kind)) == []


@pytest.mark.parametrize("kind", ["zero", "largest", "real"])
def test_an_unmasked_one_does_not(kind: str) -> None:
    assert failures(updates(kind))


def differ(a: Words, b: Words) -> bool:
    """Two-sample test on the 24 bits that travel: means, and counts of their 256 highest byte values."""
    a, b = a << np.uint32(8), b << np.uint32(8)
    scale = 2.0**32 * np.sqrt(1 / 12 * 2 / SIZE)
    apart = abs(float(a.mean()) - float(b.mean())) > SIGMAS * scale
    left, right = (np.bincount(words >> np.uint32(24), minlength=256) for words in (a, b))
    statistic = float(((left - right) ** 2 / np.maximum(left + right, 1)).sum())
    return apart or statistic > CHI_SQUARE_BOUNDS[1]


def test_masked_vectors_do_not_tell_what_is_under_them() -> None:
    zero, largest, real = (masked(kind) for kind in ("zero", "largest", "real"))
    assert not differ(zero, largest)
    assert not differ(zero, real)
    assert not differ(largest, real)
    assert differ(updates("zero"), updates("largest"))


def test_a_whole_masked_upload_looks_like_noise() -> None:
    """Both segments through the real path, 24 bits on the wire, many rounds behind one another."""
    plan = MaskedPlan.create(sample_plan(), MaskedSettings(max_cohort=4, max_client_weight=100))
    update, bodies = sample_update(plan.fold, 1), []
    for i in range(120):
        fold = MaskedFold(plan)
        fold.add_client(update.body, update.weight, bytes(32))
        fold.add_masks([MaskKey(hashlib.sha256(bytes([i])).digest(), 1)])
        bodies.append(b"".join(fold.pack_chunks()))
    together = b"".join(bodies)
    words = np.frombuffer(together[: len(together) // 4 * 4], np.uint32)
    assert [test.__name__ for test in TESTS[:3] if test(words)] == []


# --- weak generators, each of which at least one test must find ---


def mersenne_twister() -> Words:
    """numpy's old generator, as some implementations use it for masks."""
    return np.random.RandomState(1).randint(0, 2**32, SIZE, dtype=np.uint32)


def linear_congruential() -> Words:
    state, out = 12345, []
    for _ in range(SIZE):
        state = (1664525 * state + 1013904223) % 2**32
        out.append(state)
    return np.array(out, np.uint32)


def counter_that_stands_still() -> Words:
    block = np.frombuffer(prg.keystream(bytes(32), 0, 16), np.uint32)
    return np.tile(block, SIZE // 4)


def chunk_that_repeats() -> Words:
    """Every 64 bytes begin the stream anew."""
    return np.tile(np.frombuffer(prg.keystream(bytes(32), 0, 64), np.uint32), SIZE // 16)


def sixteen_bits_of_thirty_two() -> Words:
    return np.frombuffer(prg.keystream(bytes(32), 0, 4 * SIZE), np.uint32) & np.uint32(0xFFFF)


def always_even() -> Words:
    return np.frombuffer(prg.keystream(bytes(32), 0, 4 * SIZE), np.uint32) & np.uint32(0xFFFFFFFE)


def slightly_biased() -> Words:
    """One bit in fifty forced to one."""
    words = np.frombuffer(prg.keystream(bytes(32), 0, 4 * SIZE), np.uint32).copy()
    words[::50] |= np.uint32(1)
    return words


@pytest.mark.parametrize(
    ("weak", "found_by"),
    [
        (mersenne_twister, "low_bits_linear"),
        (linear_congruential, "low_bits_linear"),
        (counter_that_stands_still, "lags_correlated"),
        (chunk_that_repeats, "lags_correlated"),
        (sixteen_bits_of_thirty_two, "bytes_uneven"),
        (always_even, "bits_uneven"),
        (slightly_biased, "bits_uneven"),
    ],
)
def test_a_weak_generator_is_found(weak: Callable[[], Words], found_by: str) -> None:
    assert found_by in failures(weak())


@pytest.mark.parametrize("breaking", ["same block", "no key"])
def test_a_broken_stream_in_our_own_code_is_found(monkeypatch: pytest.MonkeyPatch, breaking: str) -> None:
    """The same path as an honest mask, with the generator replaced."""

    def broken(self: prg.Keystream, room: NDArray[np.uint8], nbytes: int) -> None:
        if breaking == "no key":
            room[:nbytes] = 0
        else:
            room[:nbytes] = np.resize(np.frombuffer(bytes(range(16)), np.uint8), nbytes)

    monkeypatch.setattr(prg.Keystream, "read_into", broken)
    assert failures(masked("zero"))
