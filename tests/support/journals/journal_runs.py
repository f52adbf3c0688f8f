"""Runs, versions and attempts as records, and how they get into a journal."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

from coordinator.ports.figures import Figures
from coordinator.ports.journal import Journal
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
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
