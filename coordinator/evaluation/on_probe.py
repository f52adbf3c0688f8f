"""Measuring versions on probe data: which evaluator is asked, how long it is waited for, and who is asked after it.

At most one version is measured at a time, always the newest that is due. An evaluator that does not answer in time, or
answers badly, is not asked about that version again, and is the last to be asked about the next ones.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from coordinator.config.sections import EvaluationSection
from coordinator.evaluation.answers import agreed, checked
from coordinator.evaluation.records import EvaluationRecords
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.versions.catalogue import Catalogue
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import event as log_event
from ssd.evaluation.client_measures import BadMeasures
from ssd_wire.messages import Evaluate

log = logging.getLogger(__name__)

MAX_ASKS = 3
"""Times an evaluator that goes away in between is asked about one version."""
_MOST_NAMED = 8
"""Disputed measures that a line of the log names."""
_MOST_REMEMBERED = 1024
"""Evaluators whose failures are remembered."""


@dataclass(slots=True)
class _Open:
    """The version that is being measured, or waits for somebody who can."""

    version: int
    asked: dict[str, float] = field(default_factory=dict)
    """Evaluator -> when it must have answered."""
    answers: dict[str, Mapping[str, float]] = field(default_factory=dict)
    asks: Counter[str] = field(default_factory=Counter)
    failed: set[str] = field(default_factory=set)
    """Evaluators that answered badly or not in time."""

    @property
    def begun(self) -> bool:
        """Whether somebody is at it, or was and answered."""
        return bool(self.asked or self.answers)


class ProbeEvaluation:
    """Owned by the driver's loop.

    Args:
        records: where measures are written down.
        catalogue: offers the versions.
        sessions: the attached workers; those with the capability may measure.
        settings: how many measure a version, for how long, and how far they may lie apart.
        seed: of the run.
        metrics: counts disagreements.
        now: monotonic seconds.
    """

    def __init__(
        self,
        *,
        records: EvaluationRecords,
        catalogue: Catalogue,
        sessions: SessionTable,
        settings: EvaluationSection,
        seed: int,
        metrics: CoordinatorMetrics,
        now: Callable[[], float],
    ) -> None:
        self._records = records
        self._catalogue = catalogue
        self._sessions = sessions
        self._settings = settings
        self._seed = seed
        self._metrics = metrics
        self._now = now
        self._ended: list[int] = []
        self._open: _Open | None = None
        self._next: int | None = None
        """Due after the one that is open."""
        self._failures: Counter[str] = Counter()
        """Evaluator -> how often in a row it failed."""

    @property
    def outstanding(self) -> bool:
        """Whether a due version can still be measured by somebody attached, or is."""
        if self._open is None:
            return False
        return self._open.begun or self._next is not None or bool(self._candidates(self._open))

    @property
    def wanted(self) -> frozenset[int]:
        """Versions that must stay whole until they are measured."""
        opened = None if self._open is None else self._open.version
        return frozenset(version for version in (opened, self._next) if version is not None)

    def due(self, version: int) -> None:
        """Measure this version; an older one that nobody has begun is left out."""
        if self._open is not None and self._open.begun:
            older, self._next = self._next, version
        else:
            older, self._open = (None if self._open is None else self._open.version), _Open(version)
        if older is not None:
            self._ended.append(older)

    def offer(self) -> None:
        """Ask attached evaluators until as many are at it as are wanted."""
        opened = self._open
        if opened is None:
            return
        lacking = self._settings.evaluators - len(opened.asked) - len(opened.answers)
        for session in self._candidates(opened)[: max(0, lacking)]:
            opened.asks[session.worker] += 1
            opened.asked[session.worker] = self._now() + self._settings.answer_seconds
            session.send(Evaluate(version=self._catalogue.offer(opened.version), run_seed=self._seed))

    def _candidates(self, opened: _Open) -> list[Session]:
        """Who may be asked about the version, those that failed least first."""
        able = [
            session
            for session in self._sessions
            if session.capabilities.evaluates
            and session.worker not in opened.failed
            and session.worker not in opened.asked
            and session.worker not in opened.answers
            and opened.asks[session.worker] < MAX_ASKS
        ]
        return sorted(able, key=lambda session: (self._failures[session.worker], session.worker))

    async def answered(self, worker: str, version: int, values: Mapping[str, float], error: str) -> None:
        """An evaluator's measures; what it was not asked for is dropped."""
        opened = self._open
        if opened is None or opened.version != version or worker not in opened.asked:
            return
        del opened.asked[worker]
        try:
            if error:
                raise BadMeasures(error)
            measures = checked(values)
        except BadMeasures as bad:
            self._fail(opened, worker, str(bad)[:500])
        else:
            self._failures.pop(worker, None)
            opened.answers[worker] = measures
        await self.settle()

    def lost(self, worker: str) -> None:
        """An evaluator went away: others are asked, or it again when it is back."""
        opened = self._open
        if opened is None or opened.asked.pop(worker, None) is None:
            return
        if not opened.begun and self._next is not None:
            self._open, self._next = _Open(self._next), None
            self._ended.append(opened.version)

    def collect(self) -> list[int]:
        """Versions whose measuring is over since the last call, whatever came of it."""
        ended, self._ended = self._ended, []
        return ended

    async def settle(self) -> None:
        """Give up those that took too long, ask the next ones, and record the version that nobody is at any more."""
        opened = self._open
        if opened is None:
            return
        now = self._now()
        for worker in [worker for worker, until in opened.asked.items() if now >= until]:
            del opened.asked[worker]
            self._fail(opened, worker, f"no answer within {self._settings.answer_seconds:g} s")
        self.offer()
        if opened.asked:
            return
        if opened.answers:
            await self._conclude(opened)
        elif not (opened.failed or self._next is not None):
            return  # It waits for an evaluator.
        self._open, self._next = None if self._next is None else _Open(self._next), None
        self._ended.append(opened.version)
        self.offer()

    def _fail(self, opened: _Open, worker: str, detail: str) -> None:
        opened.failed.add(worker)
        if len(self._failures) >= _MOST_REMEMBERED:
            self._failures.clear()
        self._failures[worker] += 1
        fields = {"version": opened.version, "worker": worker, "detail": detail}
        log_event(log, logging.WARNING, "evaluation_failed", **fields)

    async def _conclude(self, opened: _Open) -> None:
        found = agreed(list(opened.answers.values()), self._settings.tolerance)
        if found.disputed:
            self._metrics.evaluators_disagreed()
            fields = {
                "version": opened.version,
                "evaluators": sorted(opened.answers),
                "measures": list(found.disputed[:_MOST_NAMED]),
                "disputed": len(found.disputed),
            }
            log_event(log, logging.WARNING, "evaluators_disagree", **fields)
        if found.values:
            await self._records.add(opened.version, found.values)
