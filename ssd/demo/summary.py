"""`summary.json`: everything the closing table says, and what it would take to get it again."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ssd.data.partition import Partition
from ssd.demo.closing import traffic
from ssd.demo.records import Outcome
from ssd.demo.settings import DRAWS, LABELS_PER_CLASS, DemoSettings

Json = Any
FORMAT = "ssd-demo-summary"
VERSION = 1
_PACKAGES = (
    "ssd-federated",
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "grpcio",
    "protobuf",
    "safetensors",
)


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


def versions() -> dict[str, str]:
    """Python's and the packages' versions; a package that runs from a checkout has none."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Json]:
    """What it ran on. No host name: the file is made to be passed on."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
