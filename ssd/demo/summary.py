"""`summary.json`: everything the closing table says, and what it would take to get it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd.data.partition.partition import Partition
from ssd.demo.closing import traffic
from ssd.demo.records import Outcome
from ssd.demo.settings import DRAWS, LABELS_PER_CLASS, DemoSettings
from ssd.federation.provenance import machine, versions

Json = Any
FORMAT = "ssd-demo-summary"
VERSION = 1


def summary(
    settings: DemoSettings,
    outcomes: Sequence[Outcome],
    measured: Mapping[str, Mapping[str, float]],
    partition: Partition,
    *,
    wall_seconds: float,
    processor_seconds: float,
) -> dict[str, Json]:
    """The document; plain JSON values.

    Args:
        settings: of the demo.
        outcomes: of the federations, in the order they ran.
        measured: the closing table's numbers by column.
        partition: which images were whose.
        wall_seconds: of the whole demo.
        processor_seconds: user and system time of the demo and all its processes.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "settings": {
            "rounds": settings.rounds,
            "seed": settings.seed,
            "workers": settings.workers,
            "labels_per_class": LABELS_PER_CLASS,
            "draws": DRAWS,
            "features": "h",
        },
        "split": {
            "dataset": partition.dataset.name,
            "images": partition.dataset.size,
            "labels_digest": partition.dataset.labels_digest,
            "scheme": partition.scheme,
            "alpha": partition.alpha,
            "seed": partition.seed,
            "min_size": partition.min_size,
            "sizes": {client: len(indices) for client, indices in partition.clients.items()},
        },
        "table": {name: dict(values) for name, values in measured.items()},
        "untrained_digest": outcomes[0].untrained_digest,
        "federations": {each.contender.method: _federation(each) for each in outcomes},
        "wall_seconds": round(wall_seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
        "versions": versions(),
        "machine": machine(),
    }


def _federation(outcome: Outcome) -> dict[str, Json]:
    up, down = traffic(outcome)
    return {
        "title": outcome.contender.title,
        "method_config": outcome.contender.config,
        "run_id": outcome.run_id,
        "version": outcome.version,
        "model_digest": outcome.model_digest,
        "encoder": f"{outcome.contender.method}/{outcome.encoder.name}",
        "seconds": round(outcome.seconds, 2),
        "bytes_up_per_round": round(up),
        "bytes_down_per_round": round(down),
        "rounds": list(outcome.rounds),
        "evaluations": {
            str(version): dict(values) for version, values in sorted(outcome.evaluations.items())
        },
        "clients": list(outcome.clients),
    }
