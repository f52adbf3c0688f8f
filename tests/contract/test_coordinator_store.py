"""The journal keeps the Behaviour lines of `coordinator.ports.journal.Journal` and survives its process."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.errors import CoordinatorError, JournalConflict, StorageFailed
from coordinator.ports.journal import Journal
from coordinator.ports.records import AttemptRecord
from coordinator.store.journal import chain
from coordinator.store.journal import sqlite as sqlite_store
from coordinator.store.journal.sqlite import SqliteJournal
from journals.journal_runs import (
    BLOB,
    SCALING,
    a_run,
    a_version,
    an_attempt,
    commit_round,
    everything,
    started,
)


@pytest.fixture(params=[SqliteJournal])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    opened: Journal = request.param(tmp_path)
    yield opened
    opened.close()


def refused(store: Journal, call: Callable[[], None]) -> None:
    """The call raises JournalConflict and changes nothing."""
    before = everything(store)
    with pytest.raises(JournalConflict):
        call()
    assert everything(store) == before


def repeatable(store: Journal, call: Callable[[], None]) -> None:
    """The call succeeds, and a second time changes nothing."""
    call()
    before = everything(store)
    call()
    assert everything(store) == before


class TestStore:
    def test_a_new_store_is_empty_but_has_an_id(self, store: Journal) -> None:
        assert len(store.federation_id()) == 32
        int(store.federation_id(), 16)
        assert store.current_run() is None
        assert not store.run_finished()
        assert store.clients() == store.attempts() == store.versions() == store.evaluations() == ()
        assert not store.flag("paused")

    def test_a_created_run_is_current_and_has_version_0(self, store: Journal) -> None:
        repeatable(store, lambda: store.create_run(a_run(), a_version(0)))
        assert store.current_run() == a_run()
        (version,) = store.versions()
        assert (version.number, version.server_state, version.retained) == (0, {"residual": BLOB}, True)

    def test_no_second_run_while_one_is_unfinished(self, store: Journal) -> None:
        started(store)
        refused(store, lambda: store.create_run(a_run("run-2"), a_version(0)))

    def test_a_run_cannot_be_created_again_with_other_contents(self, store: Journal) -> None:
        started(store)
        refused(store, lambda: store.create_run(replace(a_run(), config={}), a_version(0)))
        refused(store, lambda: store.create_run(a_run(), a_version(0, model_digest="other")))

    def test_a_run_begins_with_version_0(self, store: Journal) -> None:
        refused(store, lambda: store.create_run(a_run(), a_version(1)))

    def test_a_finished_run_stays_readable_until_the_next(self, store: Journal) -> None:
        started(store)
        store.assign({"a": (0, SCALING)})
        commit_round(store, 1)
        repeatable(store, store.finish_run)
        assert store.run_finished()
        assert store.current_run() == a_run()
        assert len(store.versions()) == 2
        assert store.clients()[0].scaling == SCALING

    def test_a_new_run_has_the_clients_but_nothing_else_of_the_old_one(self, store: Journal) -> None:
        started(store)
        store.assign({"a": (0, SCALING)})
        store.revoke_client("b")
        commit_round(store, 1)
        store.record_evaluation(1, {"knn": 0.5}, 9.0)
        store.finish_run()
        store.create_run(a_run("run-2"), a_version(0))
        assert [
            (c.client, c.index, c.scaling, c.last_committed_round, c.revoked) for c in store.clients()
        ] == [
            ("a", None, None, 0, False),
            ("b", None, None, 0, True),
            ("c", None, None, 0, False),
        ]
        assert store.attempts() == store.evaluations() == ()
        assert [version.number for version in store.versions()] == [0]
        assert not store.run_finished()
        refused(store, lambda: store.create_run(a_run("run-1"), a_version(0)))

    def test_an_attempts_client_history_is_kept_and_replaced(self, store: Journal) -> None:
        started(store)
        refused(store, lambda: store.keep_client_history(1, 1, {}))
        commit_round(store, 1)
        assert store.client_history(1, 1) == {}
        repeatable(
            store, lambda: store.keep_client_history(1, 1, {"a": {"notes": [[1.5, "asked", "", "w"]]}})
        )
        store.keep_client_history(1, 1, {"b": {"notes": []}})
        assert store.client_history(1, 1) == {"b": {"notes": []}}
        refused(store, lambda: store.keep_client_history(1, 2, {}))

    def test_client_histories_of_the_oldest_attempts_go(
        self, store: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_store, "KEPT_CHRONICLES", 2)
        started(store)
        for number in (1, 2, 3):
            commit_round(store, number)
            store.keep_client_history(number, 1, {"a": number})
        assert [store.client_history(number, 1) for number in (1, 2, 3)] == [{}, {"a": 2}, {"a": 3}]

    def test_a_run_with_an_attempt_under_way_cannot_finish(self, store: Journal) -> None:
        started(store)
        store.open_attempt(an_attempt(1))
        refused(store, store.finish_run)

    @pytest.mark.parametrize(
        "call",
        [
            lambda store: store.finish_run(),
            lambda store: store.assign({}),
            lambda store: store.open_attempt(an_attempt(1)),
            lambda store: store.close_attempt(1, 1, []),
            lambda store: store.abandon_attempt(1, 1, "late", 1.0),
            lambda store: store.commit(a_version(1), 1.0),
            lambda store: store.forget_version_blobs([0]),
            lambda store: store.record_evaluation(0, {}, 1.0),
        ],
    )
    def test_without_a_run_nothing_of_a_run_can_change(
        self, store: Journal, call: Callable[[Journal], None]
    ) -> None:
        refused(store, lambda: call(store))

    def test_a_finished_run_takes_no_further_round(self, store: Journal) -> None:
        started(store)
        store.finish_run()
        refused(store, lambda: store.open_attempt(an_attempt(1)))
        refused(store, lambda: store.assign({"a": (0, None)}))

    def test_a_finished_run_can_be_taken_up_again(self, store: Journal) -> None:
        refused(store, store.reopen_run)
        started(store)
        repeatable(store, store.reopen_run)
        assert not store.run_finished()
        store.finish_run()
        repeatable(store, store.reopen_run)
        assert not store.run_finished()
        store.open_attempt(an_attempt(1))

    def test_registering_adds_the_unknown_and_leaves_the_known(self, store: Journal) -> None:
        store.register_clients(["b", "a"], 1.0)
        store.revoke_client("b")
        repeatable(store, lambda: store.register_clients(["b", "c"], 2.0))
        assert [(c.client, c.registered_at, c.revoked) for c in store.clients()] == [
            ("a", 1.0, False),
            ("b", 1.0, True),
            ("c", 2.0, False),
        ]

    def test_the_chain_covers_the_run_every_version_and_every_accepted_set(self, store: Journal) -> None:
        assert store.chain() == ()
        chain.verify(store)
        started(store)
        commit_round(store, 1)
        commit_round(store, 2, ("b",))
        chain.verify(store)
        first = chain.origin(a_run(), a_version(0))
        second = chain.link(first, a_version(1), ("a", "b"))
        assert store.chain() == (first, second, chain.link(second, a_version(2), ("b",)))
        assert first != chain.origin(a_run("run-2"), a_version(0))
        assert second != chain.link(first, a_version(1), ("a",))
        # What retention and repeated calls change is not part of it.
        store.forget_version_blobs([0, 1])
        store.commit(a_version(2), 9.0)
        chain.verify(store)

    def test_a_client_belongs_to_one_worker_until_it_is_moved(self, store: Journal) -> None:
        started(store)
        store.bind_clients("w", ["a", "stranger"], 1.0)
        assert store.bindings() == {"a": "w", "stranger": "w"}
        repeatable(store, lambda: store.bind_clients("w", ["a"], 2.0))
        refused(store, lambda: store.bind_clients("x", ["b", "a"], 2.0))
        assert "b" not in store.bindings()
        store.bind_clients("x", ["b"], 2.0)
        store.move_client("a", "x", 3.0)
        repeatable(store, lambda: store.move_client("a", "x", 4.0))
        store.move_client("c", "w", 5.0)
        assert store.bindings() == {"a": "x", "b": "x", "c": "w", "stranger": "w"}

    def test_a_worker_whose_clients_were_named_is_remembered_as_such(self, store: Journal) -> None:
        store.bind_clients("w", ["a"], 1.0)
        assert store.granted_workers() == frozenset()
        repeatable(store, lambda: store.bind_clients("x", ["b"], 1.0, granted=True))
        refused(store, lambda: store.bind_clients("y", ["b"], 1.0, granted=True))
        assert store.granted_workers() == {"x"}

    def test_only_a_registered_client_can_be_revoked(self, store: Journal) -> None:
        refused(store, lambda: store.revoke_client("nobody"))
        store.register_clients(["a"], 1.0)
        repeatable(store, lambda: store.revoke_client("a"))

    def test_index_and_scaling_vector_are_fixed_for_ever(self, store: Journal) -> None:
        started(store)
        repeatable(store, lambda: store.assign({"a": (0, SCALING), "b": (1, None)}))
        repeatable(store, lambda: store.assign({"b": (1, None), "c": (7, None)}))
        assert [(c.index, c.scaling) for c in store.clients()] == [(0, SCALING), (1, None), (7, None)]
        refused(store, lambda: store.assign({"a": (3, SCALING)}))
        refused(store, lambda: store.assign({"a": (0, None)}))
        refused(store, lambda: store.assign({"a": (0, replace(SCALING, alpha=2.0))}))

    def test_an_assignment_is_all_or_nothing(self, store: Journal) -> None:
        started(store)
        store.assign({"a": (0, None)})
        refused(store, lambda: store.assign({"b": (1, None), "c": (0, None)}))
        refused(store, lambda: store.assign({"b": (1, None), "c": (1, None)}))
        refused(store, lambda: store.assign({"b": (1, None), "nobody": (2, None)}))
        refused(store, lambda: store.assign({"b": (-1, None)}))

    def test_attempts_go_from_open_over_closed_to_committed(self, store: Journal) -> None:
        started(store)
        repeatable(store, lambda: store.open_attempt(an_attempt(1)))
        assert store.attempts() == (an_attempt(1),)
        repeatable(store, lambda: store.close_attempt(1, 1, ["b", "a"]))
        assert store.attempts() == (replace(an_attempt(1), outcome="closed", accepted=("a", "b")),)
        repeatable(store, lambda: store.commit(a_version(1), 77.0))
        (attempt,) = store.attempts()
        assert (attempt.outcome, attempt.accepted, attempt.closed_at) == ("committed", ("a", "b"), 77.0)
        # The answer to a question that was asked twice.
        store.close_attempt(1, 1, ["a", "b"])

    def test_a_commit_adds_the_version_and_credits_exactly_the_accepted(self, store: Journal) -> None:
        started(store)
        commit_round(store, 1, ("a",))
        commit_round(store, 2, ("a", "b"))
        assert [(c.last_committed_round, c.rounds_included) for c in store.clients()] == [
            (2, 2),
            (2, 1),
            (0, 0),
        ]
        assert [version.number for version in store.versions()] == [0, 1, 2]
        newest = store.versions()[-1]
        assert newest.committed_at == 2.0
        assert newest.figures.losses["loss"] == 0.5
        assert math.isnan(newest.figures.losses["broken"])

    def test_an_assignment_after_the_first_commit_keeps_the_credit(self, store: Journal) -> None:
        started(store)
        commit_round(store, 1, ("a",))
        store.assign({"a": (4, SCALING)})
        (record, *_) = store.clients()
        assert (record.index, record.last_committed_round, record.rounds_included) == (4, 1, 1)

    def test_one_attempt_at_a_time(self, store: Journal) -> None:
        started(store)
        store.open_attempt(an_attempt(1))
        refused(store, lambda: store.open_attempt(an_attempt(1, 2)))
        store.close_attempt(1, 1, ["a"])
        refused(store, lambda: store.open_attempt(an_attempt(1, 2)))
        store.abandon_attempt(1, 1, "crash", 5.0)
        store.open_attempt(an_attempt(1, 2))

    @pytest.mark.parametrize(
        "attempt",
        [
            replace(an_attempt(1), base_version=1),
            replace(an_attempt(1), base_digest="other"),
            replace(an_attempt(1), cohort=("a", "stranger")),
            replace(an_attempt(1), cohort=("a", "a")),
            replace(an_attempt(1), outcome="closed"),
            replace(an_attempt(1), accepted=("a",)),
        ],
    )
    def test_an_attempt_that_contradicts_the_journal_does_not_open(
        self, store: Journal, attempt: AttemptRecord
    ) -> None:
        started(store)
        refused(store, lambda: store.open_attempt(attempt))

    def test_an_attempt_cannot_be_opened_again_with_other_contents(self, store: Journal) -> None:
        started(store)
        store.open_attempt(an_attempt(1))
        refused(store, lambda: store.open_attempt(replace(an_attempt(1), cohort=("a",))))

    def test_the_accepted_set_cannot_change(self, store: Journal) -> None:
        started(store)
        refused(store, lambda: store.close_attempt(1, 1, ["a"]))
        store.open_attempt(an_attempt(1))
        refused(store, lambda: store.close_attempt(1, 1, ["c"]))
        refused(store, lambda: store.close_attempt(1, 1, ["a", "a"]))
        store.close_attempt(1, 1, ["a"])
        refused(store, lambda: store.close_attempt(1, 1, ["a", "b"]))
        refused(store, lambda: store.close_attempt(1, 1, []))

    def test_where_an_opening_stands_is_kept_with_the_set_and_goes_with_the_attempt(
        self, store: Journal
    ) -> None:
        started(store)
        store.open_attempt(an_attempt(1))
        assert store.secure_sum(1, 1) == b""
        refused(store, lambda: store.close_attempt(1, 1, ["c"], b"state"))
        assert store.secure_sum(1, 1) == b""
        store.close_attempt(1, 1, ["a"], b"survivors")
        repeatable(store, lambda: store.close_attempt(1, 1, ["a"], b"reveals"))
        store.close_attempt(1, 1, ["a"])
        assert store.secure_sum(1, 1) == b"reveals"
        refused(store, lambda: store.close_attempt(1, 1, ["b"], b"another"))
        assert store.secure_sum(1, 1) == b"reveals"
        store.commit(a_version(1), 7.0)
        assert store.secure_sum(1, 1) == b""
        store.close_attempt(1, 1, ["a"], b"late")
        assert store.secure_sum(1, 1) == b""
        store.open_attempt(an_attempt(2))
        store.close_attempt(2, 1, ["a"], b"survivors")
        store.abandon_attempt(2, 1, "too few signatures", 9.0)
        assert store.secure_sum(2, 1) == b""

    def test_an_abandoned_attempt_is_over(self, store: Journal) -> None:
        started(store)
        store.open_attempt(an_attempt(1))
        repeatable(store, lambda: store.abandon_attempt(1, 1, "deadline", 6.0))
        (attempt,) = store.attempts()
        assert (attempt.outcome, attempt.reason, attempt.closed_at) == ("abandoned", "deadline", 6.0)
        refused(store, lambda: store.abandon_attempt(1, 1, "other", 6.0))
        refused(store, lambda: store.close_attempt(1, 1, ["a"]))
        refused(store, lambda: store.commit(a_version(1), 7.0))
        refused(store, lambda: store.abandon_attempt(4, 1, "deadline", 6.0))

    def test_a_committed_attempt_cannot_be_abandoned(self, store: Journal) -> None:
        started(store)
        commit_round(store, 1)
        refused(store, lambda: store.abandon_attempt(1, 1, "late", 9.0))

    def test_only_a_closed_attempt_commits_and_only_the_next_version(self, store: Journal) -> None:
        started(store)
        refused(store, lambda: store.commit(a_version(1), 1.0))
        store.open_attempt(an_attempt(1))
        refused(store, lambda: store.commit(a_version(1), 1.0))
        store.close_attempt(1, 1, ["a"])
        refused(store, lambda: store.commit(a_version(2, round=1), 1.0))
        refused(store, lambda: store.commit(a_version(0, round=1, attempt=1), 1.0))
        store.commit(a_version(1), 1.0)
        refused(store, lambda: store.commit(a_version(1, model_digest="other"), 1.0))

    def test_attempts_come_newest_first_and_can_be_limited(self, store: Journal) -> None:
        started(store)
        store.open_attempt(an_attempt(1))
        store.abandon_attempt(1, 1, "deadline", 5.0)
        store.open_attempt(an_attempt(1, 2))
        store.close_attempt(1, 2, ["a"])
        store.commit(a_version(1, attempt=2), 8.0)
        store.open_attempt(an_attempt(2))
        assert [(a.round, a.attempt) for a in store.attempts()] == [(2, 1), (1, 2), (1, 1)]
        assert [(a.round, a.attempt) for a in store.attempts(limit=2)] == [(2, 1), (1, 2)]
        assert [
            (a.round, a.attempt, a.opened_at, a.outcome, a.reason, a.invited, a.accepted, a.closed_at)
            for a in store.attempt_counts(2)
        ] == [
            (
                a.round,
                a.attempt,
                a.opened_at,
                a.outcome,
                a.reason,
                len(a.cohort),
                len(a.accepted),
                a.closed_at,
            )
            for a in store.attempts(2)
        ]

    def test_forgotten_versions_stay_listed(self, store: Journal) -> None:
        started(store)
        commit_round(store, 1)
        commit_round(store, 2)
        repeatable(store, lambda: store.forget_version_blobs([0, 1]))
        assert [version.retained for version in store.versions()] == [False, False, True]
        refused(store, lambda: store.forget_version_blobs([2]))
        refused(store, lambda: store.forget_version_blobs([0, 9]))
        # Forgetting is no change of contents: the commit can still be repeated.
        store.commit(a_version(1), 1.0)

    def test_the_latest_measurement_of_a_version_counts(self, store: Journal) -> None:
        started(store)
        commit_round(store, 1)
        store.record_evaluation(1, {"knn": 0.4}, 5.0)
        store.record_evaluation(0, {"knn": 0.1}, 6.0)
        repeatable(store, lambda: store.record_evaluation(1, {"knn": 0.5, "probe": 0.6}, 7.0))
        assert store.evaluations() == ((0, {"knn": 0.1}), (1, {"knn": 0.5, "probe": 0.6}))
        refused(store, lambda: store.record_evaluation(2, {}, 8.0))

    def test_flags(self, store: Journal) -> None:
        repeatable(store, lambda: store.set_flag("paused", True))
        assert store.flag("paused")
        assert not store.flag("other")
        store.set_flag("paused", False)
        assert not store.flag("paused")

    def test_it_may_be_used_from_another_thread(self, store: Journal) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                started(store)
                commit_round(store, 1)
            except CoordinatorError as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert failures == []
        assert store.versions()[-1].number == 1

    def test_a_closed_store_fails_as_storage(self, store: Journal) -> None:
        store.close()
        with pytest.raises(StorageFailed):
            store.set_flag("paused", True)
