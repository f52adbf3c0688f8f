"""From nothing to a trained model by the operator's four commands, with certificates that live for seconds."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from coordinator.store.trust import SqliteTrust
from processes.federation import ROOT, Daemon, Federation, toml
from processes.ports import free_port
from ssd.trust.authority import subject_of_certificate, validity
from ssd.trust.names import Role

pytestmark = pytest.mark.e2e

SHORT_DAYS = 20 / 86400
"""A certificate of twenty seconds."""


def command(daemon: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto"), str(ROOT / "tests" / "support")]),
    }
    return subprocess.run(
        [sys.executable, "-m", daemon, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


class Site:
    """A federation whose certificates all come from its own command line."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.root = root
        self.federation = Federation(root, insecure=True, **changes)
        self.enrolment_port = free_port()
        made = self.coordinator("ca", "init", "--out", "pki", "--host", "localhost", "--federation", "site")
        assert made.returncode == 0, made.stderr
        # Relative paths of the defaults: pki/ beside the configuration file.
        self.federation.config["transport"] = {"insecure": False}
        self.federation.config["run"] |= {"clients": ["a", "b"]}
        self.federation.config["round"] |= {"cohort_size": 2}
        self.federation.config["enrolment"] = {"listen": f"127.0.0.1:{self.enrolment_port}"}

    def coordinator(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return command("coordinator", *arguments, cwd=self.root)

    def start(self, *, fault: Sequence[str] = (), **changes: Any) -> Daemon:
        return self.federation.start_coordinator(fault=fault, wait=not fault, **changes)

    def token(self, name: str, *arguments: str) -> str:
        made = self.coordinator("ca", "token", "--worker", name, "--config", "coordinator.toml", *arguments)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip()

    def enroll(self, name: str, token: str) -> subprocess.CompletedProcess[str]:
        where = self.root / "workers" / name
        return command("worker", "enroll", "--token", token, "--state-dir", where, cwd=self.root)

    def identity(self, name: str) -> Path:
        return self.root / "workers" / name / "identity"

    def start_worker(self, name: str, clients: Sequence[str], **config: Any) -> Daemon:
        """Named by its certificate alone."""
        tables = {
            "worker": {
                "coordinator": f"localhost:{self.federation.port}",
                "state_dir": str(self.root / "workers" / name),
                "device": "cpu",
            },
            "data": {"clients": list(clients)},
            "log": {"format": "json"},
        } | config
        path = self.root / f"{name}.toml"
        path.write_text(toml(tables))
        daemon = Daemon(["-m", "worker", "run", "--config", str(path)], self.root / f"{name}.log")
        self.federation.workers[name] = daemon
        return daemon


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with site.federation:
        yield site


def test_init_token_enroll_run_trains_a_model(site: Site) -> None:
    site.start()
    done = site.enroll("edge-1", site.token("edge-1", "--clients", "a,b"))
    assert done.returncode == 0, done.stderr
    assert "worker edge-1 of site" in done.stdout
    certificate = (site.identity("edge-1") / "worker.pem").read_bytes()
    assert subject_of_certificate(certificate).role is Role.WORKER
    site.start_worker("edge-1", ["a", "b"])
    site.federation.until(lambda: site.federation.coordinator.running is False, "the run finishes")
    assert len(site.federation.digests()) == 4
    listed = json.loads(
        site.coordinator("ca", "tokens", "--config", "coordinator.toml", "--format", "json").stdout
    )
    assert [(each["name"], each["state"], each["clients"]) for each in listed] == [
        ("edge-1", "used", ["a", "b"])
    ]


def test_a_certificate_is_renewed_while_rounds_go_on_and_nothing_of_them_is_interrupted(site: Site) -> None:
    site.federation.config["run"] |= {"rounds": 100_000}
    site.start(**{"enrolment.certificate_days": SHORT_DAYS})
    assert site.enroll("edge-1", site.token("edge-1")).returncode == 0
    path = site.identity("edge-1") / "worker.pem"
    first = path.read_bytes()
    worker = site.start_worker("edge-1", ["a", "b"])
    site.federation.until(lambda: worker.events("certificate_renewed"), "the certificate is renewed")
    renewed_at = len(site.federation.digests())
    # Well past the end of the first certificate the worker still trains, and comes back after a restart.
    end = validity(first)[1]
    site.federation.until(lambda: dt.datetime.now(dt.UTC) > end, "the first certificate ends")
    assert path.read_bytes() != first
    before = len(site.federation.digests())
    assert before > renewed_at  # whether a round ended before the renewal is up to the machine
    assert len(worker.events("connected")) == 1
    site.federation.until(lambda: len(site.federation.digests()) > before + 2, "rounds go on")
    assert not worker.events("certificate_not_renewed")
    site.federation.coordinator.terminate()
    site.start(**{"enrolment.certificate_days": SHORT_DAYS})
    after = len(site.federation.digests())
    site.federation.until(
        lambda: len(site.federation.digests()) > after, "rounds go on with the new certificate"
    )
    store = SqliteTrust(site.federation.state_dir)
    assert len(store.certificates()) >= 2
    store.close()


def test_a_kill_between_burning_the_token_and_the_answer_costs_nothing(site: Site) -> None:
    site.start(fault=("coordinator.store.trust:SqliteTrust.spend_token", "after", "1"))
    site.federation.until(lambda: _listens(site.enrolment_port), "the enrolment port listens")
    token = site.token("edge-1")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "worker",
            "enroll",
            "--token",
            token,
            "--state-dir",
            site.root / "workers" / "edge-1",
        ],
        cwd=site.root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto")])},
    )
    site.federation.until(lambda: not site.federation.coordinator.running, "the coordinator dies")
    process.kill()
    process.wait()
    assert not (site.identity("edge-1") / "worker.pem").exists()
    store = SqliteTrust(site.federation.state_dir)
    (burnt,) = store.certificates()
    assert store.tokens()[0].used_at is not None
    store.close()
    site.start()
    done = site.enroll("edge-1", token)
    assert done.returncode == 0, done.stderr
    assert (site.identity("edge-1") / "worker.pem").read_text() == burnt.certificate
    # Somebody else who saw the token gets nothing for it.
    stolen = site.enroll("thief", token)
    assert stolen.returncode == 3
    assert "enrolment_refused" in stolen.stderr
    assert not (site.identity("thief") / "worker.pem").exists()


def test_a_revoked_worker_is_cut_off_and_neither_renews_nor_enrols(site: Site) -> None:
    site.federation.config["run"] |= {"rounds": 100_000, "mode": "elastic", "clients": []}
    site.federation.config["round"] |= {"cohort_size": 1}
    site.start()
    assert site.enroll("edge-1", site.token("edge-1")).returncode == 0
    waiting = site.token("edge-1")
    worker = site.start_worker("edge-1", ["a"])
    site.federation.until(lambda: worker.events("connected"), "the worker attends")
    done = site.coordinator("ca", "revoke", "--worker", "edge-1", "--config", "coordinator.toml")
    assert done.returncode == 0, done.stderr
    site.federation.until(lambda: not worker.running, "the worker is cut off")
    assert worker.wait() == 3
    assert site.enroll("again", waiting).returncode == 3
    refused = site.coordinator("ca", "token", "--worker", "edge-1", "--config", "coordinator.toml")
    assert refused.returncode == 3
    assert "another name" in refused.stderr


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
