"""Folding under differential privacy: one bound over the whole update, one scale, no statistics, every client once."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.fold_samples import sample_declaration
from ssd.updates.codec import Encoding
from ssd.updates.declaration import QualityDeclaration
from ssd.updates.fold import (
    Fold,
    FoldConfigError,
    FoldPlan,
    UpdateRefused,
    check_fold,
    check_update,
    encode_update,
)

PLAN = FoldPlan.create(sample_declaration(), Encoding.FLOAT32, 8, 1, clip_norm=2.0)


def update(norm: float, seed: int = 0, plan: FoldPlan = PLAN) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal(plan.size)
    return (drawn * norm / np.linalg.norm(drawn)).astype(np.float32)


def test_there_are_no_statistics_and_one_scale() -> None:
    measured = replace(sample_declaration(), quality=QualityDeclaration(features={"h": 4}))
    plan = FoldPlan.create(measured, Encoding.FLOAT32, 8, 1, quality=True, clip_norm=2.0)
    assert plan.statistics == ()
    assert plan.update_nbytes == 4 * plan.size
    (bits,) = {group.scale_bits for group in plan.groups}
    # 16 steps or more for a value of the size that all have if they share the norm equally.
    assert 16 <= 2.0 / math.sqrt(plan.size) * 2.0**bits < 32
    assert max(group.max_abs for group in plan.groups) == 2.0


@pytest.mark.parametrize("clip_norm", [1e-12, 1e-3, 1.0, 1e3, 1e9])
def test_any_bound_has_a_scale_that_cannot_overflow(clip_norm: float) -> None:
    plan = FoldPlan.create(sample_declaration(max_abs=1e9), Encoding.FLOAT32, 8, 1, clip_norm=clip_norm)
    bits = plan.groups[0].scale_bits
    assert bits >= 0
    assert 8 * clip_norm * 2.0**bits < 2.0**62


@pytest.mark.parametrize(
    ("clip_norm", "weight"), [(0.0, 1), (math.nan, 1), (math.inf, 1), (-1.0, 1), (1.0, 2)]
)
def test_a_bound_that_is_none_or_a_client_that_counts_twice_is_refused(clip_norm: float, weight: int) -> None:
    with pytest.raises(FoldConfigError):
        FoldPlan.create(sample_declaration(), Encoding.FLOAT32, 8, weight, clip_norm=clip_norm)


def test_an_update_that_was_not_clipped_is_refused() -> None:
    check_update(PLAN, encode_update(PLAN, update(1.999), {}), 1)
    with pytest.raises(UpdateRefused, match="whole update") as refused:
        check_update(PLAN, encode_update(PLAN, update(2.001), {}), 1)
    assert refused.value.reason.value == "over_norm"
    with pytest.raises(UpdateRefused, match="weight"):
        check_update(PLAN, encode_update(PLAN, update(1.0), {}), 2)


def test_a_fold_beyond_what_its_clients_may_add_is_refused() -> None:
    fold = Fold(PLAN)
    for _ in range(3):
        fold.add_update(encode_update(PLAN, update(1.999), {}), 1)
    check_fold(PLAN, fold.pack(), 3, 3)
    with pytest.raises(UpdateRefused, match="whole update"):
        check_fold(PLAN, fold.pack(), 2, 2)


def test_noise_goes_onto_the_exact_sum() -> None:
    fold, plain = Fold(PLAN), Fold(PLAN)
    for each in (fold, plain):
        for seed in range(4):
            each.add_update(encode_update(PLAN, update(1.5, seed), {}), 1)
    added = np.arange(PLAN.size)

    def add(total: NDArray[np.int64]) -> None:
        total += added

    fold.add_noise(add)
    groups = {"encoder": 4, "buffers": 4, "sums": 1}
    moved = fold.open().delta.astype(np.float64) - plain.open().delta
    for group in PLAN.groups:
        expected = added[group.where] * 2.0**-group.scale_bits / groups[group.name]
        assert np.allclose(moved[group.where], expected, atol=1e-6)
