"""Server strategies against the formulas of their papers in float64, and the same bits however a vector is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator.config.sections import load
from coordinator.core.strategies import adaptive
from coordinator.core.strategies.registry import STRATEGIES, Rates, create
from coordinator.errors import ConfigInvalid

RATES = Rates(learning_rate=0.05, momentum=0.8, second_momentum=0.95, adaptivity=1e-2)
Wide = NDArray[np.float64]
Step = Callable[[list[Wide]], Wide]


def averaged(means: list[Wide]) -> Wide:
    return RATES.learning_rate * means[-1]


def velocity(means: list[Wide]) -> Wide:
    return np.sum([RATES.momentum**age * mean for age, mean in enumerate(reversed(means))], axis=0)


def with_momentum(means: list[Wide]) -> Wide:
    return RATES.learning_rate * velocity(means)


def nesterov(means: list[Wide]) -> Wide:
    return RATES.learning_rate * (means[-1] + RATES.momentum * velocity(means))


def adapted(second: Wide, means: list[Wide]) -> Wide:
    first = (1 - RATES.momentum) * velocity(means)
    return RATES.learning_rate * first / (np.sqrt(second) + RATES.adaptivity)


def adagrad(means: list[Wide]) -> Wide:
    return adapted(np.sum(np.square(means), axis=0), means)


def adam(means: list[Wide]) -> Wide:
    decay = RATES.second_momentum
    return adapted(
        np.sum([(1 - decay) * decay**age * mean**2 for age, mean in enumerate(reversed(means))], axis=0),
        means,
    )


def yogi(means: list[Wide]) -> Wide:
    second = np.zeros_like(means[0])
    for mean in means:
        for index, square in enumerate(mean**2):
            sign = 0.0 if second[index] == square else (1.0 if second[index] > square else -1.0)
            second[index] -= (1 - RATES.second_momentum) * square * sign
    return adapted(second, means)


REFERENCES: dict[str, Step] = {
    "average": averaged, "momentum": with_momentum, "nesterov": nesterov, "adagrad": adagrad, "adam": adam, "yogi": yogi,
}  # fmt: skip


def test_every_strategy_has_a_reference() -> None:
    assert REFERENCES.keys() == STRATEGIES.keys()


@pytest.mark.parametrize("name", STRATEGIES)
def test_steps_are_those_of_the_paper(name: str) -> None:
    strategy, generator = create(name, RATES), np.random.default_rng(3)
    moments = {each: np.zeros(50, np.float32) for each in strategy.moments}
    means: list[Wide] = []
    for _ in range(6):
        mean = generator.normal(size=50).astype(np.float32)
        mean[0] = 0.0
        means.append(mean.astype(np.float64))
        step = strategy.step(mean.copy(), moments)
        assert step.dtype == np.float32
        np.testing.assert_allclose(step, REFERENCES[name](means), rtol=2e-5, atol=1e-8)
        assert step[0] == 0.0, "what never moved stays"


@pytest.mark.parametrize("name", STRATEGIES)
@given(cut=st.integers(1, 199), seed=st.integers(0, 1000))
def test_pieces_of_a_vector_give_the_bits_of_the_whole(name: str, cut: int, seed: int) -> None:
    strategy, generator = create(name, RATES), np.random.default_rng(seed)
    whole = {each: np.zeros(200, np.float32) for each in strategy.moments}
    parts = {each: np.zeros(200, np.float32) for each in strategy.moments}
    for _ in range(3):
        mean = generator.normal(size=200).astype(np.float32)
        expected = strategy.step(mean.copy(), whole)
        pieces = [
            strategy.step(mean[where].copy(), {each: vector[where] for each, vector in parts.items()})
            for where in (slice(0, cut), slice(cut, 200))
        ]
        assert np.concatenate(pieces).tobytes() == expected.tobytes()
        assert all(parts[each].tobytes() == whole[each].tobytes() for each in whole)


@pytest.mark.parametrize("name", ["adagrad", "adam", "yogi"])
def test_vectors_longer_than_a_block_are_moved_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for block in (7, 1 << 16):
        monkeypatch.setattr(adaptive, "_BLOCK", block)
        strategy = create(name, RATES)
        moments = {each: np.zeros(100, np.float32) for each in strategy.moments}
        results.append(strategy.step(np.linspace(-1, 1, 100, dtype=np.float32), moments).tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_extreme_updates_give_no_infinity_out_of_nothing(name: str) -> None:
    strategy = create(name, Rates(learning_rate=0.01))
    moments = {each: np.zeros(4, np.float32) for each in strategy.moments}
    for _ in range(3):
        step = strategy.step(np.array([0.0, 1e-30, -1e-8, 1e3], np.float32), moments)
        assert np.isfinite(step).all()


def test_a_rate_that_destroys_a_model_is_refused_with_what_to_set() -> None:
    base = {"run.expected_clients": 3, "round.cohort_size": 2, "transport.insecure": True}
    with pytest.raises(ConfigInvalid, match=r"adam moves every parameter by about the rate.*0\.001 to 0\.1"):
        load(None, {**base, "strategy.name": "adam"}, {})
    given_rate = load(None, {**base, "strategy.name": "adam", "strategy.learning_rate": 0.01}, {})
    assert given_rate.strategy.rates == Rates(learning_rate=0.01)
    with pytest.raises(ConfigInvalid, match="strategy.name"):
        load(None, {**base, "strategy.name": "adamw"}, {})


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(ValueError, match=r"'lion'; choose one of average, momentum"):
        create("lion", Rates())
