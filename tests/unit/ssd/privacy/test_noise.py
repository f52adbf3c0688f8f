"""Differential privacy: the bound holds for the noise that is drawn, and nothing is promised without it."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rounds.fold_samples import sample_declaration
from ssd.privacy import noise, settings
from ssd.privacy.account import spent
from ssd.privacy.noise import NoisePlan
from ssd.privacy.settings import NoisePlace, PrivacyRefused, PrivacySettings
from ssd.updates.declaration import QualityDeclaration, Reducer

SETTINGS = PrivacySettings(place=NoisePlace.DISTRIBUTED, clip_norm=1.0, noise_multiplier=1.0, delta=1e-5)
PLAN = NoisePlan(settings=SETTINGS, dimension=1000, scale_bits=14, fewest_honest=8)


def entropy_of(seed: str) -> Callable[[int], bytes]:
    numbers = itertools.count()
    return lambda n: hashlib.sha256(f"{seed} {next(numbers)}".encode()).digest()[:n]


@pytest.mark.parametrize("variance", [2.0, 7.5, 60.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
@pytest.mark.parametrize("order", [2, 3, 8, 32])
def test_the_bound_is_above_the_divergence_itself(variance: float, shift: int, order: int) -> None:
    """One value, moved by an integer: the Renyi divergence summed from Skellam's own probabilities."""
    support = np.arange(-2000, 2001)
    log_p = stats.skellam.logpmf(support, variance / 2, variance / 2)
    log_q = stats.skellam.logpmf(support - shift, variance / 2, variance / 2)
    usable = np.isfinite(log_p) & np.isfinite(log_q)
    terms = order * log_p[usable] + (1 - order) * log_q[usable]
    exact = float(np.logaddexp.reduce(terms)) / (order - 1)
    plan = object.__new__(BoundOf)
    plan.known = (shift, variance)
    assert exact <= NoisePlan.renyi(plan, order) * (1 + 1e-9)
    # And not by much where the noise is wide, or the test would say nothing.
    if variance == 60.0 and order <= 8:
        assert NoisePlan.renyi(plan, order) <= exact * 1.3


class BoundOf:
    """The bound's formula at a given sensitivity and variance."""

    known: tuple[int, float]

    @property
    def l2(self) -> float:
        return float(self.known[0])

    @property
    def l1(self) -> float:
        return float(self.known[0])

    @property
    def variance(self) -> float:
        return self.known[1]


def test_with_much_noise_the_cost_is_that_of_the_gaussian_mechanism() -> None:
    dp_accounting = pytest.importorskip("dp_accounting")
    plan = NoisePlan(settings=SETTINGS, dimension=10, scale_bits=17, fewest_honest=1)
    for rounds in (1, 10, 200):
        accountant = dp_accounting.rdp.RdpAccountant(orders=noise.ORDERS)
        accountant.compose(dp_accounting.GaussianDpEvent(SETTINGS.noise_multiplier), rounds)
        ours = spent(plan, rounds, 1).epsilon
        assert accountant.get_epsilon(SETTINGS.delta) == pytest.approx(ours, rel=1e-4)


def test_cost_grows_with_rounds_and_falls_with_noise() -> None:
    pytest.importorskip("dp_accounting")
    costs = [spent(PLAN, rounds, 8).epsilon for rounds in (0, 1, 2, 10, 100)]
    assert costs[0] == 0.0
    assert costs == sorted(set(costs))
    louder = replace(PLAN, settings=replace(SETTINGS, noise_multiplier=2.0))
    assert spent(louder, 10, 8).epsilon < spent(PLAN, 10, 8).epsilon
    assert len(spent(PLAN, 1, 8).assumptions) == 5


def test_no_epsilon_below_the_minimum_of_honest_survivors() -> None:
    with pytest.raises(PrivacyRefused, match="no epsilon"):
        spent(PLAN, 1, 7)


def test_the_fewest_honest_survivors_together_add_the_target() -> None:
    words = np.zeros(60_000, np.uint32)
    for participant in range(PLAN.fewest_honest):
        noise.add_local_noise(words, PLAN, entropy_of(f"part {participant}"))
    drawn = words.view(np.int32).astype(np.float64)
    # The variance of n normal draws is within 5 * sqrt(2 / n) of the truth but for one in a million.
    assert abs(drawn.var() / PLAN.variance - 1) < 5 * math.sqrt(2 / words.size)
    assert abs(drawn.mean()) < 5 * math.sqrt(PLAN.variance / words.size)


def test_the_sampler_is_skellam() -> None:
    drawn = noise.skellam(40_000, 4.0, entropy_of("shape"))
    values = np.arange(-6, 7)
    observed = np.array([(drawn == value).sum() for value in values])
    expected = stats.skellam.pmf(values, 2.0, 2.0) * drawn.size
    # Chi-square of 13 cells: above 55 with a probability of 5e-7.
    assert float(((observed - expected) ** 2 / expected).sum()) < 55


