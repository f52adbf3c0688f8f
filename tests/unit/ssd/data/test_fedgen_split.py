import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd.data.images.errors import DataError
from ssd.data.partition.fedgen_split import fedgen
from ssd.digest import json_digest

MNIST_LIKE = [index % 10 for index in range(60_000)]
SMALL = [index % 10 for index in range(2000)]


def test_half_of_mnist_over_twenty_clients_is_fifteen_thousand_images() -> None:
    split = fedgen(MNIST_LIKE, 20, 0.1, seed=1)
    per_class = np.zeros(10, dtype=int)
    for client in split.clients:
        for label, count in split.histograms[client].items():
            per_class[label] += count
    assert per_class.tolist() == [1500] * 10
    sizes = [len(indices) for indices in split.clients.values()]
    assert min(sizes) >= 10
    assert max(sizes) < 3000, "who holds 1,500 gets nothing of the classes still to come"
    assert (split.scheme, split.ratio, split.alpha, split.min_size) == ("fedgen", 0.5, 0.1, 10)


@settings(max_examples=30, deadline=None)
@given(alpha=st.sampled_from([0.1, 1.0, 50.0]), clients=st.integers(1, 8), seed=st.integers(0, 50))
def test_nobody_shares_an_image_and_the_poorest_has_enough(alpha: float, clients: int, seed: int) -> None:
    split = fedgen(SMALL, clients, alpha, seed, ratio=0.4, min_size=5)
    owned = [index for indices in split.clients.values() for index in indices]
    assert len(set(owned)) == len(owned) == 10 * min(80, int(0.4 * 2000 / clients))
    assert min(map(len, split.clients.values())) >= 5


def test_a_ratio_of_one_deals_out_everything() -> None:
    split = fedgen(SMALL, 5, 1.0, seed=2, ratio=1.0)
    assert sum(map(len, split.clients.values())) == 2000


def test_the_shares_of_the_first_class_are_one_dirichlet_draw() -> None:
    # Nobody holds the cap before the first class; with one class there is no other. Marginal variance of a
    # symmetric Dirichlet: (K-1) / (K^2 (K alpha + 1)).
    clients, alpha = 5, 0.5
    shares = [
        len(indices) / 200
        for seed in range(300)
        for indices in fedgen([0] * 2000, clients, alpha, seed, min_size=0).clients.values()
    ]
    assert np.mean(shares) == pytest.approx(1 / clients)
    expected = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert np.var(shares) == pytest.approx(expected, rel=0.15)


def test_the_same_arguments_draw_the_same_split_on_every_machine() -> None:
    # A golden value: a change here silently changes every experiment that draws its split anew.
    split = fedgen(SMALL, 5, 0.3, seed=7)
    assert split == fedgen(SMALL, 5, 0.3, seed=7)
    assert split.clients != fedgen(SMALL, 5, 0.3, seed=8).clients
    assert json_digest({name: list(rows) for name, rows in split.clients.items()})[:16] == "f959110c277bb08b"


@pytest.mark.parametrize(
    "call",
    [
        lambda: fedgen(SMALL, 0, 0.1, 0),
        lambda: fedgen(SMALL, 5, 0.0, 0),
        lambda: fedgen(SMALL, 5, math.inf, 0),
        lambda: fedgen(SMALL, 5, 0.1, 0, ratio=0.0),
        lambda: fedgen(SMALL, 5, 0.1, 0, ratio=1.1),
        lambda: fedgen(SMALL, 100, 0.1, 0),
    ],
)
def test_impossible_splits_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(DataError):
        call()
