"""Secure aggregation in the driver: messages in and out, uploads, and the sum, for one attempt at a time.

The pure part is `coordinator.core.secure_aggregation.attempt`; this module is its shell. Everything here runs between two events
of the driver's loop. Rules it keeps:

- The journal has the accepted set and the state of the opening before a participant is asked for a signature or a
  share, and the shares before they are used.
- A sum that shares were asked for is opened over exactly that set or not at all; only the operator goes on from there.
- Secrets are searched for in a thread, as a liar can make that take seconds; what is found is an event of the loop.
- After a restart an attempt whose set was journaled goes on; any other is abandoned, for its keys belong to it alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.config.secure_settings import SecureSettings
from coordinator.core import effects, events
from coordinator.core.secure_aggregation.attempt import SecureAttempt
from coordinator.core.secure_aggregation.outcomes import (
    AttemptGivenUp,
    OpeningBlocked,
    Outcome,
    ParticipantLost,
    ParticipantsFixed,
    Persist,
    ReadyToOpen,
)
from coordinator.core.secure_aggregation.participants import CohortStatus, Keys
from coordinator.core.state import Phase, RunState
from coordinator.errors import BlobCorrupt, BlobMissing, ClientFault, Reason
from coordinator.ports.blobs import BlobReader
from coordinator.ports.clock import Clock
from coordinator.ports.run import Run
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.runtime.mailbox import Mailbox
from coordinator.secure_aggregation.masked_vector import MaskedVector
from coordinator.secure_aggregation.offers import check_masked_upload
from coordinator.secure_aggregation.opening import SumOpening
from coordinator.secure_aggregation.outbox import MaskedOutbox
from coordinator.secure_aggregation.present import PresentAttempt, view_of
from coordinator.store.files.spool import MaskedSpool
from coordinator.sums.round_sum import SumView
from coordinator.telemetry.secure_metrics import SecureMetrics
from coordinator.telemetry.tracing import Tracing
from coordinator.versions.quality import QualityRounds
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import event as log_event
from ssd.daemon.logs import repeatable
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.protocol.errors import (
    Aborted,
    AbortReason,
    MalformedMessage,
    Rejected,
    SecureAggregationStopped,
)
from ssd.secagg.protocol.messages import AbortNotice, Offer
from ssd.secagg.server.aggregator import Aggregator
from ssd.secagg.server.opening import Rebuilding
from ssd.trust.participants import Registry, RegistryRefused
from ssd.updates.fold import FoldPlan, OpenedFold
from ssd_wire.uploads import Envelope

log = logging.getLogger(__name__)

ROUND_ID_BYTES = 16


class MaskedRoundSum:
    """`coordinator.sums.round_sum.RoundSum` under masks: the present attempt at a masked sum, if there is one.

    Args:
        settings: of secure aggregation.
        quality: the run's fold plans.
        opening: journals and opens the sum.
        run: the run's present state and its events.
        mailbox: for what has to wait its turn between two events.
        durability: for uploads that are kept on disk.
        sessions: the attached workers.
        clock: for deadlines of phases.
        metrics: of secure aggregation.
        spool: where masked uploads are kept.
        tracing: gets a span per phase.
        entropy: n random bytes, as `os.urandom`.
    """

    def __init__(
        self,
        *,
        settings: SecureSettings,
        quality: QualityRounds,
        opening: SumOpening,
        run: Run,
        mailbox: Mailbox,
        durability: DurableWrites,
        sessions: SessionTable,
        clock: Clock,
        metrics: SecureMetrics,
        spool: MaskedSpool,
        tracing: Tracing,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._settings = settings
        self._quality = quality
        self._opening = opening
        self._run = run
        self._mailbox = mailbox
        self._durability = durability
        self._sessions = sessions
        self._clock = clock
        self._metrics = metrics
        self._spool = spool
        self._tracing = tracing
        self._entropy = entropy
        self._plans: dict[int, MaskedPlan] = {}
        self._present: PresentAttempt | None = None
        self._present_registry: Registry | None = None
        """That of the present attempt's participants, in level active."""
        self._search: asyncio.Task[None] | None = None
        """For the secrets of the present attempt, while one is under way."""
        self._ended = b""
        """Round id of the attempt before: what was on its way when it ended is nobody's fault."""

    @property
    def level(self) -> str:
        """See `RoundSum`."""
        return self._settings.level.value

    def upload_nbytes(self, plan: FoldPlan) -> int | None:
        """See `RoundSum`. All masked uploads of a round have one length."""
        return self.plan(plan).nbytes

    def max_upload_nbytes(self, plan: FoldPlan) -> int:
        """See `RoundSum`."""
        return self.plan(plan).nbytes

    def plan(self, fold: FoldPlan) -> MaskedPlan:
        """The layout of a masked upload of a round with this fold plan."""
        key = id(fold)
        if key not in self._plans:
            self._plans[key] = MaskedPlan.create(fold, self._settings.numbers)
        return self._plans[key]

    async def recover(self, state: RunState) -> None:
        """See `RoundSum`."""
        await self._opening.recover()
        if state.phase is Phase.UNMASKING:
            assert state.attempt is not None
            await self.resume(
                state.attempt.round, state.attempt.number, tuple(sorted(state.attempt.accepted))
            )

    def begin(self, opening: effects.OpenAttempt, base_digest: str, task_digest: str) -> None:
        """An attempt is durable: give it a round id of its own. Its offer goes out when its workers are known."""
        self._spool.drop_all_but(None)
        round_id = self._entropy(ROUND_ID_BYTES)
        plan = self.plan(self._quality.plan(opening.round))
        offer = self._opening.offers(plan, opening, round_id, base_digest, task_digest)
        machine = SecureAttempt(
            self._settings.rules, opening.cohort, offer, self._aggregator, self._clock.monotonic()
        )
        self._present = self._attempt(opening.round, opening.attempt, round_id, machine)

    def _aggregator(self, offer: Offer, names: Sequence[str]) -> Aggregator:
        try:
            registry = self._opening.registry()
        except (RegistryRefused, OSError) as error:
            raise Aborted(AbortReason.NOT_REGISTERED, f"the registry of participants: {error}") from error
        self._present_registry = registry
        return Aggregator(offer, names, self._settings.policy, registry)

    def _attempt(
        self, round_number: int, number: int, round_id: bytes, machine: SecureAttempt
    ) -> PresentAttempt:
        plan = self.plan(self._quality.plan(round_number))
        return PresentAttempt(
            round=round_number,
            number=number,
            round_id=round_id,
            machine=machine,
            delivery=MaskedOutbox(round_id, self._sessions),
            sum=MaskedVector(plan, round_id, self._spool, self._durability, self._settings.section.threads),
            since=self._clock.monotonic(),
        )

    async def settle(self, state: RunState) -> None:
        """After every event of the run: look at hosts and time, do what follows, send what is due."""
        present = self._present
        if present is None or state.attempt is None or state.attempt.number != present.number:
            return
        now = self._clock.monotonic()
        standing = CohortStatus(
            hosts=state.hosts,
            failed=state.attempt.failures.keys(),
            goal=state.attempt.goal,
            opened_at=state.attempt.opened_at,
            deadline_at=state.attempt.deadline_at,
        )
        outcomes = [*present.machine.look(standing, now), *present.machine.advance(now)]
        await self._follow(present, outcomes)

    @property
    def awaits_training(self) -> bool:
        """Whether word of trained clients matters now."""
        present = self._present
        return (
            self._settings.rules.keys is Keys.LATE
            and present is not None
            and present.machine.aggregator is None
        )

    async def training_progressed(
        self, session: Session, round_number: int, attempt: int, client: str, step: int, steps: int
    ) -> None:
        """See `RoundSum`."""
        present = self._present
        if present is None or (present.round, present.number) != (round_number, attempt):
            return
        now = self._clock.monotonic()
        outcomes = present.machine.progressed(session.worker, client, step, steps, now)
        await self._follow(present, [*outcomes, *present.machine.advance(now)])

    async def receive(self, session: Session, round_id: bytes, content: bytes) -> None:
        """A worker's message of the protocol.

        Raises:
            ClientFault: reason malformed_message.
        """
        present = self._present
        if round_id == self._ended or (present is not None and present.machine.over):
            return
        if present is None or round_id != present.round_id:
            self._metrics.rejected(AbortReason.UNEXPECTED_MESSAGE)
            return
        try:
            outcomes = present.machine.receive(session.worker, content, self._clock.monotonic())
        except Rejected as error:
            self._metrics.rejected(error.reason)
            repeatable(
                log,
                logging.WARNING,
                "secure_message_rejected",
                (session.worker, error.reason.value),
                worker=session.worker,
                reason=error.reason.value,
                detail=error.detail,
            )
            return
        except MalformedMessage as error:
            self._metrics.rejected(error.reason)
            raise ClientFault(Reason.MALFORMED_MESSAGE, error.detail) from error
        await self._follow(present, outcomes)

    async def _follow(self, present: PresentAttempt, outcomes: Sequence[Outcome]) -> None:
        now, where = self._clock.monotonic(), {"round": present.round, "attempt": present.number}
        for outcome in outcomes:
            match outcome:
                case ParticipantsFixed():
                    await self._run.apply(
                        events.SharersFixed(
                            now=now, clients=outcome.clients, fewest_uploads=outcome.fewest_uploads, **where
                        )
                    )
                case Persist():
                    await self._opening.journal(present)
                case ReadyToOpen():
                    present.honest = present.aggregator.honest
                    await self._opening.journal(present)
                    await self._opening.open(present)
                case ParticipantLost():
                    clients = present.machine.participants[outcome.worker]
                    await self._run.apply(
                        events.ClientFailed(
                            now=now, worker=outcome.worker, clients=clients, reason=outcome.reason, **where
                        )
                    )
                case AttemptGivenUp():
                    self._metrics.stopped(outcome.reason)
                    present.given_up = True
                    said = f"{outcome.reason.value}: {outcome.detail}"
                    await self._run.apply(
                        events.SumAborted(now=now, reason=said, halt=outcome.hopeless, **where)
                    )
                case OpeningBlocked():
                    await self._opening.block(present.round, present.number, outcome.reason, outcome.detail)
        if self._present is present:
            self._note_phase(present, now)
            present.delivery.deliver(present.machine)
            work = present.machine.rebuilding()
            if work is not None:
                if self._search is not None:
                    self._search.cancel()
                self._search = asyncio.create_task(self._rebuild(present, work))

    async def _rebuild(self, present: PresentAttempt, work: Rebuilding) -> None:
        """Beside the loop: search to the end, then let the loop know, whatever came of it."""
        error: Exception | None = None
        try:
            while await asyncio.to_thread(work.step):
                pass
        except Exception as raised:  # noqa: BLE001 - a defect, which has to end the loop and not this task alone
            error = raised

        async def take() -> None:
            if error is not None:
                raise error
            if self._present is present:
                now = self._clock.monotonic()
                await self._follow(present, present.machine.rebuilt(work, now))

        self._mailbox.put(take)

    def _note_phase(self, present: PresentAttempt, now: float) -> None:
        aggregator = present.machine.aggregator
        phase = "" if aggregator is None else aggregator.phase.value
        if phase == present.phase:
            return
        if present.phase:
            self._metrics.phase(present.phase, now - present.since)
        present.phase, present.since = phase, now
        self._tracing.secure_phase(present.round, present.number, phase)
        self._metrics.participants(
            invited=len(present.machine.participants), uploaded=len(present.machine.uploaders)
        )
        log_event(
            log,
            logging.INFO,
            "secure_phase",
            round=present.round,
            attempt=present.number,
            phase=phase,
            participants=len(present.machine.participants),
        )

    @property
    def view(self) -> SumView | None:
        """See `RoundSum`."""
        return view_of(self._present, self.level)

    @property
    def waiting_for(self) -> str:
        """See `RoundSum`."""
        return "" if self._present is None else self._present.waiting_for

    @property
    def wakeup(self) -> float | None:
        """When `settle` could do something by time alone."""
        return None if self._present is None else self._present.machine.wakeup

    def check(self, session: Session, envelope: Envelope) -> None:
        """See `RoundSum`."""
        check_masked_upload(self._present, session, envelope, self._settings, self._present_registry)

    async def add(self, worker: str, envelope: Envelope, body: NDArray[np.uint8]) -> None:
        """See `RoundSum`. The upload is kept on disk first."""
        present = self._present
        assert present is not None  # `check` let it in, and attempts end between events only
        await present.sum.take(worker, body)
        present.machine.uploaded(worker)

    async def close(self, closing: effects.OpenSum) -> None:
        """See `RoundSum`: journal the set, then ask for what opens it; or go on where that broke off."""
        present = self._present
        if present is not None and present.opened_digest:
            await self._opening.announce(present)
            return
        if present is None or present.accepted:
            await self.resume(closing.round, closing.attempt, closing.accepted)
            return
        present.accepted = closing.accepted
        await self._follow(present, present.machine.close(self._clock.monotonic()))

    async def resume(self, round_number: int, number: int, accepted: Sequence[str]) -> None:
        """Go on with the opening of a journaled set: after a restart, or because the operator resumed."""
        try:
            aggregator, participants, honest = self._opening.restore(round_number, number)
        except (RegistryRefused, OSError, SecureAggregationStopped) as error:
            self._present = None
            detail = f"the journaled set does not fit the registry or the settings of now: {error}"
            await self._opening.block(round_number, number, AbortReason.COORDINATOR_RESTARTED, detail)
            return
        now = self._clock.monotonic()
        machine = SecureAttempt.restored(self._settings.rules, aggregator, participants, now)
        self._present = present = self._attempt(round_number, number, aggregator.offer.round_id, machine)
        present.accepted, present.honest = tuple(accepted), honest
        self._spool.drop_all_but(present.round_id)
        where = {"round": round_number, "attempt": number}
        log_event(log, logging.INFO, "secure_sum_resumed", **where, survivors=len(machine.survivors))
        try:
            await present.sum.reload(machine.survivors)
        except (BlobMissing, BlobCorrupt, OSError) as error:
            await self._opening.block(round_number, number, AbortReason.COORDINATOR_RESTARTED, str(error))
            return
        await self._follow(present, machine.advance(now))

    async def open(self) -> OpenedFold:
        """See `RoundSum`."""
        assert self._present is not None
        assert self._present.opened is not None
        opened, self._present.opened = self._present.opened, None
        return opened

    def honest_opened(self, state: RunState) -> int | None:
        """See `RoundSum`.

        At most one sum is opened and in no version: an attempt whose shares were asked for is never abandoned, and no
        other one begins beside it.
        """
        if self._present is not None:
            return self._present.honest
        return self._opening.journaled_honest(state)

    async def committing(self, model_digest: str) -> None:
        """See `RoundSum`."""
        assert self._present is not None  # whose sum it is
        await self._opening.write_transcript(self._present, model_digest)

    async def committed(self) -> None:
        """See `RoundSum`: tell the participants, keep the transcript, drop the masked uploads."""
        present = self._end()
        if present is None:
            return
        assert present.aggregator.opened is not None  # `committing` was before
        present.tell(present.aggregator.opened)
        await self._opening.keep_transcript(present)
        self._metrics.participants(invited=0, uploaded=0)
        await asyncio.to_thread(self._spool.drop_all_but, None)

    async def abandoned(self, reason: str) -> None:
        """See `RoundSum`: the attempt's keys and uploads are of no use to anybody."""
        present = self._end()
        if present is None:
            return
        present.tell(AbortNotice(reason=AbortReason.ABANDONED.value, detail=reason[:200]))
        if reason.startswith(f"{AbortReason.TOO_FEW_SURVIVORS.value}:") and not present.given_up:
            self._metrics.stopped(AbortReason.TOO_FEW_SURVIVORS)
        self._metrics.participants(invited=0, uploaded=0)
        await asyncio.to_thread(self._spool.drop_all_but, None)

    def _end(self) -> PresentAttempt | None:
        present, self._present = self._present, None
        if self._search is not None:
            self._search.cancel()
            self._search = None
        self._ended = b"" if present is None else present.round_id
        return present

    def open_blob(self, digest: str, worker: str) -> BlobReader | None:
        """A large message that this worker was told to fetch."""
        return None if self._present is None else self._present.delivery.open(digest, worker)
