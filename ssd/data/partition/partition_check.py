"""What can be wrong with the indices of a partition that was read from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ssd.data.partition.partition import Partition


def problem_of(partition: Partition) -> str | None:
    """What is wrong, or None: nobody, indices out of range, unsorted or owned twice, counts that do not add up."""
    if not partition.clients:
        return "it names no clients"
    problem = _indices_problem(partition.clients, partition.dataset.size, "image")
    if problem:
        return problem
    for client, indices in partition.clients.items():
        histogram = partition.histograms.get(client)
        if histogram is not None and sum(histogram.values()) != len(indices):
            return f"the label counts of client {client!r} do not add up to its {len(indices)} images"
    if partition.test is not None:
        return _indices_problem(partition.test.clients, partition.test.dataset.size, "test image")
    return None


def _indices_problem(clients: Mapping[str, tuple[int, ...]], size: int, what: str) -> str | None:
    owner = np.full(size, -1, dtype=np.int64)
    names = list(clients)
    for number, (client, indices) in enumerate(clients.items()):
        if indices and not 0 <= min(indices) <= max(indices) < size:
            return f"client {client!r} owns {what}s outside 0..{size - 1}"
        array = np.asarray(indices, dtype=np.int64)
        if (np.diff(array) <= 0).any():
            return f"the {what} indices of client {client!r} are not strictly ascending"
        taken = owner[array]
        if (taken >= 0).any():
            where = int(array[np.argmax(taken >= 0)])
            return f"{what} {where} belongs to both {names[owner[where]]!r} and {client!r}"
        owner[array] = number
    return None
