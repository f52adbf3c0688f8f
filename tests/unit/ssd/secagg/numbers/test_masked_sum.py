"""Masked vectors: what is opened is exactly what the clients were quantised to.

Should happen: any order, any grouping, any chunking and any ring open to the same bits as the quantised values added up
without masks; the parts that are exact in a plain round are exact here. Should not happen: a sum that wraps, and a sum
that opens although an upload is missing, twice in it, cut short or changed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rounds.fold_samples import fold_of
from secure.masked_numbers import (
    FOLD_PLAN,
    RINGS,
    UPDATES,
    fold_clients,
    key_of,
    masked_plan,
    opened,
    opened_alone,
    own_masks,
    small_plan,
    upload,
)
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import HEADER_VALUES, MaskedPlan
from ssd.secagg.numbers.masked_sum import MaskedSum, NotConsistent
from ssd.secagg.numbers.masking import MaskKey
from ssd.secagg.numbers.prg import keystream
from ssd.updates.codec import MalformedUpdate
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import encode_update
from ssd.updates.fold_plan import OpenedFold


@lru_cache
def quantised(bits: int, client: int) -> dict[str, NDArray[np.int64]]:
    """One client's integers for every narrow group, straight from the definition and in exact arithmetic."""
    plan, update = masked_plan(bits), UPDATES[client]
    weight = min(update.weight, plan.settings.max_client_weight)
    words = np.frombuffer(keystream(key_of("rounding", client), 0, 4 * plan.narrow_size), "<u4")
    found = {}
    for group in plan.groups:
        if not group.narrow:
            continue
        factor = Fraction(group.fold.weight_of(weight, 1)) * Fraction(2) ** group.scale_bits
        largest = factor * Fraction(group.max_abs)
        values = update.delta[group.fold.where]
        rounded = []
        for value, word in zip(values, words[group.at], strict=True):
            x = min(max(Fraction(float(value)) * factor, -largest), largest)
            # What float64 holds of the sum is what is rounded; the product of 24 and 7 bits is exact.
            rounded.append(min(math.floor(float(x) + float(word) * 2.0**-32), math.ceil(largest)))
        found[group.fold.name] = np.array(rounded, np.int64)
    return found


def expected_delta(plan: MaskedPlan, clients: Sequence[int]) -> NDArray[np.float32]:
    weight = sum(min(UPDATES[client].weight, plan.settings.max_client_weight) for client in clients)
    exact = fold_of(
        plan.fold, [replace(UPDATES[client], weight=capped(plan, client)) for client in clients]
    ).open()
    delta = exact.delta.copy()
    each = [quantised(plan.settings.ring_bits, client) for client in clients]
    for group in plan.groups:
        if group.narrow:
            total = sum(values[group.fold.name] for values in each)
            divisor = math.ldexp(group.fold.divisor(weight, len(clients)), group.scale_bits)
            delta[group.fold.where] = (total.astype(np.float64) / divisor).astype(np.float32)
    return delta


def capped(plan: MaskedPlan, client: int) -> int:
    return min(UPDATES[client].weight, plan.settings.max_client_weight)


@given(
    workers=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    order=st.permutations(range(9)),
    bits=st.sampled_from(RINGS),
    cut=st.integers(1, 5000),
)
@settings(max_examples=30, deadline=None)
def test_the_opened_sum_is_the_sum_of_the_quantised_vectors(
    workers: list[int], order: list[int], bits: int, cut: int
) -> None:
    plan = masked_plan(bits)
    hosted = {worker: [client for client in order if workers[client] == worker] for worker in set(workers)}
    names = sorted(hosted, key=order.index)
    bodies = [upload(plan, i, len(names), hosted[name]) for i, name in enumerate(names)]
    total = MaskedSum(plan)
    for i in sorted(range(len(bodies)), key=lambda i: order[i]):
        total.add([bodies[i][start : start + cut] for start in range(0, plan.nbytes, cut)])
    total.subtract(own_masks(range(len(names))))
    opened = total.open(len(names))
    plain = fold_of(
        FOLD_PLAN, [replace(UPDATES[client], weight=capped(plan, client)) for client in range(9)]
    ).open()
    assert opened.delta.tobytes() == expected_delta(plan, range(9)).tobytes()
    assert (opened.clients, opened.weight) == (9, plain.weight)
    buffers = plan.groups[-1].fold.where
    assert opened.delta[buffers].tobytes() == plain.delta[buffers].tobytes()
    for name, values in plain.statistics.items():
        assert opened.statistics[name].tobytes() == values.tobytes()


