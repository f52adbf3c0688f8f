"""A coordinator that asks for too much: each demand is refused with a reason, and the worker lives on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from processes.own_log import own_log
from rounds.worker_harness import federation, start_worker
from ssd_proto.v1 import tensor_pb2 as tensor
from wire.fake_coordinator import FakeCoordinator

DEEP = b'{"method": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


def test_a_declaration_of_a_hundred_thousand_brackets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            coordinator.announce(DEEP, "ab" * 32)
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            failed = await stream.receive("task_failed")
            assert failed.reason == "declaration_unreadable"
            assert "nested deeper" in own_log(caplog) or "no JSON" in own_log(caplog)
            assert not worker.task.done()

    run(scenario())


def test_an_array_that_no_disk_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not a byte of it is asked for."""

    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            stream = await coordinator.attended()
            shape = (1 << 30, 1 << 20)
            huge = tensor.BlobRef(digest="cd" * 32, size=4 * shape[0] * shape[1])
            artefact = tensor.Artefact(name="x", blob=huge, shape=shape)
            stream.send(train=coordinator.train(["a"], artefacts=[artefact]))
            failed = await stream.receive("task_failed")
            assert failed.reason == "model_unavailable"
            assert "are free" in own_log(caplog)
            assert huge.digest not in {digest for digest, _ in coordinator.fetches}
            assert not list((tmp_path / "partial").iterdir())
            assert not worker.task.done()

    run(scenario())


@pytest.mark.parametrize(
    ("demand", "said"),
    [
        ({"heartbeat_seconds": 1e-9}, "heartbeat_seconds"),
        ({"declaration": tensor.BlobRef(digest="ab" * 32, size=1 << 50)}, "a declaration of more than"),
    ],
)
def test_a_welcome_that_asks_too_much_begins_no_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, demand: dict[str, Any], said: str
) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        coordinator.welcome_changes = demand
        await coordinator.start()
        caplog.set_level("INFO")
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        try:
            await coordinator.attended()
            await worker.until(lambda: said in own_log(caplog))
            assert not worker.driver.attending
            assert not worker.task.done()
            assert [each for each in coordinator.heard if each.WhichOneof("kind") == "heartbeat"] == []
        finally:
            await worker.crash()
            await coordinator.stop()

    run(scenario())
