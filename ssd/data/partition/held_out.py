"""Which images of a data set's test split each client is measured on.

A client's own test images answer what a personalised model is worth to that client, which one test set for all
cannot. Both schemes look only at which classes a client holds (and how many of each), and share nothing out twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

import numpy as np

from ssd.data.images.errors import DataError
from ssd.data.images.identity import DatasetIdentity
from ssd.data.partition.partition import HeldOut, Partition
from ssd.random_stream import RandomStream

SCHEMES = ("proportional", "owned_classes")
Counts = Sequence[int]


def with_test(partition: Partition, scheme: str, labels: Sequence[int], dataset: str) -> Partition:
    """The partition with test images for its clients.

    Args:
        partition: of a labelled training split.
        scheme: `proportional`: of each class, the test images are dealt out in the proportions in which the clients
            hold that class's training images, so that a client is measured on the mixture it learns from; all test
            images of every held class are used. `owned_classes`: a client gets, of every class it holds, the
            equal share floor(images / clients), whatever it holds of it, and what is left over is used by nobody:
            the division of FedGen's official code (commit d767e34, `generate_niid_dirichlet.py`). As there, the shares
            are taken in the data set's own order, which for MNIST matters: the second half of its test split is the
            harder one, and the images left over are the last ones.
        labels: of the test split, in order.
        dataset: the test split's name.

    Raises:
        DataError: an unknown scheme, a partition without labels, or one that has test images already.
    """
    shares: dict[str, Callable[[Counts, list[int], int, int], list[list[int]]]] = {
        "proportional": _proportional,
        "owned_classes": _equal,
    }
    if scheme not in shares:
        raise DataError(f"test images are shared out as {' or '.join(SCHEMES)}, not {scheme!r}")
    if not partition.histograms:
        raise DataError("test images are shared out by class, but this partition was made without labels")
    if partition.test is not None:
        raise DataError(f"the clients of this partition have {partition.test.scheme} test images already")
    owned: dict[str, list[int]] = {client: [] for client in partition.clients}
    truth = np.asarray(labels, dtype=np.int64)
    for label in np.unique(truth).tolist():
        counts = [_count(partition.histograms, client, label) for client in partition.clients]
        members = np.flatnonzero(truth == label).tolist()
        if any(counts):
            dealt = shares[scheme](counts, members, partition.seed, label)
            for mine, share in zip(owned.values(), dealt, strict=True):
                mine.extend(share)
    held_out = HeldOut(
        dataset=DatasetIdentity.of(dataset, labels),
        scheme=scheme,
        clients={client: tuple(sorted(share)) for client, share in owned.items()},
    )
    return replace(partition, test=held_out)


def _count(histograms: Mapping[str, Mapping[int, int]], client: str, label: int) -> int:
    return histograms.get(client, {}).get(label, 0)


def _proportional(counts: Counts, members: list[int], seed: int, label: int) -> list[list[int]]:
    """Cut the shuffled images at the running sums of the counts; half an image rounds up."""
    order = RandomStream("partition-test", seed, label).permutation(len(members))
    total = sum(counts)
    cuts = [0, *((2 * len(members) * upto + total) // (2 * total) for upto in accumulate(counts))]
    return [[members[position] for position in order[start:stop]] for start, stop in pairwise(cuts)]


def _equal(counts: Counts, members: list[int], _seed: int, _label: int) -> list[list[int]]:
    each = len(members) // len(counts)
    stops = [each * upto for upto in accumulate(int(count > 0) for count in counts)]
    return [members[start:stop] for start, stop in pairwise([0, *stops])]
