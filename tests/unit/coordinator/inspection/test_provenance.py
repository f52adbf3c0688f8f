"""What an exported file says of a version's origin is what the journal holds up to that version, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.inspection.provenance import Provenance, provenance
from coordinator.ports.figures import Cost, Figures
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from coordinator.store.journal.sqlite import SqliteJournal
from ssd_wire.messages import BlobRef

BLOB = BlobRef(digest="ab" * 32, size=12)


def version(number: int, attempt: int, weight: int) -> VersionRecord:
    cost = (
        Cost(clients=2, weight=weight, step_norm=0.5, seconds=1.0, bytes_up=3, bytes_down=4)
        if number
        else None
    )
    return VersionRecord(number=number, model_digest=f"m{number}", full=BLOB, delta=None, round=number, attempt=attempt,
                         figures=Figures(cost=cost))  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> SqliteJournal:
    """Round 1 of a and b; round 2 first abandoned with c, then committed with b; round 3 of c, still open."""
    store = SqliteJournal(tmp_path)
    run = RunRecord(run_id="r", created_at=0.0, config={}, declaration={}, declaration_blob=BLOB,
                    declaration_digest="cd" * 32, artefacts=())  # fmt: skip
    store.create_run(run, version(0, 0, 0))
    store.register_clients(["a", "b", "c"], 1.0)
    for number, attempt, cohort, outcome in (
        (1, 1, ("a", "b"), "committed"),
        (2, 1, ("c",), "abandoned"),
        (2, 2, ("b",), "committed"),
        (3, 1, ("c",), "closed"),
    ):
        store.open_attempt(AttemptRecord(round=number, attempt=attempt, base_version=number - 1,
                                         base_digest=f"m{number - 1}", cohort=cohort, opened_at=1.0))  # fmt: skip
        if outcome == "abandoned":
            store.abandon_attempt(number, attempt, "deadline", 2.0)
            continue
        store.close_attempt(number, attempt, cohort)
        if outcome == "committed":
            store.commit(version(number, attempt, 100 * len(cohort)), 3.0)
    store.record_evaluation(1, {"knn": 0.5}, 4.0)
    return store


def of(store: SqliteJournal, number: int) -> Provenance:
    return provenance(
        store,
        number,
        mode="elastic",
        rounds=9,
        registered_clients=3,
        secure_aggregation="passive",
        privacy="p",
    )


def test_the_newest_version_counts_every_committed_round(store: SqliteJournal) -> None:
    assert of(store, 2) == Provenance(
        parent_digest="m1",
        mode="elastic",
        rounds=9,
        registered_clients=3,
        included_clients=2,
        total_weight=300,
        statistics={
            "clients": 2.0,
            "weight": 100.0,
            "step_norm": 0.5,
            "seconds": 1.0,
            "bytes_up": 3.0,
            "bytes_down": 4.0,
        },
        evaluation={},
        secure_aggregation="passive",
        privacy="p",
    )


def test_an_older_version_knows_nothing_of_later_rounds(store: SqliteJournal) -> None:
    first = of(store, 1)
    assert (first.parent_digest, first.included_clients, first.total_weight) == ("m0", 2, 200)
    assert first.evaluation == {"knn": 0.5}
    start = of(store, 0)
    assert (start.parent_digest, start.included_clients, start.total_weight) == ("", 0, 0)
    assert start.statistics == start.evaluation == {}
