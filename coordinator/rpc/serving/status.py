"""The one table from reasons to gRPC statuses. docs/protocol.md prints it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from coordinator.errors import Reason

Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class WireStatus:
    """What a refused call ends with."""

    code: grpc.StatusCode
    retry: bool
    """Whether the same call may succeed later without anybody changing anything."""


TABLE: dict[Reason, WireStatus] = {
    Reason.MALFORMED_MESSAGE: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.MESSAGE_TOO_LARGE: WireStatus(Code.RESOURCE_EXHAUSTED, retry=False),
    Reason.WRONG_ORDER: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.PROTOCOL_VERSION: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.BAD_NAME: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.WORKER_NAME_TAKEN: WireStatus(Code.ALREADY_EXISTS, retry=True),
    Reason.CLIENT_CLAIMED: WireStatus(Code.ALREADY_EXISTS, retry=True),
    Reason.CLIENT_BOUND: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.CLIENT_UNKNOWN: WireStatus(Code.NOT_FOUND, retry=False),
    Reason.LABELS_NEEDED: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.CLIENT_REVOKED: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.CLIENT_NOT_HOSTED: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.CLIENT_NOT_INVITED: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.FENCED: WireStatus(Code.ABORTED, retry=False),
    Reason.SILENT: WireStatus(Code.DEADLINE_EXCEEDED, retry=True),
    Reason.STALLED: WireStatus(Code.DEADLINE_EXCEEDED, retry=True),
    Reason.NO_SESSION: WireStatus(Code.UNAUTHENTICATED, retry=True),
    Reason.TLS_VERSION: WireStatus(Code.UNAUTHENTICATED, retry=False),
    Reason.NO_IDENTITY: WireStatus(Code.UNAUTHENTICATED, retry=False),
    Reason.WRONG_FEDERATION: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.IDENTITY_MISMATCH: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.ROLE: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.REVOKED: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.WRONG_RUN: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.WRONG_ROUND: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.WRONG_BASE: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.WRONG_SPEC: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.WRONG_TASK: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.STALE_ATTEMPT: WireStatus(Code.ABORTED, retry=True),
    Reason.DUPLICATE: WireStatus(Code.ALREADY_EXISTS, retry=False),
    Reason.TOO_LATE: WireStatus(Code.ABORTED, retry=False),
    Reason.NOT_NEEDED: WireStatus(Code.ABORTED, retry=False),
    Reason.FOLD_NOT_ALLOWED: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.SECURE_AGGREGATION_REQUIRED: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.NOT_A_PARTICIPANT: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.WRONG_SHARERS: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.TRUNCATED: WireStatus(Code.DATA_LOSS, retry=True),
    Reason.CORRUPT_CHUNK: WireStatus(Code.DATA_LOSS, retry=True),
    Reason.BAD_OFFSET: WireStatus(Code.OUT_OF_RANGE, retry=True),
    Reason.WRONG_LENGTH: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.MALFORMED_UPDATE: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.NOT_FINITE: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.OVER_BOUND: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.OVER_NORM: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.WEIGHT_OUT_OF_RANGE: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.STATISTIC_OUT_OF_RANGE: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.UNKNOWN_BLOB: WireStatus(Code.NOT_FOUND, retry=False),
    Reason.ENROLMENT_REFUSED: WireStatus(Code.PERMISSION_DENIED, retry=False),
    Reason.BAD_CERTIFICATE_REQUEST: WireStatus(Code.INVALID_ARGUMENT, retry=False),
    Reason.TOO_OFTEN: WireStatus(Code.UNAVAILABLE, retry=True),
    Reason.NO_ROOM: WireStatus(Code.UNAVAILABLE, retry=True),
    Reason.DRAINING: WireStatus(Code.UNAVAILABLE, retry=True),
    Reason.STORAGE: WireStatus(Code.UNAVAILABLE, retry=True),
    Reason.NOT_FOUND: WireStatus(Code.NOT_FOUND, retry=False),
    Reason.CONFLICT: WireStatus(Code.FAILED_PRECONDITION, retry=False),
    Reason.INTERNAL: WireStatus(Code.INTERNAL, retry=False),
}

REASON_KEY = "ssd-reason"
"""Trailing metadata key that carries the reason."""
SESSION_KEY = "ssd-session"
"""Request metadata key that carries the session token."""