@given(st.sampled_from(RINGS), st.integers(1, 12), st.integers(1, 9), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_decoded_mean_is_within_the_bound_of_rounding(
    bits: int, size: int, cohort: int, seed: int
) -> None:
    """Every client's rounding moves the sum by less than one step, so the mean moves by less than n * 2**-s / W."""
    generator = np.random.default_rng(seed)
    plan = masked_plan(bits, plan=small_plan(size, cohort, 100), cohort=cohort)
    group = plan.groups[0]
    deltas = generator.uniform(-2, 2, (cohort, size)).astype(np.float32)
    weights = generator.integers(1, 101, cohort)
    fold = MaskedFold(plan)
    for client in range(cohort):
        fold.add_client(
            encode_update(plan.fold, deltas[client], {}), int(weights[client]), key_of(seed, client)
        )
    opened = opened_alone(plan, fold)
    mean = (weights[:, None] * deltas.astype(np.float64)).sum(axis=0) / weights.sum()
    bound = cohort * 2.0**-group.scale_bits / weights.sum()
    assert np.abs(opened.delta - mean).max() <= bound * (1 + 1e-6) + 2**-23 * 2


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("size", [1, 7, 4099])
@pytest.mark.parametrize("cohort", [1, 2, 31])
@pytest.mark.parametrize("value", [2.0, -2.0, 0.0, 8.0, -8.0])
def test_extremes_of_a_full_cohort_do_not_wrap(bits: int, size: int, cohort: int, value: float) -> None:
    """Everyone at the cap of weight and at (or beyond) the clip: the largest sum there can be."""
    plan = masked_plan(bits, plan=small_plan(size, cohort, 37), cohort=cohort, weight=37)
    body = encode_update(plan.fold, np.full(size, value, np.float32), {})
    fold = MaskedFold(plan)
    for client in range(cohort):
        fold.add_client(body, 37, key_of(client))
    opened = opened_alone(plan, fold)
    assert opened.weight == cohort * 37
    step = 2.0 ** -plan.groups[0].scale_bits / 37
    assert np.abs(opened.delta - np.clip(value, -2, 2)).max() <= step
    with pytest.raises(OverflowRisk):
        fold_clients_over(plan, body, cohort)


def fold_clients_over(plan: MaskedPlan, body: bytearray, cohort: int) -> None:
    fold = MaskedFold(plan)
    for client in range(cohort + 1):
        fold.add_client(body, 37, key_of(client))


def test_the_masks_of_the_two_segments_do_not_overlap() -> None:
    """One stream covers both, so no part of it may be used twice."""
    plan = masked_plan(32)
    empty, stream = MaskedFold(plan), keystream(key_of("self", 0), 0, plan.words_nbytes)
    empty._wide[:] = 0
    empty.add_masks(own_masks([0]))
    assert empty._narrow.tobytes() == stream[: 4 * plan.narrow_size]
    assert empty._wide.tobytes() == stream[plan.wide_start :]
    assert plan.wide_start >= 4 * plan.narrow_size


def test_the_sum_s_digest_is_that_of_its_wire_form() -> None:
    plan = masked_plan()
    body = upload(plan, 0, 2, [0])
    total = MaskedSum(plan)
    total.add(body)
    assert total.packed_digest() == hashlib.sha256(body).digest()
    total.subtract(own_masks([0]))
    assert total.packed_digest() != hashlib.sha256(body).digest()


def honest_round(plan: MaskedPlan) -> tuple[list[bytes], list[MaskKey]]:
    return [upload(plan, i, 3, [i, i + 3]) for i in range(3)], own_masks(range(3))


def test_an_honest_round_opens() -> None:
    plan = masked_plan()
    assert opened(plan, *honest_round(plan), 3).clients == 6


@pytest.mark.parametrize("bits", RINGS)
def test_a_lost_replayed_or_forged_upload_does_not_open(bits: int) -> None:
    plan = masked_plan(bits)
    bodies, keys = honest_round(plan)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies[:2], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, [*bodies, bodies[0]], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, [bodies[0], bodies[0], bodies[2]], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, [*bodies[:2], bytes(plan.nbytes)], keys, 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies, keys[:2], 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies, [*keys, MaskKey(key_of("x"), 1)], 3)
    with pytest.raises(NotConsistent, match="constant"):
        opened(plan, bodies, keys, 2)


