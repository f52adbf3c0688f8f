"""What one federation's supervisor makes of the coordinator's log."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

from ssd.federation.children import Children
from ssd.federation.configs import coordinator_tables, worker_tables
from ssd.federation.federation import Federation
from ssd.federation.identities import Identities
from ssd.federation.participant_registry import Vouching
from ssd.federation.plan import FederationPlan
from ssd.trust.participants import decode
from worker.secure_aggregation.identity import SecureIdentity


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


def test_workers_insist_on_the_level_that_the_coordinator_is_told_to_run(tmp_path: Path) -> None:
    plain = federation(tmp_path)._plan
    assert "secure_aggregation" not in worker_tables(plain, "w", "127.0.0.1:1", ["a"], {}, evaluates=False)
    masked = replace(plain, overrides={"secure_aggregation": {"level": "passive"}})
    assert coordinator_tables(masked)["secure_aggregation"] == {"level": "passive"}
    tables = worker_tables(masked, "w", "127.0.0.1:1", ["a"], {}, evaluates=False)
    assert tables["secure_aggregation"] == {"level": "passive"}
    signed = replace(plain, overrides={"secure_aggregation": {"level": "active"}})
    tables = worker_tables(signed, "w", "127.0.0.1:1", ["a"], {}, evaluates=False)
    assert tables["secure_aggregation"] == {"level": "active", "require_policy": False}


def test_everybody_gets_a_registry_that_the_pinned_signer_signed(tmp_path: Path) -> None:
    vouching = Vouching(tmp_path, "here")
    assert decode(vouching.registry.read_bytes(), vouching.signer, "here").participants == ()
    for _ in range(2):
        # A second attempt in the same folder begins with keys of its own.
        vouching = Vouching(tmp_path, "here")
        vouching.enter({"w2": (tmp_path / "w2", ["c"]), "w1": (tmp_path / "w1", ["b", "a"])})
        registry = decode(vouching.registry.read_bytes(), vouching.signer, "here")
        assert [(each.worker, each.clients) for each in registry.participants] == [
            ("w1", ("a", "b")),
            ("w2", ("c",)),
        ]
        for name in ("w1", "w2"):
            assert SecureIdentity(name=name, folder=tmp_path / name).missing() == ""
