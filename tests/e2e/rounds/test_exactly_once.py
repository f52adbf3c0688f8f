"""Client state advances exactly once per commit that includes the client, whoever dies at which instruction.

The synthetic method's updates depend on a hash chain in the client's state that every training advances: a state
that advanced twice, or not at all, changes the digest of a later version.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from processes.federation import Federation

pytestmark = pytest.mark.e2e
GROUPS = {"worker-a": ["c0", "c1", "c2"], "worker-b": ["c3"]}
SETTINGS = {
    "run.clients": ["c0", "c1", "c2", "c3"],
    "run.rounds": 4,
    "round.cohort_size": 4,
    "method.config": {"parameters": 3000},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with Federation(tmp_path_factory.mktemp("reference"), **SETTINGS) as federation:
        federation.start_coordinator()
        for name, clients in GROUPS.items():
            federation.start_worker(name, clients)
        assert federation.finish() == 0
        yield federation.digests()


def test_the_reference_depends_on_client_state(tmp_path: Path, reference: list[str]) -> None:
    """Otherwise the tests below could not fail."""
    stateless = {**SETTINGS, "method.config": {"parameters": 3000, "state": False}}
    with Federation(tmp_path, **stateless) as federation:
        federation.start_coordinator()
        for name, clients in GROUPS.items():
            federation.start_worker(name, clients)
        assert federation.finish() == 0
        assert federation.digests()[-1] != reference[-1]


@pytest.mark.parametrize(
    ("place", "when", "count"),
    [
        ("worker.store.sqlite:SqliteStore.keep_fold", "before", 2),
        ("worker.store.sqlite:SqliteStore.keep_fold", "after", 2),
        ("worker.rpc.client:GrpcTransport.submit", "before", 2),
        ("worker.rpc.client:GrpcTransport.submit", "after", 2),  # between upload and verdict
        ("worker.store.sqlite:SqliteStore.promote", "before", 2),  # between verdict and commit
        ("worker.store.sqlite:SqliteStore.promote", "after", 2),
    ],
)
def test_a_worker_that_dies_there(
    tmp_path: Path, reference: list[str], place: str, when: str, count: int
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        doomed = federation.start_worker("worker-a", GROUPS["worker-a"], fault=[place, when, str(count)])
        federation.start_worker("worker-b", GROUPS["worker-b"])
        federation.until(lambda: not doomed.running, f"the worker dies {when} {place}")
        assert coordinator.running
        federation.start_worker("worker-a", GROUPS["worker-a"])
        assert federation.finish() == 0
        assert federation.digests() == reference
        assert not coordinator.events("client_reinitialised")


@pytest.mark.parametrize(
    ("place", "when", "count"),
    [
        ("coordinator.store.journal.sqlite:SqliteJournal.open_attempt", "before", 2),
        ("coordinator.store.journal.sqlite:SqliteJournal.open_attempt", "after", 2),
        ("coordinator.uploads.verification:UploadVerification.answer", "before", 3),
        ("coordinator.uploads.verification:UploadVerification.answer", "after", 3),
        (
            "coordinator.store.journal.sqlite:SqliteJournal.close_attempt",
            "after",
            2,
        ),  # the set is journaled, no commit
        ("coordinator.store.files.blobs:FileBlobWriter.finish", "after", 8),
        ("coordinator.versions.next_version:VersionMaker.make", "after", 2),  # files written, no commit
        (
            "coordinator.store.journal.sqlite:SqliteJournal.commit",
            "after",
            2,
        ),  # between commit and announcement
        ("coordinator.rounds.commit:AfterCommit.announce", "after", 2),
    ],
)
def test_a_coordinator_that_dies_there(
    tmp_path: Path, reference: list[str], place: str, when: str, count: int
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        doomed = federation.start_coordinator(fault=[place, when, str(count)])
        for name, clients in GROUPS.items():
            federation.start_worker(name, clients)
        federation.until(lambda: not doomed.running, f"the coordinator dies {when} {place}")
        again = federation.start_coordinator()
        assert federation.finish() == 0
        assert federation.digests() == reference
        assert not again.events("client_reinitialised")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_elastic_set_that_was_journaled_commits_as_it_was(tmp_path: Path, when: str) -> None:
    elastic = {
        **SETTINGS,
        "run.mode": "elastic",
        "run.clients": [],
        "run.expected_clients": 4,
        "round.cohort_size": 3,
        "round.over_selection": 1.3,
    }
    with Federation(tmp_path, **elastic) as federation:
        doomed = federation.start_coordinator(
            fault=["coordinator.store.journal.sqlite:SqliteJournal.commit", when, "2"]
        )
        for name, clients in GROUPS.items():
            federation.start_worker(name, clients)
        federation.until(lambda: not doomed.running, "the coordinator dies at its second commit")
        store = federation.store()
        journaled = next(each for each in store.attempts() if each.round == 2)
        store.close()
        assert journaled.outcome == ("closed" if when == "before" else "committed")
        federation.start_coordinator()
        assert federation.finish() == 0
        store = federation.store()
        outcome = next(each for each in store.attempts() if each.round == 2)
        store.close()
        assert outcome.outcome == "committed"
        assert (outcome.attempt, outcome.accepted) == (journaled.attempt, journaled.accepted)
