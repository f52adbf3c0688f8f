"""Judging and adding in one pass: the same verdicts and the same bits as one after the other.

Should not happen: a refused update that leaves a trace in the sum, wherever in it the fault hides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.fold_samples import sample_declaration, sample_plan, sample_update
from ssd.updates.codec import Encoding
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import Fold, FoldPlan, UpdateRefused, check_update

PLANS = {encoding: sample_plan(encoding) for encoding in Encoding}
Harm = Callable[[bytearray], object]


def two_fold(encoding: Encoding) -> Fold:
    fold = Fold(PLANS[encoding])
    for seed in range(2):
        update = sample_update(PLANS[encoding], seed)
        fold.verify_and_add(update.body, update.weight)
    return fold


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_sum_is_that_of_checking_first_and_adding_then(encoding: Encoding) -> None:
    plan = PLANS[encoding]
    expected = Fold(plan)
    for seed in range(2):
        update = sample_update(plan, seed)
        check_update(plan, update.body, update.weight)
        expected.add_update(update.body, update.weight)
    assert two_fold(encoding).pack() == expected.pack()


def _poke(offset: int, content: bytes) -> Harm:
    def harm(body: bytearray) -> None:
        start = offset if offset >= 0 else len(body) + offset
        body[start : start + len(content)] = content

    return harm


NAN, OVER = np.float32(np.nan).tobytes(), np.float32(9e3).tobytes()


@pytest.mark.parametrize(
    "harm",
    [
        _poke(0, NAN),
        _poke(4 * 700, NAN),
        _poke(4 * 700, OVER),
        _poke(4 * 350, np.float32(-np.inf).tobytes()),
        _poke(4 * 350, np.uint32(0x7F800001).tobytes()),  # a NaN that signals
        _poke(-8, np.float64(1e300).tobytes()),
        _poke(-8, np.float64(np.nan).tobytes()),
    ],
)
def test_a_refused_update_leaves_the_sum_bit_for_bit_as_it_was(harm: Harm) -> None:
    plan = PLANS[Encoding.FLOAT32]
    fold = two_fold(Encoding.FLOAT32)
    before = fold.pack(), fold.clients, fold.weight
    update = sample_update(plan, 7)
    body = bytearray(update.body)
    harm(body)
    with pytest.raises(UpdateRefused) as apart:
        check_update(plan, body, update.weight)
    with pytest.raises(UpdateRefused) as together:
        fold.verify_and_add(body, update.weight)
    assert (together.value.reason, together.value.detail) == (apart.value.reason, apart.value.detail)
    assert (fold.pack(), fold.clients, fold.weight) == before


def test_a_norm_that_only_the_end_tells_is_taken_back_whole() -> None:
    plan = PLANS[Encoding.FLOAT32]
    fold = two_fold(Encoding.FLOAT32)
    before = fold.pack()
    group = plan.groups[0]
    body = bytearray(sample_update(plan, 7).body)
    values = np.frombuffer(body, "<f4", plan.size)
    values[group.where] = group.max_abs * 0.99
    if float(np.linalg.norm(values[group.where].astype(np.float64))) <= group.norm_bound:
        values = np.frombuffer(body, "<f8", plan.statistics_size, plan.codec.nbytes)
        values[-1] = 1e300
    with pytest.raises(UpdateRefused):
        fold.verify_and_add(body, 1)
    assert fold.pack() == before


def test_a_value_at_the_bound_itself_is_within_it() -> None:
    plan = PLANS[Encoding.FLOAT32]
    body = bytearray(sample_update(plan, 7).body)
    np.frombuffer(body, "<f4", plan.size)[0] = plan.groups[0].max_abs
    check_update(plan, body, 1)
    Fold(plan).verify_and_add(body, 1)


def test_a_weight_over_its_cap_and_a_full_sum_are_refused_before_anything_is_read() -> None:
    plan = PLANS[Encoding.FLOAT32]
    fold, update = Fold(plan), sample_update(plan, 1)
    with pytest.raises(UpdateRefused, match="weight"):
        fold.verify_and_add(update.body, plan.max_client_weight + 1)
    for _ in range(plan.max_cohort):
        fold.verify_and_add(update.body, 1)
    before = fold.pack()
    with pytest.raises(OverflowRisk):
        fold.verify_and_add(update.body, 1)
    assert fold.pack() == before


def exactly_within(plan: FoldPlan, values: NDArray[np.float32]) -> bool:
    """What the bounds say in float64, without a short way."""
    for group in plan.groups:
        here = values[group.where].astype(np.float64)
        if not (np.abs(here).max() <= group.max_abs and math.sqrt(np.square(here).sum()) <= group.norm_bound):
            return False
    return True


@pytest.mark.parametrize("max_abs", [1e-30, 1e-3, 8.0, 1e12])
@pytest.mark.parametrize("share", [0.5, 0.99, 0.999, 1.0 - 1e-6, 1.0 + 1e-6, 1.001, 1.01, 2.0])
def test_near_a_bound_the_verdict_is_the_exact_one(max_abs: float, share: float) -> None:
    """The short way, a float32 sum of squares, is taken only where it leaves no doubt."""
    for norm_bound in (max_abs * 10.0, max_abs * 1e6):
        plan = sample_plan(Encoding.FLOAT32, sample_declaration(max_abs=max_abs, norm_bound=norm_bound))
        rng = np.random.default_rng(3)
        values = rng.uniform(-0.5, 0.5, plan.size)
        where = plan.groups[0].where
        if norm_bound == max_abs * 10.0:
            values[where] *= share * norm_bound / np.linalg.norm(values[where])
            values[where.stop :] = 0.0
        else:
            values *= max_abs / 4
            values[where.start + 5] = share * max_abs
        delta = values.astype(np.float32)
        body = bytearray(sample_update(plan, 7).body)
        np.frombuffer(body, "<f4", plan.size)[:] = delta
        if exactly_within(plan, delta):
            check_update(plan, body, 1)
        else:
            with pytest.raises(UpdateRefused):
                check_update(plan, body, 1)
