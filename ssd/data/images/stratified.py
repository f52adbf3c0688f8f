"""Cuts a labelled set in two, with the classes in proportion in both parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssd.random_stream import RandomStream


def stratified_split(
    labels: NDArray[np.int64], test_size: int, *key: str | int
) -> tuple[list[int], list[int]]:
    """Sorted training and test indices with the classes in proportion in both.

    Each class gives floor(its share) of the `test_size` test images; the classes with the largest remainders
    (the lower label on a tie) give one more. Which images: a `RandomStream` of `key` and the class.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quota = [(int(count) * test_size) // len(labels) for count in counts]
    remainder = [(int(count) * test_size) % len(labels) for count in counts]
    by_remainder = sorted(range(len(classes)), key=lambda position: -remainder[position])
    for position in by_remainder[: test_size - sum(quota)]:
        quota[position] += 1
    test: list[int] = []
    for label, share in zip(classes.tolist(), quota, strict=True):
        members = np.flatnonzero(labels == label).tolist()
        test += RandomStream(*key, label).sample(members, share)
    held_out = set(test)
    return [index for index in range(len(labels)) if index not in held_out], sorted(test)
