"""A federation of real processes for tests: start, kill, restart, ask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from coordinator.store.journal.sqlite import SqliteJournal
from processes.pki import Pki, open_channel
from processes.ports import free_port
from ssd.trust.names import Role
from ssd_proto.v1 import operator_pb2 as operator_pb
from wire.raw_worker import RawWorker

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 240.0
"""Seconds after which a wait counts as a hang; nothing is asserted about how fast things are."""


def toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    def value(item: Any) -> str:
        if isinstance(item, Mapping):
            return "{" + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in item.items()) + "}"
        if isinstance(item, list | tuple):
            return "[" + ", ".join(value(each) for each in item) + "]"
        return json.dumps(str(item) if isinstance(item, Path) else item)

    lines = []
    for table, keys in tables.items():
        lines.append(f"[{table}]")
        lines.extend(f"{key} = {value(item)}" for key, item in keys.items())
    return "\n".join(lines) + "\n"


def merged(base: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`changes` are dotted keys: {"run.rounds": 3}."""
    result = {table: dict(keys) for table, keys in base.items()}
    for dotted, item in changes.items():
        table, _, key = dotted.partition(".")
        result.setdefault(table, {})[key] = item
    return result


class Daemon:
    """One process of ours, its log in a file."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "proto"), str(ROOT / "tests" / "support")]),
            "PYTHONUNBUFFERED": "1",
            "GRPC_VERBOSITY": "ERROR",
        }
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], stdout=sink, stderr=sink, env=environment, cwd=log.parent
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        return read_events(self.log, name)


def _program(daemon: str, fault: Sequence[str]) -> list[str]:
    if not fault:
        return ["-m", daemon]
    return [str(Path(__file__).with_name("faulty.py")), *fault, daemon]


def read_events(log: Path, name: str | None = None) -> list[dict[str, Any]]:
    """The JSON log lines of a daemon, of one event or all."""
    found = []
    for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and (name is None or record.get("event") == name):
            found.append(record)
    return found


class Federation:
    """A coordinator and any number of workers in one directory, under TLS unless a test needs it otherwise."""

    def __init__(self, root: Path, *, insecure: bool = False, **changes: Any) -> None:
        self.root = root
        self.pki = None if insecure else Pki(root / "pki")
        self.port = free_port()
        self.http_port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.state_dir = root / "coordinator"
        self.coordinator: Daemon | None = None
        self.workers: dict[str, Daemon] = {}
        self._base = {
            "coordinator": {
                "listen": f"127.0.0.1:{self.port}",
                "http_listen": f"127.0.0.1:{self.http_port}",
                "state_dir": str(self.state_dir),
            },
            "transport": {"insecure": insecure},
            "run": {"mode": "reproducible", "rounds": 3, "seed": 5, "when_done": "exit"},
            "round": {"cohort_size": 10, "retry_seconds": 0.2},
            "limits": {"heartbeat_seconds": 1.0, "min_free_bytes": 0},
            "evaluation": {"every": 0},
            "method": {"name": "synthetic"},
            "log": {"format": "json", "level": "info"},
        }
        self.config = merged(self._base, changes)

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in [*self.workers.values(), *([self.coordinator] if self.coordinator else [])]:
            if daemon.running:
                daemon.kill()

    # ----------------------------------------------------------------------------------------- processes

    def start_coordinator(self, *, wait: bool = True, fault: Sequence[str] = (), **changes: Any) -> Daemon:
        """Start it on its one address; `fault` are arguments for `faulty.py`."""
        path = self.root / "coordinator.toml"
        path.write_text(toml(merged(self.config, changes)))
        log = self.root / "coordinator.log"
        before = len(read_events(log, "listening"))
        self.coordinator = Daemon([*_program("coordinator", fault), "run", "--config", str(path)], log)
        if wait and not fault:
            started = self.coordinator
            self.until(
                lambda: len(started.events("listening")) > before or not started.running,
                "the coordinator listens",
            )
            assert started.running, log.read_text()[-4000:]
        return self.coordinator

    def start_worker(
        self,
        name: str,
        clients: Sequence[str],
        *,
        config: Mapping[str, Any] | None = None,
        fault: Sequence[str] = (),
    ) -> Daemon:
        """Start one under a name; `config` are dotted keys, `fault` arguments for `faulty.py`."""
        tables = merged(
            {
                "worker": {
                    "name": name,
                    "coordinator": f"127.0.0.1:{self.port}",
                    "state_dir": str(self.root / "workers" / name),
                    "device": "cpu",
                },
                "transport": self._worker_transport(name),
                "data": {"clients": list(clients)},
                "log": {"format": "json", "level": "info"},
            },
            config or {},
        )
        path = self.root / f"{name}.toml"
        path.write_text(toml(tables))
        daemon = Daemon([*_program("worker", fault), "run", "--config", str(path)], self.root / f"{name}.log")
        self.workers[name] = daemon
        return daemon

    def _worker_transport(self, name: str) -> dict[str, Any]:
        if self.pki is None:
            return {"insecure": True}
        return {"identity_dir": str(self.pki.worker(name))}

    # ------------------------------------------------------------------------------------------- waiting

    def until(self, condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.02)
        tails = "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}"
            for path in sorted(self.root.glob("*.log"))
        )
        raise AssertionError(f"waited {patience:g} s in vain: {what}\n{tails}")

    def finish(self) -> int:
        """Wait until the coordinator ends by itself."""
        assert self.coordinator is not None
        daemon = self.coordinator
        self.until(lambda: not daemon.running, "the run finishes")
        return daemon.wait()

    # -------------------------------------------------------------------------------------------- asking

    def digests(self) -> list[str]:
        """Model digest of every version in the journal."""
        store = SqliteJournal(self.state_dir)
        try:
            return [version.model_digest for version in store.versions()]
        finally:
            store.close()

    def store(self) -> SqliteJournal:
        return SqliteJournal(self.state_dir)

    def channel(self, role: Role = Role.OPERATOR, name: str = "operator", **options: Any) -> grpc.Channel:
        """A channel as somebody."""
        return open_channel(self.address, self.pki, role, name, list(options.items()))

    def raw_worker(self, name: str, clients: Sequence[str], **changes: Any) -> RawWorker:
        """A worker made by hand, not attending yet."""
        return RawWorker(self.address, name, clients, pki=self.pki, **changes)

    @property
    def verb_arguments(self) -> list[str]:
        """What an operator's verb needs to reach this coordinator."""
        how = ["--insecure"] if self.pki is None else ["--pki", str(self.pki.folder)]
        return ["--address", self.address, *how]

    def operator(self, call: str, request: Any, reply: Any) -> Any:
        with self.channel() as channel:
            method = channel.unary_unary(
                f"/ssd_proto.v1.Operator/{call}", type(request).SerializeToString, reply.FromString
            )
            return method(request, timeout=20)

    def move(self, clients: Sequence[str], to: str) -> None:
        """Give clients to a worker, whoever had them; without certificates nobody has any."""
        for client in clients if self.pki is not None else ():
            request = operator_pb.MoveClientRequest(client=client, worker=to)
            self.operator("MoveClient", request, operator_pb.MoveClientReply)

    def status(self) -> operator_pb.StatusReply:
        return self.operator("Status", operator_pb.StatusRequest(), operator_pb.StatusReply)

    def http(self, path: str) -> tuple[int, str]:
        """GET from the coordinator's HTTP port: (status, body)."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=20) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample; 0 if it is not there yet."""
        for family in text_string_to_metric_families(self.http("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0
