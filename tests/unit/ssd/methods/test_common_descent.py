"""Multi-objective aggregation: the min-norm solver and the step along its solution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rounds.reductions import Vector, reduction
from ssd.method.protocol import Reduction
from ssd.methods.server_steps import common_descent as module
from ssd.methods.server_steps.common_descent import CommonDescent, common_descent
from ssd.methods.server_steps.min_norm import min_norm_weights
from ssd.updates.spec import Kind, ParameterSpec

SPEC = ParameterSpec.build(
    [
        ("encoder.weight", (4, 3), "encoder", Kind.PARAMETER),
        ("projector.weight", (2, 2), "projector", Kind.PARAMETER),
        ("norm.running_mean", (3,), "buffers", Kind.BUFFER),
    ]
)
GROUPS = ["encoder", "projector"]
PARAMETERS = slice(0, SPEC.groups["buffers"].start)
BASE = np.zeros(SPEC.size, dtype=np.float32)


def vector(seed: int, scale: float = 1.0) -> Vector:
    return (scale * np.random.default_rng(seed).standard_normal(SPEC.size)).astype(np.float32)


def run(made: Reduction, server_rate: float | None = None) -> CommonDescent:
    return common_descent(made, SPEC, GROUPS, server_rate=server_rate)


def cohort(count: int, seed: int = 0) -> dict[str, tuple[int, Vector]]:
    return {f"client-{i:03}": (i + 1, vector(seed + i, 0.1 * (i + 1))) for i in range(count)}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 10_000))
def test_the_solution_is_the_shortest_point_of_the_hull(count: int, size: int, seed: int) -> None:
    """Optimality on a simplex: no vector has a smaller inner product with the solution than the solution itself."""
    vectors = np.random.default_rng(seed).standard_normal((count, size)) + 0.3
    gram = vectors @ vectors.T
    weights = min_norm_weights(gram, np.ones(count))
    point = weights @ vectors
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0)
    assert (vectors @ point).min() >= point @ point - 1e-8 * gram.diagonal().max()


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5]),
        ([[2.0, 0.0], [0.0, 1.0]], [0.2, 0.8]),
        ([[1.0, 0.0], [3.0, 0.0]], [1.0, 0.0]),
        ([[1.0, 1.0], [1.0, -1.0], [5.0, 0.0]], [0.5, 0.5, 0.0]),
        ([[1.0, 0.0], [-3.0, 0.0]], [0.75, 0.25]),
    ],
)
def test_solutions_one_can_see(vectors: list[list[float]], expected: list[float]) -> None:
    points = np.array(vectors)
    assert np.allclose(min_norm_weights(points @ points.T, np.ones(len(points))), expected, atol=1e-9)


def test_where_the_solution_is_not_unique_the_start_decides_and_equal_input_gives_equal_bits() -> None:
    gram = np.ones((3, 3))
    start = np.array([3.0, 2.0, 5.0])
    assert np.allclose(min_norm_weights(gram, start), start / 10)
    random = np.random.default_rng(0).standard_normal((9, 4))
    first, again = (min_norm_weights(random @ random.T, np.arange(1.0, 10.0)) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("start", [[-1.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [1.0]])
def test_a_start_that_is_no_set_of_weights_is_refused(start: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        min_norm_weights(np.eye(2), np.array(start))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10_000))
def test_the_step_turns_against_no_client(count: int, seed: int) -> None:
    clients = cohort(count, seed)
    made = run(reduction(SPEC, BASE.copy(), clients))
    for _, delta in clients.values():
        unit = delta[PARAMETERS] / np.linalg.norm(delta[PARAMETERS])
        assert float(unit @ made.delta[PARAMETERS]) >= -1e-6


def test_one_client_gives_that_clients_model() -> None:
    clients = cohort(1)
    made = run(reduction(SPEC, BASE.copy(), clients))
    assert np.allclose(made.delta, clients["client-000"][1], atol=1e-6)
    assert made.agreement == pytest.approx(1.0)


def test_equal_updates_give_the_average_and_the_released_rate_a_step_of_its_own_length() -> None:
    delta = vector(3)
    made = reduction(SPEC, BASE.copy(), {"a": (1, delta), "b": (7, delta)})
    assert np.allclose(run(made).delta, made.delta, atol=1e-6)
    length = float(np.linalg.norm(delta[PARAMETERS]))
    released = run(made, server_rate=8.0)
    assert np.allclose(released.delta[PARAMETERS], 16.0 * delta[PARAMETERS] / length, atol=1e-4)
    assert released.step == pytest.approx(16.0, rel=1e-6)


def test_only_directions_matter_for_the_direction() -> None:
    """Unlike the average, a client with a hundred times longer update does not outvote the others."""
    clients = cohort(3)
    shouting = {**clients, "client-001": (2, 100.0 * clients["client-001"][1])}
    first, second = (
        run(reduction(SPEC, BASE.copy(), each)).delta[PARAMETERS] for each in (clients, shouting)
    )
    assert np.allclose(first / np.linalg.norm(first), second / np.linalg.norm(second), atol=1e-5)


def test_opposite_clients_cancel_and_silent_ones_are_left_out() -> None:
    delta = vector(5)
    opposed = run(reduction(SPEC, BASE.copy(), {"a": (1, delta), "b": (1, -3.0 * delta)}))
    assert np.allclose(opposed.delta[PARAMETERS], 0.0, atol=1e-6)
    assert opposed.agreement == pytest.approx(0.0, abs=1e-6)
    silent = np.zeros_like(delta)
    with_silent = run(reduction(SPEC, BASE.copy(), {"a": (1, delta), "b": (1, silent)}))
    assert np.allclose(with_silent.delta[PARAMETERS], 0.5 * delta[PARAMETERS], atol=1e-6)
    nobody = run(reduction(SPEC, BASE.copy(), {"a": (1, silent), "b": (1, silent)}))
    assert not nobody.delta[PARAMETERS].any()


def test_buffers_keep_the_mean_they_were_reduced_to() -> None:
    made = reduction(SPEC, BASE.copy(), cohort(4))
    where = SPEC.groups["buffers"]
    assert np.array_equal(run(made).delta[where], made.delta[where])


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(5)))
def test_who_sent_which_update_does_not_matter(order: list[int]) -> None:
    clients = cohort(5)
    values = list(clients.values())
    swapped = {name: values[place] for name, place in zip(clients, order, strict=True)}
    first, second = (run(reduction(SPEC, BASE.copy(), each)).delta for each in (clients, swapped))
    assert np.allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("block", [8, 64, 8 * 5 * 3, 1 << 20])
def test_the_size_of_a_block_does_not_change_the_step(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    whole = run(reduction(SPEC, BASE.copy(), cohort(5))).delta
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    assert np.allclose(run(reduction(SPEC, BASE.copy(), cohort(5))).delta, whole, atol=1e-6)
