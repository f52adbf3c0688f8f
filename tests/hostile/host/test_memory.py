"""The coordinator's memory does not grow with the number of uploads under way."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from processes.federation import Federation
from ssd.digest import CHUNK_BYTES
from ssd.trust.names import Role
from ssd.updates.fold import encode_update
from ssd_proto.v1 import federation_pb2 as pb
from wire.raw_worker import RawWorker
from wire.wire_calls import Upload

pytestmark = pytest.mark.e2e
PARAMETERS = 11_200_000
UP = "ssd_coordinator_transfer_bytes_total"
MIB = 1 << 20
BUDGET = 4 * 4 * PARAMETERS + 64 * MIB + 200 * 10**6
"""Four float32 models, the staging budget in RAM, and 200 MB."""
FEW, MANY = 4, 64


class Line:
    """A connection of its own within one worker's session."""

    def __init__(self, worker: RawWorker, federation: Federation) -> None:
        options = {"grpc.use_local_subchannel_pool": 1}
        self.channel = federation.channel(Role.WORKER, worker.name, **options)
        self.metadata = worker.metadata


def peak(federation: Federation) -> int:
    """VmHWM of the coordinator, bytes."""
    assert federation.coordinator is not None
    status = Path(f"/proc/{federation.coordinator.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def peak_with(root: Path, count: int, *, senders: int) -> int:
    """One round of `count` clients whose uploads are all open, whole but for their last chunk, at one time.

    `senders` of them send at once until they are that far, each of these over its own connection.
    """
    clients = [f"client-{index:03d}" for index in range(count)]
    root.mkdir()
    settings = {
        "run.clients": clients,
        "run.rounds": 1,
        "run.when_done": "serve",
        "round.cohort_size": count,
        # However slowly this machine sends, an upload that waits for the others is not cut off, nor its worker.
        "limits.heartbeat_seconds": 60.0,
        "limits.stall_seconds": 3600.0,
        "limits.uploads_per_worker": count,
        "limits.staging_bytes_per_worker": 8 << 30,
        "method.config": {"parameters": PARAMETERS},
    }
    with Federation(root, **settings) as federation:
        federation.start_coordinator()
        with federation.raw_worker("w", clients) as worker:
            worker.attend().learn()
            task = worker.expect("train")
            plan = worker.plan
            assert plan is not None
            delta = np.zeros(PARAMETERS, np.float32)
            statistics = {each.name: np.zeros(each.shape) for each in plan.statistics}
            body = bytes(encode_update(plan, delta, statistics))
            held_back = (len(body) - 1) // CHUNK_BYTES * CHUNK_BYTES
            lines = [Line(worker, federation) for _ in range(senders)]
            uploads = [
                Upload(lines[index % len(lines)], worker.envelope(task, {client: 1}, body))
                for index, client in enumerate(clients)
            ]

            for start in range(0, count, senders):
                batch = uploads[start : start + senders]
                for upload in batch:
                    assert upload.proceeded()
                for upload in batch:
                    upload.send_body(body, held_back)
                arrived = (start + len(batch)) * held_back
                federation.until(
                    lambda arrived=arrived: federation.metric(UP, direction="up") == arrived, "they arrive"
                )
            for upload in uploads:
                upload.send_body(body)
            for upload in uploads:
                outcome = upload.outcome()
                assert outcome.verdict is not None, outcome
                assert outcome.verdict.fate == pb.Verdict.FATE_ACCEPTED, outcome
            federation.until(lambda: federation.status().version.number == 1, "the round commits")
            for line in lines:
                line.channel.close()
        return peak(federation)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> int:
    return peak_with(tmp_path_factory.mktemp("memory") / "few", FEW, senders=FEW)


def test_uploads_that_are_open_take_no_memory_but_for_what_is_on_its_way(tmp_path: Path, few: int) -> None:
    """Up to two chunks an upload, as below; a body is ten times as much."""
    many = peak_with(tmp_path / "many", MANY, senders=FEW)
    print(f"peak with {FEW} uploads {few / 1e6:.0f} MB, with {MANY} {many / 1e6:.0f} MB")
    assert many < BUDGET
    assert many - few < 2 * CHUNK_BYTES * (MANY - FEW)


def test_many_workers_that_send_at_once_stay_within_the_budget(tmp_path: Path) -> None:
    """What is on its way to the coordinator takes up to two chunks an upload; that is all they add."""
    many = peak_with(tmp_path / "many", MANY, senders=MANY)
    print(f"peak with {MANY} uploads being sent {many / 1e6:.0f} MB, allowed {BUDGET / 1e6:.0f} MB")
    assert many < BUDGET
