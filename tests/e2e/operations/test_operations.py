"""What an operator sees and does: metrics, health, pause, drain, signals, refusal of a second name."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from processes.federation import ROOT, Federation
from ssd_proto.v1 import operator_pb2 as operator_pb

pytestmark = pytest.mark.e2e
CLIENTS = ["c0", "c1", "c2", "c3"]
SETTINGS = {
    "run.clients": CLIENTS,
    "run.rounds": 1000,
    "run.when_done": "serve",
    "round.cohort_size": 4,
    "method.config": {"parameters": 3000, "train_seconds": 0.02},
}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_live_run_is_measured(tmp_path: Path) -> None:
    with Federation(
        tmp_path, **{**SETTINGS, "run.rounds": 6, "evaluation.every": 2, "evaluation.workers": ["w"]}
    ) as federation:
        federation.start_coordinator()
        worker = federation.start_worker("w", CLIENTS, config={"worker.http_listen": "127.0.0.1:0"})
        federation.until(lambda: federation.status().phase == "finished", "six rounds")
        metric = federation.metric
        assert metric("ssd_coordinator_rounds_total", outcome="committed") == 6
        assert metric("ssd_coordinator_model_version") == 6
        assert metric("ssd_coordinator_updates_total", fate="accepted") >= 6
        assert metric("ssd_coordinator_connected_workers") == 1
        assert metric("ssd_coordinator_connected_clients") == 4
        assert metric("ssd_coordinator_registered_clients") == 4
        assert metric("ssd_coordinator_phase", phase="finished") == 1
        for counted in (
            "round_duration_seconds_count",
            "round_overhead_seconds_count",
            "fold_duration_seconds_count",
            "journal_write_duration_seconds_count",
            "commit_duration_seconds_count",
        ):
            assert metric(f"ssd_coordinator_{counted}") >= 6, counted
        assert metric("ssd_coordinator_round_phase_duration_seconds_count", phase="training") >= 5
        assert metric("ssd_coordinator_transfer_bytes_total", direction="up") > 6 * 3000
        assert metric("ssd_coordinator_transfer_bytes_total", direction="down") > 3000 * 4
        assert metric("ssd_coordinator_state_free_bytes") > 0
        assert metric("ssd_coordinator_build_info") == 1
        body = federation.http("/metrics")[1]
        assert "ssd_coordinator_loss{term=" in body
        # Never a client, worker or round as a label.
        assert not any(f'"{name}"' in body for name in (*CLIENTS, "w", federation.status().run_id))
        assert worker.running
        assert federation.http("/livez")[0] == federation.http("/readyz")[0] == 200


def test_health_is_truthful_in_check_and_watch_and_sigterm_ends_with_zero(tmp_path: Path) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        federation.start_worker("w", CLIENTS)
        with federation.channel() as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", "ssd_proto.v1.Federation", "ssd_proto.v1.Operator"):
                federation.until(
                    lambda name=service: (
                        health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING
                    ),
                    "it serves",
                )
            watch = health.Watch(health_pb2.HealthCheckRequest(service="ssd_proto.v1.Federation"))
            assert next(watch).status == SERVING
            services = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
            names = {each.name for each in next(services).list_services_response.service}
            assert {"ssd_proto.v1.Federation", "ssd_proto.v1.Operator", "grpc.health.v1.Health"} <= names
            federation.until(lambda: federation.status().version.number >= 2, "two rounds")
            coordinator.process.send_signal(signal.SIGTERM)
            assert next(watch).status == NOT_SERVING
        assert coordinator.wait() == 0
        assert coordinator.events("stopped")
        # What was under way is journaled: it goes on from there.
        before = federation.digests()
        federation.start_coordinator()
        federation.until(lambda: federation.status().version.number >= len(before) + 1, "it goes on")
        assert federation.digests()[: len(before)] == before


def test_a_second_signal_forces(tmp_path: Path) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        coordinator.process.send_signal(signal.SIGSTOP)
        coordinator.process.send_signal(signal.SIGTERM)
        coordinator.process.send_signal(signal.SIGINT)
        coordinator.process.send_signal(signal.SIGCONT)
        assert coordinator.wait() in (0, -signal.SIGTERM)


def test_pause_resume_and_drain(tmp_path: Path) -> None:
    with Federation(tmp_path, **SETTINGS) as federation:
        coordinator = federation.start_coordinator()
        federation.start_worker("w", CLIENTS)
        federation.until(lambda: federation.status().version.number >= 1, "a round")
        federation.operator("Pause", operator_pb.PauseRequest(), operator_pb.PauseReply)
        federation.until(lambda: federation.status().phase == "paused", "it pauses")
        paused_at = federation.status().version.number
        # A pause outlives a restart.
        coordinator.kill()
        coordinator = federation.start_coordinator()
        federation.until(lambda: federation.status().connected_clients == 4, "the worker is back")
        assert federation.status().phase == "paused"
        assert federation.status().version.number == paused_at
        federation.operator("Resume", operator_pb.ResumeRequest(), operator_pb.ResumeReply)
        federation.until(lambda: federation.status().version.number > paused_at, "it goes on")
        federation.operator("Drain", operator_pb.DrainRequest(), operator_pb.DrainReply)
        assert federation.finish() == 0
        store = federation.store()
        assert store.attempts()[0].outcome == "committed", "a drain finishes the attempt under way"
        store.close()


def test_a_finished_run_goes_on_when_its_rounds_grow(tmp_path: Path) -> None:
    with Federation(tmp_path, **{**SETTINGS, "run.rounds": 1, "run.when_done": "exit"}) as federation:
        federation.start_coordinator()
        federation.start_worker("w", CLIENTS)
        assert federation.finish() == 0
        first = federation.digests()
        assert len(first) == 2
        federation.start_coordinator(**{"run.rounds": 3})
        assert federation.finish() == 0
        assert federation.digests()[:2] == first
        assert len(federation.digests()) == 4


def test_the_command_line_tells_and_its_exit_codes_hold(tmp_path: Path) -> None:
    def verb(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "coordinator", *arguments, *federation.verb_arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}", "PATH": "/usr/bin:/bin"},
        )

    with Federation(tmp_path, **{**SETTINGS, "run.rounds": 2}) as federation:
        assert verb("status").returncode == 3, "nobody answers"
        federation.start_coordinator()
        federation.start_worker("w", CLIENTS)
        federation.until(lambda: federation.status().phase == "finished", "two rounds")
        for name in ("status", "rounds", "clients"):
            human, machine = verb(name), verb(name, "--format", "json")
            assert (human.returncode, machine.returncode) == (0, 0), human.stderr + machine.stderr
            assert human.stdout.strip()
            assert machine.stdout.lstrip()[0] in "{["
        assert "c0" in verb("clients").stdout
