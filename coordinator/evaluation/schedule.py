"""Which versions are measured, and by whom: evaluators that have labelled probe data, and the clients' own workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from coordinator.config.sections import EvaluationSection
from coordinator.evaluation.on_clients import ClientEvaluations
from coordinator.evaluation.on_probe import ProbeEvaluation
from coordinator.evaluation.records import EvaluationRecords
from ssd.daemon.logs import event as log_event
from ssd.trust.names import Role, Subject
from ssd_wire.messages import EvaluationDone

log = logging.getLogger(__name__)

_PROBE, _CLIENTS = "probe", "clients"


class Evaluations:
    """Which versions are due, and when all measuring of one is over.

    Evaluation on probe data (`probe`) and on the clients' own images (`clients`; None if the method has none) follow
    the same rule of which versions are due. When both are over for a version, whatever came of them, the log says that
    it is `measured`. Owned by the driver's loop.
    """

    def __init__(
        self,
        records: EvaluationRecords,
        settings: EvaluationSection,
        probe: ProbeEvaluation,
        clients: ClientEvaluations | None,
    ) -> None:
        self._records = records
        self._settings = settings
        self._probe = probe
        self._clients = clients
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
        return self._probe.outstanding or (self._clients is not None and self._clients.outstanding)

    @property
    def wanted(self) -> frozenset[int]:
        """Versions that must stay whole until they are measured."""
        probe = self._probe.wanted
        return probe if self._clients is None else probe | self._clients.wanted

    def may_measure(self, worker: str, subject: Subject | None) -> bool:
        """Whether somebody's offer to measure on probe data is taken: evaluators', and of workers whom the operator named.

        Where nobody proves a name (subject None), every offer is.
        """
        return subject is None or subject.role is Role.EVALUATOR or worker in self._settings.workers

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
        if probe:
            self._probe.due(version)
            self._collect_probe()
        else:
            self._over(version, _PROBE)
        if clients and self._clients is not None:
            self._clients.due(version)
        else:
            self._over(version, _CLIENTS)

    def _collect_probe(self) -> None:
        for version in self._probe.collect():
            self._over(version, _PROBE)

    def _over(self, version: int, kind: str) -> None:
        """One of a version's measurements has ended, if only because nobody will do it."""
        still = self._open.get(version, set())
        if kind in still:
            still.remove(kind)
            if not still:
                del self._open[version]
                log_event(log, logging.INFO, "measured", version=version)

    def _is_due(self, version: int, *, last: bool) -> bool:
        every = self._settings.every
        return every > 0 and (last or version % every == 0)

    def offer(self) -> None:
        """Ask attached evaluators if something is due and nobody is at it, and the clients' workers."""
        self.offer_clients()
        self._probe.offer()

    def offer_clients(self) -> None:
        """Ask the clients' workers, if something is due."""
        if self._clients is not None:
            self._clients.offer()

    async def done(self, worker: str, answer: EvaluationDone) -> None:
        """A worker's answer; what was not asked for is dropped."""
        if answer.clients is None:
            await self._probe.answered(worker, answer.version, answer.values, answer.error)
            self._collect_probe()
        elif self._clients is not None:
            self._clients.answered(worker, answer.version, answer.clients, answer.values, answer.error)
            await self.settle()

    async def settle(self) -> None:
        """Give up who took too long, and record the versions whose measuring is over."""
        await self._probe.settle()
        self._collect_probe()
        if self._clients is not None:
            for version, values in self._clients.collect():
                if values:
                    await self._records.add(version, values)
                self._over(version, _CLIENTS)

    def lost(self, worker: str) -> None:
        """A worker went away: what it was asked is due again."""
        if self._clients is not None:
            self._clients.lost(worker)
        self._probe.lost(worker)
