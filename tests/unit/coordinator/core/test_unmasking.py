"""The round machine under secure aggregation: a set is journaled, then opened as it is, or waits, or came to nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core import effects, events
from coordinator.core.policy import Mode, RoundPolicy
from coordinator.core.round import step
from coordinator.core.state import Phase, RunState
from coordinator.errors import InternalFault, Reason
from ssd_wire.uploads import UploadFate

CLIENTS = ("a", "b", "c", "d")
HERE = {"round": 1, "attempt": 1}


def start(**changes: object) -> RunState:
    policy = RoundPolicy(
        mode=Mode.REPRODUCIBLE,
        rounds=3,
        cohort_size=4,
        seed=1,
        named_clients=CLIENTS,
        min_participants=2,
        retry_seconds=5.0,
    )
    state = RunState(policy=replace(policy, **changes), clients=frozenset(CLIENTS), waiting_since=0.0)  # type: ignore[arg-type]
    for worker, clients in (("v", ("a", "b")), ("w", ("c", "d"))):
        state, _ = step(state, events.WorkerAttached(now=0.0, worker=worker, clients=clients))
    return state


def fixed(state: RunState, clients: tuple[str, ...] = CLIENTS, fewest: int = 2):
    return step(state, events.SharersFixed(now=1.0, clients=clients, fewest_uploads=fewest, **HERE))


def uploaded(state: RunState, worker: str, *clients: str):
    return step(state, events.UploadVerified(now=2.0, upload=1, worker=worker, clients=clients, **HERE))


def closed(**changes: object) -> RunState:
    state, _ = fixed(start(**changes))
    state, _ = uploaded(state, "v", "a", "b")
    state, _ = uploaded(state, "w", "c", "d")
    assert state.phase is Phase.UNMASKING
    return state


def of(kind: type, todo: tuple[effects.Effect, ...]) -> list:
    return [effect for effect in todo if isinstance(effect, kind)]


def test_a_sum_is_opened_before_it_is_committed() -> None:
    state, _ = fixed(start())
    state, _ = uploaded(state, "v", "a", "b")
    state, todo = uploaded(state, "w", "c", "d")
    assert [type(effect) for effect in todo] == [effects.FoldUpload, effects.AnswerUpload, effects.OpenSum]
    assert todo[2].accepted == CLIENTS
    state, todo = step(state, events.SumOpened(now=3.0, **HERE))
    assert (state.phase, [type(effect) for effect in todo]) == (Phase.COMMITTING, [effects.CloseAndCommit])
    assert todo[0].accepted == CLIENTS
    state, _ = step(state, events.VersionCommitted(now=4.0, version=1))
    assert (state.version, state.phase) == (1, Phase.TRAINING)


def test_an_elastic_round_does_not_close_below_what_a_sum_needs() -> None:
    state, _ = fixed(start(mode=Mode.ELASTIC, cohort_size=2, over_selection=2.0, deadline_seconds=10.0))
    state, todo = uploaded(state, "v", "a", "b")
    assert state.phase is Phase.TRAINING, "the goal is reached, but one participant alone would be laid open"
    assert not of(effects.OpenSum, todo)
    state, todo = step(state, events.Tick(now=11.0))
    assert of(effects.AbandonAttempt, todo)[0].reason == (
        "too_few_survivors: 1 workers uploaded, the sum can be opened with 2 at least"
    )
    state, _ = fixed(start(mode=Mode.ELASTIC, cohort_size=2, over_selection=2.0))
    state, _ = uploaded(state, "v", "a")
    state, todo = uploaded(state, "w", "c")
    assert of(effects.OpenSum, todo)[0].accepted == ("a", "c")


def test_nothing_closes_before_keys_are_exchanged() -> None:
    state, todo = uploaded(start(mode=Mode.ELASTIC, cohort_size=1), "v", "a", "b")
    assert state.phase is Phase.TRAINING
    assert not of(effects.OpenSum, todo)


def test_a_worker_uploads_once() -> None:
    state, _ = fixed(start(mode=Mode.ELASTIC))
    state, _ = uploaded(state, "v", "a")
    state, todo = uploaded(state, "v", "b")
    (answer,) = of(effects.AnswerUpload, todo)
    assert (answer.fate, answer.reason) == (UploadFate.DISCARDED, Reason.DUPLICATE.value)
    assert state.attempt is not None
    assert "b" in state.attempt.failures, "what its worker left out cannot come later"


def test_clients_of_workers_without_keys_are_out() -> None:
    state, _ = fixed(start(mode=Mode.ELASTIC), ("a", "b"))
    assert state.attempt is not None
    assert set(state.attempt.failures) == {"c", "d"}
    state, todo = fixed(start(), ("a", "b"))
    assert "is at no worker that takes part" in of(effects.AbandonAttempt, todo)[0].reason


def test_an_attempt_that_is_given_up_starts_anew_after_a_pause() -> None:
    state, _ = fixed(start())
    state, todo = step(state, events.SumAborted(now=2.0, reason="participant_lost: w", **HERE))
    assert of(effects.AbandonAttempt, todo)[0].workers == ("v", "w")
    assert (state.phase, state.attempt) == (Phase.WAITING, None)
    state, todo = step(state, events.Tick(now=8.0))
    assert of(effects.OpenAttempt, todo)[0].attempt == 2


def test_one_that_would_fail_again_waits_for_the_operator() -> None:
    state, _ = fixed(start())
    state, todo = step(state, events.SumAborted(now=2.0, reason="level_too_low: w", halt=True, **HERE))
    assert (state.phase, of(effects.AbandonAttempt, todo)) == (Phase.HALTED, [])
    assert of(effects.Halt, todo)[0].reason == "level_too_low: w"
    state, todo = uploaded(state, "v", "a", "b")
    assert of(effects.AnswerUpload, todo)[0].reason == Reason.TOO_LATE.value
    state, todo = step(state, events.ResumeRequested(now=3.0))
    assert [type(effect) for effect in todo] == [effects.PersistPaused, effects.AbandonAttempt]


def test_a_set_that_cannot_be_opened_waits_and_stays_what_it_is() -> None:
    state, todo = step(closed(), events.UnmaskingStuck(now=3.0, reason="too few", **HERE))
    assert (state.phase, state.halt_reason) == (Phase.HALTED, "too few")
    assert not of(effects.AbandonAttempt, todo)
    state, todo = uploaded(state, "v", "a", "b")
    assert of(effects.AnswerUpload, todo)[0].reason == Reason.TOO_LATE.value
    state, _ = step(state, events.ClientRevoked(now=3.5, client="a"))
    state, todo = step(state, events.ResumeRequested(now=4.0))
    assert of(effects.OpenSum, todo)[0].accepted == CLIENTS
    assert not of(effects.SendTrain, todo)
    assert state.phase is Phase.UNMASKING


def test_a_set_nobody_revealed_anything_for_is_given_up_like_any_other() -> None:
    state, todo = step(closed(), events.SumAborted(now=3.0, reason="too_few_signatures", **HERE))
    assert of(effects.AbandonAttempt, todo)[0].reason == "too_few_signatures"
    assert state.phase is Phase.WAITING


def test_a_failed_commit_opens_and_commits_the_same_set_again() -> None:
    state, _ = step(closed(), events.SumOpened(now=3.0, **HERE))
    state, _ = step(state, events.CommitFailed(now=4.0, reason="no luck"))
    assert state.phase is Phase.HALTED
    state, todo = step(state, events.ResumeRequested(now=5.0))
    assert of(effects.OpenSum, todo)[0].accepted == CLIENTS
    assert state.phase is Phase.UNMASKING


def test_what_concerns_another_attempt_changes_nothing() -> None:
    state, _ = fixed(start())
    other = {"round": 1, "attempt": 9}
    for event in (
        events.SharersFixed(now=2.0, clients=(), fewest_uploads=9, **other),
        events.SumAborted(now=2.0, reason="x", **other),
        events.UnmaskingStuck(now=2.0, reason="x", **other),
    ):
        assert step(state, event) == (state, ())
    with pytest.raises(InternalFault):
        step(state, events.SumOpened(now=2.0, **HERE))


def test_a_client_revoked_before_its_worker_uploads_ends_the_attempt() -> None:
    state, _ = fixed(start())
    state, _ = uploaded(state, "v", "a", "b")
    state, todo = step(state, events.ClientRevoked(now=3.0, client="a"))
    assert not of(effects.AbandonAttempt, todo), "its update is in the sum, which cannot be taken apart"
    state, todo = step(state, events.ClientRevoked(now=3.0, client="c"))
    assert "c was revoked" in of(effects.AbandonAttempt, todo)[0].reason


def test_an_elastic_round_does_not_open_with_too_few_workers() -> None:
    state = start(mode=Mode.ELASTIC, cohort_size=2, min_participants=3)
    assert state.phase is Phase.WAITING
    assert state.waiting_for() == (1, "secure aggregation needs 3 workers with clients, 2 connected")
