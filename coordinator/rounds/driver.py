"""The only loop: a command or a time, `step`, effects in order, each finished before the next event is looked at.

Everything that touches the run's state goes through the mailbox, so nothing here needs a lock. What must be durable is
written before anything is sent that depends on it; while the medium fails, the loop stands still and says so, and
nothing is lost: the sum stays in memory, workers keep what they finished.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.core import events
from coordinator.core.round import next_wakeup
from coordinator.core.state import Phase
from coordinator.evaluation.schedule import Evaluations
from coordinator.inspection.gauges import Gauges
from coordinator.ports.clock import Clock
from coordinator.rounds.machine import RoundMachine
from coordinator.rounds.worker_reports import WorkerReports
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.runtime.mailbox import Mailbox
from coordinator.sums.round_sum import RoundSum
from coordinator.uploads.verification import UploadVerification
from coordinator.workers.sessions import SessionTable
from ssd_wire.messages import Drain

RESTART_RECONNECT_SECONDS = 1.0


class Driver:
    """Drives the rounds of one run. Public methods are called from the same event loop.

    Args:
        machine: the run's state and what performs its effects.
        mailbox: everything else that touches the state waits here.
        durability: stands still while the medium refuses.
        round_sum: of the present attempt.
        evaluations: what is measured.
        reports: what workers say.
        verification: uploads that wait for a verdict.
        sessions: the attached workers.
        gauges: brought up to date after every turn.
        clock: for the times of events.
        heartbeat_seconds: the longest turn.
        stop_when_finished: whether the loop ends with the run.
    """

    def __init__(
        self,
        *,
        machine: RoundMachine,
        mailbox: Mailbox,
        durability: DurableWrites,
        round_sum: RoundSum,
        evaluations: Evaluations,
        reports: WorkerReports,
        verification: UploadVerification,
        sessions: SessionTable,
        gauges: Gauges,
        clock: Clock,
        heartbeat_seconds: float,
        stop_when_finished: bool,
    ) -> None:
        self._machine = machine
        self._mailbox = mailbox
        self._durability = durability
        self._sum = round_sum
        self._evaluations = evaluations
        self._reports = reports
        self._verification = verification
        self._sessions = sessions
        self._gauges = gauges
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._stop_when_finished = stop_when_finished
        self._running = False
        machine.follow_with(self)

    @property
    def ready(self) -> bool:
        """Whether the loop runs, the medium takes writes and no drain is under way."""
        return self._running and not self._durability.trouble and not self._mailbox.stopping

    @property
    def storage_trouble(self) -> str:
        """What the medium last said; empty while it takes writes."""
        return self._durability.trouble

    async def run(self) -> None:
        """Drive rounds until `stop` or the run's own end. Attempts under way stay journaled."""
        self._running = True
        state = self._machine.state
        self._evaluations.begin(state.version, last=state.version >= state.policy.rounds)
        await self._sum.recover(state)
        await self._machine.apply(events.Tick(now=self._clock.monotonic()))
        try:
            while not self._mailbox.stopping:
                command = await self._mailbox.next(self._seconds_to_next_wakeup())
                if command is not None:
                    await command()
                if self._seconds_to_next_wakeup() <= 0:
                    await self._machine.apply(events.Tick(now=self._clock.monotonic()))
                self._reports.cut_off_silent()
                await self._evaluations.settle()
                self._stop_if_finished()
                self._gauges.publish()
        finally:
            self._running = False
            self.stop()
            self._say_goodbye()

    def stop(self) -> None:
        """Leave the loop after the event in hand. Idempotent."""
        self._mailbox.stop()
        self._durability.stop()

    async def settle(self) -> None:
        """See `AfterEvent`."""
        await self._sum.settle(self._machine.state)

    def conclude(self) -> None:
        """See `AfterEvent`."""
        self._evaluations.offer()
        self._stop_if_finished()

    async def operate(self, make: Callable[[float], events.Event]) -> None:
        """Apply an operator's event and return when its effects are done."""

        async def apply() -> None:
            await self._machine.apply(make(self._clock.monotonic()))

        await self._mailbox.call(apply)

    def request(self, make: Callable[[float], events.Event]) -> None:
        """Note an operator's event; what follows from it is not waited for."""
        self._machine.post(make(self._clock.monotonic()))

    def _seconds_to_next_wakeup(self) -> float:
        times = (next_wakeup(self._machine.state), self._sum.wakeup)
        wakeup = min((time for time in times if time is not None), default=None)
        if wakeup is None:
            return self._heartbeat_seconds
        return min(self._heartbeat_seconds, max(0.0, wakeup - self._clock.monotonic()))

    def _stop_if_finished(self) -> None:
        finished = self._machine.state.phase is Phase.FINISHED
        if self._stop_when_finished and finished and not self._evaluations.outstanding:
            self.stop()

    def _say_goodbye(self) -> None:
        """Release everybody who waits: attached workers and uploads without a verdict."""
        for session in self._sessions:
            session.send(
                Drain(reason="the coordinator stops", reconnect_after_seconds=RESTART_RECONNECT_SECONDS)
            )
            session.close()
        self._verification.dismiss()
