"""What contradicts the journal: the checks every store makes before it changes anything.

Pure functions over records, so that the stores differ only in where they keep things. A check raises
`JournalConflict`; where a repeated call is no contradiction it returns True for "already done".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coordinator.errors import JournalConflict
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.store.journal.records import attempt_text, run_text, scaling_text, version_text
from ssd.scaling import ScalingVector

IN_FLIGHT = ("open", "closed")
"""Outcomes of an attempt that is not over."""


def active_run(run: RunRecord | None, finished: bool) -> RunRecord:
    """The current run if it may still change."""
    if run is None:
        raise JournalConflict("there is no run yet")
    if finished:
        raise JournalConflict(f"run {run.run_id} is finished")
    return run


def check_create_run(
    run: RunRecord,
    initial: VersionRecord,
    current: RunRecord | None,
    finished: bool,
    current_initial: VersionRecord | None,
    known: Collection[str],
) -> bool:
    """True if exactly this run is current already."""
    if current is not None and current.run_id == run.run_id:
        same_initial = current_initial is not None and version_text(current_initial) == version_text(initial)
        if run_text(current) == run_text(run) and same_initial:
            return True
        raise JournalConflict(f"run {run.run_id} exists with other contents")
    if run.run_id in known:
        raise JournalConflict(f"run {run.run_id} existed before the current one")
    if current is not None and not finished:
        raise JournalConflict(f"run {current.run_id} is current and not finished")
    if initial.number != 0 or initial.delta is not None:
        raise JournalConflict(f"a run begins with version 0 and no delta, not with version {initial.number}")
    return False


def check_assign(
    assignments: Mapping[str, tuple[int, ScalingVector | None]],
    registered: Collection[str],
    present: Mapping[str, tuple[int, ScalingVector | None]],
) -> list[str]:
    """The clients of `assignments` that have no place yet."""
    taken = {index: client for client, (index, _) in present.items()}
    fresh = []
    for client, (index, scaling) in assignments.items():
        if client not in registered:
            raise JournalConflict(f"client {client} is not registered")
        if client in present:
            old_index, old_scaling = present[client]
            if old_index != index or scaling_text(old_scaling) != scaling_text(scaling):
                raise JournalConflict(
                    f"client {client} has place {old_index} and its scaling vector for ever"
                )
            continue
        if index < 0:
            raise JournalConflict(f"client {client} cannot have the negative place {index}")
        if index in taken:
            raise JournalConflict(f"place {index} belongs to client {taken[index]}, not to {client}")
        taken[index] = client
        fresh.append(client)
    return fresh


def check_open(
    attempt: AttemptRecord,
    newest: VersionRecord,
    same_key: AttemptRecord | None,
    in_flight: AttemptRecord | None,
    registered: Collection[str],
) -> bool:
    """True if exactly this attempt was opened before."""
    name = f"attempt {attempt.attempt} of round {attempt.round}"
    if same_key is not None:
        if attempt_text(same_key) == attempt_text(attempt):
            return True
        raise JournalConflict(f"{name} exists with other contents")
    if attempt.outcome != "open" or attempt.accepted or attempt.closed_at is not None or attempt.reason:
        raise JournalConflict(f"{name} is not an opening record")
    if in_flight is not None:
        raise JournalConflict(
            f"{name} cannot open while attempt {in_flight.attempt} of round {in_flight.round} is {in_flight.outcome}"
        )
    if (attempt.base_version, attempt.base_digest) != (newest.number, newest.model_digest):
        raise JournalConflict(
            f"{name} starts from version {attempt.base_version}, the newest is {newest.number}"
        )
    strangers = sorted(set(attempt.cohort).difference(registered))
    if strangers:
        raise JournalConflict(f"{name} invites {strangers[0]}, which is not registered")
    if len(set(attempt.cohort)) != len(attempt.cohort):
        raise JournalConflict(f"{name} invites a client twice")
    return False


def accepted_set(accepted: Sequence[str]) -> tuple[str, ...]:
    """The accepted clients as they are journaled: sorted, each once."""
    result = tuple(sorted(set(accepted)))
    if len(result) != len(accepted):
        raise JournalConflict("a client was accepted twice")
    return result


def check_close(
    found: AttemptRecord | None, round_number: int, attempt: int, accepted: tuple[str, ...]
) -> bool:
    """True if the attempt was closed with this set before."""
    name = f"attempt {attempt} of round {round_number}"
    if found is None:
        raise JournalConflict(f"{name} does not exist")
    if found.outcome in {"closed", "committed"} and found.accepted == accepted:
        return True
    if found.outcome != "open":
        raise JournalConflict(f"{name} is {found.outcome}, not open")
    strangers = sorted(set(accepted).difference(found.cohort))
    if strangers:
        raise JournalConflict(f"{name} accepted {strangers[0]}, which was not invited")
    return False


def check_abandon(found: AttemptRecord | None, round_number: int, attempt: int, reason: str) -> bool:
    """True if the attempt was abandoned for this reason before."""
    name = f"attempt {attempt} of round {round_number}"
    if found is None:
        raise JournalConflict(f"{name} does not exist")
    if found.outcome == "abandoned" and found.reason == reason:
        return True
    if found.outcome not in IN_FLIGHT:
        raise JournalConflict(f"{name} is {found.outcome}")
    return False


def check_commit(
    version: VersionRecord,
    newest: VersionRecord,
    same_number: VersionRecord | None,
    found: AttemptRecord | None,
) -> bool:
    """True if exactly this version was committed before."""
    if same_number is not None:
        if version_text(same_number) == version_text(version):
            return True
        raise JournalConflict(f"version {version.number} exists with other contents")
    if version.number != newest.number + 1:
        raise JournalConflict(f"version {version.number} does not follow version {newest.number}")
    name = f"attempt {version.attempt} of round {version.round}"
    if found is None:
        raise JournalConflict(f"{name} does not exist")
    if found.outcome != "closed":
        raise JournalConflict(f"{name} is {found.outcome}, not closed")
    return False


def check_bind(worker: str, clients: Sequence[str], present: Mapping[str, str]) -> list[str]:
    """The clients that no worker has yet."""
    for client in clients:
        if present.get(client, worker) != worker:
            raise JournalConflict(f"client {client} belongs to worker {present[client]}, not to {worker}")
    return [client for client in dict.fromkeys(clients) if client not in present]


def check_forget(numbers: Sequence[int], known: Collection[int]) -> None:
    """Refuses unknown versions and the newest one."""
    newest = max(known)
    for number in numbers:
        if number not in known:
            raise JournalConflict(f"version {number} does not exist")
        if number == newest:
            raise JournalConflict(f"version {number} is the newest and keeps its blobs")
