"""The run as a whole in JSON: where it stands, what its versions say, what became of its rounds.

`names` says whether the reader may see names of workers and clients. Without it there are numbers only: every
sentence that could hold a name is left out, not edited. Times are Unix seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coordinator.core.state import Phase
from coordinator.inspection.reports import Reports
from coordinator.inspection.views import StatusView
from coordinator.ports.clock import Clock
from coordinator.ports.figures import PRIVACY_PREFIX, Figures
from coordinator.ports.records import VersionRecord
from coordinator.sums.round_sum import SumView

Json = Any


def status(reports: Reports, clock: Clock, build: str, *, names: bool) -> dict[str, Json]:
    """Where the run stands now. Small, and cheap to make: this is what a page asks for again and again."""
    view = reports.status(clock.monotonic())
    newest = reports.catalogue.newest
    return {
        "run": {
            "id": view.run_id,
            "method": view.method,
            "mode": view.mode,
            "rounds": view.rounds,
            "build": build,
            "started_at": _seconds(clock.wall() - view.uptime_seconds),
        },
        "phase": {
            "name": view.phase,
            "paused": view.paused,
            "draining": view.draining,
            "awaited": view.awaited,
            "waiting_for": view.waiting_for if names else "",
            **_attempt(view, clock),
        },
        "cohort": reports.progress(),
        "population": {
            "registered": view.registered_clients,
            "connected": view.connected_clients,
            "revoked": view.revoked_clients,
            "workers": len(view.workers),
        },
        "version": {
            "number": newest.number,
            "digest": newest.model_digest,
            "committed_at": _seconds(newest.committed_at),
            "bytes": newest.full.size,
        },
        "statistics": _finite(view.figures.statistics),
        "evaluation": {"version": view.evaluated_version, "values": _finite(view.evaluation)},
        "secure_aggregation": _secure(view.masks, names=names),
        "privacy": _privacy(reports, view),
        "curves": curves_revision(reports),
    }


def _attempt(view: StatusView, clock: Clock) -> dict[str, Json]:
    if view.opened_at is None:
        newest = view.version.number
        return {"round": newest if view.phase == Phase.FINISHED.value else newest + 1, "attempt": 0}
    offset = clock.wall() - clock.monotonic()
    return {
        "round": view.round,
        "attempt": view.attempt,
        "goal": view.goal,
        "opened_at": _seconds(offset + view.opened_at),
        "deadline_at": None if view.deadline_at is None else _seconds(offset + view.deadline_at),
    }


def _secure(view: SumView | None, *, names: bool) -> dict[str, Json]:
    if view is None:
        return {"level": "off"}
    found: dict[str, Json] = {
        "level": view.level,
        "phase": view.phase,
        "participants": view.participants,
        "uploaded": view.uploaded,
        "survivors": view.survivors,
        "awaited": len(view.awaited),
    }
    return found | ({"awaited_workers": list(view.awaited[:50])} if names else {})


def _privacy(reports: Reports, view: StatusView) -> dict[str, Json]:
    settings = reports.facts.privacy
    if settings is None:
        return {"mechanism": "off"}
    return {
        "mechanism": settings.place.value,
        "clip_norm": settings.clip_norm,
        "noise_multiplier": settings.noise_multiplier,
        "described": view.privacy,
        **_finite(Figures(privacy=view.figures.privacy).statistics, PRIVACY_PREFIX),
    }


def curves_revision(reports: Reports) -> str:
    """Another word whenever the curves or the versions have changed."""
    evaluations = reports.evaluations
    measured = max(evaluations, default=0)
    return f"{reports.catalogue.newest.number}-{len(evaluations)}-{measured}-{len(evaluations.get(measured, {}))}"


def versions(reports: Reports, *, limit: int) -> dict[str, Json]:
    """The newest model versions, newest first. Looks at files: not for the event loop."""
    records = reports.catalogue.records
    newest = reports.catalogue.newest.number
    shown = [records[number] for number in range(newest, max(-1, newest - limit), -1) if number in records]
    return {"total": len(records), "versions": [_version(reports, record) for record in shown]}


def _version(reports: Reports, record: VersionRecord) -> dict[str, Json]:
    cost = record.figures.cost
    return {
        "number": record.number,
        "digest": record.model_digest,
        # Version 0 was made, not committed.
        "committed_at": _seconds(record.committed_at) if record.number else None,
        "clients": 0 if cost is None else cost.clients,
        "bytes": record.full.size,
        "delta_bytes": None if record.delta is None else record.delta.size,
        "kept": reports.catalogue.holds(record.number),
    }


def rounds(reports: Reports, *, limit: int, names: bool) -> dict[str, Json]:
    """The newest round attempts, newest first. Reads the journal: not for the event loop."""
    return {
        "rounds": [
            {
                "round": each.round,
                "attempt": each.attempt,
                "outcome": each.outcome,
                "reason": each.reason if names else "",
                "invited": each.cohort_size,
                "accepted": each.accepted,
                "opened_at": _seconds(each.opened_at),
                **{name: value for name, value in _finite(each.figures.statistics).items() if name in _COSTS},
            }
            for each in reports.rounds(limit)
        ]
    }


_COSTS = ("seconds", "bytes_up", "bytes_down")


def _finite(values: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """JSON has no NaN. Names lose the prefix."""
    return {name.removeprefix(prefix): float(value) for name, value in values.items() if math.isfinite(value)}


def _seconds(at: float) -> float:
    # To a tenth: two readings of the same instant should look the same.
    return round(at, 1)
