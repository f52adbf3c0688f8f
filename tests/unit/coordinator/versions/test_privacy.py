"""The account of differential privacy: what versions say, what people are told, and when nothing can be said."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from coordinator.ports.figures import Figures, PrivacyCost
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.versions.privacy import Privacy
from ssd.method.registry import load
from ssd.privacy.account import spent
from ssd.privacy.noise import NoisePlan
from ssd.privacy.settings import NoisePlace, PrivacyRefused, PrivacySettings
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, FoldPlan, encode_update

CENTRAL = PrivacySettings(place=NoisePlace.CENTRAL, clip_norm=1.0, noise_multiplier=1.0, delta=1e-5)
DISTRIBUTED = PrivacySettings(
    place=NoisePlace.DISTRIBUTED, clip_norm=1.0, noise_multiplier=1.0, delta=1e-5, min_honest=5
)


def entropy_of(seed: str) -> Callable[[int], bytes]:
    numbers = itertools.count()
    return lambda n: hashlib.sha256(f"{seed} {next(numbers)}".encode()).digest()[:n]


def account(settings: PrivacySettings = DISTRIBUTED) -> Privacy:
    return Privacy(NoisePlan.of(settings, 1000, 14), entropy_of("account"))


def test_rounds_add_up_whatever_process_committed_them() -> None:
    told: PrivacyCost | None = None
    for number in (1, 2, 3):
        told = account().spent(number, 9, told)
        plan = NoisePlan.of(DISTRIBUTED, 1000, 14)
        assert told is not None
        assert told.epsilon == spent(plan, number, 5).epsilon
        assert told.round_epsilon == spent(plan, 1, 5).epsilon
    assert told is not None
    assert (told.delta, told.honest) == (1e-5, 9)


def test_no_epsilon_once_a_sum_held_too_few_honest_participants() -> None:
    told = account().spent(1, 4, None)
    assert told == PrivacyCost(honest=4)
    told = account().spent(2, 9, told)
    assert told == PrivacyCost(honest=4)
    assert account().describe(2, 10, told).startswith("none: a sum held 4 honest participants")
    # A version before this one that accounted for nothing leaves nothing to promise.
    assert account().spent(2, 9, None) == PrivacyCost(honest=0)


def test_an_epsilon_that_a_sum_in_no_version_has_cost_is_not_shown_as_if_it_held() -> None:
    newest = account().spent(1, 9, None)
    assert newest is not None
    assert newest.epsilon is not None
    assert account().account(1, 10, newest, 4).beside == PrivacyCost(honest=4)
    assert account().account(1, 10, newest, 9).beside == account().spent(2, 9, newest) != newest
    assert account().account(1, 10, newest, None).beside is None


def test_people_are_told_the_present_the_end_and_the_assumptions() -> None:
    plan = NoisePlan.of(DISTRIBUTED, 1000, 14)
    said = account().describe(2, 10, account().spent(2, 9, account().spent(1, 9, None)))
    assert f"epsilon {spent(plan, 2, 5).epsilon:.4g} at delta 1e-05 after 2 rounds" in said
    assert f"epsilon {spent(plan, 10, 5).epsilon:.4g} at delta 1e-05 after all 10" in said
    assert "at least 5 participants of every opened sum are honest" in said
    assert "no amplification by sampling" in said
    assert account().describe(0, 10, None).startswith("epsilon 0 ")


def test_without_the_library_there_is_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise PrivacyRefused("accounting needs the package dp-accounting")

    monkeypatch.setattr("coordinator.versions.privacy.spent", gone)
    with pytest.raises(PrivacyRefused, match="dp-accounting"):
        account()


def test_the_coordinator_adds_noise_in_its_own_place_only() -> None:
    declaration = load("synthetic", {"parameters": 40_000}).declare()
    plan = FoldPlan.create(declaration, Encoding.FLOAT32, 4, 1, clip_norm=1.0)
    noise = NoisePlan.of(CENTRAL, plan.size, plan.groups[0].scale_bits)
    fold = Fold(plan)
    fold.add_update(encode_update(plan, np.zeros(plan.size, np.float32), {}), 1)
    Privacy(noise, entropy_of("central")).add_noise(fold)
    drawn = fold.open().delta.astype(np.float64)
    expected = noise.variance * 4.0**-noise.scale_bits
    # Rounding widens a client's influence, by a sixteenth at most.
    assert 1 < expected < (17 / 16) ** 2
    assert abs(drawn.var() / expected - 1) < 5 * math.sqrt(2 / drawn.size)
    other = Fold(plan)
    other.add_update(encode_update(plan, np.zeros(plan.size, np.float32), {}), 1)
    distributed = NoisePlan.of(DISTRIBUTED, plan.size, plan.groups[0].scale_bits)
    Privacy(distributed, entropy_of("none")).add_noise(other)
    assert not other.open().delta.any()


def test_the_gauge_is_no_number_when_there_is_no_epsilon_and_absent_without_the_switch() -> None:
    metrics = CoordinatorMetrics()
    metrics.model(1, Figures(losses={"loss": 1.0}))
    assert "privacy_epsilon{" not in metrics.render().decode()
    metrics.model(1, Figures(privacy=account().spent(1, 9, None)))
    page = metrics.render().decode()
    assert 'ssd_coordinator_privacy_epsilon{scope="total"} ' in page
    assert 'scope="total"} NaN' not in page
    assert 'term="privacy' not in page
    metrics.model(2, Figures(privacy=account().spent(2, 4, account().spent(1, 9, None))))
    assert 'ssd_coordinator_privacy_epsilon{scope="total"} NaN' in metrics.render().decode()
