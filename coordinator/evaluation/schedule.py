"""Which versions are measured, and by whom: workers that offer labelled probe data, and the clients' own workers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from coordinator.evaluation.on_clients import ClientEvaluations
from coordinator.evaluation.records import EvaluationRecords
from coordinator.versions.catalogue import Catalogue
from coordinator.workers.sessions import SessionTable
from ssd.daemon.logs import event as log_event
from ssd.evaluation.client_measures import is_client_measure
from ssd_wire.messages import Evaluate, EvaluationDone

log = logging.getLogger(__name__)

_PROBE, _CLIENTS = "probe", "clients"


class Evaluations:
    """At most one evaluation on probe data is under way, always of the newest version that is due.

    Evaluation on the clients' own images (`clients`; None if the method has none) follows the same rule of which
    versions are due. When both are over for a version, whatever came of them, the log says that it is `measured`.
    Owned by the driver's loop.
    """

    def __init__(
        self,
        records: EvaluationRecords,
        catalogue: Catalogue,
        sessions: SessionTable,
        every: int,
        clients: ClientEvaluations | None,
    ) -> None:
        self._records = records
        self._catalogue = catalogue
        self._sessions = sessions
        self._every = every
        self._clients = clients
        self._due: int | None = None
        self._asked: tuple[str, int] | None = None
        """(worker, version) under way."""
        self._open: dict[int, set[str]] = {}
        """Version -> which of its measurements are not over."""

    @property
    def newest(self) -> tuple[int, Mapping[str, float]]:
        """The newest measured version and its values; (0, {}) before any."""
        return self._records.newest

    @property
    def by_version(self) -> Mapping[int, Mapping[str, float]]:
        """Everything that was measured."""
        return self._records.by_version

    @property
    def outstanding(self) -> bool:
        """Whether a due evaluation can still be answered by somebody attached, or soon."""
        on_clients = self._clients is not None and self._clients.outstanding
        return (
            self._asked is not None or (self._due is not None and self._evaluator() is not None) or on_clients
        )

    @property
    def wanted(self) -> frozenset[int]:
        """Versions that must stay whole until they are measured."""
        asked = None if self._asked is None else self._asked[1]
        probe = frozenset(version for version in (self._due, asked) if version is not None)
        return probe if self._clients is None else probe | self._clients.wanted

    def begin(self, version: int, *, last: bool) -> None:
        """The daemon started at `version`."""
        if not self._is_due(version, last=last):
            return
        probe = not self._records.has(version, of_clients=False)
        clients = self._clients is not None and not self._records.has(version, of_clients=True)
        self._begin(version, probe=probe, clients=clients)

    def committed(self, version: int, *, last: bool) -> None:
        """A version was committed and announced; the last one of a run is always measured."""
        if self._is_due(version, last=last):
            self._begin(version, probe=True, clients=self._clients is not None)

    def _begin(self, version: int, *, probe: bool, clients: bool) -> None:
        self._open[version] = {_PROBE, _CLIENTS}
        if not probe:
            self._over(version, _PROBE)
        else:
            if self._due is not None:
                self._over(self._due, _PROBE)
            self._due = version
        if clients and self._clients is not None:
            self._clients.due(version)
        else:
            self._over(version, _CLIENTS)

    def _over(self, version: int, kind: str) -> None:
        """One of a version's measurements has ended, if only because nobody will do it."""
        still = self._open.get(version, set())
        if kind in still:
            still.remove(kind)
            if not still:
                del self._open[version]
                log_event(log, logging.INFO, "measured", version=version)

    def _is_due(self, version: int, *, last: bool) -> bool:
        return self._every > 0 and (last or version % self._every == 0)

    def offer(self, seed: int) -> None:
        """Ask an attached evaluator if something is due and nobody is at it, and the clients' workers."""
        self.offer_clients()
        if self._due is None or self._asked is not None:
            return
        worker = self._evaluator()
        if worker is None:
            return
        session = self._sessions.worker(worker)
        assert session is not None
        self._asked = (worker, self._due)
        session.send(Evaluate(version=self._catalogue.offer(self._due), run_seed=seed))
        self._due = None

    def offer_clients(self) -> None:
        """Ask the clients' workers, if something is due."""
        if self._clients is not None:
            self._clients.offer()

    async def done(self, worker: str, answer: EvaluationDone) -> None:
        """A worker's answer; what is not wanted or says nothing is dropped."""
        if answer.clients is not None:
            if self._clients is not None:
                self._clients.answered(worker, answer.version, answer.clients, answer.values, answer.error)
                await self.settle()
            return
        if self._asked != (worker, answer.version):
            return
        self._asked = None
        finite = {
            name: value
            for name, value in answer.values.items()
            if math.isfinite(value) and not is_client_measure(name)
        }
        if finite and not answer.error:
            await self._records.add(answer.version, finite)
        elif answer.error:
            log_event(log, logging.WARNING, "evaluation_failed", version=answer.version, detail=answer.error)
        self._over(answer.version, _PROBE)

    async def settle(self) -> None:
        """Record the versions whose measuring is over."""
        if self._clients is not None:
            for version, values in self._clients.collect():
                if values:
                    await self._records.add(version, values)
                self._over(version, _CLIENTS)

    def lost(self, worker: str) -> None:
        """A worker went away: what it was asked is due again."""
        if self._clients is not None:
            self._clients.lost(worker)
        if self._asked is not None and self._asked[0] == worker:
            if self._due is None:
                self._due = self._asked[1]
            else:
                self._over(self._asked[1], _PROBE)
            self._asked = None

    def _evaluator(self) -> str | None:
        able = sorted(session.worker for session in self._sessions if session.capabilities.evaluates)
        return able[0] if able else None
