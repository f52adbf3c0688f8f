"""Two more ways in which clients' images differ: a few classes each, and unequal numbers of images."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ssd.data.images.errors import DataError
from ssd.data.images.identity import DatasetIdentity
from ssd.data.partition.partition import Partition, assemble, check_counts, cuts, fill_up
from ssd.data.partition.portion import Portion
from ssd.random_stream import RandomStream


def pathological(
    labels: Sequence[int],
    clients: int,
    classes_per_client: int,
    seed: int,
    *,
    dataset: str = "unnamed",
    portion: Portion | None = None,
) -> Partition:
    """Every client holds images of exactly so many classes.

    In the manner of the "pathological" split of arXiv 1602.05629, section 3, which cuts the sorted images into shards;
    here no shard has two classes. The classes are dealt out in random order, so that the numbers of clients which hold
    two classes differ by one at most, but for what it takes that nobody is dealt one twice. A class's images go to its
    holders in equal parts; those of a class that nobody holds, to nobody.

    Raises:
        DataError: impossible numbers, or a class has fewer images than holders.
    """
    truth = np.asarray(labels, dtype=np.int64)
    dealt = np.arange(len(truth)) if portion is None else np.array(portion.choose(len(truth), labels, seed))
    known = np.unique(truth[dealt]).tolist()
    if not 1 <= classes_per_client <= len(known):
        raise DataError(f"a client can hold 1 to {len(known)} of these classes, not {classes_per_client}")
    check_counts(len(dealt), clients, min_size=1)
    holders: dict[int, list[int]] = {label: [] for label in known}
    waiting: deque[int] = deque()
    dealing = 0
    for client in range(clients):
        mine: list[int] = []
        while len(mine) < classes_per_client:
            label = next((each for each in waiting if each not in mine), None)
            if label is None:
                order = RandomStream("partition-classes", seed, dealing).permutation(len(known))
                waiting.extend(known[position] for position in order)
                dealing += 1
                continue
            waiting.remove(label)
            mine.append(label)
            holders[label].append(client)
    shares: list[list[int]] = [[] for _ in range(clients)]
    for label, held_by in holders.items():
        members = dealt[truth[dealt] == label]
        if len(members) < len(held_by):
            raise DataError(
                f"the {len(members)} images of class {label} cannot be dealt out to {len(held_by)} clients: take fewer "
                "clients or classes for each"
            )
        order = RandomStream("partition-order", seed, label).permutation(len(members))
        for number, client in enumerate(held_by):
            shares[client].extend(int(members[position]) for position in order[number :: len(held_by)])
    return assemble(
        DatasetIdentity.of(dataset, labels), "pathological", seed, shares, labels,
        min_size=1, portion=portion, classes_per_client=classes_per_client,
    )  # fmt: skip


def quantity(
    labels: Sequence[int],
    clients: int,
    alpha: float,
    seed: int,
    *,
    min_size: int = 10,
    dataset: str = "unnamed",
    portion: Portion | None = None,
) -> Partition:
    """Clients differ in how many images they have and in nothing else: sizes are one draw from Dirichlet(alpha, …, alpha).

    As the quantity skew of arXiv 2102.02079, section IV. Clients below `min_size` are filled up as in `dirichlet`.

    Raises:
        DataError: impossible numbers.
    """
    if not alpha > 0:
        raise DataError(f"the Dirichlet concentration must be positive, not {alpha}")
    truth = np.asarray(labels, dtype=np.int64)
    dealt = list(range(len(truth))) if portion is None else portion.choose(len(truth), labels, seed)
    check_counts(len(dealt), clients, min_size)
    order = [dealt[position] for position in RandomStream("partition-quantity", seed).permutation(len(dealt))]
    places = cuts(len(order), clients, alpha, RandomStream("partition-sizes", seed))
    shares = [order[start:stop] for start, stop in pairwise(places)]
    fill_up(shares, truth, min_size)
    return assemble(
        DatasetIdentity.of(dataset, labels), "quantity", seed, shares, labels,
        alpha=float(alpha), min_size=min_size, portion=portion,
    )  # fmt: skip
