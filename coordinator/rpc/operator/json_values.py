"""The Operator service's answers as plain JSON values: field by field, under the names of the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from ssd_proto.v1 import operator_pb2 as pb

Json = Any
_STATUS = (
    "rounds", "round", "attempt", "cohort", "workers", "registered_clients", "connected_clients", "evaluated_version",
    "evaluation", "statistics", "build", "uptime_seconds", "privacy",
)  # fmt: skip
_ROUND = (
    "round", "attempt", "outcome", "reason", "cohort_size", "accepted", "seconds", "bytes_up", "bytes_down",
    "model_digest", "statistics", "accepted_clients", "closed_at",
)  # fmt: skip
_CLIENT = (
    "client", "index", "worker", "belongs_to", "last_committed_round", "rounds_included", "revoked",
    "scaled_dimensions", "alpha",
)  # fmt: skip


def status(reply: pb.StatusReply) -> dict[str, Json]:
    """The answer to Status and Watch."""
    told = {
        **plain(reply, "run_id", "method", "mode", "phase", "waiting_for"),
        "version": reply.version.number,
        "model_digest": reply.version.model_digest,
        **plain(reply, *_STATUS),
    }
    if not reply.HasField("details"):  # a coordinator that does not know of details leaves them out
        return told
    details = plain(reply.details)
    if not reply.details.HasField("left_seconds"):
        details["left_seconds"] = None
    return {"details": details, **told}


def round_record(record: pb.RoundRecord) -> dict[str, Json]:
    """A round attempt."""
    return plain(record, *_ROUND)


def client_record(record: pb.ClientRecord) -> dict[str, Json]:
    """A registered client; without an index: null."""
    told = plain(record, *_CLIENT)
    return told | ({"index": None} if record.index < 0 else {})


def plain(message: Message, *names: str) -> dict[str, Json]:
    """The fields of these names in this order; of none: all, as the message declares them."""
    chosen = names or [each.name for each in message.DESCRIPTOR.fields]
    return {name: _value(getattr(message, name)) for name in chosen}


def numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """By name; what is not finite is null."""
    return {name: number(value) for name, value in sorted(values.items())}


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _value(value: Any) -> Json:
    match value:
        case float():
            return number(value)
        case Message():
            return plain(value)
        case str() | bytes():
            return value
        case Mapping():
            return numbers(value)
        case Sequence():
            return [_value(each) for each in value]
        case _:
            return value
