"""The judgement over hostile bodies: every one is refused for its own reason, and honest ones never."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rounds.fold_samples import (
    MAX_COHORT,
    MAX_WEIGHT,
    fold_of,
    sample_declaration,
    sample_plan,
    sample_update,
)
from ssd.updates.codec import BLOCK, Encoding
from ssd.updates.fold import (
    Fold,
    FoldPlan,
    RefusalReason,
    UpdateRefused,
    check_fold,
    check_update,
    encode_update,
)
from ssd.updates.packing import pack_int64

pytestmark = pytest.mark.filterwarnings("error")

PLAN32, PLAN16, PLAN8 = (sample_plan(encoding) for encoding in Encoding)
ENCODER, SUMS, BUFFERS = (group.where for group in PLAN32.groups)


def refusal(plan: FoldPlan, body: bytes | bytearray, weight: object = 1) -> RefusalReason:
    with pytest.raises(UpdateRefused) as caught:
        check_update(plan, body, weight)  # type: ignore[arg-type]  # wrong weights are part of the test
    return caught.value.reason


def fold_refusal(plan: FoldPlan, body: bytes | bytearray, weight: object, clients: object) -> RefusalReason:
    with pytest.raises(UpdateRefused) as caught:
        check_fold(plan, body, weight, clients)  # type: ignore[arg-type]  # as above
    return caught.value.reason


def body_of(plan: FoldPlan) -> bytearray:
    return bytearray(sample_update(plan, 1).body)


@given(st.integers(0, 10**6), st.sampled_from([PLAN32, PLAN16, PLAN8]))
@settings(max_examples=40, deadline=None)
def test_honest_updates_and_their_folds_pass(seed: int, plan: FoldPlan) -> None:
    updates = [sample_update(plan, seed + i) for i in range(1 + seed % 4)]
    for update in updates:
        check_update(plan, update.body, update.weight)
    fold = fold_of(plan, updates)
    check_fold(plan, fold.pack(), fold.weight, fold.clients)


# --- one client's body -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [PLAN32, PLAN16, PLAN8])
def test_a_body_one_byte_short_or_long_is_refused(plan: FoldPlan) -> None:
    body = body_of(plan)
    for wrong in (b"", body[:-1], body + b"\0", body[1:], body + body):
        assert refusal(plan, wrong) is RefusalReason.WRONG_LENGTH


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 699, 700, 702, 703, 706, 707, 716])
def test_a_float32_that_is_not_finite_is_refused_wherever_it_hides(bad: float, place: int) -> None:
    body = body_of(PLAN32)
    struct.pack_into("<f", body, 4 * place, bad)
    assert refusal(PLAN32, body) is RefusalReason.NOT_FINITE
    struct.pack_into("<I", body, 4 * place, 0x7F800001)  # a signalling NaN
    assert refusal(PLAN32, body) is RefusalReason.NOT_FINITE


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x7C01, 0xFFFF])
@pytest.mark.parametrize("place", [0, 350, 699, 700, 702])
def test_a_half_that_is_not_finite_is_refused(bits: int, place: int) -> None:
    body = body_of(PLAN16)
    struct.pack_into("<H", body, 2 * 2 + 2 * place, bits)
    assert refusal(PLAN16, body) is RefusalReason.NOT_FINITE


def test_a_half_that_its_exponent_makes_infinite_is_refused() -> None:
    body = body_of(PLAN16)
    struct.pack_into("<h", body, 0, 113)
    struct.pack_into("<e", body, 4, 65504.0)
    assert refusal(PLAN16, body) is RefusalReason.NOT_FINITE


@pytest.mark.parametrize("exponent", [-126, 114, 32767, -32768])
def test_an_exponent_out_of_range_is_malformed(exponent: int) -> None:
    body = body_of(PLAN16)
    struct.pack_into("<h", body, 2, exponent)
    assert refusal(PLAN16, body) is RefusalReason.MALFORMED


@pytest.mark.parametrize("block", range(4))
def test_int8_scales_are_judged(block: int) -> None:
    assert -(-700 // BLOCK) == 3, "three blocks for the weights, one for the bias"
    for scale, reason in [
        (math.nan, RefusalReason.NOT_FINITE),
        (math.inf, RefusalReason.NOT_FINITE),
        (-1.0, RefusalReason.MALFORMED),
        (3e38, RefusalReason.NOT_FINITE),
        (1e3, RefusalReason.OVER_BOUND),
    ]:
        body = body_of(PLAN8)
        struct.pack_into("<f", body, 4 * block, scale)
        assert refusal(PLAN8, body) is reason


@pytest.mark.parametrize(
    "weight",
    [0, -1, -MAX_WEIGHT, MAX_WEIGHT + 1, 2**31, 2**63, 2**64 + 1, True, False, 1.0, 2.5, math.nan, "1", None],
)
def test_a_weight_that_is_no_integer_within_its_cap_is_refused(weight: object) -> None:
    assert refusal(PLAN32, body_of(PLAN32), weight) is RefusalReason.WEIGHT_OUT_OF_RANGE


def test_weights_at_the_limits_pass() -> None:
    check_update(PLAN32, body_of(PLAN32), 1)
    check_update(PLAN32, body_of(PLAN32), MAX_WEIGHT)


@pytest.mark.parametrize("place", [0, 702, 703, 707, 716])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_bound_is_sharp(place: int, sign: float) -> None:
    body = body_of(PLAN32)
    struct.pack_into("<f", body, 4 * place, sign * 8.0)
    check_update(PLAN32, body, 1)
    struct.pack_into("<f", body, 4 * place, sign * float(np.nextafter(np.float32(8), np.float32(9))))
    assert refusal(PLAN32, body) is RefusalReason.OVER_BOUND


def test_the_norm_is_sharp_and_per_group() -> None:
    plan = sample_plan(Encoding.FLOAT32, sample_declaration(norm_bound=5.0))
    statistics = sample_update(plan, 1).statistics
    delta = np.zeros(plan.size, np.float32)
    for where in (ENCODER, SUMS, BUFFERS):
        delta[where.start], delta[where.start + 1] = 3.0, -4.0
    check_update(plan, encode_update(plan, delta, statistics), 1)
    for where in (ENCODER, SUMS, BUFFERS):
        over = delta.copy()
        over[where.start + 1] = np.nextafter(np.float32(-4), np.float32(-5))
        assert refusal(plan, bytearray(encode_update(plan, over, statistics))) is RefusalReason.OVER_NORM


def test_the_norm_does_not_overflow_float32() -> None:
    declaration = sample_declaration(max_abs=1e12, norm_bound=1e20)
    plan = FoldPlan.create(declaration, Encoding.FLOAT32, 2, 2)
    delta = np.full(plan.size, 1e12, np.float32)
    delta *= np.float32(0.99)
    check_update(plan, encode_update(plan, delta, sample_update(plan, 1).statistics), 1)


@pytest.mark.parametrize("place", range(7))
def test_statistics_are_judged(place: int) -> None:
    limit = 1e6 if place == 0 else 1e3
    for value, reason in [
        (math.nan, RefusalReason.NOT_FINITE),
        (math.inf, RefusalReason.NOT_FINITE),
        (-math.inf, RefusalReason.NOT_FINITE),
        (math.nextafter(limit, math.inf), RefusalReason.STATISTIC_OUT_OF_RANGE),
        (-2 * limit, RefusalReason.STATISTIC_OUT_OF_RANGE),
        (1e308, RefusalReason.STATISTIC_OUT_OF_RANGE),
        (-limit, None),
    ]:
        body = body_of(PLAN16)
        struct.pack_into("<d", body, PLAN16.codec.nbytes + 8 * place, value)
        if reason is None:
            check_update(PLAN16, body, 1)
        else:
            assert refusal(PLAN16, body) is reason


@given(st.data(), st.sampled_from([PLAN32, PLAN16, PLAN8]))
@settings(max_examples=150, deadline=None)
def test_whatever_passes_can_be_folded_and_the_fold_passes_too(data: st.DataObject, plan: FoldPlan) -> None:
    body = body_of(plan)
    for _ in range(3):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] = data.draw(st.integers(0, 255))
    weight = data.draw(st.integers(1, MAX_WEIGHT))
    try:
        check_update(plan, body, weight)
    except UpdateRefused:
        return
    fold = Fold(plan)
    fold.add_update(body, weight)
    check_fold(plan, fold.pack(), weight, 1)
    assert np.isfinite(fold.open().delta).all()


def test_checking_changes_nothing() -> None:
    update = sample_update(PLAN16, 1)
    fold = fold_of(PLAN16, [update])
    packed = fold.pack()
    check_update(PLAN16, update.body, update.weight)
    assert fold.pack() == packed
    assert sample_update(PLAN16, 1).body == update.body


# --- a worker's fold -------------------------------------------------------------------------------------------


def three() -> Fold:
    return fold_of(PLAN32, [sample_update(PLAN32, seed) for seed in (1, 2, 3)])


def test_a_fold_cut_or_lengthened_is_refused() -> None:
    fold = three()
    body = fold.pack()
    assert fold_refusal(PLAN32, b"", fold.weight, 3) is RefusalReason.WRONG_LENGTH
    assert fold_refusal(PLAN32, bytes(10**6), fold.weight, 3) is RefusalReason.WRONG_LENGTH
    for wrong in (body[:-1], body + b"\0", body[1:], body[:9], b"\xff" * len(body)):
        assert fold_refusal(PLAN32, wrong, fold.weight, 3) is RefusalReason.MALFORMED


@pytest.mark.parametrize("clients", [0, -1, True, 1.0, MAX_COHORT + 1, 2**63, None])
def test_a_fold_of_impossibly_many_clients_is_refused(clients: object) -> None:
    fold = three()
    assert fold_refusal(PLAN32, fold.pack(), fold.weight, clients) is RefusalReason.WEIGHT_OUT_OF_RANGE


@pytest.mark.parametrize("weight", [0, -1, 2, 3 * MAX_WEIGHT + 1, 2**63, True, 3.0])
def test_a_fold_whose_weight_its_clients_cannot_have_is_refused(weight: object) -> None:
    fold = three()
    assert fold_refusal(PLAN32, fold.pack(), weight, 3) is RefusalReason.WEIGHT_OUT_OF_RANGE


def packed_sums(fold: Fold, place: int, value: int) -> bytes:
    sums, statistics = fold._sum.copy(), fold._statistics.copy()
    if place < sums.size:
        sums[place] = value
    else:
        statistics[place - sums.size] = value
    return pack_int64(sums).tobytes() + pack_int64(statistics).tobytes()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("place", "group"), [(0, 0), (702, 0), (703, 1), (706, 1), (707, 2), (716, 2)])
def test_a_sum_beyond_what_its_clients_can_make_is_refused(place: int, group: int, sign: int) -> None:
    fold = three()
    factor = fold.weight if group == 0 else 3
    limit = factor * 8 << PLAN32.groups[group].scale_bits
    check_fold(PLAN32, packed_sums(fold, place, sign * limit), fold.weight, 3)
    for value in (limit + 4, 2**62, 2**63 - 1):
        over = packed_sums(fold, place, sign * value)
        assert fold_refusal(PLAN32, over, fold.weight, 3) is RefusalReason.OVER_BOUND
    lowest = packed_sums(fold, place, -(2**63))
    assert fold_refusal(PLAN32, lowest, fold.weight, 3) is RefusalReason.OVER_BOUND


def test_a_fold_cannot_claim_less_weight_than_its_values_need() -> None:
    plan = sample_plan(Encoding.FLOAT32)
    delta = np.full(plan.size, 3.9, np.float32)
    delta[ENCODER] = 3.7
    body = encode_update(plan, delta, sample_update(plan, 1).statistics)
    check_update(plan, body, MAX_WEIGHT)
    fold = Fold(plan)
    fold.add_update(body, MAX_WEIGHT)
    check_fold(plan, fold.pack(), MAX_WEIGHT, 1)
    assert fold_refusal(plan, fold.pack(), 1, 1) is RefusalReason.OVER_BOUND
    assert fold_refusal(plan, fold.pack(), MAX_WEIGHT * 9 // 10, 1) is RefusalReason.OVER_NORM


def test_sums_of_statistics_are_judged() -> None:
    fold = three()
    limit = int(3 * 1e6 * 2 ** PLAN32.statistics[0].scale_bits)
    check_fold(PLAN32, packed_sums(fold, PLAN32.size, limit), fold.weight, 3)
    over = packed_sums(fold, PLAN32.size, limit + 4)
    assert fold_refusal(PLAN32, over, fold.weight, 3) is RefusalReason.STATISTIC_OUT_OF_RANGE
    lowest = packed_sums(fold, PLAN32.size + 6, -(2**63))
    assert fold_refusal(PLAN32, lowest, fold.weight, 3) is RefusalReason.STATISTIC_OUT_OF_RANGE


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_tampered_fold_is_refused_or_is_a_well_formed_other_sum(data: st.DataObject) -> None:
    fold = three()
    body = bytearray(fold.pack())
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    try:
        check_fold(PLAN32, body, fold.weight, 3)
    except UpdateRefused:
        return
    other = Fold(PLAN32)
    other.add_fold(body, fold.weight, 3)
    assert other.pack() == body, "what passed is the one packed form of its sum"


def test_a_refusal_says_where_and_how_much() -> None:
    body = body_of(PLAN32)
    struct.pack_into("<f", body, 0, 9.0)
    with pytest.raises(
        UpdateRefused, match=r"over_bound: group 'encoder', values 0\.\.702: 9 over 8"
    ) as caught:
        check_update(PLAN32, body, 1)
    assert caught.value.detail.startswith("group 'encoder'")
    assert {reason.value for reason in RefusalReason} == {
        "wrong_length",
        "not_finite",
        "over_bound",
        "over_norm",
        "weight_out_of_range",
        "malformed",
        "statistic_out_of_range",
    }
