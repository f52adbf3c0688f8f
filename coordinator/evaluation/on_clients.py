"""Measuring versions on the clients' own test images: which worker is asked for which clients, and when it is over.

A version is asked of every attached worker before that worker gets its next training task, so that a client's state
is the one that belongs to the version; a client that a later commit included is not measured for it any more. What the
workers answer are sums. A version is over when every registered client was measured or cannot be; clients whose worker
is away are waited for a while, but neither the rounds nor, for ever, the end of the run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.core.policy import Mode
from coordinator.ports.run import Run
from coordinator.versions.inclusions import Inclusions
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import event as log_event
from ssd.evaluation.client_measures import BadMeasures, add, check, describe, known
from ssd_wire.messages import Evaluate

log = logging.getLogger(__name__)

MAX_OPEN = 4
"""Versions measured at the same time; beyond it the oldest is closed with what came."""
MAX_ASKS = 3
"""Times a client is asked for before it is given up for a version."""
ANSWER_SECONDS = 3600.0
"""How long an attached worker may take before its clients are given up."""

Order = Callable[[int, Sequence[str]], Evaluate]
"""Makes the message that asks for clients of a version."""


@dataclass(slots=True)
class _Open:
    """A version that is being measured."""

    version: int
    give_up_at: float
    """Clients nobody hosts are waited for until then."""
    waiting: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict)
    """Worker -> the clients it was asked for, and when it must have answered."""
    settled: set[str] = field(default_factory=set)
    """Clients that were measured or cannot be."""
    asks: Counter[str] = field(default_factory=Counter)
    sums: dict[str, float] = field(default_factory=dict)


class ClientEvaluations:
    """Owned by the driver's loop.

    Args:
        order: makes the message to a worker.
        run: for its present state.
        inclusions: for the clients' last committed rounds.
        needs_images: whether a client must have test images of its own to be measured.
        wait_seconds: how long clients that are away are waited for.
        now: monotonic seconds.
    """

    def __init__(
        self,
        *,
        sessions: SessionTable,
        order: Order,
        run: Run,
        inclusions: Inclusions,
        needs_images: bool,
        wait_seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._order = order
        self._run = run
        self._inclusions = inclusions
        self._needs_images = needs_images
        self._wait = wait_seconds
        self._now = now
        self._open: dict[int, _Open] = {}
        self._over: list[_Open] = []

    @property
    def outstanding(self) -> bool:
        """Whether a version is still being measured, or measured and not yet collected."""
        return bool(self._open or self._over)

    @property
    def wanted(self) -> frozenset[int]:
        """Versions whose blobs must stay."""
        return frozenset(self._open)

    def due(self, version: int) -> None:
        """Measure this version, from now on."""
        self._open[version] = _Open(version=version, give_up_at=self._now() + self._wait)
        for oldest in sorted(self._open)[:-MAX_OPEN]:
            self._over.append(self._open.pop(oldest))
        self.offer()

    def offer(self) -> None:
        """Ask the attached workers for what they can answer and nobody asked them yet."""
        for each in self._open.values():
            for session in sorted(self._sessions, key=lambda session: session.worker):
                if session.worker not in each.waiting:
                    self._ask(each, session)

    def _ask(self, each: _Open, session: Session) -> None:
        hosted = [client for client in sorted(session.clients) if client in self._unsettled(each)]
        if self._needs_images and not session.capabilities.client_tests:
            each.settled.update(hosted)
            return
        # A state that a later commit made does not belong to this version.
        late = {client for client in hosted if self._inclusions.last_rounds.get(client, 0) > each.version}
        spent = {client for client in hosted if each.asks[client] >= MAX_ASKS}
        each.settled |= late | spent
        asked = tuple(client for client in hosted if client not in each.settled)
        if asked:
            each.asks.update(asked)
            each.waiting[session.worker] = (frozenset(asked), self._now() + ANSWER_SECONDS)
            session.send(self._order(each.version, asked))

    def answered(
        self, worker: str, version: int, clients: Sequence[str], values: Mapping[str, float], error: str
    ) -> None:
        """Sums over some of the clients a worker was asked for; the others of them it could not measure."""
        each = self._open.get(version)
        if each is None or worker not in each.waiting:
            return
        asked, _ = each.waiting.pop(worker)
        named = frozenset(clients)
        try:
            if error:
                raise BadMeasures(error)
            if len(named) != len(clients) or not named <= asked:
                raise BadMeasures("it names clients it was not asked for")
            if named:
                check(values, len(named))
        except BadMeasures as bad:
            # Asked again, a few times: a training process that died may do better.
            fields = {"version": version, "worker": worker, "detail": str(bad)[:500]}
            log_event(log, logging.WARNING, "client_evaluation_failed", **fields)
        else:
            if named:
                each.sums = add(each.sums, known(each.sums, values))
            each.settled |= asked
        self.offer()

    def lost(self, worker: str) -> None:
        """A worker went away: its clients are asked for again if they come back soon enough."""
        for each in self._open.values():
            if each.waiting.pop(worker, None) is not None:
                each.give_up_at = self._now() + self._wait

    def collect(self) -> list[tuple[int, Mapping[str, float]]]:
        """Versions that are over since the last call, with their measures; {} if nobody was measured."""
        now = self._now()
        for each in list(self._open.values()):
            for worker, (clients, until) in list(each.waiting.items()):
                if now >= until:
                    del each.waiting[worker]
                    each.settled |= clients
                    detail = f"no answer within {ANSWER_SECONDS:g} s: its {len(clients)} clients are left out"
                    fields = {"version": each.version, "worker": worker, "detail": detail}
                    log_event(log, logging.WARNING, "client_evaluation_failed", **fields)
            if self._is_over(each, now):
                self._over.append(self._open.pop(each.version))
        over, self._over = self._over, []
        for each in over:
            missing = len(self._unsettled(each))
            if missing or not each.sums:
                fields = {"version": each.version, "missing": missing}
                log_event(log, logging.WARNING, "client_evaluation_incomplete", **fields)
        return [(each.version, describe(each.sums) if each.sums else {}) for each in over]

    def _is_over(self, each: _Open, now: float) -> bool:
        if each.waiting:
            return False
        if now >= each.give_up_at:
            return True
        state = self._run.state
        policy = state.policy
        expected = policy.expected_clients if policy.mode is Mode.REPRODUCIBLE else None
        everybody_known = bool(state.clients) and len(state.clients) >= (expected or 0)
        return everybody_known and not self._unsettled(each)

    def _unsettled(self, each: _Open) -> frozenset[str]:
        return self._run.state.clients - each.settled
