"""Which labelled images a few-label evaluation may use: the same draws for every encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd.random_stream import RandomStream


def draw(labels: Sequence[int], per_class: int, *, seed: int, number: int) -> list[int]:
    """Sorted indices of `per_class` images of every class.

    A function of (labels, per_class, seed, number) alone, so two encoders are always compared on the same
    labelled images. A class with fewer images than asked for gives all it has.
    """
    if per_class < 1:
        raise ValueError(f"a few-label draw needs at least one label per class, not {per_class}")
    truth = np.asarray(labels, dtype=np.int64)
    chosen: list[int] = []
    for label in np.unique(truth).tolist():
        members = np.flatnonzero(truth == label).tolist()
        stream = RandomStream("few-labels", seed, per_class, number, label)
        chosen += stream.sample(members, min(per_class, len(members)))
    return sorted(int(index) for index in chosen)
