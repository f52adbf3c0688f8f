"""How far the clients of the present attempt have come, for people."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from coordinator.core.state import Attempt
from coordinator.driver import Driver


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


def part(driver: Driver, attempt: Attempt, client: str) -> Part:
    """How far a client of the present attempt has come."""
    if client in attempt.accepted:
        return Part.UPLOADED
    if attempt.failures.get(client):
        return Part.FAILED
    if client not in driver.state.hosts:
        return Part.AWAY
    steps = driver.observations.steps(client)
    if steps is None:
        return Part.INVITED
    return Part.TRAINED if steps[0] == steps[1] else Part.TRAINING


def cohort_counts(driver: Driver) -> dict[str, int]:
    """How many clients of the present attempt are where; zeros outside an attempt. Names nobody."""
    attempt = driver.state.attempt
    counted = Counter(part(driver, attempt, client) for client in attempt.cohort) if attempt else Counter()
    return {each.value: counted[each] for each in Part}
