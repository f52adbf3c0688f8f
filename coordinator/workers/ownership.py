"""Who may act for whom, as the operator decides it: revoking clients and identities, giving clients to workers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from coordinator.core import events
from coordinator.core.registry import WORKER_NAME
from coordinator.errors import ClientFault, NotPermitted, Reason
from coordinator.identity.revocations import RevocationList
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.run import Run
from coordinator.ports.trust import Holder
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.runtime.mailbox import Mailbox
from coordinator.workers.sessions import Session, SessionTable
from ssd.daemon.logs import event as log_event
from ssd.trust.names import Role, Subject

log = logging.getLogger(__name__)


class ClientOwnership:
    """The registry's side of the driver. Changes wait their turn in the driver's mailbox.

    Args:
        run: the run's present state and its events.
        sessions: the attached workers; those of a revoked holder end.
        mailbox: where changes wait their turn.
        journal: the journal.
        durability: for its writes.
        clock: for the times of events and records.
        revocations: who was revoked.
    """

    def __init__(
        self,
        *,
        run: Run,
        sessions: SessionTable,
        mailbox: Mailbox,
        journal: Journal,
        durability: DurableWrites,
        clock: Clock,
        revocations: RevocationList,
    ) -> None:
        self._run = run
        self._sessions = sessions
        self._mailbox = mailbox
        self._journal = journal
        self._durability = durability
        self._clock = clock
        self._revocations = revocations
        revocations.subscribe(self._cut_off)

    async def revoke_client(self, client: str) -> None:
        """Never sample a client again.

        Raises:
            ClientFault: reason not_found, if it is not registered.
        """

        async def apply() -> None:
            if client not in {record.client for record in self._journal.clients()}:
                raise ClientFault(Reason.NOT_FOUND, f"no client is called {client}")
            await self._durability.write(lambda: self._journal.revoke_client(client))
            await self._run.apply(events.ClientRevoked(now=self._clock.monotonic(), client=client))

        await self._mailbox.call(apply)

    async def revoke_identity(self, holder: Holder) -> bool:
        """Cut the holder of a certificate off, now and for ever; whether a worker of that name was connected.

        What it has contributed to the sum stays: a sum cannot be taken apart. What is not folded yet is refused. Its
        clients are not revoked; they wait until they are moved to another worker.

        Raises:
            ClientFault: reason conflict, if there are no certificates.
        """
        session = self._session(holder)
        await self._revocations.revoke(holder, self._clock.wall())
        return session is not None

    def _session(self, holder: Holder) -> Session | None:
        for session in self._sessions:
            subject = session.subject
            if session.open and subject is not None and Holder(subject.role, subject.name) == holder:
                return session
        return None

    def _cut_off(self, holders: frozenset[Holder]) -> None:
        for holder in holders:
            session = self._session(holder)
            if session is not None:
                why = f"{holder.role.value} {holder.name} was revoked by the operator"
                session.close(NotPermitted(Reason.REVOKED, why))

    def check(self, session: Session) -> None:
        """Refuse what a holder that is revoked by now has sent.

        Raises:
            NotPermitted: reason revoked.
        """
        if session.subject is not None and self._revocations.is_revoked(session.subject):
            raise NotPermitted(Reason.REVOKED, f"worker {session.worker} was revoked by the operator")

    async def bind(self, worker: str, clients: Sequence[str]) -> None:
        """Give a worker its clients before it has ever attended; it may bring no others. May be repeated.

        Raises:
            ClientFault: reason client_bound, if one of them belongs to another worker; none is given then.
        """

        async def apply() -> None:
            bindings = self._journal.bindings()
            for client in clients:
                if bindings.get(client, worker) != worker:
                    raise ClientFault(
                        Reason.CLIENT_BOUND, f"client {client} belongs to worker {bindings[client]}"
                    )
            now = self._clock.wall()
            await self._durability.write(
                lambda: self._journal.bind_clients(worker, clients, now, granted=True)
            )
            await self._give(worker, clients, granted=True)

        await self._mailbox.call(apply)

    async def _give(self, worker: str, clients: Sequence[str], *, granted: bool = False) -> None:
        now = self._clock.monotonic()
        await self._run.apply(
            events.ClientsGiven(now=now, worker=worker, clients=tuple(clients), granted=granted)
        )

    async def move_client(self, client: str, worker: str) -> str:
        """Give a client to another worker; the worker it belonged to before, or "".

        Raises:
            ClientFault: reason not_found, bad_name, or conflict: the client's host is still connected, the worker is
                revoked, or workers do not prove their names.
        """

        async def apply() -> str:
            state = self._run.state
            if state.bindings is None:
                raise ClientFault(
                    Reason.CONFLICT,
                    "without TLS no client belongs to anybody: whoever claims it first hosts it",
                )
            if client not in state.bindings and state.strangers([client]):
                raise ClientFault(Reason.NOT_FOUND, f"no client is called {client}")
            if not WORKER_NAME.fullmatch(worker):
                raise ClientFault(Reason.BAD_NAME, f"{worker!r} is no name of a worker")
            if self._revocations.is_revoked_holder(Holder(Role.WORKER, worker)):
                raise ClientFault(Reason.CONFLICT, f"worker {worker} is revoked")
            host = state.hosts.get(client, worker)
            if host != worker:
                raise ClientFault(
                    Reason.CONFLICT,
                    f"client {client} is hosted by the connected worker {host}: take it out of that worker's"
                    " configuration, or stop or revoke the worker, then move it",
                )
            now = self._clock.wall()
            await self._durability.write(lambda: self._journal.move_client(client, worker, now))
            await self._give(worker, (client,))
            return state.bindings.get(client, "")

        return await self._mailbox.call(apply)


def log_audit(caller: Subject | str | None, action: str, **what: str) -> None:
    """One line for whatever an operator changes; `caller`: whose certificate, or how else it is known."""
    by = caller.uri if isinstance(caller, Subject) else caller or "without TLS"
    log_event(log, logging.WARNING, "audit", action=action, by=by, **what)
