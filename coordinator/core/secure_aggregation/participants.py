"""Who takes part in an attempt at a masked sum, and when its keys are due. Pure, beside `secagg_server`.

`early`: as soon as it is known who hosts the cohort, so that keys are exchanged while the clients train. `late`: when
the clients are all but trained. Whoever goes away in training has then shared nothing, and no mask of its has to be
rebuilt; but the exchange of keys is waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

NEARLY = Fraction(9, 10)
"""Late: a client counts as trained from this share of its steps on, so that the rest covers some of the exchange."""
KEYS_SHARE = 0.8
"""Elastic, late: the exchange begins when this share of the time to the deadline has passed, whoever still trains."""


class Keys(StrEnum):
    """When keys are exchanged."""

    EARLY = "early"
    LATE = "late"


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortStatus:
    """What the round machine knows of an attempt."""

    hosts: Mapping[str, str]
    """Connected client -> worker."""
    failed: Collection[str] = ()
    """Clients of whom no update is awaited for now."""
    goal: int = 0
    """Elastic: so many clients' updates are enough."""
    opened_at: float = 0.0
    """Monotonic seconds."""
    deadline_at: float | None = None
    """Elastic: when the attempt ends."""

    @property
    def keys_by(self) -> float | None:
        """Elastic, late: when keys are exchanged with those that have something to upload."""
        if self.deadline_at is None:
            return None
        return self.opened_at + (self.deadline_at - self.opened_at) * KEYS_SHARE


@dataclass(kw_only=True, slots=True)
class ParticipantSelection:
    """An attempt whose participants are not fixed yet."""

    cohort: frozenset[str]
    keys: Keys
    elastic: bool
    fewest: int
    """Workers a sum takes at least."""
    _trained: dict[str, str] = field(default_factory=dict)
    """Client -> the worker that trained it."""

    def trained(self, client: str, worker: str, step: int, steps: int) -> None:
        """A worker says how far a client's training is."""
        if client in self.cohort and steps > 0 and step >= NEARLY * steps:
            self._trained[client] = worker

    def participants(self, standing: CohortStatus, now: float) -> dict[str, tuple[str, ...]] | None:
        """Worker -> its clients of the cohort, if this is the time; None: not yet. May be fewer than `fewest`."""
        found: dict[str, list[str]] = {}
        for client in sorted(self.cohort):
            if client in standing.hosts:
                found.setdefault(standing.hosts[client], []).append(client)
        if not self.elastic:
            if not self.cohort <= standing.hosts.keys():
                return None
            # Too few workers are too few however long they train.
            if self.keys is Keys.LATE and len(found) >= self.fewest and not self._all_trained(standing):
                return None
        elif self.keys is Keys.LATE:
            found = self._ready(found, standing, now)
            if not found:
                return None
        return {worker: tuple(clients) for worker, clients in sorted(found.items())}

    def _ready(
        self, found: Mapping[str, list[str]], standing: CohortStatus, now: float
    ) -> dict[str, list[str]]:
        """Elastic, late: who has something to upload, if that is enough or the time is up; nobody: not yet."""
        some = {worker for client, worker in self._trained.items() if standing.hosts.get(client) == worker}
        ready = {
            worker: clients
            for worker, clients in found.items()
            if worker in some
            and all(client in standing.failed or self._trained.get(client) == worker for client in clients)
        }
        have = sum(client not in standing.failed for clients in ready.values() for client in clients)
        settled = all(client in standing.failed or client in self._trained for client in self.cohort)
        if have < standing.goal and not settled:
            if standing.keys_by is None or now < standing.keys_by:
                return {}
            ready = {worker: clients for worker, clients in found.items() if worker in some}
        return ready if len(ready) >= self.fewest else {}

    def _all_trained(self, standing: CohortStatus) -> bool:
        """Whether each client is trained where it is hosted now."""
        return all(self._trained.get(client) == standing.hosts[client] for client in self.cohort)
