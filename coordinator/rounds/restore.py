"""Picking a run up again: from the journal to the starting state of the round machine."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.cohort import deadline_after
from coordinator.core.policy import RoundPolicy
from coordinator.core.state import Attempt, Phase, RunState
from coordinator.ports.clock import Clock
from coordinator.ports.journal import Journal
from coordinator.ports.records import AttemptRecord


def restore(policy: RoundPolicy, journal: Journal, clock: Clock, *, proven: bool) -> RunState:
    """The state the journal amounts to. An attempt under way goes on; its updates come from the workers again.

    Args:
        policy: of the run's rounds.
        journal: the journal.
        clock: for the times of the attempt that goes on.
        proven: whether workers prove their names, so that clients belong to them.
    """
    version = journal.versions()[-1].number
    records = journal.clients()
    state = RunState(
        policy=policy,
        version=version,
        clients=frozenset(record.client for record in records if not record.revoked),
        revoked=frozenset(record.client for record in records if record.revoked),
        indexes={record.client: record.index for record in records if record.index is not None},
        bindings=journal.bindings() if proven else None,
        granted_workers=journal.granted_workers(),
        paused=journal.flag("paused"),
        waiting_since=clock.monotonic(),
    )
    attempts = [attempt for attempt in journal.attempts() if attempt.round == version + 1]
    if not attempts:
        return state
    newest = attempts[0]
    made = max(attempt.attempt for attempt in attempts)
    if newest.outcome not in ("open", "closed"):
        return replace(state, attempts_made=made)
    now = clock.monotonic()
    after = deadline_after(policy, ())
    closed = newest.outcome == "closed"
    if policy.secure:
        return _restore_masked(replace(state, attempts_made=made), newest, now)
    members = newest.accepted if closed else [c for c in newest.cohort if c not in state.revoked]
    attempt = Attempt(
        round=newest.round,
        number=newest.attempt,
        cohort=tuple(sorted(members)),
        goal=len(members) if closed else min(policy.cohort_size, len(members)),
        opened_at=now,
        deadline_at=None if after is None else now + after,
        restored=closed,
    )
    return replace(state, attempts_made=made, attempt=attempt, phase=Phase.TRAINING)


def _restore_masked(state: RunState, newest: AttemptRecord, now: float) -> RunState:
    """With a journaled set the opening of its sum goes on; without, the attempt's keys were lost with the process."""
    closed = newest.outcome == "closed"
    members = tuple(sorted(newest.accepted if closed else newest.cohort))
    attempt = Attempt(
        round=newest.round,
        number=newest.attempt,
        cohort=members,
        goal=len(members),
        opened_at=now,
        deadline_at=None,
        accepted=frozenset(members) if closed else frozenset(),
        closed=closed,
        doomed="" if closed else "coordinator_restarted: its keys were lost with the process",
    )
    return replace(state, attempt=attempt, phase=Phase.UNMASKING if closed else Phase.TRAINING)
