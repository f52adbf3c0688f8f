"""Gauges that follow the run's state, and the wake-up of whoever watches it."""

from __future__ import annotations

import asyncio

from coordinator.ports.run import Run
from coordinator.sums.account import PrivacyAccount
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.workers.sessions import SessionTable


class Gauges:
    """Of one run."""

    def __init__(
        self, run: Run, sessions: SessionTable, account: PrivacyAccount, metrics: CoordinatorMetrics
    ) -> None:
        self._run = run
        self._sessions = sessions
        self._account = account
        self._metrics = metrics
        self._changed = asyncio.Event()
        metrics.before_scrape(self._measure)

    async def changed(self) -> None:
        """Wait until something changed since the call."""
        await self._changed.wait()

    def publish(self) -> None:
        """Wake the watchers: something changed. The gauges are computed when they are read, not at every event."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _measure(self) -> None:
        state = self._run.state
        attempt = state.attempt
        self._metrics.population(
            workers=len(self._sessions), connected=len(state.connected()), registered=len(state.clients)
        )
        self._metrics.cohort(
            invited=len(attempt.cohort) if attempt else 0,
            accepted=len(attempt.accepted) if attempt else 0,
            failed=len(attempt.failures) if attempt else 0,
        )
        self._metrics.privacy(self._account.now().beside)
