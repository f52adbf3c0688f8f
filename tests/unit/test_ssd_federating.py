"""What one federation's supervisor makes of the coordinator's log."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from ssd.federating.children import Children
from ssd.federating.federation import Federation
from ssd.federating.identities import Identities
from ssd.federating.plan import FederationPlan


def federation(folder: Path, every: int = 1) -> Federation:
    plan = FederationPlan(
        title="a run", folder=folder, method="fedavg", config={}, clients=("a", "b"), cohort_size=2, rounds=2,
        seed=0, evaluate_every=every,
    )  # fmt: skip
    return Federation(plan, Children())


def test_the_numbers_are_taken_out_when_the_last_version_is_measured_and_not_at_its_first_number(
    tmp_path: Path,
) -> None:
    watched = federation(tmp_path)
    watched._on_event({"event": "run_finished"})
    for event in (
        {"event": "measured", "version": 1},
        {"event": "evaluated", "version": 2, "personalised_accuracy": 0.5},
        {"event": "evaluation_failed", "version": 2, "detail": "no images"},
    ):
        watched._on_event(event)
        assert not watched._evaluated, event
    assert watched.progress.notes == ["evaluation failed: no images"]
    watched._on_event({"event": "measured", "version": 2})
    assert watched._evaluated


def test_a_run_that_had_finished_before_waits_for_what_was_not_measured_yet(tmp_path: Path) -> None:
    listening = {"event": "listening", "address": "127.0.0.1:1", "http": "127.0.0.1:2", "version": 2}
    for every in (0, 1):
        watched = federation(tmp_path, every)
        watched._identities = Identities(tmp_path / "pki", dt.datetime.now(dt.UTC))
        watched._on_event(listening)
        assert watched._finished
        assert watched._evaluated == (every == 0)
