"""Identifies one split of a data set by its content, so that indices cannot silently mean other images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssd.digest import digest_bytes

Json = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetIdentity:
    """What indices refer to: one split of a named data set."""

    name: str
    size: int
    labels_digest: str
    """Digest of the labels in order, as little-endian int64; empty for a set without labels."""

    @classmethod
    def of(cls, name: str, labels: Sequence[int]) -> DatasetIdentity:
        """The identity of a labelled data set."""
        array = np.asarray(labels, dtype="<i8")
        return cls(name=name, size=len(array), labels_digest=digest_bytes(array.tobytes()))

    def to_json(self) -> dict[str, Json]:
        """A JSON object holding every field."""
        return {"name": self.name, "size": self.size, "labels_digest": self.labels_digest}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> DatasetIdentity:
        """The inverse of `to_json`."""
        return cls(
            name=str(value["name"]), size=int(value["size"]), labels_digest=str(value["labels_digest"])
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.size} images, labels {self.labels_digest[:12] or 'unknown'})"
