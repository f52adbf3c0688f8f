"""A round attempt as everybody shows it: from the full record or from its counts, with or without a version."""

from __future__ import annotations

import pytest

from coordinator.inspection.rounds import round_view
from coordinator.ports.figures import Cost, Figures
from coordinator.ports.records import AttemptCounts, AttemptRecord, VersionRecord
from ssd_wire.messages import BlobRef

COST = Cost(clients=2, weight=9, step_norm=0.5, seconds=3.5, bytes_up=7, bytes_down=8)
VERSION = VersionRecord(
    number=4,
    model_digest="m4",
    full=BlobRef(digest="ab" * 32, size=4),
    delta=None,
    figures=Figures(cost=COST),
)


def counts(outcome: str, closed_at: float | None) -> AttemptCounts:
    return AttemptCounts(round=4, attempt=2, opened_at=10.0, outcome=outcome, reason="why", invited=3, accepted=2,
                         closed_at=closed_at)  # fmt: skip


def record(outcome: str, closed_at: float | None) -> AttemptRecord:
    return AttemptRecord(round=4, attempt=2, base_version=3, base_digest="m3", cohort=("a", "b", "c"), opened_at=10.0,
                         outcome=outcome, reason="why", accepted=("a", "b"), closed_at=closed_at)  # fmt: skip


@pytest.mark.parametrize("make", [counts, record])
def test_a_committed_attempt_tells_of_its_version(make: type) -> None:
    view = round_view(make("committed", 12.0), VERSION)
    assert (view.round, view.attempt, view.outcome, view.reason) == (4, 2, "committed", "why")
    assert (view.cohort_size, view.accepted) == (3, 2)
    assert view.accepted_clients == (("a", "b") if make is record else ())
    assert (view.seconds, view.model_digest, view.figures) == (3.5, "m4", VERSION.figures)


@pytest.mark.parametrize(
    ("outcome", "closed_at", "seconds"),
    [("open", None, 0.0), ("closed", None, 0.0), ("abandoned", 12.5, 2.5), ("abandoned", 9.0, 0.0)],
)
def test_an_attempt_that_committed_nothing_has_nothing_of_its_rounds_version(
    outcome: str, closed_at: float | None, seconds: float
) -> None:
    view = round_view(record(outcome, closed_at), VERSION)
    assert (view.seconds, view.model_digest, view.figures) == (seconds, "", Figures())


def test_a_committed_attempt_whose_version_is_not_known_took_from_its_opening_to_its_end() -> None:
    view = round_view(counts("committed", 12.0), None)
    assert (view.seconds, view.model_digest, view.figures) == (2.0, "", Figures())
