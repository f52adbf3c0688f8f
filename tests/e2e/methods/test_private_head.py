"""A head that never leaves its client: not on the wire, trained once per commit, at home wherever its client moves.

The head's gradient reaches the backbone, so a head that advanced twice, or not at all, changes the digest of the next
model version.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from processes.federation import ROOT, Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save
from ssd.method.registry import load
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fold_plan import FoldPlan
from worker.store.sqlite import SqliteStore as WorkerStore

pytestmark = pytest.mark.e2e
CLIENTS = ("client-000", "client-001")
METHOD = {
    "image": {"size": 8, "channels": 1},
    "model": {"name": "small", "feature_dim": 16, "width": 4},
    "batch_size": 32,
    "local_steps": 5,
    "batches": "stream",
    "lr": 0.05,
}
SETTINGS: dict[str, Any] = {
    "run.clients": list(CLIENTS),
    "run.rounds": 4,
    "round.cohort_size": 2,
    "method.name": "backbone_distillation",
    "method.config": METHOD,
}


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    digests: list[str]
    heads: dict[str, bytes]
    """Of each client: its head and the place in its stream of batches."""
    bytes_up: list[float]


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    path = tmp_path_factory.mktemp("data") / "partition.json"
    save(dirichlet(digits.train.labels.tolist(), 2, 0.5, 1, dataset="digits"), path)
    return path


@pytest.fixture(scope="module")
def reference(partition: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    with Federation(tmp_path_factory.mktemp("reference"), **SETTINGS) as federation:
        federation.start_coordinator()
        start_workers(federation, partition)
        assert federation.finish() == 0
        yield outcome(federation)


def start_worker(federation: Federation, name: str, client: str, partition: Path, **more: Any) -> Any:
    data = {"data.kind": "digits", "data.partition": partition, "data.evaluates": False}
    return federation.start_worker(name, [client], config=data, **more)


def start_workers(federation: Federation, partition: Path) -> None:
    start_worker(federation, "worker-a", CLIENTS[0], partition)
    start_worker(federation, "worker-b", CLIENTS[1], partition)


def outcome(federation: Federation) -> Outcome:
    """Once the coordinator has ended; ends the workers too."""
    last = federation.digests()
    store = federation.store()
    try:
        bytes_up = [version.figures.statistics["bytes_up"] for version in store.versions()[1:]]
    finally:
        store.close()
    heads = {}
    for name, daemon in federation.workers.items():
        if daemon.running:
            daemon.terminate()
        kept = WorkerStore(federation.root / "workers" / name)
        try:
            for client in CLIENTS:
                round_number, path = kept.client_state(kept.current_run(), client)
                if round_number == len(last) - 1 and path is not None:
                    arrays = safetensors.numpy.load_file(path)
                    heads[client] = arrays["private"].tobytes() + arrays["cursor"].tobytes()
        finally:
            kept.close()
    return Outcome(last, heads, bytes_up)


def test_the_head_is_neither_declared_nor_uploaded(reference: Outcome) -> None:
    """Uploads are exactly as long as a spec without the head makes them."""
    method = load("backbone_distillation", METHOD)
    declaration = Declaration.from_json(json.loads(json.dumps(method.declare().to_json())))
    assert {tensor.name.partition(".")[0] for tensor in declaration.spec.tensors} == {"backbone"}
    whole = load("backbone_distillation", {**METHOD, "head": "shared"}).declare()
    update, with_head = (
        FoldPlan.create(each, Encoding.FLOAT16, 2, 65536).update_nbytes for each in (declaration, whole)
    )
    assert reference.bytes_up == [2 * update] * 4
    assert with_head >= update + 2 * (16 * 10 + 10)
    assert set(reference.heads) == set(CLIENTS)


@pytest.mark.parametrize(
    ("place", "when", "count"),
    [
        ("worker.rpc.client:GrpcTransport.submit", "after", 2),  # between upload and verdict
        ("worker.store.sqlite:SqliteStore.promote", "before", 2),  # between verdict and commit
    ],
)
def test_a_head_advances_once_though_its_worker_dies_between_upload_and_commit(
    tmp_path: Path, partition: Path, reference: Outcome, place: str, when: str, count: int
) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        doomed = start_worker(federation, "worker-a", CLIENTS[0], partition, fault=[place, when, str(count)])
        start_worker(federation, "worker-b", CLIENTS[1], partition)
        federation.until(lambda: not doomed.running, f"the worker dies {when} {place}")
        start_worker(federation, "worker-a", CLIENTS[0], partition)
        assert federation.finish() == 0
        assert not coordinator.events("client_reinitialised")
        after = outcome(federation)
        assert after.digests == reference.digests
        assert after.heads == reference.heads


def test_a_client_that_moves_takes_its_head_along(
    tmp_path: Path, partition: Path, reference: Outcome
) -> None:
    def client(*arguments: str) -> None:
        command = [sys.executable, "-m", "worker", "client", *arguments]
        environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr

    with Federation(tmp_path, **SETTINGS) as federation:
        federation.start_coordinator(**{"run.rounds": 2})
        start_workers(federation, partition)
        assert federation.finish() == 0
        for daemon in federation.workers.values():
            daemon.terminate()
        moved, home = tmp_path / "moved.ssd", tmp_path / "workers"
        client("export", CLIENTS[0], "--state-dir", str(home / "worker-a"), "--out", str(moved), "--remove")
        client("import", str(moved), "--state-dir", str(home / "worker-c"))
        coordinator = federation.start_coordinator()
        start_worker(federation, "worker-b", CLIENTS[1], partition)
        federation.move([CLIENTS[0]], to="worker-c")
        start_worker(federation, "worker-c", CLIENTS[0], partition)
        assert federation.finish() == 0
        assert not coordinator.events("client_reinitialised")
        after = outcome(federation)
        assert after.digests == reference.digests
        assert after.heads == reference.heads
