"""The machine of an elastic round: its goal, its deadline, the running quantile, and who is waited for."""

from __future__ import annotations

from coordinator.core import effects, events
from coordinator.core.cohort import deadline_after
from coordinator.core.policy import Mode
from coordinator.core.round import next_wakeup, step
from coordinator.core.state import Phase
from rounds.round_machine import attached, elastic, of, policy, verified


def test_too_few_clients_says_so_and_starts_as_soon_as_they_come() -> None:
    state, todo = attached(elastic(), clients=("a",))
    assert state.phase is Phase.WAITING
    assert state.waiting_for() == (1, "round 1 needs 2 connected clients, 1 are connected")
    state, todo = attached(state, "w2", ("b",), now=50.0)
    assert state.phase is Phase.TRAINING
    assert of(effects.OpenAttempt, todo)[0].cohort == ("a", "b")


def test_bounded_waiting_halts_with_the_reason() -> None:
    state, _ = attached(elastic(wait_for_clients_seconds=5.0), clients=("a",), now=1.0)
    assert next_wakeup(state) == 5.0
    state, todo = step(state, events.Tick(now=6.0))
    assert state.phase is Phase.HALTED
    assert "needs 2 connected clients" in of(effects.Halt, todo)[0].reason


def test_the_goal_closes_the_round_before_everybody_reported() -> None:
    state, _ = attached(elastic(over_selection=2.0))
    assert len(state.attempt.cohort) == 4
    state, _ = verified(state, "a")
    state, todo = verified(state, "c", upload=2)
    assert of(effects.CloseAndCommit, todo)[0].accepted == ("a", "c")


def test_the_deadline_closes_with_enough_and_abandons_with_too_few() -> None:
    state, _ = attached(elastic())
    enough, _ = (
        verified(state, "a") if "a" in state.attempt.cohort else verified(state, state.attempt.cohort[0])
    )
    closed, todo = step(enough, events.Tick(now=10.0))
    assert closed.phase is Phase.COMMITTING
    abandoned, todo = step(state, events.Tick(now=10.0))
    assert "deadline" in of(effects.AbandonAttempt, todo)[0].reason
    assert abandoned.phase is Phase.WAITING
    again, todo = step(abandoned, events.Tick(now=15.0))
    assert of(effects.OpenAttempt, todo)[0].attempt == 2


def test_when_nobody_is_left_to_report_the_round_does_not_wait_for_its_deadline() -> None:
    state, _ = attached(elastic(min_updates=2))
    one, two = state.attempt.cohort
    state, _ = verified(state, one)
    failed = events.ClientFailed(now=2.0, worker="w", round=1, attempt=1, clients=(two,), reason="x")
    state, todo = step(state, failed)
    assert of(effects.AbandonAttempt, todo)[0].workers == ("w",)


def test_the_running_quantile_shortens_the_deadline_only_with_enough_reports() -> None:
    fast = policy(mode=Mode.ELASTIC, deadline_seconds=100.0, deadline_quantile=0.5)
    assert deadline_after(fast, [1.0] * 3) == 100.0
    assert deadline_after(fast, [2.0] * 30) == 3.0
    assert deadline_after(fast, [500.0] * 30) == 100.0
    assert deadline_after(policy(), [1.0] * 30) is None
