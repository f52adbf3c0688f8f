"""The configuration files of the demo's daemons: the same files an operator would write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd.demo.settings import CLIENTS, DATASET, EVALUATOR, Contender, DemoSettings

Json = Any
Tables = Mapping[str, Mapping[str, Json]]


def coordinator_tables(
    settings: DemoSettings, contender: Contender, clients: Sequence[str], state_dir: Path
) -> dict[str, dict[str, Json]]:
    """The coordinator of one federation, on free ports of this machine."""
    return {
        "coordinator": {
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "state_dir": str(state_dir),
        },
        "transport": {"insecure": True},
        "run": {
            "mode": "reproducible",
            "rounds": settings.rounds,
            "seed": settings.seed,
            "clients": list(clients),
            "when_done": "serve",
        },
        "round": {"cohort_size": CLIENTS, "retry_seconds": 1.0},
        "limits": {"heartbeat_seconds": 2.0},
        # Version 0 is exported at the end, as the untrained encoder.
        "retention": {"full_versions": settings.rounds + 1},
        "evaluation": {"every": settings.evaluate_every},
        "method": {"name": contender.method, "config": contender.config},
        "log": {"level": "info", "format": "json"},
    }


def worker_tables(
    name: str, coordinator: str, clients: Sequence[str], partition: Path, state_dir: Path
) -> dict[str, dict[str, Json]]:
    """A worker that trains, or (without clients) only evaluates. Labels are used by the evaluator alone."""
    return {
        "worker": {
            "name": name,
            "coordinator": coordinator,
            "state_dir": str(state_dir),
            "device": "cpu",
        },
        "transport": {"insecure": True},
        "data": {
            "kind": DATASET,
            "partition": str(partition),
            "clients": list(clients),
            "evaluates": name == EVALUATOR,
        },
        "log": {"level": "info", "format": "json"},
    }


def to_toml(tables: Tables) -> str:
    """TOML of tables of plain values; nested tables are written inline."""
    blocks = []
    for name, keys in tables.items():
        lines = [f"[{name}]", *(f"{key} = {_value(value)}" for key, value in keys.items())]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _value(value: Json) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # A JSON string, number or boolean is the same in TOML, as long as nothing beyond ASCII is escaped.
    return json.dumps(value, ensure_ascii=False)
