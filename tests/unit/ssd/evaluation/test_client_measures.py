import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd.evaluation.client_measures import (
    MOST_NAMES,
    RESERVED,
    BadMeasures,
    add,
    add_client,
    check,
    describe,
    is_client_measure,
    known,
)

CLIENTS = st.lists(
    st.integers(1, 500).flatmap(lambda images: st.tuples(st.integers(0, images), st.just(images))),
    min_size=1,
    max_size=30,
)


def sums_of(clients: list[tuple[int, int]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for correct, images in clients:
        sums = add_client(sums, {"correct": correct, "images": images, "loss": 0.5 * images})
    return sums


@given(clients=CLIENTS, data=st.data())
def test_the_measures_are_those_of_all_clients_however_workers_share_them(
    clients: list[tuple[int, int]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(clients)))
    sums = add(sums_of(clients[:cut]), sums_of(clients[cut:]))
    check(sums, len(clients))
    measures = describe(sums)
    accuracies = np.array([correct / images for correct, images in clients])
    assert measures["personalised_clients"] == len(clients)
    assert measures["personalised_accuracy"] == pytest.approx(accuracies.mean())
    assert measures["personalised_accuracy_std"] == pytest.approx(accuracies.std(), abs=1e-6)
    correct, images = map(sum, zip(*clients, strict=True))
    assert measures["pooled_client_accuracy"] == pytest.approx(correct / images)
    assert measures["client_sum_loss"] == pytest.approx(0.5 * images)
    assert all(is_client_measure(name) for name in measures)


def test_a_small_client_counts_as_much_as_a_large_one_and_an_image_as_much_as_another() -> None:
    measures = describe(sums_of([(1, 1), (0, 99)]))
    assert measures["personalised_accuracy"] == 0.5
    assert measures["personalised_accuracy_std"] == 0.5
    assert measures["pooled_client_accuracy"] == 0.01


def test_a_client_without_an_accuracy_does_not_pull_the_mean_down() -> None:
    sums = add_client(sums_of([(8, 10), (6, 10)]), {"regret": 1.0})
    check(sums, 3)
    measures = describe(sums)
    assert measures["personalised_clients"] == 3
    assert measures["personalised_accuracy"] == pytest.approx(0.7)
    assert measures["personalised_accuracy_std"] == pytest.approx(0.1)


def test_without_accuracies_only_sums_are_told() -> None:
    sums = add_client(add_client({}, {"regret": 1.5}), {"regret": 2.0})
    check(sums, 2)
    assert describe(sums) == {"personalised_clients": 2.0, "client_sum_regret": 3.5}
    assert not is_client_measure("linear_probe_all")


@pytest.mark.parametrize(
    "measured",
    [
        {"correct": 3, "images": 2},
        {"correct": -1, "images": 2},
        {"correct": 0, "images": 0},
        {"correct": 1},
        {"images": 1},
        {"correct": math.nan, "images": 1},
        {"loss": math.inf},
        {"clients": 1},
        {"accuracy_sum": 1},
    ],
)
def test_what_no_client_can_measure_is_refused(measured: dict[str, float]) -> None:
    with pytest.raises(BadMeasures):
        add_client({}, measured)


GOOD = {
    "clients": 2.0,
    "correct": 3.0,
    "images": 9.0,
    "clients_with_accuracy": 2.0,
    "accuracy_sum": 0.6,
    "accuracy_squares": 0.2,
    "loss": 1.0,
}


@pytest.mark.parametrize(
    "change",
    [
        {"clients": 3.0},
        {"correct": 10.0},
        {"correct": -1.0},
        {"images": 0.0, "correct": 0.0},
        {"accuracy_sum": 2.1},
        {"accuracy_squares": -0.1},
        {"clients_with_accuracy": 3.0},
        {"clients_with_accuracy": 0.0, "accuracy_sum": 0.0, "accuracy_squares": 0.0},
        {"loss": math.nan},
        {"loss": 1e300},
        {"Loss": 1.0},
        {"l" * 65: 1.0},
        {f"name_{number}": 1.0 for number in range(64)},
    ],
)
def test_sums_no_worker_can_have_are_refused(change: dict[str, float]) -> None:
    check(GOOD, 2)
    with pytest.raises(BadMeasures):
        check({**GOOD, **change}, 2)


@pytest.mark.parametrize("missing", sorted(set(GOOD) - {"loss"}))
def test_incomplete_sums_are_refused(missing: str) -> None:
    with pytest.raises(BadMeasures):
        check({name: value for name, value in GOOD.items() if name != missing}, 2)


def test_the_sums_of_many_workers_have_no_more_names_than_those_of_one() -> None:
    """Each of them invents as many as `check` lets it; what every method has still finds room."""
    sums: dict[str, float] = {}
    for worker in range(20):
        more = add_client({}, {"correct": 1.0, "images": 2.0}) | {f"w{worker}_{n}": 1.0 for n in range(50)}
        check(more, 1)
        sums = add(sums, known(sums, more))
    assert len(sums) <= MOST_NAMES + len(RESERVED) + 2
    assert sums["clients"] == sums["images"] / 2 == 20
    assert sums["w0_0"] == 1.0
    assert known(sums, {"w0_0": 3.0, "new": 1.0, "clients": 1.0}) == {"w0_0": 3.0, "clients": 1.0}