def tampered(plan: MaskedPlan, change: dict[int, int]) -> OpenedFold:
    """An honest round in which one participant adds to its wide elements."""
    fold = fold_clients(plan, [0])
    for at, value in change.items():
        fold._wide[at] += value
    fold.add_masks(own_masks([0]))
    other = fold_clients(plan, [1])
    other.add_masks(own_masks([1]))
    return opened(plan, [b"".join(fold.pack_chunks()), b"".join(other.pack_chunks())], own_masks([0, 1]), 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: 1}, "constant"),
        ({0: -1}, "constant"),
        ({1: -1}, "1 clients of 2 participants"),
        ({1: 39}, "41 clients"),
        ({2: 1000}, "total weight"),
        ({2: -(2**62)}, "total weight"),
        ({HEADER_VALUES: 2**62}, "loss_sum"),
        ({HEADER_VALUES: -(2**62)}, "loss_sum"),
        ({HEADER_VALUES + 1: 2**62}, "moments"),
        ({HEADER_VALUES + 7: 2**62}, "buffers"),
        ({HEADER_VALUES + 7: -(2**62)}, "buffers"),
    ],
)
def test_sums_no_clients_can_make_do_not_open(change: dict[int, int], text: str) -> None:
    assert tampered(masked_plan(), {}).clients == 2
    with pytest.raises(NotConsistent, match=text):
        tampered(masked_plan(), change)


@pytest.mark.parametrize("bits", RINGS)
def test_a_narrow_sum_no_clients_can_make_does_not_open(bits: int) -> None:
    plan = masked_plan(bits)
    fold = fold_clients(plan, [0])
    fold._narrow[5] = (1 << (bits - 1)) - 1
    with pytest.raises(NotConsistent, match="encoder"):
        opened_alone(plan, fold)


@pytest.mark.parametrize("cut", [0, 1, 2, 100, 2121, -1, -8])
def test_an_upload_of_another_length_is_refused(cut: int) -> None:
    plan = masked_plan()
    body = upload(plan, 0, 2, [0])
    total = MaskedSum(plan)
    with pytest.raises(MalformedUpdate):
        total.add(body[:cut])
    with pytest.raises(MalformedUpdate):
        total.add(body + bytes(max(cut, 1)))
    assert total.packed_digest() == MaskedSum(plan).packed_digest()


@pytest.mark.parametrize("end", [0, 1, 700, 2121, 2122, 2129, 2280])
def test_pieces_that_run_short_spoil_the_sum(end: int) -> None:
    plan = masked_plan()
    bodies, keys = honest_round(plan)
    total = MaskedSum(plan)
    with pytest.raises(MalformedUpdate, match="expected 2281"):
        total.add(iter([bodies[0][:end]]))
    for body in bodies:
        total.add(body)
    total.subtract(keys)
    with pytest.raises(NotConsistent, match="cut short"):
        total.open(3)


def test_pieces_that_run_over_are_stopped_at_once() -> None:
    plan = masked_plan()
    body = upload(plan, 0, 2, [0])

    def endless():
        yield body
        yield b"x"
        raise AssertionError("read on")

    with pytest.raises(MalformedUpdate, match="more than"):
        MaskedSum(plan).add(endless())
