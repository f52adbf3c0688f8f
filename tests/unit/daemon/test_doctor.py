"""The doctors: what they say of set-ups that are really broken, and of facts no test machine has."""

from __future__ import annotations

import datetime as dt
import errno
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
from processes.pki import Pki
from ssd.daemon.doctor import collector
from ssd.daemon.doctor.collector import gather_collector, judge_collector
from ssd.daemon.doctor.disk import DiskFacts, gather_disk, holder, judge_disk
from ssd.daemon.doctor.findings import Finding, Level, as_json, as_lines, fault, healthy, ok, warning
from ssd.daemon.doctor.identity import IdentityFacts, gather_identity, judge_identity
from ssd.daemon.doctor.network import PortFacts, ReachFacts, judge_port, judge_reach, reach, try_port
from ssd.daemon.doctor.software import gather_torch, judge_torch, judge_versions
from ssd.trust.authority import Credential
from ssd.trust.diagnosis import Peer
from ssd.trust.identity_files import IdentityFiles
from ssd.trust.names import Role, Subject
from worker.cli.doctor_images import gather_folder, judge_folder
from worker.cli.main import cli as worker_cli
from worker.cli.main import main as worker_main
from worker.config.sections import load as load_worker

WORKER = frozenset({Role.WORKER})
GOOD_TORCH = {
    "torch": "2.13.0+cpu", "torchvision": "0.28.0", "torchvision_needs": "torch==2.13.0", "cuda_build": None,
    "devices": [], "computed": True, "device": "cpu",
}  # fmt: skip


def levels(found: Iterator[Finding] | list[Finding]) -> list[tuple[str, str]]:
    return [(each.check, each.level.value) for each in found]


def only(found: Iterator[Finding], check: str) -> Finding:
    (one,) = [each for each in found if each.check == check]
    return one


def now() -> dt.datetime:
    """Asked for when it is needed: a test process may import this file long before it makes the certificates."""
    return dt.datetime.now(dt.UTC)


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


def identity_in(folder: Path, authority: bytes, own: Credential, stem: str = "worker") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(authority)
    (folder / f"{stem}.pem").write_bytes(own.certificate)
    key = folder / f"{stem}.key"
    key.write_bytes(own.key)
    key.chmod(0o600)
    return folder


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


class TestIdentity:
    @pytest.mark.parametrize(("mode", "who"), [(0o644, "everybody"), (0o640, "its group"), (0o600, None)])
    def test_a_key_for_others_to_read(self, pki: Pki, tmp_path: Path, mode: int, who: str | None) -> None:
        folder = identity_in(tmp_path, pki.authority, pki.issued(Role.WORKER, "w"))
        (folder / "worker.key").chmod(mode)
        facts = gather_identity(IdentityFiles.in_folder(folder, "worker"), now())
        faults = [each for each in judge_identity(facts, WORKER, now(), "-") if each.level is Level.FAULT]
        assert [(who or "-") in each.text for each in faults] == ([] if who is None else [True])
        assert [each.advice for each in faults] == (
            [] if who is None else [f"chmod 600 {folder / 'worker.key'}"]
        )

    def test_a_clock_that_is_behind(self, pki: Pki, tmp_path: Path) -> None:
        folder = identity_in(tmp_path, pki.authority, pki.issued(Role.WORKER, "w"))
        past = now() - dt.timedelta(days=5)
        facts = gather_identity(IdentityFiles.in_folder(folder, "worker"), past)
        found = list(judge_identity(facts, WORKER, past, "-"))
        assert levels(found) == [("tls", "fault"), ("clock", "fault")]
        assert "5 days before its own certificate was made" in found[1].text

    def test_one_that_ends_soon_and_one_that_is_short_by_design(self) -> None:
        def judged(born: float, left: float) -> Level:
            facts = IdentityFacts(
                certificate=Path("c"), key=Path("k"), key_mode=0o600, subject=Subject("f", Role.WORKER, "w"),
                not_before=now() - dt.timedelta(days=born), not_after=now() + dt.timedelta(days=left),
            )  # fmt: skip
            return only(judge_identity(facts, WORKER, now(), "enrol"), "tls").level

        assert judged(27, 3) is Level.WARNING
        assert judged(0.5, 0.5) is Level.OK
        assert judged(0.95, 0.05) is Level.WARNING
        assert judged(300, 65) is Level.OK


