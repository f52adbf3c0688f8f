"""The round machine: what each event does, and what no sequence of events may do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.core import effects, events
from coordinator.core.cohort import sample
from coordinator.core.policy import Mode
from coordinator.core.round import next_wakeup, step
from coordinator.core.state import Attempt, Phase, RunState
from coordinator.errors import InternalFault, Reason
from rounds.round_machine import CLIENTS, attached, elastic, of, policy, start, verified
from ssd_wire.uploads import UploadFate


def test_a_round_persists_indexes_and_cohort_before_it_sends_anything() -> None:
    state, todo = attached(start())
    assert [type(effect) for effect in todo] == [
        effects.AssignIndexes,
        effects.OpenAttempt,
        effects.SendTrain,
    ]
    assert todo[0].indexes == (("a", 0), ("b", 1), ("c", 2), ("d", 3))
    assert todo[2].clients == todo[1].cohort == state.attempt.cohort
    assert state.phase is Phase.TRAINING


def test_indexes_do_not_depend_on_who_connects_first() -> None:
    first, _ = attached(start(named_clients=(), expected_clients=4, cohort_size=4), "x", ("d", "c"))
    other, _ = attached(start(named_clients=(), expected_clients=4, cohort_size=4), "y", ("a",))
    assert first.indexes == other.indexes == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_late_clients_are_appended_and_nobody_moves() -> None:
    state = RunState(
        policy=policy(mode=Mode.ELASTIC, named_clients=(), cohort_size=1),
        clients=frozenset("cd"),
        indexes={"c": 0, "d": 1},
    )
    state, todo = attached(state, clients=("a", "c", "d"))
    assert of(effects.RegisterClients, todo)[0].clients == ("a",)
    assert state.indexes == {"c": 0, "d": 1, "a": 2}


def test_all_accepted_closes_the_round_with_the_sorted_set() -> None:
    state, _ = attached(start())
    one, two = state.attempt.cohort
    state, todo = verified(state, two)
    assert [type(effect) for effect in todo] == [effects.FoldUpload, effects.AnswerUpload]
    state, todo = verified(state, one, upload=2)
    assert [type(e) for e in todo] == [effects.FoldUpload, effects.AnswerUpload, effects.CloseAndCommit]
    assert todo[-1].accepted == (one, two)
    assert state.phase is Phase.COMMITTING


def test_commit_opens_the_next_round_and_the_last_one_finishes_the_run() -> None:
    state, _ = attached(start(rounds=1))
    state, _ = verified(state, *state.attempt.cohort)
    state, todo = step(state, events.VersionCommitted(now=2.0, version=1))
    assert state.phase is Phase.FINISHED
    assert [type(effect) for effect in todo] == [effects.RunFinished]
    _, todo = step(state, events.Tick(now=3.0))
    assert todo == ()


@pytest.mark.parametrize("mode", list(Mode))
def test_a_commit_that_fails_halts_and_resuming_commits_the_very_same_set(mode: Mode) -> None:
    state, _ = attached(start(mode=mode, over_selection=2.0, deadline_seconds=10.0))
    accepted = state.attempt.cohort[:2]
    state, todo = verified(state, *accepted)
    closed = of(effects.CloseAndCommit, todo)[0]
    state, todo = step(state, events.CommitFailed(now=2.0, reason="no luck"))
    assert state.phase is Phase.HALTED
    assert todo == (effects.Halt(reason="no luck"),)
    assert state.waiting_for()[1] == "no luck"
    # Neither time, nor more updates, nor a revocation, nor a worker that comes back changes the set.
    state, todo = step(state, events.Tick(now=1e6))
    assert todo == ()
    others = [client for client in CLIENTS if client not in accepted]
    state, todo = verified(state, others[0], upload=9)
    assert of(effects.AnswerUpload, todo)[0].fate is not UploadFate.ACCEPTED
    assert not of(effects.FoldUpload, todo)
    state, todo = attached(state)
    assert not of(effects.SendTrain, todo)
    state, todo = step(state, events.ClientRevoked(now=3.0, client=accepted[0]))
    assert state.phase is Phase.HALTED
    state, todo = step(state, events.ResumeRequested(now=4.0))
    assert of(effects.CloseAndCommit, todo) == [closed]
    assert state.phase is Phase.COMMITTING
    state, _ = step(state, events.VersionCommitted(now=5.0, version=1))
    assert state.version == 1


def test_only_a_commit_under_way_can_fail() -> None:
    state, _ = attached(start())
    with pytest.raises(InternalFault):
        step(state, events.CommitFailed(now=1.0, reason="no luck"))


def test_a_commit_nobody_asked_for_is_refused_and_changes_nothing() -> None:
    state, _ = attached(start())
    with pytest.raises(InternalFault):
        step(state, events.VersionCommitted(now=1.0, version=1))


@pytest.mark.parametrize(
    ("change", "fate", "reason"),
    [
        ({"round": 9}, UploadFate.DISCARDED, Reason.TOO_LATE),
        ({"attempt": 9}, UploadFate.DISCARDED, Reason.STALE_ATTEMPT),
        ({"clients": ("zz",)}, UploadFate.REJECTED, Reason.CLIENT_REVOKED),
        ({"worker": "other"}, UploadFate.REJECTED, Reason.CLIENT_NOT_HOSTED),
    ],
)
def test_an_upload_that_does_not_fit_is_answered_with_its_reason(change, fate, reason) -> None:
    state, _ = attached(start())
    event = events.UploadVerified(
        now=1.0, upload=7, worker="w", round=1, attempt=1, clients=state.attempt.cohort[:1]
    )
    after, todo = step(state, replace(event, **change))
    assert [(e.upload, e.fate, e.reason) for e in of(effects.AnswerUpload, todo)] == [(7, fate, reason.value)]
    assert not of(effects.FoldUpload, todo)
    assert after.attempt == state.attempt


def test_a_client_counts_once_and_a_fold_is_taken_or_left_whole() -> None:
    state, _ = attached(start())
    one, two = state.attempt.cohort
    state, _ = verified(state, one)
    after, todo = verified(state, one, two, upload=2)
    assert of(effects.AnswerUpload, todo)[0].reason == Reason.DUPLICATE.value
    assert after.attempt.accepted == {one}


def test_a_reconnected_worker_gets_what_is_still_wanted() -> None:
    state, _ = attached(start())
    one, two = state.attempt.cohort
    state, _ = verified(state, one)
    state, _ = step(state, events.WorkerDetached(now=2.0, worker="w"))
    assert state.waiting_for()[0] == 1
    state, todo = attached(state, "elsewhere", now=3.0)
    assert [(e.worker, e.clients) for e in of(effects.SendTrain, todo)] == [("elsewhere", (two,))]


def test_reproducible_retries_a_failed_client_then_halts_and_resume_tries_again() -> None:
    state, _ = attached(start(retry_seconds=5.0, max_client_failures=2))
    victim = state.attempt.cohort[0]
    failed = events.ClientFailed(
        now=1.0, worker="w", round=1, attempt=1, clients=(victim,), reason="not_finite"
    )
    state, todo = step(state, failed)
    assert todo == ()
    assert next_wakeup(state) == 6.0
    state, todo = step(state, events.Tick(now=6.0))
    assert of(effects.SendTrain, todo)[0].clients == (victim,)
    state, todo = step(state, replace(failed, now=7.0))
    assert state.phase is Phase.HALTED
    assert victim in of(effects.Halt, todo)[0].reason
    assert "not_finite" in state.waiting_for()[1]
    state, todo = step(state, events.ResumeRequested(now=8.0))
    assert state.phase is Phase.TRAINING
    assert victim in of(effects.SendTrain, todo)[0].clients


def test_a_failed_client_whose_retry_fell_due_while_nobody_hosted_it_trains_when_somebody_does() -> None:
    state, _ = attached(start(retry_seconds=5.0))
    victim = state.attempt.cohort[0]
    failed = events.ClientFailed(
        now=1.0, worker="w", round=1, attempt=1, clients=(victim,), reason="method_unavailable"
    )
    state, _ = step(state, failed)
    state, _ = step(state, events.WorkerDetached(now=2.0, worker="w"))
    early, todo = attached(state, "early", (victim,), now=3.0)
    assert not of(effects.SendTrain, todo)  # its pause is not over
    _, todo = step(early, events.Tick(now=6.0))
    assert of(effects.SendTrain, todo)[0].clients == (victim,)
    state, todo = step(state, events.Tick(now=6.0))
    assert not of(effects.SendTrain, todo)
    state, todo = attached(state, "late", (victim,), now=7.0)
    assert [(e.worker, e.clients) for e in of(effects.SendTrain, todo)] == [("late", (victim,))]


def test_only_its_own_host_can_report_a_client_failed() -> None:
    state, _ = attached(start())
    event = events.ClientFailed(
        now=1.0, worker="stranger", round=1, attempt=1, clients=state.attempt.cohort, reason="lies"
    )
    after, _ = step(state, event)
    assert after.attempt.failures == {}


def test_a_retry_in_reproducible_mode_keeps_the_cohort_and_elastic_does_not_insist() -> None:
    many = [f"c{i}" for i in range(50)]
    fixed = policy(cohort_size=10)
    assert sample(fixed, 4, 1, many) == sample(fixed, 4, 2, reversed(many))
    elastic = policy(mode=Mode.ELASTIC, cohort_size=10, over_selection=1.3)
    assert len(sample(elastic, 4, 1, many)) == 13
    assert sample(elastic, 4, 1, many) != sample(elastic, 4, 2, many)


def test_a_restored_attempt_commits_its_journaled_set_or_nothing() -> None:
    attempt = Attempt(
        round=1, number=1, cohort=("a", "b"), goal=2, opened_at=0.0, deadline_at=10.0, restored=True
    )
    state = replace(elastic(over_selection=2.0, cohort_size=1), attempt=attempt, phase=Phase.TRAINING)
    state, todo = attached(state)
    state, todo = verified(state, "a")
    assert not of(effects.CloseAndCommit, todo)
    done, todo = verified(state, "b", upload=2)
    assert of(effects.CloseAndCommit, todo)[0].accepted == ("a", "b")
    _, todo = step(state, events.Tick(now=10.0))
    assert of(effects.AbandonAttempt, todo)


def test_revoking_a_client_of_a_journaled_set_abandons_it() -> None:
    attempt = Attempt(
        round=1, number=1, cohort=("a", "b"), goal=2, opened_at=0.0, deadline_at=None, restored=True
    )
    state = replace(start(), attempt=attempt, phase=Phase.TRAINING)
    state, _ = attached(state)
    state, todo = step(state, events.ClientRevoked(now=1.0, client="b"))
    assert "revoked" in of(effects.AbandonAttempt, todo)[0].reason


def test_revocations_do_not_let_a_round_close_below_its_minimum() -> None:
    state, _ = attached(elastic(cohort_size=4, min_updates=3))
    for client in "abc":
        state, todo = step(state, events.ClientRevoked(now=1.0, client=client))
    state, todo = verified(state, "d")
    assert not of(effects.CloseAndCommit, todo)
    assert of(effects.AbandonAttempt, todo)


def test_pause_finishes_the_attempt_and_starts_no_other() -> None:
    state, _ = attached(start())
    state, todo = step(state, events.PauseRequested(now=1.0))
    assert todo == (effects.PersistPaused(paused=True),)
    assert state.phase is Phase.TRAINING
    state, _ = verified(state, *state.attempt.cohort)
    state, todo = step(state, events.VersionCommitted(now=2.0, version=1))
    assert (state.phase, todo) == (Phase.PAUSED, ())
    state, todo = step(state, events.ResumeRequested(now=3.0))
    assert of(effects.OpenAttempt, todo)[0].round == 2


def test_drain_finishes_the_attempt_and_stops() -> None:
    state, _ = attached(start())
    state, todo = step(state, events.DrainRequested(now=1.0))
    assert todo == ()
    state, _ = verified(state, *state.attempt.cohort)
    state, todo = step(state, events.VersionCommitted(now=2.0, version=1))
    assert (state.phase, todo) == (Phase.DRAINED, (effects.Stop(),))


def test_drain_outside_a_round_stops_at_once() -> None:
    _, todo = step(start(), events.DrainRequested(now=1.0))
    assert todo == (effects.Stop(),)


def test_a_revoked_client_leaves_the_cohort_and_is_never_invited_again() -> None:
    state, _ = attached(start())
    one, two = state.attempt.cohort
    state, _ = step(state, events.ClientRevoked(now=1.0, client=one))
    assert state.attempt.cohort == (two,)
    state, todo = verified(state, two)
    assert of(effects.CloseAndCommit, todo)[0].accepted == (two,)
    for number in range(2, 40):
        assert one not in sample(state.policy, number, 1, state.clients)


names = st.sampled_from(CLIENTS)


workers = st.sampled_from(["w1", "w2"])


some_clients = st.lists(names, min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, object]]:
    operation = st.one_of(
        st.tuples(st.just("attach"), st.tuples(workers, some_clients)),
        st.tuples(st.just("detach"), workers),
        st.tuples(st.just("upload"), st.tuples(workers, some_clients, st.integers(-1, 1))),
        st.tuples(st.just("fail"), st.tuples(workers, some_clients)),
        st.tuples(st.just("tick"), st.floats(0.0, 30.0)),
        st.tuples(st.just("revoke"), names),
        st.tuples(st.just("pause"), st.none()),
        st.tuples(st.just("resume"), st.none()),
    )
    return draw(st.lists(operation, min_size=1, max_size=60))


def event_of(state: RunState, kind: str, argument: Any, now: float, upload: int) -> events.Event:
    """What an operation of a history means in the present state."""
    match kind:
        case "attach":
            return events.WorkerAttached(now=now, worker=argument[0], clients=argument[1])
        case "detach":
            return events.WorkerDetached(now=now, worker=argument)
        case "upload":
            attempt = state.attempt
            return events.UploadVerified(
                now=now,
                upload=upload,
                worker=argument[0],
                round=attempt.round + argument[2] if attempt else 1,
                attempt=attempt.number if attempt else 1,
                clients=argument[1],
            )
        case "fail":
            return events.ClientFailed(
                now=now,
                worker=argument[0],
                round=state.round,
                attempt=state.attempts_made,
                clients=argument[1],
                reason="x",
            )
        case "tick":
            return events.Tick(now=now)
        case "revoke":
            return events.ClientRevoked(now=now, client=argument)
        case "pause":
            return events.PauseRequested(now=now)
        case _:
            return events.ResumeRequested(now=now)


class Rules:
    """What effects may follow each other, whatever the machine was told.

    Args:
        mode: of the run.
        minimum: fewest clients that close an attempt of an elastic run.
    """

    def __init__(self, mode: Mode, minimum: int) -> None:
        self.mode, self.minimum = mode, minimum
        self.open: tuple[int, int] | None = None
        """Round and number of the attempt under way."""
        self.cohort: tuple[str, ...] = ()
        self.folded: set[str] = set()
        self.indexes: dict[str, int] = {}
        self.revoked: set[str] = set()
        self.answered = 0

    def see(self, effect: effects.Effect, state: RunState, uploaded: tuple[str, ...]) -> None:
        """Take in one effect of the step that led to `state`; `uploaded`: the clients of its upload, if it is one."""
        match effect:
            case effects.AssignIndexes():
                for client, index in effect.indexes:
                    assert client not in self.indexes, "an index was given twice"
                    assert index not in self.indexes.values()
                    self.indexes[client] = index
            case effects.OpenAttempt():
                assert self.open is None, "two attempts at once"
                assert set(effect.cohort) <= set(self.indexes), "trained before its index was durable"
                assert not self.revoked & set(effect.cohort)
                self.open, self.cohort, self.folded = (effect.round, effect.attempt), effect.cohort, set()
            case effects.SendTrain():
                assert self.open == (effect.round, effect.attempt)
                assert set(effect.clients) <= set(self.cohort) - self.folded
                assert all(state.hosts[client] == effect.worker for client in effect.clients)
            case effects.FoldUpload():
                clients = set(uploaded)
                assert clients <= set(self.cohort)
                assert not clients & self.folded, "folded twice"
                self.folded |= clients
            case effects.AnswerUpload():
                self.answered += 1
            case effects.CloseAndCommit():
                assert self.open == (effect.round, effect.attempt)
                assert set(effect.accepted) == self.folded
                if self.mode is Mode.REPRODUCIBLE:
                    assert set(effect.accepted) >= set(self.cohort) - self.revoked
                else:
                    left = set(self.cohort) - self.folded - self.revoked
                    assert len(self.folded) >= self.minimum or not left
                self.open = None
            case effects.AbandonAttempt():
                assert self.open == (effect.round, effect.attempt)
                self.open = None


@given(history=histories(), mode=st.sampled_from(list(Mode)), minimum=st.integers(1, 2))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_history_breaks_the_rules(history, mode, minimum) -> None:
    state = start(
        mode=mode,
        named_clients=CLIENTS if mode is Mode.REPRODUCIBLE else (),
        min_updates=minimum,
        deadline_seconds=20.0,
        rounds=4,
        over_selection=1.0 if mode is Mode.REPRODUCIBLE else 1.5,
    )
    rules = Rules(mode, minimum)
    now, upload = 0.0, 0
    for kind, argument in history:
        now += 0.1 + (argument if kind == "tick" else 0.0)
        upload += kind == "upload"
        if kind == "revoke":
            rules.revoked.add(argument)
        state, todo = step(state, event_of(state, kind, argument, now, upload))
        uploaded = argument[1] if kind == "upload" else ()
        pending = [todo]
        while pending:
            rules.answered = 0
            for effect in pending.pop():
                rules.see(effect, state, uploaded)
                if isinstance(effect, effects.CloseAndCommit):
                    state, more = step(state, events.VersionCommitted(now=now, version=state.version + 1))
                    pending.append(more)
            assert kind != "upload" or rules.answered <= 1
        assert (state.attempt is not None) == (rules.open is not None)


def test_a_large_cohort_is_not_gone_through_for_each_of_its_clients() -> None:
    """Whether a client is still wanted is asked of every client after every event."""
    compared = 0

    class Counted(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        def __lt__(self, other: str) -> bool:
            nonlocal compared
            compared += 1
            return str.__lt__(self, other)

    cohort = tuple(Counted(f"c{index:04d}") for index in range(2000))
    attempt = Attempt(
        round=1,
        number=1,
        cohort=cohort,
        goal=1,
        opened_at=0.0,
        deadline_at=None,
        accepted=frozenset(cohort[::2]),
    )
    assert [attempt.wants(str(client)) for client in cohort] == [False, True] * 1000
    assert not attempt.wants("c")
    assert not attempt.wants("c9999")
    assert compared < 2000 * 30
