"""A state directory that fills up under the coordinator: it says so, loses nothing, and goes on when there is room."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from processes.federation import Federation
from ssd_proto.v1 import federation_pb2 as pb
from wire.hostile import SETTINGS, reference

pytestmark = pytest.mark.e2e
PARAMETERS = {"method.config": {"parameters": 200_000}}
"""A version is one blob of 800 kB."""
CLIENTS = SETTINGS["run.clients"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"this user may not mount a small file system: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def full(place: Path) -> Iterator[None]:
    """Every last byte of the file system is taken."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    yield
    filler.unlink()


@contextlib.contextmanager
def short_files(federation: Federation) -> Iterator[None]:
    """The running coordinator may write no file beyond 400 kB: models do not fit, its log does."""
    assert federation.coordinator is not None
    pid = federation.coordinator.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (400_000, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def health(federation: Federation, service: str = "") -> int:
    with federation.channel() as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        return check(health_pb2.HealthCheckRequest(service=service), timeout=20).status


SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
FAILURES = "ssd_coordinator_storage_failures_total"


def in_trouble(federation: Federation, words: str) -> None:
    """It says what is wrong in every place an operator looks, and keeps running."""
    coordinator = federation.coordinator
    assert coordinator is not None
    federation.until(lambda: federation.http("/readyz")[0] == 503, "it says that it is not ready")
    assert words in federation.http("/readyz")[1]
    assert federation.http("/livez")[0] == 200
    federation.until(lambda: health(federation) == NOT_SERVING, "its health says so too")
    assert health(federation, "ssd_proto.v1.Federation") == NOT_SERVING
    assert words in federation.status().waiting_for
    (said,) = coordinator.events("storage_failed")
    assert words in said["detail"]
    before = federation.metric(FAILURES)
    assert before >= 1
    federation.until(lambda: federation.metric(FAILURES) > before, "it tries again")
    assert coordinator.running


def well_again(federation: Federation) -> None:
    assert federation.coordinator is not None
    federation.until(lambda: federation.http("/readyz")[0] == 200, "it is ready again")
    federation.until(lambda: health(federation) == SERVING, "its health says so too")
    assert len(federation.coordinator.events("storage_recovered")) == 1
    assert not federation.status().waiting_for


Trouble = Callable[[Federation], AbstractContextManager[None]]


def through_trouble(federation: Federation, trouble: Trouble, words: str, state_dir: Path) -> None:
    settings = {**SETTINGS, **PARAMETERS, "run.when_done": "exit"}
    federation.start_coordinator()
    with federation.raw_worker("w", CLIENTS) as worker:
        worker.attend().learn()
        task = worker.expect("train")
        updates = {each.client: worker.train(task, each.client) for each in task.clients}
        with trouble(federation):
            for client, (body, weight) in updates.items():
                verdict, code, reason = worker.submit(worker.envelope(task, {client: weight}, body), body)
                assert verdict is not None, (code, reason)
                assert verdict.fate == pb.Verdict.FATE_ACCEPTED
            in_trouble(federation, words)
            assert federation.status().version.number == 0
        assert worker.expect("committed").included == sorted(updates)
        well_again(federation)
        worker.contribute(worker.expect("train"))
        assert federation.finish() == 0
    store_of = Federation(federation.root)
    store_of.state_dir = state_dir
    assert store_of.digests() == reference(settings)


def settings_of(**changes: Any) -> dict[str, Any]:
    return {**SETTINGS, **PARAMETERS, "run.when_done": "exit", **changes}


def test_a_full_state_directory(tmp_path: Path, small_disk: Path) -> None:
    state_dir = small_disk / "state"
    with Federation(tmp_path, **settings_of(**{"coordinator.state_dir": str(state_dir)})) as federation:
        through_trouble(federation, lambda _: full(small_disk), "the disk is full", state_dir)


def test_a_medium_that_takes_no_model(tmp_path: Path) -> None:
    with Federation(tmp_path, **settings_of()) as federation:
        through_trouble(federation, short_files, "a blob failed", federation.state_dir)


def test_a_start_on_a_full_state_directory(tmp_path: Path, small_disk: Path) -> None:
    changes = settings_of(**{"coordinator.state_dir": str(small_disk / "state")})
    with full(small_disk):
        daemon = Federation(tmp_path, **changes).start_coordinator(wait=False)
        assert daemon.wait() == 4
        said = daemon.log.read_text()
        assert "error: " in said
        assert "the disk is full: free space on it" in said
        assert "Traceback" not in said


def test_no_round_opens_without_the_room_it_is_told_to_keep(tmp_path: Path) -> None:
    with Federation(tmp_path, **settings_of(**{"limits.min_free_bytes": 1 << 60})) as federation:
        coordinator = federation.start_coordinator()
        with federation.raw_worker("w", CLIENTS) as worker:
            # The welcome waits as well: it would be followed by a task that is not durable.
            worker.open_stream(pb.WorkerMessage(hello=worker.hello()))
            in_trouble(federation, "limits.min_free_bytes")
        assert coordinator.terminate() == 4
        assert coordinator.events("stopped_in_storage_failure")
        # Nothing was lost, and the setting may change between starts.
        federation.start_coordinator(**{"limits.min_free_bytes": 0})
        with federation.raw_worker("w", CLIENTS) as worker:
            worker.attend().learn()
            for _ in range(SETTINGS["run.rounds"]):
                worker.contribute(worker.expect("train"))
            assert federation.finish() == 0
        assert federation.digests() == reference(settings_of())
