"""Representation quality in training rounds: which rounds measure it, and what their sums say.

The features are those of the version a round starts from, so round r measures version r - 1. With
`evaluation.every` = n the versions 0, n, 2n, ... are measured; the last version of a run is not, as nobody trains
from it. A round that measures has longer updates and a fold plan of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from coordinator.ports.blobs import Blobs
from coordinator.ports.figures import Quality
from coordinator.ports.records import VersionRecord
from ssd.updates.codec import Encoding
from ssd.updates.fold import FoldPlan
from ssd.updates.quality_sums import PREFIX, read, statistics
from ssd_wire.messages import Artefact

Sums = Mapping[str, NDArray[np.float64]]
Frequencies = Mapping[str, NDArray[np.float32]]


class QualityRounds:
    """The fold plans of one run, and the reading of the sums of its measuring rounds.

    Args:
        plan: of a round that does not measure.
        update_encoding: as `plan` was made with.
        every: measure every so many versions; 0: never.
        frequencies: the run's random frequencies by artefact name; asked for when sums are read.

    Raises:
        OverflowRisk: the quality sums could overflow.
    """

    def __init__(
        self,
        plan: FoldPlan,
        update_encoding: Encoding,
        every: int,
        frequencies: Callable[[], Frequencies],
    ) -> None:
        self._frequencies = frequencies
        self.plain = self._measuring = plan
        """Of a round that does not measure. Every update begins with one of this layout."""
        # Under differential privacy nothing leaves clients beside their clipped updates.
        self._quality = plan.declaration.quality if every > 0 and plan.clip_norm is None else None
        self._every = every
        self._names: frozenset[str] = frozenset()
        self.newest: Quality | None = None
        """Of the last round that measured; whoever commits keeps it up to date."""
        if self._quality is not None:
            self._measuring = FoldPlan.create(
                plan.declaration, update_encoding, plan.max_cohort, plan.max_client_weight, quality=True
            )
            self._names = frozenset(each.name for each in statistics(self._quality))

    @property
    def largest(self) -> FoldPlan:
        """The plan with the longer bodies."""
        return self._measuring

    def measures(self, round_number: int) -> bool:
        """Whether this round measures the version it starts from."""
        return self._quality is not None and (round_number - 1) % self._every == 0

    def plan(self, round_number: int) -> FoldPlan:
        """The fold plan of a round."""
        return self._measuring if self.measures(round_number) else self.plain

    def without(self, sums: Sums) -> dict[str, NDArray[np.float64]]:
        """The sums of the method's own statistics."""
        return {name: value for name, value in sums.items() if name not in self._names}

    def values(self, sums: Sums, version: int) -> Quality | None:
        """What is recorded of a round that started from `version`; None unless it measured.

        Takes up to half a second: not for the event loop.

        Raises:
            BlobMissing, BlobCorrupt: from the blob store.
        """
        if self._quality is None or not self._names <= sums.keys():
            return None
        measured = read(self._quality, sums, self._frequencies(), self.plain.max_cohort)
        return Quality(version=version, measures=measured)


def stored_frequencies(artefacts: Iterable[Artefact], blobs: Blobs) -> Frequencies:
    """The random frequencies among a run's artefacts, mapped."""
    found = {}
    for artefact in artefacts:
        if artefact.name.startswith(PREFIX):
            reader = blobs.open(artefact.blob.digest)
            try:
                found[artefact.name] = reader.map().view("<f4").reshape(artefact.shape)
            finally:
                reader.close()
    return found


def without_frequencies(artefacts: Iterable[Artefact]) -> tuple[Artefact, ...]:
    """The method's own artefacts."""
    return tuple(each for each in artefacts if not each.name.startswith(PREFIX))


def newest(versions: Iterable[VersionRecord]) -> Quality | None:
    """What the last round that measured tells, of versions in order; None if none did."""
    found = None
    for version in versions:
        found = version.figures.quality or found
    return found
