"""Folding: the result depends on the set of updates and on nothing else.

Should happen: any order, any grouping into workers' folds, any nesting of folds gives the same bits, and
those are what exact rational arithmetic says. Should not happen: a sum that wraps, an update that is half
added, memory that grows with the cohort.
"""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ssd.updates.fold
from rounds.fold_samples import (
    MAX_COHORT,
    MAX_WEIGHT,
    fold_of,
    opened_bytes,
    sample_declaration,
    sample_plan,
    sample_update,
)
from ssd.updates.codec import Encoding, MalformedUpdate, NotFinite
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer, StatisticDeclaration
from ssd.updates.fixed_point import Int64Ring, OverflowRisk
from ssd.updates.fold import Fold, FoldConfigError, FoldPlan, check_fold, check_update, encode_update
from ssd.updates.spec import Kind, ParameterSpec

PLANS = {encoding: sample_plan(encoding) for encoding in Encoding}
UPDATES = {encoding: [sample_update(plan, seed) for seed in range(9)] for encoding, plan in PLANS.items()}


@given(st.permutations(range(9)), st.sampled_from(list(Encoding)))
@settings(max_examples=60, deadline=None)
def test_the_order_of_arrival_changes_no_bit(order: list[int], encoding: Encoding) -> None:
    plan, updates = PLANS[encoding], UPDATES[encoding]
    reordered = fold_of(plan, [updates[i] for i in order])
    assert opened_bytes(reordered) == opened_bytes(fold_of(plan, updates))
    assert reordered.pack() == fold_of(plan, updates).pack()


@given(
    st.lists(st.integers(0, 3), min_size=9, max_size=9),
    st.permutations(range(9)),
    st.sampled_from(list(Encoding)),
)
@settings(max_examples=60, deadline=None)
def test_who_folds_whom_changes_no_bit(workers: list[int], order: list[int], encoding: Encoding) -> None:
    plan, updates = PLANS[encoding], UPDATES[encoding]
    relay, coordinator = Fold(plan), Fold(plan)
    for worker in sorted(set(workers)):
        mine = fold_of(plan, [updates[i] for i in order if workers[i] == worker])
        body = mine.pack()
        check_fold(plan, body, mine.weight, mine.clients)
        # Worker 3 talks to the coordinator through a relay, the others directly; worker 0 does not fold.
        if worker == 0:
            for i in order:
                if workers[i] == 0:
                    check_update(plan, updates[i].body, updates[i].weight)
                    coordinator.add_update(updates[i].body, updates[i].weight)
        else:
            (relay if worker == 3 else coordinator).add_fold(body, mine.weight, mine.clients)
    if relay.clients:
        coordinator.add_fold(relay.pack(), relay.weight, relay.clients)
    assert opened_bytes(coordinator) == opened_bytes(fold_of(plan, updates))


