"""Scaling vectors: persistent, disjoint while possible, balanced always, overlapping as little as can be."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssd.scaling import ScalingError, ScalingVector, assign, block_size, rotated_basis


def vectors(count: int, dimension: int, block: int, **options: Any) -> list[ScalingVector]:
    chosen = {"expected_clients": 1, "allocation": "auto", "alpha": 10.0, "seed": 17, **options}
    return [assign(index, dimension=dimension, block=block, **chosen) for index in range(count)]


def incidence(dealt: list[ScalingVector]) -> NDArray[np.int64]:
    rows = np.zeros((len(dealt), dealt[0].dimension), np.int64)
    for row, vector in zip(rows, dealt, strict=True):
        row[list(vector.indices)] = 1
    return rows


def overlaps(dealt: list[ScalingVector]) -> NDArray[np.int64]:
    # Floats are multiplied many times faster than integers, and counts as small as these are exact in them.
    rows = incidence(dealt).astype(np.float32)
    shared = (rows @ rows.T).astype(np.int64)
    return shared[np.triu_indices(len(dealt), 1)]


spaces = st.integers(1, 70).flatmap(lambda d: st.tuples(st.just(d), st.integers(1, d)))


@given(spaces, st.integers(1, 60), st.booleans())
@settings(max_examples=150, deadline=None)
def test_loads_are_balanced_after_every_client(space: tuple[int, int], count: int, shuffle: bool) -> None:
    dimension, block = space
    dealt = vectors(count, dimension, block, shuffle=shuffle)
    assert all(len(vector.indices) == block for vector in dealt)
    loads = incidence(dealt).cumsum(axis=0)
    assert (loads.max(axis=1) - loads.min(axis=1)).max() <= 1


@given(spaces, st.integers(0, 2**64), st.booleans())
@settings(max_examples=100, deadline=None)
def test_clients_share_nothing_while_that_is_possible(
    space: tuple[int, int], seed: int, shuffle: bool
) -> None:
    dimension, block = space
    room = dimension // block
    balanced = vectors(room, dimension, block, seed=seed, shuffle=shuffle)
    assert overlaps(balanced).sum() == 0
    assert balanced == vectors(room, dimension, block, seed=seed, shuffle=shuffle, allocation="disjoint")
    with pytest.raises(ScalingError, match="room for"):
        assign(
            room,
            dimension=dimension,
            expected_clients=1,
            block=block,
            allocation="disjoint",
            alpha=10.0,
            seed=seed,
        )


@given(spaces, st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_clients_of_one_pass_share_nothing(space: tuple[int, int], pass_number: int) -> None:
    dimension, block = space
    first = -(-pass_number * dimension // block)
    last = (pass_number + 1) * dimension // block
    dealt = vectors(last, dimension, block)[first:]
    if len(dealt) > 1:
        assert overlaps(dealt).sum() == 0


@pytest.mark.parametrize(("clients", "block"), [(10, 51), (50, 10)])
def test_the_official_parameters(clients: int, block: int) -> None:
    assert block_size(512, clients, None) == block
    dealt = [
        assign(
            index,
            dimension=512,
            expected_clients=clients,
            block=None,
            allocation="disjoint",
            alpha=10.0,
            seed=17,
        )
        for index in range(clients)
    ]
    assert overlaps(dealt).sum() == 0
    assert all(len(vector.indices) == block for vector in dealt)
    dense = dealt[0].dense()
    assert dense.dtype == np.float64
    assert sorted(set(dense.tolist())) == [1.0, 10.0]
    assert int((dense == 10.0).sum()) == block


@pytest.mark.parametrize(("rows", "block"), [(5, 3), (7, 7), (11, 4), (5, 12), (53, 10), (11, 51)])
def test_without_empty_places_the_overlap_is_the_smallest_possible(rows: int, block: int) -> None:
    # d = m * q with q prime: the claim is proved for the first q * q clients.
    dealt = vectors(min(rows * rows, 700), rows * block, block)
    largest = overlaps(dealt).max()
    assert largest <= math.ceil(block / rows)
    # A client's m dimensions fall into the q clients of another pass: some must share ceil(m / q).
    assert largest >= math.ceil(block / rows)


@pytest.mark.parametrize(
    ("dimension", "block", "clients", "most", "mean"),
    [
        (512, 10, 2000, 3, 0.20),  # cross-device: K = 50 expected, a population of 2,000
        (512, 51, 100, 8, 5.1),  # cross-silo: K = 10 expected, 100 enrol
        (512, 5, 1000, 2, 0.05),
        (512, 1, 1200, 1, 0.002),
        (128, 12, 120, 5, 1.15),
        (2048, 20, 400, 3, 0.2),
    ],
)
def test_beyond_one_pass_overlaps_stay_small(
    dimension: int, block: int, clients: int, most: int, mean: float
) -> None:
    shared = overlaps(vectors(clients, dimension, block))
    assert shared.max() <= most
    assert shared.mean() <= mean, "no allocation that is balanced can be below about m * m / d"


def test_a_vector_depends_on_the_index_alone() -> None:
    forwards = vectors(120, 64, 7)
    backwards = [vectors(index + 1, 64, 7)[index] for index in (119, 60, 3)]
    assert backwards == [forwards[index] for index in (119, 60, 3)]
    again = assign(60, dimension=64, expected_clients=9, block=7, allocation="auto", alpha=10.0, seed=17)
    assert again == forwards[60], "with the block given, the number of expected clients does not matter"


def test_the_seed_decides_the_axes_and_shuffle_can_be_switched_off() -> None:
    assert vectors(3, 64, 8, seed=1) != vectors(3, 64, 8, seed=2)
    plain = vectors(3, 64, 8, shuffle=False)
    assert [vector.indices for vector in plain] == [tuple(range(8 * i, 8 * i + 8)) for i in range(3)]


def test_a_block_is_at_least_one_dimension() -> None:
    assert block_size(8, 1000, None) == 1
    assert block_size(8, 1, None) == 8
    everything = vectors(3, 8, 8)
    assert all(vector.indices == tuple(range(8)) for vector in everything)


@pytest.mark.parametrize(
    "wrong",
    [
        {"index": -1},
        {"dimension": 0},
        {"expected_clients": 0},
        {"block": 0},
        {"block": 65},
        {"allocation": "random"},
        {"alpha": 0.0},
        {"alpha": -1.0},
        {"alpha": math.nan},
        {"alpha": math.inf},
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "index": 0,
        "dimension": 64,
        "expected_clients": 4,
        "block": None,
        "allocation": "auto",
        "alpha": 10.0,
        "seed": 1,
    }
    assign(**good)
    with pytest.raises(ScalingError):
        assign(**{**good, **wrong})


def test_json_brings_back_the_same_vector() -> None:
    vector = vectors(1, 64, 8)[0]
    assert ScalingVector.from_json(vector.to_json()) == vector
    assert "dense" not in str(vector.to_json())


@pytest.mark.parametrize(
    "wrong",
    [
        {"indices": [0, 0]},
        {"indices": [1, 0]},
        {"indices": [-1]},
        {"indices": [8]},
        {"indices": [0.5]},
        {"indices": [True]},
        {"indices": None},
        {"dimension": "8"},
        {"alpha": None},
        {"alpha": 0},
    ],
)
def test_json_that_is_no_vector_is_refused(wrong: dict[str, Any]) -> None:
    good = {"dimension": 8, "indices": [0, 3], "alpha": 10.0}
    ScalingVector.from_json(good)
    with pytest.raises(ScalingError):
        ScalingVector.from_json({**good, **wrong})
    for key in good:
        with pytest.raises(ScalingError):
            ScalingVector.from_json({name: value for name, value in good.items() if name != key})


def test_two_clients_directions_are_farther_apart_than_one_clients() -> None:
    dense = [vector.dense() for vector in vectors(10, 512, 51)]
    cosines = [a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in itertools.combinations(dense, 2)]
    assert max(cosines) < 0.5


@pytest.mark.parametrize("dimension", [1, 2, 64, 512])
def test_a_rotated_basis_is_orthonormal(dimension: int) -> None:
    basis = rotated_basis(dimension, 3)
    assert basis.dtype == np.float32
    assert basis.flags.c_contiguous
    np.testing.assert_allclose(basis.T @ basis, np.eye(dimension), atol=2e-6)
    if dimension > 1:
        assert (rotated_basis(dimension, 4) != basis).any()
