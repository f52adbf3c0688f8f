"""The journal keeps the Behaviour lines of `coordinator.ports.journal.Journal` and survives its process."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.errors import CoordinatorError, JournalConflict, JournalTampered, StorageFailed
from coordinator.ports.figures import Figures
from coordinator.ports.journal import Journal
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.store.journal import chain
from coordinator.store.journal import sqlite as sqlite_store
from coordinator.store.journal.sqlite import SqliteJournal
from rounds.journal_model import JournalModel, Refused
from ssd.scaling import ScalingVector
from ssd_wire.messages import Artefact, BlobRef

BLOB = BlobRef(digest="ab" * 32, size=12)
SCALING = ScalingVector(dimension=8, indices=(1, 5), alpha=10.0)


def a_run(run_id: str = "run-1") -> RunRecord:
    return RunRecord(
        run_id=run_id,
        created_at=100.0,
        config={"run": {"rounds": 3, "clients": ["a"]}},
        declaration={"method": "synthetic", "groups": []},
        declaration_blob=BLOB,
        declaration_digest="cd" * 32,
        artefacts=(Artefact(name="basis", blob=BLOB, shape=(2, 3)),),
    )


def a_version(number: int, attempt: int = 1, **changes: object) -> VersionRecord:
    record = VersionRecord(
        number=number,
        model_digest=f"m{number}",
        full=BLOB,
        delta=BLOB if number else None,
        server_state={"residual": BLOB},
        round=number,
        attempt=attempt if number else 0,
        committed_at=float(number),
        artefacts=(Artefact(name="drift", blob=BLOB, shape=(2, 3)),) if number else (),
        figures=Figures(losses={"loss": 0.5, "broken": math.nan}),
    )
    return replace(record, **changes)  # type: ignore[arg-type]  # fields of several types


def an_attempt(round_number: int, attempt: int = 1, cohort: tuple[str, ...] = ("a", "b")) -> AttemptRecord:
    base = round_number - 1
    return AttemptRecord(
        round=round_number,
        attempt=attempt,
        base_version=base,
        base_digest=f"m{base}",
        cohort=cohort,
        opened_at=10.0 * round_number,
    )


def started(store: Journal) -> Journal:
    store.create_run(a_run(), a_version(0))
    store.register_clients(["a", "b", "c"], 1.0)
    return store


def commit_round(store: Journal, number: int, accepted: tuple[str, ...] = ("a", "b")) -> None:
    store.open_attempt(an_attempt(number))
    store.close_attempt(number, 1, accepted)
    store.commit(a_version(number), float(number))


def everything(store: Journal) -> str:
    """All a store can be asked, as text (so that NaN equals itself)."""
    run = store.current_run()
    answers = {
        "federation": store.federation_id(),
        "run": asdict(run) if run else None,
        "finished": store.run_finished(),
        "clients": [asdict(record) for record in store.clients()],
        "attempts": [asdict(record) for record in store.attempts()],
        "versions": [asdict(record) for record in store.versions()],
        "evaluations": store.evaluations(),
        "paused": store.flag("paused"),
        "bindings": dict(store.bindings()),
        "chain": store.chain(),
        "granted": sorted(store.granted_workers()),
        "chronicles": [store.client_history(each.round, each.attempt) for each in store.attempts()],
    }
    return json.dumps(answers, sort_keys=True)


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


CLIENTS = st.sampled_from(["a", "b", "c"])
CALLS = st.one_of(
    st.tuples(st.just("register_clients"), st.tuples(st.lists(CLIENTS, max_size=2), st.just(1.0))),
    st.tuples(
        st.just("assign"),
        st.tuples(st.dictionaries(CLIENTS, st.tuples(st.integers(0, 2), st.sampled_from([None, SCALING])))),
    ),
    st.tuples(st.just("revoke_client"), st.tuples(CLIENTS)),
    st.tuples(
        st.just("bind_clients"), st.tuples(st.sampled_from("wx"), st.lists(CLIENTS, max_size=3), st.just(1.0))
    ),
    st.tuples(st.just("move_client"), st.tuples(CLIENTS, st.sampled_from("wx"), st.just(1.0))),
    st.tuples(
        st.just("open_attempt"),
        st.tuples(st.builds(an_attempt, st.integers(1, 2), st.integers(1, 2), st.just(("a", "b")))),
    ),
    st.tuples(
        st.just("close_attempt"),
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.lists(st.sampled_from(["a", "b"]), max_size=2)),
    ),
    st.tuples(
        st.just("abandon_attempt"),
        st.tuples(st.integers(1, 2), st.integers(1, 2), st.sampled_from(["x", "y"]), st.just(3.0)),
    ),
    st.tuples(
        st.just("commit"),
        st.tuples(st.builds(a_version, st.integers(0, 2), st.integers(1, 2)), st.just(4.0)),
    ),
    st.tuples(st.just("forget_version_blobs"), st.tuples(st.lists(st.integers(0, 2), max_size=2))),
    st.tuples(
        st.just("record_evaluation"), st.tuples(st.integers(0, 2), st.just({"knn": 0.5}), st.just(1.0))
    ),
    st.tuples(st.just("finish_run"), st.just(())),
)


def test_what_opened_a_sum_is_nowhere_on_the_disk_after_its_commit(tmp_path: Path) -> None:
    secret = b"a share that opened a masked sum" * 200
    store = SqliteJournal(tmp_path)
    started(store)
    store.open_attempt(an_attempt(1))
    store.close_attempt(1, 1, ["a"], secret)
    store.close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(secret[:32] in file.read_bytes() for file in files)
    store = SqliteJournal(tmp_path)
    store.commit(a_version(1), 7.0)
    store.close()
    assert not any(secret[:32] in file.read_bytes() for file in files if file.exists())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(CALLS, max_size=25))
def test_after_any_sequence_of_calls_the_journal_answers_as_its_model_and_still_does_when_reopened(
    calls: list[tuple[str, tuple[object, ...]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = SqliteJournal(folder)
    store.create_run(a_run(), a_version(0))
    model = JournalModel(store.federation_id(), a_run(), a_version(0))
    for each in (store, model):
        each.register_clients(["a", "b"], 1.0)
    for name, arguments in calls:
        outcomes = []
        for each, refusal in ((store, JournalConflict), (model, Refused)):
            try:
                getattr(each, name)(*arguments)
                outcomes.append("done")
            except refusal:
                outcomes.append("refused")
        assert outcomes[0] == outcomes[1], name
        assert everything(store) == json.dumps(model.answers(), sort_keys=True)
    store.close()
    store = SqliteJournal(folder)
    assert everything(store) == json.dumps(model.answers(), sort_keys=True)
    store.close()


class TestSqlite:
    def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        store.assign({"a": (0, SCALING)})
        commit_round(store, 1)
        store.open_attempt(an_attempt(2))
        store.record_evaluation(1, {"knn": 0.5}, 5.0)
        store.set_flag("paused", True)
        before = everything(store)
        store.close()
        again = SqliteJournal(tmp_path)
        assert everything(again) == before
        again.close()

    def test_it_is_durable_by_its_settings(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        assert store._rows("PRAGMA journal_mode") == [("wal",)]
        assert store._rows("PRAGMA synchronous") == [(2,)]
        assert store._rows("PRAGMA foreign_keys") == [(1,)]
        assert store._rows("PRAGMA secure_delete") == [(1,)]
        store.close()

    @pytest.mark.parametrize("method", ["commit", "assign", "create_run"])
    def test_a_kill_in_the_middle_of_a_transaction_leaves_no_trace(self, tmp_path: Path, method: str) -> None:
        """Should: all of the transaction before, none of the one under way. Should not: half a commit."""
        script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_coordinator_store import *
store = SqliteJournal(Path({str(tmp_path)!r}))
if {method!r} != "create_run":
    started(store)
    store.open_attempt(an_attempt(1))
    store.close_attempt(1, 1, ["a"])
statements = []
def trace(statement):
    if statement.startswith(("INSERT", "UPDATE")):
        statements.append(statement)
        if len(statements) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
store._db.set_trace_callback(trace)
if {method!r} == "commit":
    store.commit(a_version(1), 5.0)
elif {method!r} == "assign":
    store.assign({{"a": (0, SCALING), "b": (1, None)}})
else:
    store.create_run(a_run(), a_version(0))
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        store = SqliteJournal(tmp_path)
        if method == "create_run":
            assert store.current_run() is None
            store.create_run(a_run(), a_version(0))
        else:
            assert [version.number for version in store.versions()] == [0]
            assert store.attempts()[0].outcome == "closed"
            assert all(client.index is None and client.rounds_included == 0 for client in store.clients())
            store.commit(a_version(1), 5.0)
        store.close()

    def test_a_newer_schema_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        store._db.execute("UPDATE schema_version SET version = 99")
        store.close()
        with pytest.raises(StorageFailed, match=r"schema version 99.*newer version"):
            SqliteJournal(tmp_path)
        db = sqlite3.connect(tmp_path / "state.sqlite3")
        assert db.execute("SELECT version FROM schema_version").fetchone() == (99,)
        db.close()

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE versions SET record = replace(record, '\"m1\"', '\"m9\"') WHERE number = 1",
            "UPDATE versions SET record = replace(record, '0.5', '0.6') WHERE number = 0",
            "UPDATE versions SET record = (SELECT record FROM versions WHERE number = 1) WHERE number = 2",
            "UPDATE attempts SET accepted = '[\"a\"]' WHERE round = 1",
            "UPDATE attempts SET outcome = 'abandoned' WHERE round = 2",
            "UPDATE runs SET record = replace(record, 'synthetic', 'sympathic')",
            "UPDATE chain SET value = 'f' || substr(value, 2) || 'f' WHERE number = 2",
            "DELETE FROM chain WHERE number = 0",
            "DELETE FROM chain",
        ],
    )
    def test_a_past_that_was_changed_is_found_and_says_what_to_do(self, tmp_path: Path, damage: str) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        commit_round(store, 1)
        commit_round(store, 2)
        chain.verify(store)
        assert store._db.execute(damage).rowcount > 0
        with pytest.raises(
            JournalTampered, match=r"Restore the state directory from a backup, or start a new"
        ):
            chain.verify(store)
        store.close()

    def test_a_version_that_was_cut_out_is_missed(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        for number in (1, 2, 3):
            commit_round(store, number)
        store._db.execute("PRAGMA foreign_keys = OFF")
        for table in ("chain", "versions"):
            store._db.execute(f"DELETE FROM {table} WHERE number = 2")
        with pytest.raises(JournalTampered, match="version 2"):
            chain.verify(store)
        store.close()

    def test_somebody_elses_database_is_refused(self, tmp_path: Path) -> None:
        db = sqlite3.connect(tmp_path / "state.sqlite3")
        db.execute("CREATE TABLE shopping (item TEXT)")
        db.close()
        with pytest.raises(StorageFailed, match="choose another state_dir"):
            SqliteJournal(tmp_path)

    def test_a_file_that_is_no_database_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "state.sqlite3").write_bytes(b"not a database, certainly not one" * 100)
        with pytest.raises(StorageFailed, match="restore the state directory from a backup"):
            SqliteJournal(tmp_path)

    def test_a_damaged_database_says_what_to_do(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        store.register_clients([f"client-{number:05}" for number in range(3000)], 1.0)
        store.close()
        path = tmp_path / "state.sqlite3"
        content = bytearray(path.read_bytes())
        content[4096 * 4 :] = b"\xa5" * (len(content) - 4096 * 4)
        path.write_bytes(content)
        with pytest.raises(StorageFailed, match="damaged: restore"):
            SqliteJournal(tmp_path).clients()

    def test_a_full_disk_changes_nothing_and_is_got_over(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        (pages,) = store._rows("PRAGMA page_count")[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        before = everything(store)
        many = [f"client-{number:05}" for number in range(3000)]
        with pytest.raises(StorageFailed, match="disk is full: free space"):
            store.register_clients(many, 1.0)
        assert everything(store) == before
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.register_clients(many, 1.0)
        assert len(store.clients()) == 3003
        store.close()

    def test_a_locked_database_says_so(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        store._db.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed, match="another program holds it locked"):
            store.set_flag("paused", True)
        other.execute("ROLLBACK")
        store.set_flag("paused", True)
        other.close()
        store.close()

    def test_a_read_only_database_says_so(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageFailed, match="cannot be written"):
            store.set_flag("paused", True)
        store.close()

    def test_a_state_directory_that_is_a_file_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")
        with pytest.raises(StorageFailed):
            SqliteJournal(tmp_path / "state")