class FloatRing(Int64Ring):
    """The mutation: what a float accumulation would do."""

    def zeros(self, n: int) -> NDArray[np.int64]:
        return np.zeros(n)  # type: ignore[return-value]  # a mutation on purpose

    def quantise(
        self,
        values: NDArray[np.float32] | NDArray[np.float64],
        weight: int,
        scale_bits: int,
        out: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        return values.astype(np.float64) * math.ldexp(weight, scale_bits)  # type: ignore[no-any-return]


def test_a_float_fold_would_depend_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, updates = PLANS[Encoding.FLOAT32], UPDATES[Encoding.FLOAT32]

    def distinct_sums() -> int:
        orders = (list(np.random.default_rng(seed).permutation(9)) for seed in range(10))
        folds = [fold_of(plan, [updates[i] for i in order]) for order in orders]
        return len({fold._sum.tobytes() for fold in folds})

    assert distinct_sums() == 1
    monkeypatch.setattr(ssd.updates.fold, "Int64Ring", FloatRing)
    assert distinct_sums() > 1


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_result_is_what_exact_arithmetic_says(encoding: Encoding) -> None:
    plan, updates = PLANS[encoding], UPDATES[encoding]
    opened = fold_of(plan, updates).open()
    total = sum(update.weight for update in updates)
    assert (opened.clients, opened.weight) == (9, total)
    decoded = [plan.codec.decode(update.body[: plan.codec.nbytes]) for update in updates]
    for group, weights, divisor in [
        (plan.groups[0], [update.weight for update in updates], total),
        (plan.groups[1], [1] * 9, 1),
        (plan.groups[2], [1] * 9, 9),
    ]:
        for i in range(group.where.start, group.where.stop):
            integers = (
                round(Fraction(float(vector[i])) * weight * 2**group.scale_bits)
                for vector, weight in zip(decoded, weights, strict=True)
            )
            expected = np.float32(float(sum(integers)) / math.ldexp(divisor, group.scale_bits))
            assert opened.delta[i] == expected
    for statistic in plan.statistics:
        exact = np.sum([update.statistics[statistic.name] for update in updates], axis=0)
        assert opened.statistics[statistic.name].shape == statistic.shape
        np.testing.assert_allclose(opened.statistics[statistic.name], exact, rtol=1e-9, atol=1e-8)


def test_one_client_alone_gets_its_own_update_back() -> None:
    plan = PLANS[Encoding.FLOAT32]
    update = sample_update(plan, 77)
    opened = fold_of(plan, [update]).open()
    np.testing.assert_allclose(opened.delta, update.delta, rtol=0, atol=1e-12)


def test_a_full_cohort_at_every_limit_does_not_wrap() -> None:
    declaration = sample_declaration(max_abs=8.0, norm_bound=1e6)
    plan = sample_plan(Encoding.FLOAT32, declaration)
    delta = np.where(np.arange(plan.size) % 2, 8.0, -8.0).astype(np.float32)
    statistics = {"loss_sum": np.array(1e6), "moments": np.full((2, 3), -1e3)}
    body = encode_update(plan, delta, statistics)
    check_update(plan, body, MAX_WEIGHT)
    fold = Fold(plan)
    for _ in range(MAX_COHORT):
        fold.add_update(body, MAX_WEIGHT)
    check_fold(plan, fold.pack(), fold.weight, fold.clients)
    opened = fold.open()
    expected = np.where(np.arange(plan.size) >= 703, delta, delta)
    expected[703:707] *= MAX_COHORT
    assert opened.delta.tobytes() == expected.tobytes()
    assert opened.statistics["loss_sum"] == 1e6 * MAX_COHORT
    for add in (
        lambda: fold.add_update(body, 1),
        lambda: fold.add_fold(fold.pack(), 1, 1),
        lambda: Fold(plan).add_fold(fold.pack(), MAX_COHORT * MAX_WEIGHT + 1, MAX_COHORT),
        lambda: Fold(plan).add_fold(fold.pack(), 5, 0),
        lambda: Fold(plan).add_fold(fold.pack(), 5, 6),
    ):
        with pytest.raises(OverflowRisk):
            add()
    assert fold.open().delta.tobytes() == expected.tobytes(), "a refused addition changes nothing"


def test_adding_a_body_of_another_length_changes_nothing() -> None:
    plan = PLANS[Encoding.FLOAT16]
    fold = fold_of(plan, UPDATES[Encoding.FLOAT16][:2])
    before = opened_bytes(fold)
    with pytest.raises(MalformedUpdate):
        fold.add_update(UPDATES[Encoding.FLOAT16][2].body + b"\0", 1)
    assert opened_bytes(fold) == before


def test_an_empty_fold_has_no_mean_but_can_be_packed() -> None:
    plan = PLANS[Encoding.FLOAT32]
    with pytest.raises(ValueError):
        Fold(plan).open()
    assert len(Fold(plan).pack()) < 50


def test_opening_does_not_end_a_fold() -> None:
    plan, updates = PLANS[Encoding.FLOAT32], UPDATES[Encoding.FLOAT32]
    fold = fold_of(plan, updates[:4])
    fold.open()
    for update in updates[4:]:
        fold.add_update(update.body, update.weight)
    assert opened_bytes(fold) == opened_bytes(fold_of(plan, updates))


def test_a_body_has_the_length_the_plan_announces() -> None:
    for encoding, plan in PLANS.items():
        assert all(len(update.body) == plan.update_nbytes for update in UPDATES[encoding])
        assert plan.statistics_size == 7
        assert len(fold_of(plan, UPDATES[encoding]).pack()) <= plan.max_fold_nbytes
        assert plan.codec.encodings["buffers"] is Encoding.FLOAT32


def test_encoding_refuses_what_was_not_declared() -> None:
    plan = PLANS[Encoding.FLOAT32]
    good = sample_update(plan, 1)
    for statistics in (
        {},
        {"loss_sum": np.array(1.0)},
        {**good.statistics, "more": np.array(1.0)},
        {**good.statistics, "moments": np.zeros((3, 2))},
        {**good.statistics, "loss_sum": np.zeros(1)},
    ):
        with pytest.raises(ValueError):
            encode_update(plan, good.delta, statistics)
    with pytest.raises(NotFinite):
        encode_update(plan, np.full_like(good.delta, np.nan), good.statistics)


def declaration_with(reducer: Reducer = Reducer.WEIGHTED_MEAN, **fields: float) -> Declaration:
    spec = ParameterSpec.build([("w", (10,), "only", Kind.PARAMETER)])
    bounds = {"max_abs": 1.0, "norm_bound": 1.0, **fields}
    group = GroupDeclaration(name="only", reducer=reducer, **bounds)  # type: ignore[arg-type]  # floats only
    return Declaration(method="m", version=1, spec=spec, groups=(group,))


def test_a_plan_that_could_overflow_is_refused() -> None:
    FoldPlan.create(declaration_with(max_abs=1e5), Encoding.FLOAT32, 1000, 1000)
    for declaration, cohort, weight in [
        (declaration_with(max_abs=1e30), 1000, 1000),
        (declaration_with(), 1 << 30, 1 << 24),
        (declaration_with(max_abs=0.0), 10, 10),
        (declaration_with(max_abs=math.inf), 10, 10),
        (declaration_with(max_abs=math.nan), 10, 10),
    ]:
        with pytest.raises(OverflowRisk):
            FoldPlan.create(declaration, Encoding.FLOAT32, cohort, weight)


def test_a_plan_that_makes_no_sense_is_refused() -> None:
    for declaration, cohort, weight in [
        (declaration_with(norm_bound=0.0), 10, 10),
        (declaration_with(norm_bound=math.nan), 10, 10),
        (declaration_with(), 0, 10),
        (declaration_with(), 10, 0),
        (declaration_with(), True, 10),
        (declaration_with(), 10, 2.0),
    ]:
        with pytest.raises(FoldConfigError):
            FoldPlan.create(declaration, Encoding.FLOAT32, cohort, weight)  # type: ignore[arg-type]


def test_no_statistics_is_fine() -> None:
    plan = FoldPlan.create(declaration_with(), Encoding.INT8, 10, 10)
    update = sample_update(plan, 1)
    fold = fold_of(plan, [update])
    other = Fold(plan)
    check_fold(plan, fold.pack(), fold.weight, 1)
    other.add_fold(fold.pack(), fold.weight, 1)
    assert other.open().statistics == {}


@pytest.mark.parametrize("encoding", list(Encoding))
def test_checking_and_adding_use_little_memory_beside_the_sum(encoding: Encoding) -> None:
    spec = ParameterSpec.build([("w", (6_000_000,), "g", Kind.PARAMETER)])
    group = GroupDeclaration(name="g", reducer=Reducer.WEIGHTED_MEAN, max_abs=8.0, norm_bound=1e6)
    statistic = StatisticDeclaration(name="loss")
    declaration = Declaration(method="m", version=1, spec=spec, groups=(group,), statistics=(statistic,))
    plan = FoldPlan.create(declaration, encoding, 100, 100)
    delta = np.random.default_rng(1).standard_normal(plan.size, np.float32)
    body = encode_update(plan, delta, {"loss": np.array(1.0)})
    fold = Fold(plan)
    fold.add_update(body, 5)
    packed = fold.pack()
    for act in (
        lambda: check_update(plan, body, 5),
        lambda: fold.add_update(body, 5),
        lambda: check_fold(plan, packed, 5, 1),
        lambda: fold.add_fold(packed, 5, 1),
    ):
        tracemalloc.start()
        act()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20, "a copy of the vector would be 24 MB or more"


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("value", [1e-45, -1e-45, 1.1754942e-38], ids=["smallest", "negative", "largest"])
def test_an_update_of_denormals_is_taken_and_weighs_as_much_as_one_of_zeros(
    encoding: Encoding, value: float
) -> None:
    """Finite, so no reason to refuse it; too small for the sum's unit at the largest weight there is."""
    plan, updates = PLANS[encoding], UPDATES[encoding]
    statistics = {each.name: np.full(each.shape, 5e-324) for each in plan.statistics}
    bodies = [encode_update(plan, np.full(plan.size, each, np.float32), statistics) for each in (value, 0.0)]
    folds = [fold_of(plan, updates) for _ in bodies]
    for fold, body in zip(folds, bodies, strict=True):
        check_update(plan, body, MAX_WEIGHT)
        fold.add_update(body, MAX_WEIGHT)
    assert opened_bytes(folds[0]) == opened_bytes(folds[1])
