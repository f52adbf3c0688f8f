"""Uploads between their last byte and their verdict: checked in a thread, offered to the round, answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from coordinator.core import effects, events
from coordinator.errors import ClientFault, Reason
from coordinator.ports.clock import Clock
from coordinator.ports.run import Run
from coordinator.runtime.mailbox import Mailbox
from coordinator.runtime.memory import trim
from coordinator.telemetry.client_history import ClientHistory, Note
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.recent import RecentStatus
from coordinator.uploads.envelope_checks import CONTENT, verdict_of
from coordinator.uploads.in_flight import Upload, UploadsInFlight
from coordinator.workers.ownership import ClientOwnership
from coordinator.workers.sessions import Session
from ssd.daemon.logs import repeatable
from ssd.updates.fold import FoldPlan
from ssd_wire.uploads import Envelope, UploadFate, Verdict

log = logging.getLogger(__name__)

CHECKS_AT_ONCE = 1
"""A body on disk is mapped while it is checked; how many are must not depend on how many workers there are."""


class UploadVerification:
    """Every upload that comes in whole leaves with exactly one verdict and one count.

    Args:
        in_flight: the uploads in flight; a judged one gives its room back.
        plan: the fold plan of a round.
        mailbox: says when the daemon stops.
        run: gets the events.
        ownership: says who was revoked in the meantime.
        history: the clients' history of the attempt.
        clock: for the times of events and notes.
        metrics: counts every verdict.
        recent: what people see of refusals.
    """

    def __init__(
        self,
        *,
        in_flight: UploadsInFlight,
        plan: Callable[[int], FoldPlan],
        mailbox: Mailbox,
        run: Run,
        ownership: ClientOwnership,
        history: ClientHistory,
        clock: Clock,
        metrics: CoordinatorMetrics,
        recent: RecentStatus,
    ) -> None:
        self._in_flight = in_flight
        self._plan = plan
        self._mailbox = mailbox
        self._run = run
        self._ownership = ownership
        self._history = history
        self._clock = clock
        self._metrics = metrics
        self._recent = recent
        self._offered: dict[int, tuple[Upload, asyncio.Future[Verdict]]] = {}
        self._numbers = 0
        self._judging: set[asyncio.Task[Verdict]] = set()
        self._checking = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def judge(self, session: Session, upload: Upload) -> Verdict:
        """Check a complete upload, offer it to the round, give its fate. Its room is given back.

        Once begun it is gone through with, whether or not the caller is still there to hear the verdict.
        """
        task = asyncio.ensure_future(self._judge(session, upload))
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)
        return await asyncio.shield(task)

    async def _judge(self, session: Session, upload: Upload) -> Verdict:
        try:
            try:
                async with self._checking:
                    await asyncio.to_thread(self._check, upload)
                self._ownership.check(session)
            except ClientFault as fault:
                return self.reject(session, upload.envelope, fault)
            verdict = await self._offer(session, upload)
        finally:
            self._in_flight.finish(upload)
        self._metrics.upload(verdict.fate, verdict.reason)
        if verdict.fate is not UploadFate.ACCEPTED:
            self._note(session, upload.envelope, verdict)
        return verdict

    def _check(self, upload: Upload) -> None:
        # The buffers its bytes came in are free by now; what follows needs memory of its own.
        trim()
        upload.check(self._plan(upload.envelope.round))

    async def _offer(self, session: Session, upload: Upload) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._numbers += 1
        number = self._numbers
        self._offered[number] = (upload, verdict)
        envelope = upload.envelope
        try:
            self._run.post(
                events.UploadVerified(
                    now=self._clock.monotonic(),
                    upload=number,
                    worker=session.worker,
                    round=envelope.round,
                    attempt=envelope.attempt,
                    clients=tuple(sorted(envelope.names)),
                )
            )
            await self._mailbox.or_stopped(verdict)
            if not verdict.done():
                return verdict_of(_stopping())
            return verdict.result()
        finally:
            del self._offered[number]

    def upload(self, number: int) -> Upload | None:
        """An upload under judgement; None: the daemon stops and its call was dismissed."""
        offered = self._offered.get(number)
        return None if offered is None else offered[0]

    def answer(self, effect: effects.AnswerUpload) -> None:
        """Give an upload its verdict."""
        offered = self._offered.get(effect.upload)
        if offered is None:
            return  # the daemon stops: its call was dismissed
        upload, answer = offered
        if not answer.done():
            verdict = Verdict(fate=effect.fate, reason=effect.reason, detail=effect.detail)
            answer.set_result(verdict)
            # Here and not where the answer is awaited: the commit that it may be part of follows at once.
            self._remember(upload.worker, upload.envelope, verdict)

    def dismiss(self) -> None:
        """The daemon stops: nobody waits for a verdict or for room any longer."""
        self._in_flight.wake()
        for _, verdict in self._offered.values():
            if not verdict.done():
                verdict.set_result(verdict_of(_stopping()))

    def reject(self, session: Session, envelope: Envelope, fault: ClientFault) -> Verdict:
        """Count a refusal; a fault of the content is a failure of its clients."""
        verdict = verdict_of(fault)
        self._metrics.upload(verdict.fate, verdict.reason)
        self._note(session, envelope, verdict)
        self._remember(session.worker, envelope, verdict)
        repeatable(
            log,
            logging.WARNING if verdict.fate is UploadFate.REJECTED else logging.INFO,
            "upload_refused",
            (session.worker, verdict.reason),
            worker=session.worker,
            round=envelope.round,
            attempt=envelope.attempt,
            fate=verdict.fate.value,
            reason=verdict.reason,
            detail=verdict.detail,
        )
        if fault.reason in CONTENT:
            own = tuple(sorted(client for client in envelope.names if client in session.clients))
            self._recent.failed(own, envelope.round, envelope.attempt, verdict.reason, self._clock.wall())
            self._run.post(
                events.ClientFailed(
                    now=self._clock.monotonic(),
                    worker=session.worker,
                    round=envelope.round,
                    attempt=envelope.attempt,
                    clients=own,
                    reason=fault.reason.value,
                )
            )
        return verdict

    def _remember(self, worker: str, envelope: Envelope, verdict: Verdict) -> None:
        note = Note(self._clock.wall(), verdict.fate.value, verdict.reason, worker)
        self._history.upload(envelope.round, envelope.attempt, envelope.names, note)

    def _note(self, session: Session, envelope: Envelope, verdict: Verdict) -> None:
        self._recent.refused(
            session.worker, envelope.round, envelope.attempt, verdict.reason, self._clock.wall()
        )


def _stopping() -> ClientFault:
    return ClientFault(Reason.DRAINING, "the coordinator stops; offer the update again to the next one")
