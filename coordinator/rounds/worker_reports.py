"""Attending workers: who is let in, what they report, and how they leave."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace

from coordinator.core import events, registry
from coordinator.core.state import Phase
from coordinator.errors import ClientFault, NotPermitted, Reason
from coordinator.evaluation.schedule import Evaluations
from coordinator.identity.revocations import RevocationList
from coordinator.ports.clock import Clock
from coordinator.ports.run import Run
from coordinator.runtime.mailbox import Mailbox
from coordinator.sums.round_sum import RoundSum
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.recent import RecentStatus
from coordinator.versions.catalogue import Catalogue
from coordinator.versions.inclusions import Inclusions
from coordinator.workers.sessions import Session, SessionTable, session_name
from coordinator.workers.welcome import RunTerms, welcome
from ssd.daemon.logs import event as log_event
from ssd.daemon.logs import repeatable
from ssd.trust.names import Role, Subject
from ssd_wire.messages import Capabilities, EvaluationDone, Hello, RunChanged

log = logging.getLogger(__name__)

PROTOCOL_VERSIONS = range(1, 2)
"""Protocol versions this build speaks."""
SILENT_HEARTBEATS = 3


class WorkerReports:
    """The workers' side of the driver. Whatever touches the run's state waits its turn in the driver's mailbox.

    Args:
        run: the run's present state and its events.
        terms: what every worker is told alike.
        inclusions: which clients the commits included.
        sessions: the attached workers.
        mailbox: where reports wait their turn.
        catalogue: the versions.
        evaluations: what attached workers are asked to measure.
        round_sum: gets the messages of its protocol.
        clock: for silence and the times of events.
        metrics: counts failures.
        revocations: who may not attend.
        recent: what people want to see.
    """

    def __init__(
        self,
        *,
        run: Run,
        terms: RunTerms,
        inclusions: Inclusions,
        sessions: SessionTable,
        mailbox: Mailbox,
        catalogue: Catalogue,
        evaluations: Evaluations,
        round_sum: RoundSum,
        clock: Clock,
        metrics: CoordinatorMetrics,
        revocations: RevocationList,
        recent: RecentStatus,
    ) -> None:
        self._run = run
        self._terms = terms
        self._inclusions = inclusions
        self._sessions = sessions
        self._mailbox = mailbox
        self._catalogue = catalogue
        self._evaluations = evaluations
        self._sum = round_sum
        self._clock = clock
        self._metrics = metrics
        self._revocations = revocations
        self._recent = recent

    @property
    def silence_seconds(self) -> float:
        """How long a worker may say nothing."""
        return SILENT_HEARTBEATS * self._terms.heartbeat_seconds

    def cut_off_silent(self) -> None:
        """End the sessions nothing was heard of for too long."""
        limit = self.silence_seconds
        for session in self._sessions.silent(self._clock.monotonic() - limit):
            session.close(ClientFault(Reason.SILENT, f"nothing was heard for {limit:g} s"))

    async def attach(
        self,
        hello: Hello,
        subject: Subject | None = None,
    ) -> Session:
        """Open a session; its outbox begins with the welcome.

        Args:
            hello: what the worker says of itself; its name is the subject's, if there is one.
            subject: whose certificate it is; None where nobody proves anything.

        Raises:
            ClientFault: the worker may not attend, and why.
        """
        protocol = hello.protocol
        common = [version for version in PROTOCOL_VERSIONS if protocol[0] <= version <= protocol[1]]
        if not common:
            raise ClientFault(
                Reason.PROTOCOL_VERSION,
                f"this coordinator speaks protocol {PROTOCOL_VERSIONS.start} to {PROTOCOL_VERSIONS.stop - 1}, the worker"
                f" {protocol[0]} to {protocol[1]}; upgrade the older one",
            )

        admitting = asyncio.ensure_future(
            self._mailbox.call(lambda: self._admit(hello, subject, max(common)))
        )
        try:
            return await asyncio.shield(admitting)
        except asyncio.CancelledError:
            # The worker went away while it was let in: nobody else would ever see its session out.
            admitting.add_done_callback(self._see_out)
            raise

    async def _admit(self, hello: Hello, subject: Subject | None, protocol: int) -> Session:
        """Let a worker in, between two commands of the mailbox; raises ClientFault."""
        if subject is not None and self._revocations.is_revoked(subject):
            raise NotPermitted(Reason.REVOKED, f"{subject.uri} was revoked by the operator")
        _check_role(subject, hello.clients)
        registry.check_hello(self._run.state, hello)
        _check_labels(self._terms, hello.worker, hello.clients, hello.capabilities)
        name = session_name(hello.worker, subject)
        self._sessions.check_name(name, hello.instance)
        session = Session(
            token=secrets.token_hex(16),
            worker=name,
            instance=hello.instance,
            clients=frozenset(hello.clients),
            capabilities=self._capabilities(hello, subject),
            last_seen=self._clock.monotonic(),
            subject=subject,
        )
        greeting = welcome(
            self._terms,
            hello,
            token=session.token,
            protocol=protocol,
            accepted_sets=self._inclusions.accepted_sets,
            catalogue=self._catalogue,
            committed_rounds=self._inclusions.last_rounds,
            metrics=self._metrics,
        )
        # What an older stream of the worker was asked to measure, nobody will answer.
        self._evaluations.lost(name)
        self._sessions.add(session)
        try:
            session.send(greeting)
            # Before it gets its next task: clients are measured in the state that belongs to the version.
            self._evaluations.offer_clients()
            log_event(log, logging.INFO, "worker_attached", worker=name, clients=len(hello.clients))
            await self._run.apply(
                events.WorkerAttached(
                    now=self._clock.monotonic(), worker=name, clients=tuple(sorted(hello.clients))
                )
            )
            if self._run.state.phase is Phase.FINISHED:
                session.send(RunChanged(reason="all rounds are committed", finished=True))
        except BaseException:
            session.close()
            self._sessions.remove(session)
            raise
        # The loop may have stood still meanwhile; that was not the worker's silence.
        self.note_contact(session)
        self._recent.attached(name)
        return session

    def _capabilities(self, hello: Hello, subject: Subject | None) -> Capabilities:
        """What a worker offers, without an offer to measure that is not taken."""
        offered = hello.capabilities
        if not offered.evaluates or self._evaluations.may_measure(hello.worker, subject):
            return offered
        detail = (
            "to take it, name the worker in `evaluation.workers`, or use a certificate of the role evaluator"
        )
        repeatable(log, logging.INFO, "evaluator_not_named", ("worker",), worker=hello.worker, detail=detail)
        return replace(offered, evaluates=False)

    def _see_out(self, admitting: asyncio.Future[Session]) -> None:
        if not admitting.cancelled() and admitting.exception() is None:
            self.detach(admitting.result())

    def detach(self, session: Session) -> None:
        """The session's stream ended."""
        session.close()
        if self._sessions.remove(session):
            log_event(log, logging.INFO, "worker_detached", worker=session.worker)
            self._evaluations.lost(session.worker)
            self._recent.detached(
                session.worker,
                session.clients,
                "" if session.closing is None else session.closing.code,
                last_seen=self._clock.wall() - (self._clock.monotonic() - session.last_seen),
            )

            async def gone() -> None:
                # A newer stream of the same worker may have been let in while this waited its turn.
                if self._sessions.worker(session.worker) is None:
                    await self._run.apply(
                        events.WorkerDetached(now=self._clock.monotonic(), worker=session.worker)
                    )

            self._mailbox.put(gone)

    def note_contact(self, session: Session) -> None:
        """Something arrived from the worker."""
        session.last_seen = self._clock.monotonic()

    async def change_clients(self, session: Session, clients: Mapping[str, int]) -> None:
        """The worker hosts other clients now.

        Raises:
            ClientFault: as `attach`; the session keeps what it had.
        """

        async def change() -> None:
            if not session.open:
                return
            hello = Hello(worker=session.own_name, instance=session.instance, clients=clients)
            registry.check_hello(self._run.state, hello)
            _check_role(session.subject, clients)
            _check_labels(self._terms, session.worker, clients, session.capabilities)
            if any(
                self._inclusions.last_rounds.get(client, 0) != record for client, record in clients.items()
            ):
                # Only a welcome can declare a client's state void.
                raise ClientFault(Reason.CONFLICT, "a client's record differs from ours; say hello again")
            session.clients = frozenset(clients)
            await self._run.apply(
                events.WorkerAttached(
                    now=self._clock.monotonic(), worker=session.worker, clients=tuple(sorted(clients))
                )
            )
            self.note_contact(session)

        await self._mailbox.call(change)

    async def client_failed(
        self, session: Session, round_number: int, attempt: int, client: str, reason: str
    ) -> None:
        """A worker reports that a client (or, with an empty name, its whole task) failed.

        Returns when the report was looked at: a worker cannot have more than one waiting.
        """
        if client and client not in session.clients:
            return
        self._metrics.client_failed(reason)
        failed = (client,) if client else self._unfinished(session)
        self._recent.failed(failed, round_number, attempt, reason, self._clock.wall())

        async def count() -> None:
            await self._run.apply(
                events.ClientFailed(
                    now=self._clock.monotonic(),
                    worker=session.worker,
                    round=round_number,
                    attempt=attempt,
                    clients=(client,) if client else (),
                    reason=reason,
                )
            )
            self.note_contact(session)

        await self._mailbox.call(count)

    def _unfinished(self, session: Session) -> tuple[str, ...]:
        attempt = self._run.state.attempt
        if attempt is None:
            return ()
        return tuple(sorted(session.clients & frozenset(attempt.cohort) - attempt.accepted))

    async def progressed(
        self, session: Session, round_number: int, attempt: int, client: str, step: int, steps: int
    ) -> None:
        """A worker says how far a client's training is. Returns when it was looked at, as with messages of the kind."""
        if client in session.clients:
            self._recent.progressed(round_number, attempt, client, step, steps)
        if not self._sum.awaits_training:
            return

        async def look() -> None:
            if session.open:
                await self._sum.training_progressed(session, round_number, attempt, client, step, steps)

        await self._mailbox.call(look)

    async def secure_message(self, session: Session, round_id: bytes, content: bytes) -> None:
        """A worker's message of secure aggregation. Returns when it was looked at: a worker has no more than one waiting.

        Raises:
            ClientFault: the run has no secure aggregation, or this is no message.
        """

        async def hear() -> None:
            if session.open:
                await self._sum.receive(session, round_id, content)
            self.note_contact(session)

        await self._mailbox.call(hear)

    async def evaluation_done(self, session: Session, answer: EvaluationDone) -> None:
        """A worker that was asked to measure a version answers."""

        async def record() -> None:
            await self._evaluations.done(session.worker, answer)
            self._evaluations.offer()
            self.note_contact(session)

        await self._mailbox.call(record)


def _check_role(subject: Subject | None, clients: Collection[str]) -> None:
    """An evaluator measures versions and has no clients.

    Raises:
        NotPermitted: reason role.
    """
    if clients and subject is not None and subject.role is Role.EVALUATOR:
        raise NotPermitted(
            Reason.ROLE, "a certificate of the role evaluator hosts no clients: enrol this device as a worker"
        )


def _check_labels(terms: RunTerms, worker: str, clients: Collection[str], capabilities: Capabilities) -> None:
    """A method that learns from labels cannot use clients without; an evaluator without clients is welcome.

    Raises:
        ClientFault: reason labels_needed.
    """
    if terms.declaration.needs_labels and clients and not capabilities.labels:
        method = terms.declaration.method
        log_event(log, logging.WARNING, "labels_needed", worker=worker, clients=len(clients), method=method)
        raise ClientFault(
            Reason.LABELS_NEEDED,
            f"the method {method} learns from labels and this worker's images have none; use a built-in data set, or"
            ' folders with one sub-folder per class, labels = "folders" and the classes of the whole federation',
        )