@pytest.mark.parametrize("variance", [noise.DRAW_VARIANCE, noise.MAX_VARIANCE])
def test_the_largest_noise_that_is_drawn_has_the_variance_it_should(variance: float) -> None:
    """In one draw, numpy's sampler loses its way when the variance is larger still."""
    drawn = noise.skellam(200_000, variance, entropy_of("largest")) / math.sqrt(variance)
    assert abs(drawn.var() - 1) < 5 * math.sqrt(2 / drawn.size)
    # The fourth moment of a normal variable is 3, its estimate's standard error sqrt(96 / n).
    assert abs((drawn**4).mean() - 3) < 5 * math.sqrt(96 / drawn.size)
    with pytest.raises(PrivacyRefused, match="sampler"):
        replace(PLAN, scale_bits=22)


def test_noise_is_fresh_on_every_call_and_from_the_given_source() -> None:
    source = entropy_of("fresh")
    assert (noise.skellam(100, 9.0, source) != noise.skellam(100, 9.0, source)).any()
    assert (noise.skellam(100, 9.0, entropy_of("a")) == noise.skellam(100, 9.0, entropy_of("a"))).all()
    with pytest.raises(PrivacyRefused, match="entropy"):
        noise.skellam(1, 1.0, lambda n: b"short")


def test_noise_stays_within_the_headroom() -> None:
    words = np.zeros(20_000, np.uint32)
    plan = replace(PLAN, dimension=words.size)
    for participant in range(12):
        noise.add_local_noise(words, plan, entropy_of(f"head {participant}"))
    largest = int(np.abs(words.view(np.int32)).max())
    assert largest <= plan.headroom(12)
    assert plan.headroom(12) < 3 * largest


def test_central_noise_is_the_whole_target_on_the_grid() -> None:
    plan = NoisePlan(
        settings=replace(SETTINGS, place=NoisePlace.CENTRAL), dimension=50_000, scale_bits=16, fewest_honest=1
    )
    total = np.full(100_000, 1 << 40)
    noise.add_central_noise(total, plan, entropy_of("central"))
    units = total - (1 << 40)
    assert abs(units.var() / plan.variance - 1) < 5 * math.sqrt(2 / total.size)
    # Pieces have noise of their own.
    assert (units[: 1 << 15] != units[1 << 16 : (1 << 16) + (1 << 15)]).any()


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 1e3, 1e18])
def test_clipping_bounds_the_norm_and_leaves_short_updates_alone(scale: float) -> None:
    delta = (np.random.default_rng(1).standard_normal(1001) * scale).astype(np.float32)
    clipped = noise.clip_update(delta, 2.0)
    norm = math.sqrt(float((clipped.astype(np.float64) ** 2).sum()))
    assert clipped.dtype == np.float32
    assert norm <= 2.0
    if np.linalg.norm(delta.astype(np.float64)) <= 1.99:
        assert clipped is delta
    else:
        assert norm > 1.9999
        assert np.allclose(clipped / norm, delta / np.linalg.norm(delta.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_update_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(PrivacyRefused):
        noise.clip_update(np.float32([1.0, value]), 1.0)


def test_rounding_widens_the_sensitivity() -> None:
    rounded = np.random.default_rng(2).uniform(-1, 1, 1000)
    rounded /= np.linalg.norm(rounded)
    integers = np.ceil(rounded * 2**14)
    assert np.linalg.norm(integers) <= PLAN.l2
    assert np.abs(integers).sum() <= PLAN.l1
    assert pytest.approx(2**14 + math.sqrt(1000)) == PLAN.l2


def test_what_would_leave_without_noise_is_refused_by_name() -> None:
    declaration = sample_declaration()
    found = settings.obstacles(replace(declaration, server_hook=True))
    assert len(found) == 3
    for text in ("'buffers' is averaged exactly", "'sums' is summed", "works with statistics"):
        assert any(text in obstacle for obstacle in found)
    alike = [replace(group, compress=True, reducer=Reducer.PLAIN_MEAN) for group in declaration.groups]
    assert settings.obstacles(replace(declaration, groups=tuple(alike))) == []
    (collected,) = settings.obstacles(
        replace(
            declaration, groups=(replace(alike[0], collect=True), *alike[1:]), server_hook=True, statistics=()
        )
    )
    assert "collected" in collected


def test_what_is_not_reported_is_named() -> None:
    quality = QualityDeclaration(features={"h": 4})
    declaration = replace(sample_declaration(), quality=quality, client_evaluation=True)
    assert settings.left_out(declaration) == [
        "statistic loss_sum",
        "statistic moments",
        "representation quality in training rounds",
        "measures on the clients' own test images",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"clip_norm": 0.0},
        {"clip_norm": math.inf},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"place": "nowhere"},
        {"min_honest": 0},
        {"min_honest": 2.0},
        {"more": 1},
    ],
)
def test_settings_that_are_none_are_refused(change: dict) -> None:
    with pytest.raises(PrivacyRefused):
        PrivacySettings.from_json(SETTINGS.to_json() | change)


def test_settings_survive_json() -> None:
    assert PrivacySettings.from_json(SETTINGS.to_json()) == SETTINGS


@pytest.mark.parametrize("change", [{"dimension": 0}, {"fewest_honest": 0}, {"scale_bits": 40}])
def test_plans_without_a_guarantee_are_refused(change: dict) -> None:
    with pytest.raises(PrivacyRefused):
        replace(PLAN, **change)
    with pytest.raises(PrivacyRefused, match="alone"):
        replace(PLAN, settings=replace(SETTINGS, place=NoisePlace.CENTRAL))
