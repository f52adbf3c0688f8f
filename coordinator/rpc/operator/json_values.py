"""The Operator service's larger answers as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ssd_proto.v1 import operator_pb2 as pb

Json = Any


def status(reply: pb.StatusReply) -> dict[str, Json]:
    """The answer to Status and Watch."""
    # A coordinator that does not know of details leaves them out.
    details = {"details": _details(reply.details)} if reply.HasField("details") else {}
    return details | {
        "run_id": reply.run_id,
        "method": reply.method,
        "mode": reply.mode,
        "phase": reply.phase,
        "waiting_for": reply.waiting_for,
        "version": reply.version.number,
        "model_digest": reply.version.model_digest,
        "rounds": reply.rounds,
        "round": reply.round,
        "attempt": reply.attempt,
        "cohort": dict(sorted(reply.cohort.items())),
        "workers": [
            {
                "worker": each.worker,
                "clients": each.clients,
                "evaluates": each.evaluates,
                "device": each.device,
                "last_seen_seconds": number(each.last_seen_seconds),
            }
            for each in reply.workers
        ],
        "registered_clients": reply.registered_clients,
        "connected_clients": reply.connected_clients,
        "evaluated_version": reply.evaluated_version,
        "evaluation": numbers(reply.evaluation),
        "statistics": numbers(reply.statistics),
        "build": reply.build,
        "uptime_seconds": number(reply.uptime_seconds),
        "privacy": reply.privacy,
    }


def provenance(known: pb.Provenance) -> dict[str, Json]:
    """How a version came to be."""
    return {
        "parent_digest": known.parent_digest,
        "mode": known.mode,
        "rounds": known.rounds,
        "registered_clients": known.registered_clients,
        "included_clients": known.included_clients,
        "total_weight": known.total_weight,
        "statistics": numbers(known.statistics),
        "evaluation": numbers(known.evaluation),
        "secure_aggregation": known.secure_aggregation,
        "privacy": known.privacy,
        "build": known.build,
    }


def numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """By name; what is not finite is null."""
    return {name: number(value) for name, value in sorted(values.items())}


def _details(told: pb.StatusDetails) -> dict[str, Json]:
    """`StatusDetails` as JSON."""
    secure = told.secure_aggregation
    return {
        "progress": dict(sorted(told.progress.items())),
        "goal": told.goal,
        "open_seconds": number(told.open_seconds),
        "left_seconds": number(told.left_seconds) if told.HasField("left_seconds") else None,
        "departed": [
            {
                "worker": each.worker,
                "last_seen_seconds": number(each.last_seen_seconds),
                "reason": each.reason,
            }
            for each in told.departed
        ],
        "departed_workers": told.departed_workers,
        "dropped": [
            {
                "client": each.client,
                "worker": each.worker,
                "round": each.round,
                "attempt": each.attempt,
                "reason": each.reason,
                "seconds_ago": number(each.seconds_ago),
            }
            for each in told.dropped
        ],
        "secure_aggregation": {
            "level": secure.level,
            "phase": secure.phase,
            "participants": secure.participants,
            "uploaded": secure.uploaded,
            "survivors": secure.survivors,
            "awaited": list(secure.awaited),
            "awaited_workers": secure.awaited_workers,
        },
    }


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
