"""A real Prometheus beside a live federation: every metric arrives, every panel has data, every fault really made rings."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metrics_page import names
from processes.federation import ROOT, Daemon, Federation
from processes.pki import Pki
from processes.ports import free_port
from processes.prometheus_server import DEPLOY, Prometheus
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save
from ssd.trust.names import Role

pytestmark = pytest.mark.e2e
STRAIGHT = ROOT / "tests" / "support" / "training" / "straight.py"
CLIENTS = ["c0", "c1", "c2", "c3"]
SETTINGS = {
    "run.mode": "elastic",
    "run.rounds": 100_000,
    "run.when_done": "serve",
    "round.cohort_size": 4,
    "round.min_updates": 3,
    "round.deadline_seconds": 2.0,
    "evaluation.every": 2,
    "evaluation.workers": ["w0"],
    "method.config": {"parameters": 2000, "train_seconds": 0.05},
}
SCRAPED_LATER = (
    "ssd_coordinator_quality",
    "ssd_coordinator_representation",
    "ssd_coordinator_evaluation",
    "gpu_memory",
    "certificate_reloads",
    "secure_aggregation",
    "privacy_epsilon",
)
"""Families whose samples need a method with representations, a device, an operator, or a switch that is off here."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"this user may not mount a small file system: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def watched(federation: Federation, worker_port: int) -> Prometheus:
    return Prometheus(federation.root, {"ssd-coordinator": federation.http_port, "ssd-worker": worker_port})


