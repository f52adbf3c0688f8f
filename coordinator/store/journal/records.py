"""The journal's records as JSON text: one spelling for storing them and for telling whether two are equal.

Text rather than `==` decides equality, so that a mean loss that is not a number equals itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from coordinator.ports.figures import Figures
from coordinator.ports.records import AttemptRecord, RunRecord, VersionRecord
from ssd.scaling import ScalingVector
from ssd_wire.messages import Artefact, BlobRef

Json = Any


def text(value: Json) -> str:
    """Compact JSON with sorted keys. Non-finite numbers are kept (Python's spelling)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _blob(info: BlobRef) -> list[Json]:
    return [info.digest, info.size]


def _to_blob(value: Json) -> BlobRef:
    return BlobRef(digest=value[0], size=value[1])


def _artefacts(records: tuple[Artefact, ...]) -> list[Json]:
    return [[record.name, _blob(record.blob), list(record.shape)] for record in records]


def _to_artefacts(value: Json) -> tuple[Artefact, ...]:
    return tuple(Artefact(name=name, blob=_to_blob(blob), shape=tuple(shape)) for name, blob, shape in value)


def run_text(run: RunRecord) -> str:
    """A run as JSON text."""
    return text(
        {
            "run_id": run.run_id,
            "created_at": run.created_at,
            "config": dict(run.config),
            "declaration": dict(run.declaration),
            "declaration_blob": _blob(run.declaration_blob),
            "declaration_digest": run.declaration_digest,
            "artefacts": _artefacts(run.artefacts),
        }
    )


def to_run(stored: str) -> RunRecord:
    """The inverse of `run_text`."""
    value = json.loads(stored)
    return RunRecord(
        run_id=value["run_id"],
        created_at=value["created_at"],
        config=value["config"],
        declaration=value["declaration"],
        declaration_blob=_to_blob(value["declaration_blob"]),
        declaration_digest=value["declaration_digest"],
        artefacts=_to_artefacts(value["artefacts"]),
    )


def version_text(version: VersionRecord) -> str:
    """What a version *is*, as JSON text: everything but when it was committed and whether its blobs remain."""
    return text(
        {
            "number": version.number,
            "model_digest": version.model_digest,
            "full": _blob(version.full),
            "delta": None if version.delta is None else _blob(version.delta),
            "server_state": {name: _blob(info) for name, info in version.server_state.items()},
            "artefacts": _artefacts(version.artefacts),
            "round": version.round,
            "attempt": version.attempt,
            "statistics": version.figures.statistics,
        }
    )


VERSION_COLUMNS = "record, committed_at, retained"


def to_version(stored: str, committed_at: float, retained: int) -> VersionRecord:
    """A row of VERSION_COLUMNS: the inverse of `version_text`, with the two facts kept beside it."""
    value = json.loads(stored)
    return VersionRecord(
        number=value["number"],
        model_digest=value["model_digest"],
        full=_to_blob(value["full"]),
        delta=None if value["delta"] is None else _to_blob(value["delta"]),
        server_state={name: _to_blob(info) for name, info in value["server_state"].items()},
        artefacts=_to_artefacts(value["artefacts"]),
        round=value["round"],
        attempt=value["attempt"],
        committed_at=committed_at,
        figures=Figures.from_statistics(value["statistics"]),
        retained=bool(retained),
    )


def attempt_text(attempt: AttemptRecord) -> str:
    """How an attempt began, as JSON text: everything that is fixed when it opens."""
    return text(
        {
            "round": attempt.round,
            "attempt": attempt.attempt,
            "base_version": attempt.base_version,
            "base_digest": attempt.base_digest,
            "cohort": list(attempt.cohort),
            "opened_at": attempt.opened_at,
        }
    )


ATTEMPT_COLUMNS = "record, outcome, reason, accepted, closed_at"


def to_attempt(
    stored: str, outcome: str, reason: str, accepted: str, closed_at: float | None
) -> AttemptRecord:
    """A row of ATTEMPT_COLUMNS: the inverse of `attempt_text`, with what became of the attempt."""
    value = json.loads(stored)
    opened = AttemptRecord(**{**value, "cohort": tuple(value["cohort"])})
    return replace(opened, outcome=outcome, reason=reason, accepted=to_names(accepted), closed_at=closed_at)


def names_text(names: tuple[str, ...]) -> str:
    """A tuple of client ids as JSON text."""
    return text(list(names))


def to_names(stored: str) -> tuple[str, ...]:
    """The inverse of `names_text`."""
    return tuple(json.loads(stored))


def scaling_text(scaling: ScalingVector | None) -> str | None:
    """A scaling vector as JSON text; None for a method that declares none."""
    return None if scaling is None else text(scaling.to_json())


def to_scaling(stored: str | None) -> ScalingVector | None:
    """The inverse of `scaling_text`."""
    return None if stored is None else ScalingVector.from_json(json.loads(stored))


def values_text(values: Mapping[str, float]) -> str:
    """Named scalars as JSON text."""
    return text(dict(values))


def to_values(stored: str) -> dict[str, float]:
    """The inverse of `values_text`."""
    return dict(json.loads(stored))
