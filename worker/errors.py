"""Everything that can go wrong in the worker, as a small tree by fault.

`CoordinatorFault`: the peer sent something wrong; the link is closed and tried again. `OperatorFault`: the
configuration, disk or command is wrong; the message says what to do next and the class says which exit code the
process ends with. `TaskFault`: one client cannot be trained; reported upwards, the worker goes on.
`InternalFault`: we did wrong.
"""

from __future__ import annotations

from ssd.daemon.cli.exit_codes import EXIT_REFUSED, EXIT_STORAGE, EXIT_USAGE, exit_codes

EXIT_CODES = exit_codes(
    usage="usage or configuration",
    refused="refused, in use or a doctor's fault",
    storage="the state directory fails",
)
"""What the worker's process ends with, and what it means."""


class WorkerError(Exception):
    """Root of the tree. `code` is stable and snake_case; it labels logs and metrics."""

    code = "internal"


class CoordinatorFault(WorkerError):
    """What the coordinator sent is malformed or out of order."""

    code = "coordinator_fault"


class LinkBroken(WorkerError):
    """A call ended without an answer; trying again may help. `reason` is the coordinator's word, if it gave one."""

    code = "link_broken"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class SessionEnded(LinkBroken):
    """A data call was refused because its session is over; only a new welcome helps."""

    code = "session_ended"


class BlobUnavailable(WorkerError):
    """The coordinator will not serve a blob it named, or serves something else."""

    code = "blob_unavailable"


class OperatorFault(WorkerError):
    """Something the operator can put right; the message says how."""

    code = "operator"
    exit_code = EXIT_REFUSED


class ConfigInvalid(OperatorFault):
    """The configuration file, a flag or an environment variable is wrong."""

    code = "config_invalid"
    exit_code = EXIT_USAGE


class IdentityUnusable(OperatorFault):
    """The worker's certificate, its key or the authority's certificate is missing or wrong."""

    code = "identity_unusable"
    exit_code = EXIT_USAGE


class RefusedForGood(OperatorFault):
    """The coordinator will not take this worker as it is configured; trying again would not help."""

    code = "refused"


class HistoryContradicted(OperatorFault):
    """The coordinator offers an older or another history of a run than this worker saw."""

    code = "history_contradicted"


class StorageFailed(OperatorFault):
    """The state directory is full (then `full`), read-only or otherwise failing."""

    code = "storage_failed"
    exit_code = EXIT_STORAGE

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class StateDirectoryLocked(OperatorFault):
    """Another worker process uses this state directory."""

    code = "state_directory_locked"


class PortUnavailable(OperatorFault):
    """A configured address cannot be bound."""

    code = "port_unavailable"


class EnrolmentRefused(OperatorFault):
    """The host did not get the identity it asked for."""

    code = "enrolment_refused"


class TransferRefused(OperatorFault):
    """A client's state cannot be exported or imported as asked."""

    code = "transfer_refused"


class TaskFault(WorkerError):
    """A client, or (`whole_task`) every client of a task, cannot be trained here. `reason` goes on the wire."""

    code = "task_fault"

    def __init__(self, reason: str, detail: str, *, whole_task: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.whole_task = whole_task


class InternalFault(WorkerError):
    """A defect of ours."""