class TestNetwork:
    def test_a_name_that_means_nothing(self) -> None:
        found = only(judge_reach(reach(Peer(host="no-such-host.invalid", port=1), 5.0)), "network")
        assert (found.level, "cannot be resolved" in found.text) == (Level.FAULT, True)

    def test_a_socket_file_that_is_not_there(self, tmp_path: Path) -> None:
        found = only(judge_reach(reach(Peer(path=str(tmp_path / "none.sock")), 1.0)), "network")
        assert (found.level, "No such file" in found.text) == (Level.FAULT, True)

    def test_a_slow_connection_is_worth_a_word(self) -> None:
        assert (
            only(judge_reach(ReachFacts(peer="h:1", addresses=("1",), seconds=2.0)), "network").level
            is Level.WARNING
        )
        assert (
            only(judge_reach(ReachFacts(peer="h:1", addresses=("1",), seconds=0.01)), "network").level
            is Level.OK
        )

    @pytest.mark.parametrize(
        "error", [errno.EACCES, errno.EADDRNOTAVAIL, errno.ENOENT, errno.EADDRINUSE, errno.EPERM]
    )
    def test_every_reason_for_not_listening_comes_with_advice(self, error: int) -> None:
        found = judge_port(PortFacts(setting="coordinator.listen", address="a:1", error=error), None)
        assert found.level is Level.FAULT
        assert found.advice

    def test_addresses_of_other_hosts_and_sockets_without_a_folder(self, tmp_path: Path) -> None:
        assert try_port("x", "x", "203.0.113.7", 7443, "").error == errno.EADDRNOTAVAIL
        assert try_port("x", "x", "", 0, str(tmp_path / "none" / "s.sock")).error == errno.ENOENT
        assert try_port("x", "x", "", 0, str(tmp_path / "s.sock")).error == 0