def panels() -> Iterator[tuple[str, str]]:
    for file in sorted((DEPLOY.parent / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem}: {panel['title']}", target["expr"]


def test_a_healthy_federation_is_scraped_and_quiet_and_lost_workers_ring(tmp_path: Path) -> None:
    port = free_port()
    with Federation(tmp_path, **SETTINGS) as federation, watched(federation, port) as prometheus:
        federation.start_coordinator()
        worker = federation.start_worker(
            "w0", CLIENTS[:2], config={"worker.http_listen": f"127.0.0.1:{port}"}
        )
        lost = federation.start_worker("w1", CLIENTS[2:])
        prometheus.until(lambda: prometheus.query("ssd_coordinator_rounds_total > 3"), "rounds are scraped")
        prometheus.until(lambda: prometheus.query("ssd_worker_connected == 1"), "the worker is scraped")
        prometheus.until(
            lambda: prometheus.query("ssd:round_duration_seconds:median15m > 0"), "rules are evaluated"
        )
        known = {each["metric"]["__name__"] for each in prometheus.query('{__name__=~"ssd_.*"}')}
        unlabelled = {name for name in names() if name.startswith("ssd_") and not name.endswith("_bucket")}
        absent = {name for name in unlabelled - known if not any(part in name for part in SCRAPED_LATER)}
        # What has a reason or an outcome for a label has no sample before the first fault.
        assert absent <= faults_only(), absent - faults_only()
        instance = f"127.0.0.1:{federation.http_port}"
        empty = []
        for title, expression in panels():
            filled = expression.replace("$coordinator", instance).replace("$__rate_interval", "10s")
            metrics = {name for name in faults_only() if name in filled}
            later = any(part in filled for part in SCRAPED_LATER)
            if not prometheus.query(filled) and not metrics and not later:
                empty.append((title, filled))
        assert not empty
        assert not prometheus.firing()
        lost.kill()
        prometheus.until(lambda: "SsdWorkerLost" in prometheus.firing(), "the lost worker rings")
        prometheus.until(lambda: "SsdWaitingForClients" in prometheus.firing(), "the missing clients ring")
        worker.kill()
        prometheus.until(lambda: prometheus.query('up{job="ssd-worker"} == 0'), "the worker is gone")
        assert federation.coordinator is not None
        federation.coordinator.kill()
        prometheus.until(lambda: "SsdCoordinatorDown" in prometheus.firing(), "the coordinator's death rings")


def faults_only() -> frozenset[str]:
    """Labelled families that have no sample until something goes wrong or is asked for."""
    return frozenset(
        {
            "ssd_coordinator_client_failures_total",
            "ssd_coordinator_messages_refused_total",
            "ssd_coordinator_certificate_requests_total",
            "ssd_worker_reconnects_total",
            "ssd_worker_certificate_renewals_total",
        }
    )


def short_lived(pki: Pki, folder: Path, role: Role, name: str) -> None:
    """Put a certificate in place that lives for a day."""
    own = pki.issued_at(role, name, dt.datetime.now(dt.UTC))
    (folder / f"{role.value}.pem").write_bytes(own.certificate)
    (folder / f"{role.value}.key").write_bytes(own.key)


def test_bad_and_late_updates_lost_rounds_a_full_disk_and_old_certificates_ring(
    tmp_path: Path, small_disk: Path
) -> None:
    port = free_port()
    settings = {**SETTINGS, "coordinator.state_dir": str(small_disk / "state"), "round.min_updates": 4}
    with Federation(tmp_path, **settings) as federation, watched(federation, port) as prometheus:
        assert federation.pki is not None
        short_lived(federation.pki, federation.pki.folder, Role.COORDINATOR, "coordinator")
        federation.start_coordinator()
        own = federation.pki.worker("short-lived")
        short_lived(federation.pki, own, Role.WORKER, "w0")
        changed = {"worker.http_listen": f"127.0.0.1:{port}", "transport.identity_dir": str(own)}
        federation.start_worker("w0", CLIENTS[:3], config=changed)
        with federation.raw_worker("odd", CLIENTS[3:]) as odd:
            odd.attend()
            odd.learn()
            first = odd.expect("train")
            body, weight = odd.train(first, CLIENTS[3])
            spoilt = bytearray(body)
            spoilt[-8:] = np.float64("nan").tobytes()
            odd.submit(odd.envelope(first, {CLIENTS[3]: weight}, bytes(spoilt)), bytes(spoilt))
            prometheus.until(lambda: "SsdUpdatesRejected" in prometheus.firing(), "the bad update rings")
            for _ in range(3):
                late = odd.expect("train")
                body, weight = odd.train(late, CLIENTS[3])
                odd.expect("train")
                verdict, code, reason = odd.submit(odd.envelope(late, {CLIENTS[3]: weight}, body), body)
                assert {"too_late", "stale_attempt"} & {verdict and verdict.reason, reason}, (verdict, code)
            prometheus.until(lambda: "SsdDeadlineMissed" in prometheus.firing(), "late updates ring")
            prometheus.until(lambda: "SsdRoundsAbandoned" in prometheus.firing(), "abandoned rounds ring")
        # This file system is small and the test's certificates live for a day.
        expected = {"SsdDiskNearlyFull", "SsdCertificateExpires", "SsdWorkerCertificateExpires"}
        prometheus.until(lambda: expected <= prometheus.firing(), f"{sorted(expected)} ring")


MASKED = {
    **SETTINGS,
    "round.deadline_seconds": 8.0,
    "round.min_updates": 2,
    "evaluation.every": 0,
    "method.name": STRAIGHT,
    "method.config": {"parameters": 2000, "length": 1.0, "train_seconds": 1.5},
    "secure_aggregation.level": "passive",
    "secure_aggregation.assumed_corrupt": 0.0,
    "secure_aggregation.tolerated_dropout": 0.0,
    "privacy.mechanism": "distributed",
}


def test_masked_sums_and_their_noise_are_seen_and_aborts_ring(tmp_path: Path) -> None:
    port = free_port()
    config = {
        "worker.http_listen": f"127.0.0.1:{port}",
        "methods.straight": STRAIGHT,
        "secure_aggregation.level": "passive",
        "privacy.mechanism": "distributed",
    }
    with Federation(tmp_path, **MASKED) as federation, watched(federation, port) as prometheus:
        coordinator = federation.start_coordinator()
        federation.start_worker("w0", CLIENTS[:2], config=config)
        other = {**config, "worker.http_listen": ""}
        federation.start_worker("w1", CLIENTS[2:], config=other)
        prometheus.until(
            lambda: prometheus.query("ssd_coordinator_secure_aggregation_unmasking_seconds_count > 1"),
            "masked sums are scraped",
        )
        assert prometheus.query('ssd_coordinator_privacy_epsilon{scope="total"} > 0')
        assert not prometheus.firing()
        for times in (1, 2):
            begun = len(coordinator.events("round_opened"))
            federation.until(lambda n=begun: len(uploading(coordinator)) > n, "keys are exchanged")
            federation.workers["w1"].kill()
            aborted = f"sum(ssd_coordinator_secure_aggregation_aborts_total) >= {times}"
            prometheus.until(lambda query=aborted: prometheus.query(query), "the attempt is given up")
            federation.start_worker("w1", CLIENTS[2:], config=other)
        prometheus.until(lambda: "SsdSecureAggregationAborts" in prometheus.firing(), "aborts ring")
        known = {each["metric"]["__name__"] for each in prometheus.query('{__name__=~"ssd_.*"}')}
        wanted = {name for name in names() if "secure_aggregation" in name or "privacy" in name}
        assert wanted - known <= {"ssd_coordinator_secure_aggregation_messages_rejected_total"}
        instance = f"127.0.0.1:{federation.http_port}"
        for title, expression in panels():
            filled = expression.replace("$coordinator", instance).replace("$__rate_interval", "10s")
            if title.startswith("secure-aggregation") and "messages_rejected" not in filled:
                assert prometheus.query(filled), (title, filled)


def uploading(coordinator: Daemon) -> list[dict[str, Any]]:
    """When a cohort had exchanged its keys."""
    return [each for each in coordinator.events("secure_phase") if each["phase"] == "uploading"]


def test_a_representation_that_collapses_rings(tmp_path: Path) -> None:
    """Alignment without uniformity: the projector maps all images to one place."""
    partition = tmp_path / "partition.json"
    digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
    save(dirichlet(digits.train.labels.tolist(), 2, 0.5, 1, dataset="digits"), partition)
    clients = ["client-000", "client-001"]
    settings = {
        "run.clients": clients,
        "run.rounds": 3,
        "run.when_done": "serve",
        "round.cohort_size": 2,
        "evaluation.every": 2,
        "evaluation.workers": ["w"],
        "method.name": "fed_align_uniform",
        "method.config": {
            "image": {"size": 8, "channels": 1},
            "model": {"name": "small"},
            "views": "digits",
            "local_epochs": 1,
            "batch_size": 32,
            "lr": 0.2,
            "losses": {"beta": 0.0},
            "quality": {"features": ["h", "z"], "images": 64, "min_images": 32},
        },
    }
    with Federation(tmp_path, **settings) as federation, watched(federation, free_port()) as prometheus:
        federation.start_coordinator()
        federation.start_worker("w", clients, config={"data.kind": "digits", "data.partition": partition})
        prometheus.until(lambda: prometheus.query("ssd_coordinator_quality_version == 0"), "the beginning")
        assert "SsdRepresentationCollapsed" not in prometheus.firing()
        prometheus.until(
            lambda: "SsdRepresentationCollapsed" in prometheus.firing(), "the collapsed projector rings"
        )
        (alert,) = prometheus.query('ALERTS{alertname="SsdRepresentationCollapsed",features="z"}')
        assert alert["metric"]["measure"] == "uniformity_global"
