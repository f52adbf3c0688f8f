"""The run's state, and the only way it changes: `step` decides, a table of performers does what follows, in order."""

from __future__ import annotations

import logging
import operator
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from coordinator.core.effects import Effect
from coordinator.core.events import Event
from coordinator.core.round import step
from coordinator.core.state import Phase, RunState
from coordinator.ports.clock import Clock
from coordinator.runtime.mailbox import Mailbox
from coordinator.telemetry.client_history import ClientHistory
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import Tracing
from ssd.daemon.logs import event as log_event

log = logging.getLogger(__name__)

_NOBODY: tuple[object, ...] = (None, None, None)

Performer = Callable[[Any], Awaitable[None]]
"""Does what an effect says; returns when it is done."""
Performers = Mapping[type[Effect], Performer]


class AfterEvent(Protocol):
    """What follows from every event, whatever it was."""

    async def settle(self) -> None:
        """Directly after the effects."""
        ...

    def conclude(self) -> None:
        """When everything else is done."""
        ...


class RoundMachine:
    """`coordinator.ports.run.Run`: nothing here needs a lock, for events come one after the other.

    Args:
        state: of the run, as the journal has it.
        mailbox: where posted events wait their turn.
        clock: for the clients' history.
        metrics: told of phases and of who is waited for.
        tracing: told of every step.
        history: of the clients of the attempt.
    """

    def __init__(
        self,
        state: RunState,
        mailbox: Mailbox,
        clock: Clock,
        metrics: CoordinatorMetrics,
        tracing: Tracing,
        history: ClientHistory,
    ) -> None:
        self._state = state
        self._mailbox = mailbox
        self._clock = clock
        self._metrics = metrics
        self._tracing = tracing
        self._history = history
        self._performers: dict[type[Effect], Performer] = {}
        self._after: AfterEvent | None = None
        self._said_waiting = ""
        self._all_there: tuple[object, ...] = _NOBODY

    @property
    def state(self) -> RunState:
        """The run's present state."""
        return self._state

    def perform_with(self, *tables: Performers) -> None:
        """Whoever performs the effects; called once, before the first event."""
        for table in tables:
            self._performers |= table

    def follow_with(self, after: AfterEvent) -> None:
        """Whoever acts after every event; called once, before the first event."""
        self._after = after

    def post(self, event: Event) -> None:
        """Queue an event."""

        async def run() -> None:
            await self.apply(event)

        self._mailbox.put(run)

    async def apply(self, event: Event) -> None:
        """Let an event happen, with all its effects; between two commands of the mailbox only."""
        assert self._after is not None
        before = self._state
        self._state, todo = step(before, event)
        self._tracing.stepped(before, event, self._state, todo)
        self._history.record_event(event, self._clock.wall())
        self._metrics.phase(self._state.phase)
        for effect in todo:
            await self._performers[type(effect)](effect)
            self._history.done(effect, self._clock.wall())
        await self._after.settle()
        if self._state.phase is not before.phase:
            log_event(log, logging.INFO, "phase", phase=self._state.phase.value, round=self._state.round)
        self._say_waiting()
        self._after.conclude()

    def _say_waiting(self) -> None:
        state = self._state
        awaited = (state.phase, state.hosts, state.attempt.cohort if state.attempt else None)
        if state.phase is Phase.TRAINING and all(map(operator.is_, awaited, self._all_there)):
            # Nobody was missing, and nobody came or went since: not asked of a whole cohort after every upload.
            return
        count, sentence = state.waiting_for()
        self._all_there = awaited if state.phase is Phase.TRAINING and not count else _NOBODY
        self._metrics.waiting(count)
        if sentence and sentence != self._said_waiting:
            log_event(log, logging.WARNING, "waiting", clients=count, detail=sentence)
        self._said_waiting = sentence
