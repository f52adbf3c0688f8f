import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.images.errors import DataError
from ssd.data.images.identity import DatasetIdentity
from ssd.data.partition.held_out import SCHEMES, with_test
from ssd.data.partition.partition import dirichlet, iid, load, save

TRAIN = [index % 10 for index in range(1000)]
TEST = [index % 10 for index in range(300)]


@settings(max_examples=40, deadline=None)
@given(
    alpha=st.sampled_from([0.05, 0.5, 10.0]),
    clients=st.integers(1, 8),
    seed=st.integers(0, 20),
    scheme=st.sampled_from(SCHEMES),
    test=st.lists(st.integers(0, 11), min_size=1, max_size=200),
)
def test_no_test_image_is_shared_and_nobody_is_measured_on_a_class_it_does_not_hold(
    alpha: float, clients: int, seed: int, scheme: str, test: list[int]
) -> None:
    split = with_test(dirichlet(TRAIN, clients, alpha, seed), scheme, test, "t")
    dealt = [index for indices in split.test.clients.values() for index in indices]
    assert len(set(dealt)) == len(dealt)
    for client, indices in split.test.clients.items():
        assert list(indices) == sorted(indices)
        assert {test[index] for index in indices} <= set(split.histograms[client])
        if scheme == "owned_classes":
            shares = {label: test.count(label) // clients for label in split.histograms[client]}
            assert len(indices) == sum(shares.values())
    if scheme == "proportional":
        assert len(dealt) == sum(label < 10 for label in test), "every image of a held class is used"


def test_proportional_shares_are_within_an_image_of_the_training_mixture() -> None:
    split = with_test(dirichlet(TRAIN, 5, 0.3, seed=4), "proportional", TEST, "t")
    for client, indices in split.test.clients.items():
        counts = np.bincount([TEST[index] for index in indices], minlength=10)
        exact = np.array([30 * split.histograms[client].get(label, 0) / 100 for label in range(10)])
        assert (np.abs(counts - exact) <= 1).all()
    others = with_test(dirichlet(TRAIN, 5, 0.3, seed=4), "owned_classes", TEST, "t")
    assert others.test.clients != split.test.clients


def test_half_a_test_image_goes_to_the_client_before() -> None:
    split = with_test(iid(4, 2, seed=0, labels=[0] * 4), "proportional", [0] * 3, "t")
    assert [len(indices) for indices in split.test.clients.values()] == [2, 1]


def test_owned_classes_are_taken_in_the_order_of_the_data_set_and_the_last_images_stay_over() -> None:
    split = with_test(dirichlet(TRAIN, 5, 0.05, seed=1), "owned_classes", TEST, "t")
    for label in range(10):
        owners = [client for client in split.clients if label in split.histograms[client]]
        members = [index for index in range(300) if TEST[index] == label]
        for position, client in enumerate(owners):
            mine = [index for index in split.test.clients[client] if TEST[index] == label]
            assert mine == members[6 * position : 6 * position + 6]


def test_test_images_are_saved_and_loaded_with_the_split_they_are_of(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    split = with_test(dirichlet(TRAIN, 5, 0.3, seed=4, dataset="tens"), "proportional", TEST, "tens-test")
    save(split, path)
    train, test = DatasetIdentity.of("tens", TRAIN), DatasetIdentity.of("tens-test", TEST)
    assert load(path, train, test) == split
    with pytest.raises(DataError, match="made for tens-test"):
        load(path, train, DatasetIdentity.of("tens-test", TEST[1:]))
    plain = dirichlet(TRAIN, 5, 0.3, seed=4, dataset="tens")
    save(plain, path)
    assert load(path, train, test) == plain


def shared(value: Any) -> None:
    rows = value["clients"]
    rows["client-001"]["test"] = sorted({*rows["client-001"]["test"], rows["client-000"]["test"][0]})


def beyond(value: Any) -> None:
    value["clients"]["client-000"]["test"].append(300)


def missing(value: Any) -> None:
    del value["clients"]["client-000"]["test"]


def fractional(value: Any) -> None:
    value["clients"]["client-000"]["test"][0] = 0.5


@pytest.mark.parametrize(
    "damage", [shared, beyond, missing, fractional], ids=lambda function: function.__name__
)
def test_damaged_test_images_are_refused(tmp_path: Path, damage: Callable[[Any], None]) -> None:
    path = tmp_path / "partition.json"
    save(with_test(iid(1000, 3, seed=2, labels=TRAIN), "proportional", TEST, "t"), path)
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"partition\.json"):
        load(path)


@pytest.mark.parametrize(
    "call",
    [
        lambda: with_test(iid(10, 2, seed=0), "proportional", [0, 1], "t"),
        lambda: with_test(dirichlet(TRAIN, 2, 1, seed=0), "fair", TEST, "t"),
        lambda: with_test(
            with_test(dirichlet(TRAIN, 2, 1, seed=0), "proportional", TEST, "t"), "proportional", TEST, "t"
        ),
    ],
)
def test_impossible_test_shares_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(DataError):
        call()
