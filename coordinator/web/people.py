"""Workers and clients in JSON. Everything here names somebody.

Lists come in pages, sorted by name: a federation may have ten thousand clients, and what is drawn is a screenful.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from coordinator.inspection.cohort_progress import part
from coordinator.inspection.reports import Reports
from coordinator.ports.clock import Clock
from coordinator.telemetry.recent import Departure, Drop
from coordinator.workers.sessions import Session

Json = Any
MOST_PER_PAGE = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A part of a list."""

    offset: int = 0
    limit: int = 100
    find: str = ""
    """Only names that contain this, in any case."""

    def of(self, names: Iterable[str], row: Callable[[str], Json]) -> dict[str, Json]:
        """The rows of the page, and how many there are in all."""
        wanted = self.find.casefold()
        found = sorted(name for name in names if wanted in name.casefold())
        shown = islice(found, self.offset, self.offset + min(self.limit, MOST_PER_PAGE))
        return {"total": len(found), "offset": self.offset, "rows": [row(name) for name in shown]}


def cohort(reports: Reports, page: Page) -> dict[str, Json]:
    """Every client of the present attempt; between attempts there is nobody."""
    attempt = reports.state.attempt
    if attempt is None:
        return {"round": 0, "attempt": 0, "total": 0, "offset": 0, "rows": []}
    present = attempt

    def row(client: str) -> Json:
        steps = reports.recent.steps(client)
        failure = reports.recent.failure(client) if client in present.failures else None
        return {
            "client": client,
            "worker": reports.state.hosts.get(client, ""),
            "part": part(reports.state, reports.recent, present, client).value,
            "steps": None if steps is None else list(steps),
            "failures": present.failures.get(client, 0),
            "reason": "" if failure is None else failure.reason,
        }

    return {"round": attempt.round, "attempt": attempt.number, **page.of(attempt.cohort, row)}


def workers(reports: Reports, clock: Clock, page: Page) -> dict[str, Json]:
    """Workers that are attached, and those that were since the coordinator's start."""
    sessions = {session.worker: session for session in reports.sessions}
    departed = reports.recent.departed
    offset = clock.wall() - clock.monotonic()

    def row(worker: str) -> Json:
        session = sessions.get(worker)
        facts = _gone(departed[worker]) if session is None else _attached(session, offset)
        return {"worker": worker, **facts, "refused": _drop(reports.recent.refusal(worker))}

    return page.of(sessions.keys() | departed.keys(), row)


def _attached(session: Session, offset: float) -> dict[str, Json]:
    return {
        "connected": True,
        "clients": len(session.clients),
        "device": session.capabilities.device,
        "evaluates": session.capabilities.evaluates,
        "last_contact": round(offset + session.last_seen),
        "left": "",
    }


def _gone(departure: Departure) -> dict[str, Json]:
    return {
        "connected": False,
        "clients": 0,
        "device": "",
        "evaluates": False,
        "last_contact": round(departure.at),
        "left": departure.reason,
    }


def clients(reports: Reports, clock: Clock, page: Page, only: str = "") -> dict[str, Json]:
    """Every client that was ever registered.

    Args:
        reports: of the run.
        clock: for last contacts.
        page: which of them.
        only: `connected`, `away`, `revoked` or `failed`; anything else: all.
    """

    def row(client: str) -> Json:
        view = reports.client(client, clock)
        return {
            "client": client,
            "state": "revoked" if view.revoked else "connected" if view.worker else "away",
            "worker": view.last_worker,
            "belongs_to": view.belongs_to,
            "index": view.index,
            "last_round": view.last_round,
            "last_contact": None if view.last_contact is None else round(view.last_contact),
            "failure": _drop(view.failure),
        }

    return page.of(_chosen(reports, only), row)


def _chosen(reports: Reports, only: str) -> Iterator[str]:
    state = reports.state
    known = state.clients | state.revoked | state.indexes.keys()
    match only:
        case "connected":
            yield from known & state.hosts.keys()
        case "away":
            yield from known - state.hosts.keys() - state.revoked
        case "revoked":
            yield from state.revoked
        case "failed":
            yield from (client for client in known if reports.recent.failure(client) is not None)
        case _:
            yield from known


def _drop(drop: Drop | None) -> Json:
    if drop is None:
        return None
    return {"at": round(drop.at), "round": drop.round, "attempt": drop.attempt, "reason": drop.reason}
