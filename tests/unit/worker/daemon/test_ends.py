"""The whole worker against a scripted coordinator on a real socket: refusals, other runs, defects and full disks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from rounds.daemon_steps import run
from rounds.worker_harness import federation, start_worker
from ssd_proto.v1 import federation_pb2 as pb
from wire.fake_coordinator import FakeCoordinator
from worker.core.finished import Finished
from worker.errors import InternalFault, RefusedForGood, StorageFailed


@pytest.mark.parametrize(
    "reason",
    [
        "protocol_version",
        "bad_name",
        "identity_mismatch",
        "tls_version",
        "no_identity",
        "wrong_federation",
        "role",
        "revoked",
    ],
)
def test_a_permanent_refusal_ends_the_worker_with_a_sentence(tmp_path: Path, reason: str) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        coordinator.refuse_hello = (grpc.StatusCode.FAILED_PRECONDITION, reason)
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        with pytest.raises(RefusedForGood, match=reason):
            await asyncio.wait_for(worker.task, 20)
        worker.store.close()
        await coordinator.stop()

    run(scenario())


def test_a_taken_name_is_tried_again_for_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        coordinator.refuse_hello = (grpc.StatusCode.ALREADY_EXISTS, "worker_name_taken")
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        await worker.until(
            lambda: worker.sample("ssd_worker_reconnects_total", reason="worker_name_taken") >= 3
        )
        assert "link_lost" in caplog.text
        coordinator.refuse_hello = None
        await coordinator.attended()
        await worker.stop()
        await coordinator.stop()

    run(scenario())


def test_a_new_run_at_the_same_coordinator_drops_the_old_runs_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            coordinator.run_id = "f" * 32
            stream.send(run_changed=pb.RunChanged(reason="replaced", finished=False))
            stream = await coordinator.attended()
            await worker.until(lambda: worker.store.current_run() == "f" * 32)
            stream.send(train=coordinator.train(["a"]))
            upload = await coordinator.uploaded()
            assert upload.envelope.run_id == "f" * 32
            await worker.stop()

    run(scenario())


def test_drain_stops_the_task_and_comes_back_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"train_seconds": 5.0}) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await worker.until(lambda: worker.driver.session.job is not None)
            stream.send(drain=pb.Drain(reason="upgrade", reconnect_after_seconds=0.1))
            await worker.until(lambda: worker.driver.session.job is None)
            await coordinator.attended()
            await worker.stop()

    run(scenario())


def test_a_stream_the_peer_cancels_is_dialled_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            coordinator.hang_up_with = grpc.StatusCode.CANCELLED
            (await coordinator.attended()).hang_up()
            (await coordinator.attended()).hang_up()
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            await worker.stop()

    run(scenario())


def test_a_defect_in_a_task_ends_the_daemon_loudly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):

            async def broken(*_: object) -> None:
                raise ZeroDivisionError("on purpose")

            monkeypatch.setattr(worker.driver._preparation, "prepare", broken)
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            with pytest.raises(InternalFault, match="on purpose"):
                await asyncio.wait_for(worker.task, 20)
            worker.store.close()

    run(scenario())


def test_a_full_disk_waits_for_room_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.store.effects._FULL_DISK_SECONDS", 0.05)

    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            tries = 0
            keep = worker.store.keep

            def full_twice(finished: Finished) -> None:
                nonlocal tries
                tries += 1
                if tries <= 2:
                    raise StorageFailed("no room", full=True)
                keep(finished)

            monkeypatch.setattr(worker.store, "keep", full_twice)
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            assert tries == 3
            await worker.stop()

    run(scenario())


def test_a_store_that_fails_otherwise_ends_the_worker_before_anything_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):

            def broken(_: Finished) -> None:
                raise StorageFailed("the medium is gone")

            monkeypatch.setattr(worker.store, "keep", broken)
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            with pytest.raises(StorageFailed):
                await asyncio.wait_for(worker.task, 20)
            assert coordinator.uploads.empty()
            worker.store.close()

    run(scenario())
