"""A registered client as everybody shows it."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.state import RunState
from coordinator.telemetry.recent import Drop, RecentStatus
from coordinator.versions.inclusions import Inclusions
from coordinator.workers.sessions import SessionTable


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientView:
    """Where a client is, whose it is and what became of it."""

    client: str
    worker: str
    """Hosts it now; empty: nobody."""
    last_worker: str
    """Hosts it now or was the last to, as far as is remembered."""
    last_contact: float | None
    """Unix seconds at which that worker was last heard of; None: not since the coordinator's start."""
    belongs_to: str
    """The only worker that may act for it; empty: nobody's yet, or workers do not prove their names."""
    index: int | None
    """Its place in the allocation of scaling vectors; None: it has none yet."""
    last_round: int
    """The newest committed round that included it; 0: none."""
    revoked: bool
    failure: Drop | None


def client_view(
    client: str,
    state: RunState,
    sessions: SessionTable,
    recent: RecentStatus,
    inclusions: Inclusions,
    offset: float,
) -> ClientView:
    """The client as it stands now; `offset`: Unix seconds less monotonic ones."""
    worker = state.hosts.get(client, "")
    session = sessions.worker(worker) if worker else None
    left = recent.last_contact(client) if session is None else None
    at = None if left is None else left.at
    return ClientView(
        client=client,
        worker=worker,
        last_worker=worker or ("" if left is None else left.worker),
        last_contact=at if session is None else offset + session.last_seen,
        belongs_to=(state.bindings or {}).get(client, ""),
        index=state.indexes.get(client),
        last_round=inclusions.last_rounds.get(client, 0),
        revoked=client in state.revoked,
        failure=recent.failure(client),
    )
