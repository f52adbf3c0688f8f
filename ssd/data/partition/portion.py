"""A portion of a data set's training images: the ones that are shared out when not all of them are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssd.data.images.errors import DataError
from ssd.data.images.stratified import stratified_split

Json = Any
TAKES = ("sample", "first")


@dataclass(frozen=True, kw_only=True, slots=True)
class Portion:
    """Some images of a training split. The other images belong to no client."""

    images: int
    take: str = "sample"
    """`sample`: a seeded draw with the classes in proportion; `first`: the first ones in the data set's order."""

    def __post_init__(self) -> None:
        if self.take not in TAKES:
            raise ValueError(f"images are taken as {' or '.join(TAKES)}, not {self.take!r}")

    def choose(self, size: int, labels: Sequence[int] | None, seed: int) -> list[int]:
        """The sorted indices taken out of `size` images.

        Raises:
            DataError: there are not so many images, or a sample is asked of a set without labels.
        """
        if not 1 <= self.images <= size:
            raise DataError(f"cannot take {self.images} of {size} training images")
        if self.take == "first":
            return list(range(self.images))
        if labels is None:
            raise DataError(
                "a sample in proportion to the classes needs labels; take the first images instead"
            )
        return stratified_split(np.asarray(labels, dtype=np.int64), self.images, "partition-portion", seed)[1]

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {"images": self.images, "take": self.take}
