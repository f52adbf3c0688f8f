"""The configuration files of a federation's daemons: the same files an operator would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd.federation.plan import FederationPlan
from ssd.settings import merge

Json = Any
Tables = Mapping[str, Mapping[str, Json]]
COORDINATOR, WORKERS = "coordinator", "workers"
"""Names of the state directories in a federation's folder."""
PKI = "pki"
"""Name of the folder of certificates in a federation's folder."""


def coordinator_tables(plan: FederationPlan) -> dict[str, Json]:
    """The coordinator, on free ports of this machine."""
    tables: dict[str, dict[str, Json]] = {
        "coordinator": {
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "state_dir": str(plan.folder / COORDINATOR),
        },
        "transport": {
            "authority": str(plan.folder / PKI / "ca.pem"),
            "certificate": str(plan.folder / PKI / "coordinator.pem"),
            "key": str(plan.folder / PKI / "coordinator.key"),
        },
        "run": {
            "mode": "reproducible",
            "rounds": plan.rounds,
            "seed": plan.seed,
            "clients": list(plan.clients),
            "when_done": "serve",
            "threads": plan.threads,
        },
        "round": {"cohort_size": plan.cohort_size, "retry_seconds": 1.0},
        "limits": {"heartbeat_seconds": 2.0},
        "retention": {"full_versions": plan.full_versions},
        "evaluation": {"every": plan.evaluate_every, "workers": list(plan.evaluators)},
        "method": {"name": plan.method, "config": dict(plan.config)},
        "log": {"level": "info", "format": "json"},
    }
    return merge(tables, plan.overrides)


def worker_tables(
    plan: FederationPlan,
    name: str,
    coordinator: str,
    clients: Sequence[str],
    data: Mapping[str, Json],
    *,
    evaluates: bool,
    device: str = "cpu",
    methods: Mapping[str, Path] | None = None,
) -> dict[str, dict[str, Json]]:
    """One worker.

    Args:
        plan: of its federation.
        name: of the worker.
        coordinator: its address.
        clients: hosted there; none for a worker that only evaluates.
        data: further keys of `[data]`, such as `kind` and `partition`; none for a method without images.
        evaluates: whether it offers to evaluate; labels are used for nothing else.
        device: `cpu`, `cuda`, `cuda:N` or `auto`.
        methods: files of methods that are not built in.
    """
    tables: dict[str, dict[str, Json]] = {
        "worker": {
            "name": name,
            "coordinator": coordinator,
            "state_dir": str(plan.folder / WORKERS / name),
            "device": device,
        },
        "transport": {"identity_dir": str(plan.folder / PKI / WORKERS / name)},
        "data": {**data, "clients": list(clients), "evaluates": evaluates},
        "log": {"level": "info", "format": "json"},
    }
    if plan.secure_aggregation != "off":
        # Workers insist on what the coordinator is configured to run.
        tables["secure_aggregation"] = {"level": plan.secure_aggregation}
    if plan.secure_aggregation == "active":
        # One machine, one operator: a policy would be signed by whom it binds.
        tables["secure_aggregation"] |= {"require_policy": False}
    if methods:
        tables["methods"] = {name: str(path) for name, path in methods.items()}
    return tables
