"""How far the clients of the present attempt have come, for people."""

from __future__ import annotations

from enum import StrEnum

from coordinator.core.state import Attempt, RunState
from coordinator.telemetry.recent import RecentStatus


class Part(StrEnum):
    """How far a client of the cohort has come."""

    AWAY = "away"
    """Invited, and nobody hosts it now."""
    INVITED = "invited"
    """Its worker has the task."""
    TRAINING = "training"
    """Its worker told of steps."""
    TRAINED = "trained"
    """Finished; its update is not here yet."""
    UPLOADED = "uploaded"
    """Its update was accepted."""
    FAILED = "failed"


def part(state: RunState, recent: RecentStatus, attempt: Attempt, client: str) -> Part:
    """How far a client of the present attempt has come."""
    if client in attempt.accepted:
        return Part.UPLOADED
    if attempt.failures.get(client):
        return Part.FAILED
    if client not in state.hosts:
        return Part.AWAY
    steps = recent.steps(client)
    if steps is None:
        return Part.INVITED
    return Part.TRAINED if steps[0] == steps[1] else Part.TRAINING


def cohort_counts(state: RunState, recent: RecentStatus) -> dict[str, int]:
    """How many clients of the present attempt are where; zeros outside an attempt. Names nobody.

    What counting `part` would give. Every open page asks every two seconds, and a cohort may have ten thousand
    clients: whole sets are compared instead.
    """
    attempt = state.attempt
    if attempt is None:
        return {each.value: 0 for each in Part}
    cohort = set(attempt.cohort)
    open_ones = cohort - attempt.accepted
    failed = {client for client in open_ones & attempt.failures.keys() if attempt.failures[client]}
    hosted = (open_ones - failed) & state.hosts.keys()
    progress = recent.progress
    begun = hosted & progress.keys()
    trained = sum(1 for client in begun if progress[client][0] == progress[client][1])
    return {
        Part.AWAY.value: len(open_ones) - len(failed) - len(hosted),
        Part.INVITED.value: len(hosted) - len(begun),
        Part.TRAINING.value: len(begun) - trained,
        Part.TRAINED.value: trained,
        Part.UPLOADED.value: len(cohort) - len(open_ones),
        Part.FAILED.value: len(failed),
    }