class TestDisk:
    def test_room(self, tmp_path: Path) -> None:
        def judged(**facts: Any) -> Finding:
            return only(
                judge_disk(DiskFacts(folder=tmp_path, exists=True, **facts), 1 << 30, "models"), "disk"
            )

        assert judged(free_bytes=1 << 20).level is Level.FAULT
        assert "1.0 MiB free, 1.0 GiB are wanted for models" in judged(free_bytes=1 << 20).text
        assert judged(free_bytes=3 << 29).level is Level.WARNING
        assert judged(free_bytes=4 << 30).level is Level.OK
        assert "cannot be written" in judged(free_bytes=4 << 30, writable=False).text

    def test_the_nearest_folder_that_is_there_is_looked_at(self, tmp_path: Path) -> None:
        facts = gather_disk(tmp_path / "a" / "b")
        assert (facts.exists, facts.obstacle, facts.writable) == (False, "", True)
        assert facts.free_bytes > 0
        assert list(tmp_path.iterdir()) == []

    def test_who_holds_a_lock(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        assert holder(path) is None
        with path.open("w") as file:
            assert holder(path) is None
            fcntl.flock(file, fcntl.LOCK_EX)
            assert holder(path) == os.getpid()
        assert holder(path) is None
        assert holder(tmp_path, tmp_path / "no-proc") is None


class TestImages:
    def test_time_runs_out_before_the_images_do(self, tmp_path: Path) -> None:
        for number in range(30):
            Image.new("RGB", (400, 400)).save(tmp_path / f"{number:02}.png")
        facts = gather_folder("c", tmp_path, 0.0)
        assert facts.checked <= 1
        assert not facts.broken

    def test_hidden_and_other_files_do_not_count(self, tmp_path: Path) -> None:
        (tmp_path / ".thumbnails").mkdir()
        (tmp_path / ".thumbnails" / "a.png").write_bytes(b"x")
        (tmp_path / "notes.txt").write_text("x")
        assert only(judge_folder(gather_folder("c", tmp_path, 5.0)), "data").text.endswith(
            "no image in it; 1 other file (1 .txt)"
        )


class TestSoftware:
    def test_packages_that_are_missing_or_too_old_or_too_new(self) -> None:
        needs = ["grpcio>=1.85", "protobuf<8,>=6.31.1", "torch>=2.6"]
        good = {"grpcio": "1.85.1", "protobuf": "7.0.0", "torch": "2.13.0+cpu"}
        assert levels(judge_versions(needs, good, 1)) == [("versions", "ok")]
        for changed, says in (
            ({"grpcio": "1.80.0"}, "grpcio 1.80.0 is installed, grpcio>=1.85 is needed"),
            ({"protobuf": "8.0"}, "protobuf<8,>=6.31.1 is needed"),
            ({"protobuf": "6.31"}, "protobuf 6.31 is installed"),
        ):
            found = only(judge_versions(needs, {**good, **changed}, 1), "versions")
            assert (found.level, says in found.text) == (Level.FAULT, True)
        del good["torch"]
        assert only(judge_versions(needs, good, 1), "versions").text == "torch is not installed"
        assert levels(judge_versions([], {}, 1)) == [("versions", "warning")]

    @pytest.mark.parametrize(
        ("changed", "device", "expected", "says"),
        [
            ({}, "auto", ["ok", "ok"], "small computation on the CPU"),
            ({"torchvision_error": "RuntimeError: operator torchvision::nms does not exist"}, "", ["fault"], "same index"),
            ({"torchvision_needs": "torch (>=2.14.0)"}, "", ["warning"], "asks for torch (>=2.14.0)"),
            ({"device_error": "AssertionError: not compiled with CUDA"}, "cuda", ["ok", "fault"], "built for the CPU"),
            ({"device_error": "no driver", "cuda_build": "12.8"}, "cuda", ["ok", "fault"], "nvidia-smi"),
            ({"computed": False}, "cpu", ["ok", "fault"], "came out wrong"),
            ({"devices": [{"name": "G", "free": 60 << 30, "total": 80 << 30}], "device": "cuda"}, "auto", ["ok", "ok"],
             "60.0 GiB of 80.0 GiB free"),
            ({"devices": [{"name": "G", "free": 1 << 30, "total": 80 << 30}], "device": "cuda:0"}, "cuda:0",
             ["ok", "warning"], "that is little"),
        ],
    )  # fmt: skip
    def test_torch_and_its_devices(self, changed: Any, device: str, expected: list[str], says: str) -> None:
        found = list(judge_torch({**GOOD_TORCH, **changed}, device))
        assert [each.level.value for each in found] == expected
        assert any(says in f"{each.text} {each.advice}" for each in found)

    def test_a_probe_that_fails_or_is_late(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        script = tmp_path / "python"
        monkeypatch.setattr("ssd.daemon.child_process.sys.executable", str(script))
        script.write_text("#!/bin/sh\necho 'ImportError: libtorch.so' >&2; exit 1\n")
        script.chmod(0o755)
        told = gather_torch("cpu", 20.0)
        assert told == {"failed": "ImportError: libtorch.so"}
        assert levels(judge_torch(told, "cpu")) == [("versions", "fault")]
        script.write_text("#!/bin/sh\nexec sleep 30\n")
        told = gather_torch("cpu", 0.2)
        assert told == {"late": 0.2}
        assert levels(judge_torch(told, "cpu")) == [("versions", "warning")]


class TestFindings:
    def test_lines_and_json(self) -> None:
        found = [
            ok("tls", "fine"),
            warning("disk", "close", "free it"),
            fault("network", "none", "plug it in"),
        ]
        assert [line for _, line in as_lines(found)] == [
            "ok       tls      fine",
            "warning  disk     close",
            "                  -> free it",
            "fault    network  none",
            "                  -> plug it in",
            "3 checks, 1 fault, 1 warning",
        ]
        assert as_json(found)["healthy"] is False
        assert healthy(found[:2])


class TestCollector:
    def test_without_tracing_there_is_nothing_to_say(self) -> None:
        assert list(judge_collector(gather_collector("", None, 1.0))) == []

    def test_a_collector_that_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
            found = only(judge_collector(gather_collector(endpoint, None, 5.0)), "tracing")
        assert found.level is Level.OK

    def test_one_that_does_not_keeps_no_daemon_from_starting(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        found = only(judge_collector(gather_collector(endpoint, None, 5.0)), "tracing")
        assert (found.level, endpoint in found.text) == (Level.WARNING, True)

    def test_packages_and_certificates_that_are_not_there_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        roots = tmp_path / "none.pem"
        found = only(judge_collector(gather_collector("https://127.0.0.1:1", roots, 1.0)), "tracing")
        assert (found.level, "none.pem: No such file" in found.text) == (Level.FAULT, True)
        monkeypatch.setattr(collector, "PACKAGES", ("no_such_package_of_anybody.trace",))
        found = only(judge_collector(gather_collector("http://127.0.0.1:1", None, 1.0)), "tracing")
        assert (found.level, ".[tracing]" in found.advice) == (Level.FAULT, True)
