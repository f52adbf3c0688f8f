"""Attached workers: one session each, the newest fences older ones of the same worker instance."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from coordinator.errors import ClientFault, Reason
from ssd.trust.names import Role, Subject
from ssd_wire.messages import Capabilities, Down

OUTBOX_LIMIT = 4096
"""Messages a worker may fall behind by; one that reads slower than that is cut off."""


@dataclass(slots=True, eq=False)
class Session:
    """One Attend stream. `outbox` ends with None once the session is closed."""

    token: str
    worker: str
    """The name that tells it from every other session: see `session_name`."""
    instance: str
    clients: frozenset[str]
    capabilities: Capabilities
    last_seen: float
    subject: Subject | None = None
    """Whose certificate opened it; None where nobody proves anything."""
    outbox: asyncio.Queue[Down | None] = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    fetches: set[asyncio.Task[None]] = field(default_factory=set)
    """Blob reads under way; they end with the session."""
    closing: ClientFault | None = None
    """Why the coordinator closed it; None: it is open, or the worker went away by itself."""

    @property
    def own_name(self) -> str:
        """What its holder calls itself, and its certificate."""
        return self.worker.rpartition("/")[2]

    @property
    def open(self) -> bool:
        """Whether data calls with this session's token are served."""
        return not self.closed.is_set()

    def send(self, message: Down) -> None:
        """Queue a message; a worker that does not read is cut off rather than remembered for."""
        if not self.open:
            return
        if self.outbox.qsize() >= OUTBOX_LIMIT:
            self.close(ClientFault(Reason.SILENT, "the worker does not read its stream"))
            return
        self.outbox.put_nowait(message)

    def close(self, why: ClientFault | None = None) -> None:
        """End the session: what is queued is still sent, then the stream ends. Idempotent."""
        if self.open:
            self.closing = why
            self.closed.set()
            for fetch in self.fetches:
                fetch.cancel()
            self.outbox.put_nowait(None)


def session_name(worker: str, subject: Subject | None) -> str:
    """The name of a session: a worker's own, and for an evaluator one that no worker can have.

    Names are unique per role, and both roles attend: an evaluator that is called like a worker is somebody else.
    """
    if subject is None or subject.role is Role.WORKER:
        return worker
    return f"{subject.role.value}/{worker}"


class SessionTable:
    """The open sessions, by worker and by token."""

    def __init__(self) -> None:
        self._by_worker: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_worker.values()))

    def __len__(self) -> int:
        return len(self._by_worker)

    def check_name(self, worker: str, instance: str) -> None:
        """Refuse a second worker under a connected worker's name.

        Raises:
            ClientFault: reason worker_name_taken.
        """
        other = self._by_worker.get(worker)
        if other is not None and other.instance != instance:
            raise ClientFault(
                Reason.WORKER_NAME_TAKEN,
                f"a worker called {worker} is connected from another state directory; give this one its own name",
            )

    def add(self, session: Session) -> None:
        """Make `session` its worker's only one; an older one is fenced."""
        older = self._by_worker.get(session.worker)
        if older is not None:
            self.remove(older)
            older.close(ClientFault(Reason.FENCED, "the same worker opened a newer stream"))
        self._by_worker[session.worker] = session
        self._by_token[session.token] = session

    def remove(self, session: Session) -> bool:
        """Forget a session; False if a newer one had already taken its place."""
        self._by_token.pop(session.token, None)
        if self._by_worker.get(session.worker) is session:
            del self._by_worker[session.worker]
            return True
        return False

    def worker(self, name: str) -> Session | None:
        """The open session of a worker."""
        return self._by_worker.get(name)

    def by_token(self, token: str) -> Session:
        """The session a data call belongs to.

        Raises:
            ClientFault: reason no_session, if the token is void.
        """
        session = self._by_token.get(token)
        if session is None or not session.open:
            raise ClientFault(
                Reason.NO_SESSION, "the session token is void; attend again and use the new welcome's"
            )
        return session

    def silent(self, before: float) -> list[Session]:
        """Sessions last heard of before a time (monotonic seconds)."""
        return [session for session in self if session.last_seen < before]

    def views(self, now: float) -> tuple[WorkerView, ...]:
        """For status displays, by name."""
        return tuple(
            WorkerView(
                worker=session.worker,
                clients=len(session.clients),
                capabilities=session.capabilities,
                last_seen_seconds=now - session.last_seen,
            )
            for session in sorted(self, key=lambda each: each.worker)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerView:
    """An attached worker, for status displays."""

    worker: str
    clients: int
    capabilities: Capabilities
    last_seen_seconds: float
