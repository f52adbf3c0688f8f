"""Which worker a client belongs to: of the federation, not of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.store.journal import rules
from coordinator.store.journal.database import Database


class SqliteBindings(Database):
    """The part of `coordinator.ports.journal.Journal` about who may act for a client."""

    def bindings(self) -> Mapping[str, str]:
        """See `coordinator.ports.journal.Journal`."""
        return {
            str(client): str(worker) for client, worker in self._rows("SELECT client, worker FROM bindings")
        }

    def granted_workers(self) -> frozenset[str]:
        """See `coordinator.ports.journal.Journal`."""
        return frozenset(str(worker) for (worker,) in self._rows("SELECT worker FROM granted_workers"))

    def bind_clients(self, worker: str, clients: Sequence[str], now: float, *, granted: bool = False) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("binding clients to a worker") as db:
            fresh = rules.check_bind(worker, clients, self.bindings())
            db.executemany(
                "INSERT INTO bindings (client, worker, bound_at) VALUES (?, ?, ?)",
                [(client, worker, now) for client in fresh],
            )
            if granted:
                db.execute(
                    "INSERT INTO granted_workers (worker) VALUES (?) ON CONFLICT DO NOTHING", (worker,)
                )

    def move_client(self, client: str, worker: str, now: float) -> None:
        """See `coordinator.ports.journal.Journal`."""
        with self._transaction("moving a client") as db:
            db.execute(
                "INSERT INTO bindings (client, worker, bound_at) VALUES (?, ?, ?) ON CONFLICT (client) DO UPDATE "
                "SET worker = excluded.worker, bound_at = excluded.bound_at WHERE worker <> excluded.worker",
                (client, worker, now),
            )
