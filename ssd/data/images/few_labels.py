"""Draws the labelled images that a few-label evaluation may use, the same ones for every encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd.data.images.stratified import stratified_split
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


def draw_share(labels: Sequence[int], share: float, *, seed: int) -> list[int]:
    """Sorted indices of a share of the images, with the classes in proportion.

    The number of images is `share * len(labels)` rounded to the nearest; which class gives one more where shares
    are fractions, see `ssd.data.images.stratified.stratified_split`.

    Raises:
        ValueError: the share is not between 0 and 1, or that are fewer images than classes.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"a share of the labels lies between 0 and 1, not {share}")
    truth = np.asarray(labels, dtype=np.int64)
    size, classes = round(share * len(truth)), len(np.unique(truth))
    if size < classes:
        raise ValueError(f"{share:.0%} of {len(truth)} labels are {size}, fewer than the {classes} classes")
    return stratified_split(truth, size, "label-share", seed)[1]
