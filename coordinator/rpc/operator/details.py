"""What a status says beside the state, on the wire: how far the cohort is, who left and who dropped out."""

from __future__ import annotations

from coordinator.inspection.reports import Reports
from coordinator.inspection.views import StatusView
from coordinator.ports.clock import Clock
from coordinator.sums.round_sum import SumView
from coordinator.telemetry.recent import Drop
from ssd_proto.v1 import operator_pb2 as pb

MOST = 50
"""Entries of a list."""


def details_message(reports: Reports, view: StatusView, clock: Clock) -> pb.StatusDetails:
    """Of the present moment. Looks at every client of the cohort."""
    seen, wall, now = reports.recent, clock.wall(), clock.monotonic()
    found = pb.StatusDetails(
        progress=reports.progress(),
        goal=view.goal,
        open_seconds=0.0 if view.opened_at is None else max(0.0, now - view.opened_at),
        left_seconds=None if view.deadline_at is None else view.deadline_at - now,
        departed=[
            pb.DepartedWorker(
                worker=worker, last_seen_seconds=_ago(wall, departure.at), reason=departure.reason
            )
            for worker, departure in seen.newest_departures(MOST)
        ],
        departed_workers=len(seen.departed),
        secure_aggregation=_secure(view.masks),
    )
    failed = [(drop, {"client": client}) for client, drop in seen.newest_failures(MOST)]
    refused = [(drop, {"worker": worker}) for worker, drop in seen.newest_refusals(MOST)]
    newest = sorted([*failed, *refused], key=lambda each: each[0].at, reverse=True)
    found.dropped.extend(_dropped(drop, who, wall) for drop, who in newest[:MOST])
    return found


def _dropped(drop: Drop, who: dict[str, str], wall: float) -> pb.DroppedOut:
    return pb.DroppedOut(
        round=drop.round, attempt=drop.attempt, reason=drop.reason, seconds_ago=_ago(wall, drop.at), **who
    )


def _secure(view: SumView | None) -> pb.SecureAggregationStatus:
    if view is None:
        return pb.SecureAggregationStatus(level="off")
    return pb.SecureAggregationStatus(
        level=view.level,
        phase=view.phase,
        participants=view.participants,
        uploaded=view.uploaded,
        survivors=view.survivors,
        awaited=view.awaited[:MOST],
        awaited_workers=len(view.awaited),
    )


def _ago(wall: float, at: float) -> float:
    # The wall clock may have been set back since.
    return max(0.0, wall - at)
