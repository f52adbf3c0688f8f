"""Masked vectors with noise of the participants: how much the opened mean has, and that no vector leaves without it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rounds.fold_samples import sample_declaration
from secure.masked_numbers import (
    RINGS,
    key_of,
    masked_plan,
    masks_of,
    own_masks,
)
from ssd.privacy.settings import NoisePlace, PrivacySettings
from ssd.secagg.numbers.masked_fold import MaskedFold
from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.secagg.numbers.masked_sum import MaskedSum, NotConsistent
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration, GroupDeclaration, Reducer, StatisticDeclaration
from ssd.updates.fixed_point import OverflowRisk
from ssd.updates.fold import encode_update
from ssd.updates.fold_plan import FoldConfigError, FoldPlan
from ssd.updates.spec import Kind, ParameterSpec


@pytest.mark.parametrize("change", [{"noise_multiplier": 1.1}, {"delta": 1e-6}, {"min_honest": 3}])
def test_the_digest_depends_on_the_terms_of_differential_privacy(change: dict[str, Any]) -> None:
    assert private_plan().digest != private_plan(**change).digest
    assert private_plan().digest == private_plan().digest


PRIVATE = PrivacySettings(
    place=NoisePlace.DISTRIBUTED, clip_norm=1.5, noise_multiplier=1.0, delta=1e-5, min_honest=2
)


def private_fold(size: int = 3000, cohort: int = 12, clip_norm: float = 1.5) -> FoldPlan:
    spec = ParameterSpec.build(
        [("a", (size // 3,), "one", Kind.PARAMETER), ("b", (size - size // 3,), "two", Kind.PARAMETER)]
    )
    groups = (
        GroupDeclaration(name="one", reducer=Reducer.WEIGHTED_MEAN, max_abs=8.0, norm_bound=50.0),
        GroupDeclaration(name="two", reducer=Reducer.PLAIN_MEAN, max_abs=2.0, norm_bound=50.0),
    )
    statistics = (StatisticDeclaration(name="loss_sum"),)
    declaration = Declaration(method="private", version=1, spec=spec, groups=groups, statistics=statistics)
    return FoldPlan.create(declaration, Encoding.FLOAT32, cohort, 1, clip_norm=clip_norm)


def private_plan(bits: int = 32, size: int = 3000, cohort: int = 12, **change: Any) -> MaskedPlan:
    return MaskedPlan.create(
        private_fold(size, cohort),
        MaskedSettings(
            ring_bits=bits, clip=10.0, max_client_weight=1, max_cohort=cohort, dp=replace(PRIVATE, **change)
        ),
    )


def direction(size: int, client: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(client).standard_normal(size)
    return (drawn * 1.4 / np.linalg.norm(drawn)).astype(np.float32)


def private_fold_of(
    plan: MaskedPlan, clients: Sequence[int], participant: int, participants: int
) -> MaskedFold:
    fold = MaskedFold(plan)
    for client in clients:
        body = encode_update(plan.fold, direction(plan.fold.size, client), {})
        fold.add_client(body, 1, key_of("rounding", client))
    fold.add_masks(masks_of(participant, participants))
    return fold


def fresh(label: object) -> Callable[[int], bytes]:
    numbers_ = itertools.count()
    return lambda n: key_of(label, next(numbers_))[:n]


@pytest.mark.parametrize(("bits", "participants"), [(16, 2), (24, 2), (32, 4)])
def test_the_opened_mean_has_the_noise_of_all_participants(bits: int, participants: int) -> None:
    plan = private_plan(bits, size=900 if bits == 16 else 30_000)
    total, parts = MaskedSum(plan), np.array_split(np.arange(12), participants)
    for index, clients in enumerate(parts):
        fold = private_fold_of(plan, clients.tolist(), index, participants)
        fold.add_noise(fresh(("noise", index)))
        total.add(b"".join(fold.pack_chunks()))
    total.subtract(own_masks(range(participants)))
    opened = total.open(participants)
    exact = sum(direction(plan.fold.size, client).astype(np.float64) for client in range(12)) / 12
    noise = (opened.delta - exact) * 12 * 2.0 ** plan.groups[0].scale_bits
    assert plan.noise is not None
    # Two honest ones were to be enough; stochastic rounding of 12 values adds at most a quarter unit each.
    expected = plan.noise.variance * participants / 2 + 12 / 6
    assert abs(noise.var() / expected - 1) < 5 * math.sqrt(2 / noise.size) + 1e-3
    assert (opened.statistics, opened.weight, opened.clients) == ({}, 12, 12)


def test_a_vector_without_its_noise_is_not_sent() -> None:
    plan = private_plan()
    fold = private_fold_of(plan, [0], 0, 2)
    with pytest.raises(ValueError, match="without its noise"):
        fold.pack_chunks()
    fold.add_noise(fresh("once"))
    with pytest.raises(ValueError, match="once"):
        fold.add_noise(fresh("once"))
    with pytest.raises(ValueError, match="once"):
        MaskedFold(masked_plan()).add_noise(fresh("none"))


def test_noise_of_the_same_updates_is_never_the_same() -> None:
    plan = private_plan()
    bodies = set()
    for label in ("first", "second"):
        fold = private_fold_of(plan, [0], 0, 2)
        fold.add_noise(fresh(label))
        bodies.add(b"".join(fold.pack_chunks()))
    assert len(bodies) == 2


@pytest.mark.parametrize("bits", RINGS)
@pytest.mark.parametrize("cohort", [4, 12, 40])
def test_the_largest_sum_and_its_noise_stay_within_the_ring(bits: int, cohort: int) -> None:
    plan = private_plan(bits, size=50, cohort=cohort)
    assert plan.noise is not None
    (scale,) = {group.scale_bits for group in plan.groups}
    assert plan.noise.scale_bits == scale
    largest = Fraction(cohort) * Fraction(3, 2) * Fraction(2) ** scale + plan.noise.headroom(cohort, 1e-9)
    assert largest < 2 ** (bits - 1)


def test_noise_that_leaves_no_scale_is_refused() -> None:
    private_plan(16, size=50, cohort=4)
    with pytest.raises(OverflowRisk, match="wider ring"):
        private_plan(16, size=1_000_000, cohort=40)
    with pytest.raises(OverflowRisk, match="smaller noise"):
        private_plan(24, noise_multiplier=1e6)


def test_noise_covers_clipped_updates_of_weight_one_only() -> None:
    settings_ = MaskedSettings(max_client_weight=1, max_cohort=12, dp=PRIVATE)
    with pytest.raises(FoldConfigError, match="buffers"):
        MaskedPlan.create(
            FoldPlan.create(sample_declaration(), Encoding.FLOAT32, 12, 1, clip_norm=1.5), settings_
        )
    for clip_norm in (1.0, 2.0):
        with pytest.raises(FoldConfigError, match="clipping"):
            MaskedPlan.create(private_fold(clip_norm=clip_norm), settings_)
    with pytest.raises(FoldConfigError, match="coordinator"):
        MaskedSettings(max_cohort=12, dp=replace(PRIVATE, place=NoisePlace.CENTRAL, min_honest=1))


def test_a_sum_beyond_updates_and_noise_is_none() -> None:
    plan = private_plan(24)
    fold = private_fold_of(plan, [0], 0, 1)
    fold.add_noise(fresh("one"))
    total = MaskedSum(plan)
    total.add(b"".join(fold.pack_chunks()))
    total.subtract(own_masks([0]))
    total._narrow[17] = 1 << 22
    with pytest.raises(NotConsistent, match="larger"):
        total.open(1)
