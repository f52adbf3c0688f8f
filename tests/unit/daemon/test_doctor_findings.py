"""What the doctors find, check by check: identity, network, disk, images, software, collector."""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from operations.doctor_facts import GOOD_TORCH, identity_in, levels, now, only
from processes.pki import Pki
from ssd.daemon.doctor import collector
from ssd.daemon.doctor.collector import gather_collector, judge_collector
from ssd.daemon.doctor.disk import DiskFacts, gather_disk, holder, judge_disk
from ssd.daemon.doctor.findings import Finding, Level, as_json, as_lines, fault, healthy, ok, warning
from ssd.daemon.doctor.identity import IdentityFacts, gather_identity, judge_identity
from ssd.daemon.doctor.network import PortFacts, ReachFacts, judge_port, judge_reach, reach, try_port
from ssd.daemon.doctor.software import gather_torch, judge_torch, judge_versions
from ssd.data.images.errors import DataError
from ssd.data.images.walk import walk
from ssd.trust.diagnosis import Peer
from ssd.trust.identity_files import IdentityFiles
from ssd.trust.names import Role, Subject
from worker.cli.doctor_images import gather_folder, judge_folder

WORKER = frozenset({Role.WORKER})


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process with torch in it: what it would tell is a fact here."""
    for name in [name for name in os.environ if name.startswith("SSD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("ssd.daemon.doctor.software.gather_torch", lambda device, patience: GOOD_TORCH)


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


def test_a_missing_folder_is_named_with_the_folder_it_is_relative_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = only(judge_folder(gather_folder("ward", Path("data/none"), 5.0)), "data")
    assert found.text == f"ward: {tmp_path}/data/none: no such file or directory"
    with pytest.raises(DataError) as refused:
        walk(Path("data/none"))
    assert (
        str(refused.value) == f"cannot read the image folder {tmp_path}/data/none: No such file or directory"
    )
