"""What was measured of which version: one record per version, whoever measured it, in whatever order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.logs import event as log_event
from ssd.evaluation.client_measures import is_client_measure

log = logging.getLogger(__name__)

_MOST_LOGGED = 64
MOST_NAMES = 256
"""Different measures of a run, over all its versions; a further one is not kept."""


class EvaluationRecords:
    """The records in memory and in the journal."""

    def __init__(
        self, journal: Journal, durability: DurableWrites, clock: Clock, metrics: CoordinatorMetrics
    ) -> None:
        self._journal = journal
        self._durability = durability
        self._clock = clock
        self._metrics = metrics
        self._values: dict[int, Mapping[str, float]] = dict(journal.evaluations())
        self._names = {name for values in self._values.values() for name in values}

    @property
    def newest(self) -> tuple[int, Mapping[str, float]]:
        """The newest measured version and its values; (0, {}) before any."""
        return max(self._values.items(), default=(0, {}), key=lambda entry: entry[0])

    @property
    def by_version(self) -> Mapping[int, Mapping[str, float]]:
        """Everything that was measured."""
        return self._values

    def has(self, version: int, *, of_clients: bool) -> bool:
        """Whether the version was measured on probe data, or on the clients' own."""
        return any(is_client_measure(name) == of_clients for name in self._values.get(version, {}))

    async def add(self, version: int, values: Mapping[str, float]) -> None:
        """Write values down beside those the version has, then tell; names beyond `MOST_NAMES` are left out."""
        kept = self._known(values)
        merged = {**self._values.get(version, {}), **kept}
        now = self._clock.wall()
        await self._durability.write(lambda: self._journal.record_evaluation(version, merged, now))
        self._values[version] = merged
        if version == self.newest[0]:
            self._metrics.evaluation(version, merged)
        log_event(log, logging.INFO, "evaluated", version=version, **_rounded(kept))

    def _known(self, values: Mapping[str, float]) -> dict[str, float]:
        fresh = sorted(values.keys() - self._names)
        room = max(0, MOST_NAMES - len(self._names))
        self._names.update(fresh[:room])
        if fresh[room:]:
            fields = {"left_out": len(fresh) - room, "detail": f"a run has at most {MOST_NAMES} measures"}
            log_event(log, logging.WARNING, "too_many_measures", **fields)
        return {name: value for name, value in values.items() if name in self._names}


def _rounded(values: Mapping[str, float]) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in sorted(values.items())[:_MOST_LOGGED]}
