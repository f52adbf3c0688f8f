"""The doctors: what they say of set-ups that are really broken, and of facts no test machine has."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from PIL import Image

import coordinator.cli.doctor as coordinator_doctor
import worker.cli.doctor as worker_doctor
from coordinator.cli.main import main as coordinator_main
from coordinator.config.sections import CoordinatorConfig
from coordinator.config.sections import load as load_coordinator
from coordinator.store.journal.sqlite import SqliteJournal
from operations.doctor_facts import GOOD_TORCH, identity_in, levels, now, only
from processes.pki import Pki
from ssd.daemon.doctor.findings import Finding, Level, healthy
from ssd.trust.names import Role
from worker.cli.main import cli as worker_cli
from worker.cli.main import main as worker_main
from worker.config.sections import load as load_worker


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def peer(pki: Pki) -> Iterator[tuple[str, health.HealthServicer]]:
    """Something that serves health behind this authority's certificate, and asks for one."""
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    serving = grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, serving)
    port = serving.add_secure_port("127.0.0.1:0", pki.server_credentials())
    serving.start()
    yield f"127.0.0.1:{port}", servicer
    serving.stop(0).wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process with torch in it: what it would tell is a fact here."""
    for name in [name for name in os.environ if name.startswith("SSD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ssd.daemon.doctor.software.gather_torch", lambda device, patience: GOOD_TORCH)


def worker_config(folder: Path, address: str, identity: Path | None, **data: Any) -> Any:
    flags = {"worker.coordinator": address, "worker.state_dir": str(folder / "state"), **data}
    flags |= {"transport.insecure": True} if identity is None else {"transport.identity_dir": str(identity)}
    return load_worker(None, flags, {})


def examine(config: Any) -> list[Finding]:
    return list(worker_doctor.examine(config, 3.0, now()))


class TestWorker:
    def test_a_healthy_one(self, pki: Pki, peer: tuple[str, Any], tmp_path: Path) -> None:
        photographs = tmp_path / "photographs"
        photographs.mkdir()
        Image.new("RGB", (8, 8)).save(photographs / "a.png")
        config = worker_config(
            tmp_path, peer[0], pki.worker("w1"),
            **{"data.kind": "folder", "data.clients": ["*"], "data.folders": {"a": str(photographs)}},
        )  # fmt: skip
        before = sorted(tmp_path.rglob("*"))
        found = examine(config)
        assert [each for each in found if each.level is not Level.OK] == []
        assert {each.check for each in found} == {
            "versions",
            "gpu",
            "tls",
            "clock",
            "network",
            "peer",
            "disk",
            "data",
        }
        assert sorted(tmp_path.rglob("*")) == before
        assert "1 images, 1 looked at, all good" in only(iter(found), "data").text

    def test_a_coordinator_that_is_not_serving(self, pki: Pki, peer: tuple[str, Any], tmp_path: Path) -> None:
        peer[1].set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            found = only(iter(examine(worker_config(tmp_path, peer[0], pki.worker("w1")))), "peer")
        finally:
            peer[1].set("", health_pb2.HealthCheckResponse.SERVING)
        assert found.level is Level.WARNING
        assert "NOT_SERVING" in found.text

    def test_another_authority(self, peer: tuple[str, Any], tmp_path: Path) -> None:
        stranger = Pki(tmp_path / "other")
        found = only(iter(examine(worker_config(tmp_path, peer[0], stranger.worker("w1")))), "peer")
        assert found.level is Level.FAULT
        assert "was not signed by the authority" in found.text

    def test_a_name_the_coordinators_certificate_does_not_carry(
        self, pki: Pki, peer: tuple[str, Any], tmp_path: Path
    ) -> None:
        config = worker_config(
            tmp_path, peer[0], pki.worker("w1"), **{"transport.server_name": "fed.example.org"}
        )
        found = only(iter(examine(config)), "peer")
        assert found.level is Level.FAULT
        assert "does not carry the name fed.example.org" in found.text

    def test_an_expired_certificate(self, pki: Pki, peer: tuple[str, Any], tmp_path: Path) -> None:
        old = pki.issued_at(Role.WORKER, "w1", now() - dt.timedelta(days=3), days=1.0)
        found = examine(worker_config(tmp_path, peer[0], identity_in(tmp_path / "id", pki.authority, old)))
        assert "expired on" in only(iter(found), "tls").text
        assert "ssd-worker enroll" in only(iter(found), "tls").advice
        assert only(iter(found), "clock").level is Level.WARNING
        assert "peer" not in {each.check for each in found}

    def test_a_host_without_an_identity_and_nobody_at_the_port(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            found = examine(worker_config(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}", tmp_path / "none"))
        assert "ca.pem: no such file" in only(iter(found), "tls").text
        assert "refused" in only(iter(found), "network").text
        assert not healthy(found)

    def test_a_host_that_speaks_no_tls(self, pki: Pki, tmp_path: Path) -> None:
        serving = grpc.server(futures.ThreadPoolExecutor(1))
        port = serving.add_insecure_port("127.0.0.1:0")
        serving.start()
        try:
            found = only(
                iter(examine(worker_config(tmp_path, f"127.0.0.1:{port}", pki.worker("w1")))), "peer"
            )
        finally:
            serving.stop(0).wait()
        assert found.level is Level.FAULT
        assert "speaks no TLS" in found.text

    def test_folders_that_are_missing_empty_or_hold_broken_images(self, tmp_path: Path) -> None:
        for name in ("empty", "mixed", "rotten"):
            (tmp_path / name).mkdir()
        (tmp_path / "rotten" / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photograph")
        (tmp_path / "mixed" / "b.png").write_bytes(b"no picture")
        Image.new("RGB", (8, 8)).save(tmp_path / "mixed" / "a.png")
        folders = {name: str(tmp_path / name) for name in ("empty", "mixed", "none", "rotten")}
        config = worker_config(
            tmp_path, "127.0.0.1:1", None,
            **{"data.kind": "folder", "data.clients": ["*"], "data.folders": folders},
        )  # fmt: skip
        found = [each for each in examine(config) if each.check == "data"]
        assert [each.level.value for each in found] == ["fault", "warning", "fault", "fault"]
        assert [each.text.split(":")[0] for each in found] == ["empty", "mixed", "none", "rotten"]
        assert "b.png: not an image" in found[1].text
        assert "no such file" in found[2].text
        assert "none can be used" in found[3].text

    def test_a_partition_file_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "p.json").write_text("{}")
        given = {"data.kind": "digits", "data.clients": ["*"], "data.partition": str(tmp_path / "p.json")}
        assert (
            only(iter(examine(worker_config(tmp_path, "127.0.0.1:1", None, **given))), "data").level
            is Level.FAULT
        )

    def test_a_state_directory_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")
        found = only(iter(examine(worker_config(tmp_path, "127.0.0.1:1", None))), "disk")
        assert (found.level, "is not a folder" in found.text) == (Level.FAULT, True)

    def test_a_method_file_and_a_registry_that_are_missing(self, pki: Pki, tmp_path: Path) -> None:
        path = tmp_path / "w.toml"
        path.write_text('[methods]\nmine = "nowhere.py"\n[secure_aggregation]\nlevel = "active"\n')
        flags = {"worker.coordinator": "127.0.0.1:1", "transport.identity_dir": str(pki.worker("w1"))}
        found = examine(load_worker(path, flags, {}))
        assert "nowhere.py" in only(iter(found), "methods").text
        missing = [each for each in found if each.check == "participants"]
        assert [each.level for each in missing] == [Level.FAULT] * 3
        assert "ssd-worker identity init" in missing[0].advice

    def test_the_command(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        arguments = [
            "doctor",
            "--insecure",
            "--coordinator",
            "127.0.0.1:1",
            "--state-dir",
            str(tmp_path / "s"),
        ]
        assert worker_main([*arguments, "--format", "json"]) == 3
        told = json.loads(capsys.readouterr().out)
        assert told["healthy"] is False
        assert {"check", "level", "text", "advice"} == set(told["findings"][0])
        assert worker_main(arguments) == 3
        out = capsys.readouterr().out
        assert "fault    network" in out
        assert "-> is the coordinator running" in out
        assert "\x1b" not in out
        assert worker_main(["doctor", "--set", "log.level=loud"]) == 2

    def test_colours_unless_NO_COLOR_says_otherwise(self, tmp_path: Path) -> None:  # noqa: N802  # its name
        arguments = [
            "doctor",
            "--insecure",
            "--coordinator",
            "127.0.0.1:1",
            "--state-dir",
            str(tmp_path / "s"),
        ]
        coloured = CliRunner().invoke(worker_cli, arguments, color=True, env={"NO_COLOR": None})
        plain = CliRunner().invoke(worker_cli, arguments, color=True, env={"NO_COLOR": "1"})
        assert "\x1b[31mfault" in coloured.output
        assert "\x1b" not in plain.output
        assert click.unstyle(coloured.output) == plain.output


class TestCoordinator:
    @staticmethod
    def config(folder: Path, pki: Pki, **flags: Any) -> CoordinatorConfig:
        base = {
            "coordinator.state_dir": str(folder / "state"), "coordinator.listen": "127.0.0.1:0",
            "coordinator.http_listen": "", "transport.authority": str(pki.folder / "ca.pem"),
            "transport.certificate": str(pki.folder / "coordinator.pem"),
            "transport.key": str(pki.folder / "coordinator.key"), "limits.min_free_bytes": 0,
            "limits.staging_disk_bytes": 1 << 20, "limits.max_connections": 1,
        }  # fmt: skip
        return load_coordinator(None, {**base, **flags}, {})

    def examine(self, config: CoordinatorConfig) -> list[Finding]:
        return list(coordinator_doctor.examine(config, 3.0, now()))

    def test_a_healthy_one_is_told_so_and_nothing_is_made(self, pki: Pki, tmp_path: Path) -> None:
        found = self.examine(self.config(tmp_path, pki))
        assert [each for each in found if each.level is not Level.OK] == []
        assert {each.check for each in found} == {
            "versions",
            "tls",
            "clock",
            "ports",
            "limits",
            "disk",
            "run",
        }
        assert list(tmp_path.iterdir()) == []

    def test_a_port_that_is_taken(self, pki: Pki, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            config = self.config(tmp_path, pki, **{"coordinator.listen": address})
            found = only(iter(self.examine(config)), "ports")
            assert (found.level, address in found.text) == (Level.FAULT, True)
            (tmp_path / "state").mkdir()
            with (tmp_path / "state" / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                running = only(iter(self.examine(config)), "ports")
        assert running.level is Level.OK
        assert f"running (process {os.getpid()})" in running.text

    def test_a_certificate_of_somebody_else(self, pki: Pki, tmp_path: Path) -> None:
        worker = pki.worker("w9")
        flags = {
            "transport.certificate": str(worker / "worker.pem"),
            "transport.key": str(worker / "worker.key"),
        }
        found = [
            each for each in self.examine(self.config(tmp_path, pki, **flags)) if each.level is Level.FAULT
        ]
        assert ["certificate of the worker w9, not of a coordinator" in each.text for each in found] == [True]

    def test_a_key_that_is_not_the_certificates(self, pki: Pki, tmp_path: Path) -> None:
        config = self.config(tmp_path, pki, **{"transport.key": str(pki.folder / "operator.key")})
        assert "it is not the key of" in only(iter(self.examine(config)), "tls").text

    def test_enrolment_without_the_authoritys_key(self, pki: Pki, tmp_path: Path) -> None:
        flags = {
            "enrolment.listen": "127.0.0.1:0",
            "enrolment.authority_key": str(pki.folder / "operator.key"),
        }
        found = [
            each for each in self.examine(self.config(tmp_path, pki, **flags)) if each.level is Level.FAULT
        ]
        assert ["is not the key of" in each.text for each in found] == [True]

    def test_https_without_a_certificate(self, pki: Pki, tmp_path: Path) -> None:
        flags = {"coordinator.http_certificate": "none.pem", "coordinator.http_key": "none.key"}
        found = [
            each for each in self.examine(self.config(tmp_path, pki, **flags)) if each.level is Level.FAULT
        ]
        assert ["HTTPS" in each.text for each in found] == [True]

    def test_a_damaged_journal(self, pki: Pki, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "state.sqlite3").write_bytes(b"SQLite format 3\x00" + b"\xff" * 4096)
        found = only(iter(self.examine(self.config(tmp_path, pki))), "disk")
        assert (found.level, "cannot be read" in found.text) == (Level.FAULT, True)

    def test_a_certificate_that_no_other_host_can_use(self) -> None:
        address = load_coordinator(None, {"coordinator.listen": "0.0.0.0:7443"}, {}).listen
        assert (
            coordinator_doctor.judge_names(("localhost", "127.0.0.1", "::1"), address).level is Level.WARNING
        )
        assert coordinator_doctor.judge_names(("fed.example.org", "localhost"), address).level is Level.OK

    def test_too_few_open_files(self) -> None:
        assert levels(coordinator_doctor.judge_files(8192, 1024)) == [("limits", "warning")]
        assert levels(coordinator_doctor.judge_files(8192, -1)) == [("limits", "ok")]

    def test_an_empty_database_is_no_run(self, pki: Pki, tmp_path: Path) -> None:
        SqliteJournal(tmp_path / "state").close()
        assert "there is none yet" in only(iter(self.examine(self.config(tmp_path, pki))), "run").text

    def test_the_command(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        with pytest.raises(SystemExit) as ended:
            coordinator_main(
                ["doctor", "--state-dir", str(tmp_path), "--set", "transport.authority=none.pem"]
            )
        assert ended.value.code == 3
        assert "none.pem: no such file" in capsys.readouterr().out
