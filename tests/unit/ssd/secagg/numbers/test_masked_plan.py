"""The plan of masked vectors: scales that leave room in the ring, lengths, and the digest of what elements mean."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rounds.fold_samples import sample_declaration, sample_plan
from secure.masked_numbers import (
    FOLD_PLAN,
    RINGS,
    masked_plan,
    upload,
)
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.mod_ring import FEWEST_LEVELS, narrow_scale_bits, sum_limit
from ssd.updates.codec import Encoding
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold_plan import FoldConfigError, FoldPlan


@given(
    bits=st.sampled_from(RINGS),
    clip=st.floats(1e-6, 1e6),
    cohort=st.integers(1, 2000),
    weight=st.integers(1, 5000),
)
@settings(max_examples=200, deadline=None)
def test_headroom_is_proven_or_refused(bits: int, clip: float, cohort: int, weight: int) -> None:
    total, top = cohort * weight, 2 ** (bits - 1) - 1
    try:
        s = narrow_scale_bits(bits, clip, total, cohort, weight)
    except OverflowRisk:
        # The largest scale that gives seven levels would already wrap, or is just not allowed by a factor of two.
        smallest = Fraction(FEWEST_LEVELS) / (Fraction(weight) * Fraction(clip))
        assert 2 * smallest * total * Fraction(clip) + cohort > top
        return
    unit = Fraction(clip) * Fraction(2) ** s
    assert total * unit + cohort <= top < total * 2 * unit + cohort
    # The largest sum: every client's largest addend is the next integer.
    assert cohort * math.ceil(weight * unit) <= sum_limit(total, clip, s, cohort) <= top
    assert weight * unit >= FEWEST_LEVELS


def test_a_ring_without_room_is_refused_by_the_name_of_the_group() -> None:
    plan = sample_plan()
    with pytest.raises(OverflowRisk, match="encoder.*16 bits"):
        MaskedPlan.create(
            FoldPlan.create(plan.declaration, Encoding.FLOAT32, 30_000, 1000),
            MaskedSettings(ring_bits=16, max_cohort=30_000, max_client_weight=1000),
        )


def test_secagg_md_s_table_of_value_bits_holds() -> None:
    """b value bits (with sign) for n clients of equal weight: at least those of the table, less the slack of n."""
    table = {16: {10: 12, 100: 9, 1000: 6}, 24: {10: 20, 100: 17, 1000: 14}, 32: {10: 28, 100: 25, 1000: 22}}
    for bits, by_cohort in table.items():
        for cohort, b in by_cohort.items():
            s = narrow_scale_bits(bits, 1.0, cohort, cohort, 1)
            assert b - 2 <= s <= b - 1


def test_lengths_are_known_beforehand() -> None:
    for bits in RINGS:
        plan = masked_plan(bits)
        assert plan.narrow_size == 707
        assert plan.wide_size == 3 + 7 + 10
        assert len(upload(plan, 0, 2, [0])) == plan.nbytes == 707 * bits // 8 + 8 * 20
        assert plan.words_nbytes == 2832 + 160
        assert plan.wide_start % 16 == 0


def meaning_changes() -> list[tuple[str, MaskedPlan]]:
    settings_: dict[str, Any] = {"ring_bits": 24, "clip": 2.0, "max_client_weight": 100, "max_cohort": 40}
    other = sample_declaration(max_abs=4.0)
    return [
        (name, MaskedPlan.create(sample_plan(declaration=declaration), MaskedSettings(**settings_ | change)))
        for name, change, declaration in (
            ("ring", {"ring_bits": 32}, None),
            ("clip", {"clip": 2.000001}, None),
            ("weight", {"max_client_weight": 99}, None),
            ("cohort", {"max_cohort": 39}, None),
            ("method", {}, other),
        )
    ]


@pytest.mark.parametrize(("name", "other"), meaning_changes())
def test_the_digest_depends_on_everything_the_numbers_mean(name: str, other: MaskedPlan) -> None:
    assert other.digest != masked_plan().digest
    assert len(other.digest) == 32


def test_the_digest_is_the_same_for_an_equal_plan() -> None:
    assert masked_plan(plan=sample_plan()).digest == masked_plan().digest


@pytest.mark.parametrize(
    "change",
    [
        {"ring_bits": 8},
        {"ring_bits": 64},
        {"clip": 0.0},
        {"clip": -1.0},
        {"clip": math.nan},
        {"clip": math.inf},
        {"max_client_weight": 0},
        {"max_client_weight": 1.0},
        {"max_cohort": 0},
        {"max_cohort": True},
    ],
)
def test_settings_that_are_none_are_refused(change: dict) -> None:
    with pytest.raises(FoldConfigError):
        MaskedSettings(**{"max_cohort": 4} | change)


@pytest.mark.parametrize("change", [{"max_cohort": 41}, {"max_client_weight": 1001}])
def test_caps_beyond_the_run_s_are_refused(change: dict) -> None:
    with pytest.raises(FoldConfigError, match="more"):
        MaskedPlan.create(FOLD_PLAN, MaskedSettings(**{"max_cohort": 40, "max_client_weight": 1000} | change))
