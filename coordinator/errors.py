"""Everything that can go wrong in the coordinator, as a small tree by fault.

`ClientFault`: the peer did wrong; its `reason` goes on the wire and into metrics. `OperatorFault`: the
configuration, disk or command is wrong; the message says what to do next. `InternalFault`: we did wrong.
Only `coordinator.rpc.serving.status` knows which gRPC status belongs to which reason.
"""

from __future__ import annotations

from enum import StrEnum

from ssd.daemon.cli.exit_codes import EXIT_REFUSED, EXIT_STORAGE, EXIT_USAGE, exit_codes

EXIT_CODES = exit_codes(
    usage="usage or configuration",
    refused="refused, unreachable, in use or a doctor's fault",
    storage="storage",
)
"""What the coordinator's process ends with, and what it means."""


class Reason(StrEnum):
    """Why a message was rejected or discarded, or a call refused. Values are stable: wire, metrics, logs."""

    MALFORMED_MESSAGE = "malformed_message"
    MESSAGE_TOO_LARGE = "message_too_large"
    WRONG_ORDER = "wrong_order"
    PROTOCOL_VERSION = "protocol_version"
    BAD_NAME = "bad_name"
    WORKER_NAME_TAKEN = "worker_name_taken"
    CLIENT_CLAIMED = "client_claimed"
    CLIENT_BOUND = "client_bound"
    CLIENT_UNKNOWN = "client_unknown"
    LABELS_NEEDED = "labels_needed"
    CLIENT_REVOKED = "client_revoked"
    CLIENT_NOT_HOSTED = "client_not_hosted"
    CLIENT_NOT_INVITED = "client_not_invited"
    FENCED = "fenced"
    SILENT = "silent"
    STALLED = "stalled"
    NO_SESSION = "no_session"
    TLS_VERSION = "tls_version"
    NO_IDENTITY = "no_identity"
    WRONG_FEDERATION = "wrong_federation"
    IDENTITY_MISMATCH = "identity_mismatch"
    ROLE = "role"
    REVOKED = "revoked"
    WRONG_RUN = "wrong_run"
    WRONG_ROUND = "wrong_round"
    WRONG_BASE = "wrong_base"
    WRONG_SPEC = "wrong_spec"
    WRONG_TASK = "wrong_task"
    STALE_ATTEMPT = "stale_attempt"
    DUPLICATE = "duplicate"
    TOO_LATE = "too_late"
    NOT_NEEDED = "not_needed"
    FOLD_NOT_ALLOWED = "fold_not_allowed"
    SECURE_AGGREGATION_REQUIRED = "secure_aggregation_required"
    NOT_A_PARTICIPANT = "not_a_participant"
    WRONG_SHARERS = "wrong_sharers"
    TRUNCATED = "truncated"
    CORRUPT_CHUNK = "corrupt_chunk"
    BAD_OFFSET = "bad_offset"
    WRONG_LENGTH = "wrong_length"
    MALFORMED_UPDATE = "malformed_update"
    NOT_FINITE = "not_finite"
    OVER_BOUND = "over_bound"
    OVER_NORM = "over_norm"
    WEIGHT_OUT_OF_RANGE = "weight_out_of_range"
    STATISTIC_OUT_OF_RANGE = "statistic_out_of_range"
    UNKNOWN_BLOB = "unknown_blob"
    ENROLMENT_REFUSED = "enrolment_refused"
    BAD_CERTIFICATE_REQUEST = "bad_certificate_request"
    TOO_OFTEN = "too_often"
    NO_ROOM = "no_room"
    DRAINING = "draining"
    STORAGE = "storage"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INTERNAL = "internal"


MAX_DETAIL = 1000
"""Characters of a detail that are kept."""


class CoordinatorError(Exception):
    """Root of the tree. `code` is stable and snake_case."""

    code = "internal"


class ClientFault(CoordinatorError):
    """The peer's message is bad, late or not allowed."""

    def __init__(self, reason: Reason, detail: str) -> None:
        # It may quote a stranger, travels in a header and stands in the log.
        detail = detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}..."
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    @property
    def code(self) -> str:  # type: ignore[override]  # a class constant elsewhere, the reason's value here
        """The reason's wire value."""
        return self.reason.value


class NotPermitted(ClientFault):
    """The caller is not who it says, or may not do this."""


class OperatorFault(CoordinatorError):
    """Something the operator can put right; the message says how, and the class which exit code the process ends with."""

    code = "operator"
    exit_code = EXIT_REFUSED


class ConfigInvalid(OperatorFault):
    """The configuration file, a flag or an environment variable is wrong."""

    code = "config_invalid"
    exit_code = EXIT_USAGE


class IdentityUnusable(OperatorFault):
    """The program's own certificate, its key or the authority's certificate is missing or wrong."""

    code = "identity_unusable"
    exit_code = EXIT_USAGE


class TokenUnusable(OperatorFault):
    """The file with the status page's token is missing, too short, or readable by others."""

    code = "token_unusable"
    exit_code = EXIT_USAGE


class RunConfigChanged(OperatorFault):
    """The configuration differs from the one the current run was created with."""

    code = "run_config_changed"
    exit_code = EXIT_USAGE


class MethodRefused(OperatorFault):
    """The method does not accept its configuration or warm start."""

    code = "method_refused"
    exit_code = EXIT_USAGE


class HookFailed(OperatorFault):
    """The method's server hook raised, or returned what it may not."""

    code = "hook_failed"


class StorageFailed(OperatorFault):
    """The state directory is full, read-only or otherwise failing."""

    code = "storage_failed"
    exit_code = EXIT_STORAGE


class JournalTampered(StorageFailed):
    """What the journal says of the past is not what was written then."""

    code = "journal_tampered"


class BlobMissing(OperatorFault):
    """A blob the journal names is not on disk."""

    code = "blob_missing"
    exit_code = EXIT_STORAGE


class BlobCorrupt(OperatorFault):
    """A blob's content does not match its digest."""

    code = "blob_corrupt"
    exit_code = EXIT_STORAGE


class PortUnavailable(OperatorFault):
    """A configured address cannot be bound."""

    code = "port_unavailable"


class StateDirectoryLocked(OperatorFault):
    """Another coordinator process uses this state directory."""

    code = "state_directory_locked"


class AuthorityRefused(OperatorFault):
    """The authority's files are missing, in the way or unfit, or it does not sign what was asked."""

    code = "authority_refused"


class InternalFault(CoordinatorError):
    """A defect of ours."""


class JournalConflict(InternalFault):
    """A store call contradicts what is stored."""

    code = "journal_conflict"


class MethodHostFailed(InternalFault):
    """The method host process died or did not answer."""

    code = "method_host_failed"
