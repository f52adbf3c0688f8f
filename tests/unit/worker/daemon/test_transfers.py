"""The whole worker against a scripted coordinator on a real socket: fetches and uploads that break, wait or are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from rounds.daemon_steps import discard, run
from rounds.worker_harness import federation, start_worker
from ssd.digest import CHUNK_BYTES
from ssd.updates.fold import Fold
from ssd_proto.v1 import federation_pb2 as pb
from wire.fake_coordinator import FakeCoordinator, Upload, accept_all


def test_a_broken_fetch_resumes_at_the_verified_chunk_and_a_damaged_chunk_is_fetched_again(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"parameters": 1_200_000}) as (coordinator, worker):
            digest = coordinator.version().full.digest
            coordinator.break_fetch_after = 2 * CHUNK_BYTES
            coordinator.corrupt_chunks[digest] = 1
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            offsets = [offset for fetched, offset in coordinator.fetches if fetched == digest]
            assert offsets[0] == 0
            assert offsets[1] == 2 * CHUNK_BYTES
            assert len(offsets) == 3
            assert offsets[2] == 3 * CHUNK_BYTES
            await worker.stop()

    run(scenario())


def test_a_chunk_that_stays_damaged_fails_the_task(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"parameters": 1_200_000}) as (coordinator, worker):
            coordinator.corrupt_chunks[coordinator.version().full.digest] = 1000
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            failed = await stream.receive("task_failed")
            assert (failed.client, failed.reason) == ("", "model_unavailable")
            await worker.stop()

    run(scenario())


def test_a_broken_upload_resumes_where_it_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"parameters": 2_000_000}) as (coordinator, worker):
            coordinator.break_upload_after = 2 * CHUNK_BYTES
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            upload = await coordinator.uploaded()
            assert upload.started_at >= 2 * CHUNK_BYTES
            assert len(upload.body) == coordinator.plan.update_nbytes
            await worker.stop()

    run(scenario())


def test_an_upload_cut_by_a_lost_session_resumes_with_the_same_envelope(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"], {"parameters": 500_000}) as (coordinator, worker):
            coordinator.hold_uploads = asyncio.Event()
            stream = await coordinator.attended()
            task = coordinator.train(["a", "b"])
            stream.send(train=task)
            await worker.until(lambda: bool(coordinator.partial))
            stream.hang_up()
            stream = await coordinator.attended()
            coordinator.hold_uploads.set()
            stream.send(train=task)
            upload = await coordinator.uploaded()
            assert upload.clients == ["a", "b"]
            assert len(coordinator.partial) == 1
            await worker.stop()

    run(scenario())


def test_a_held_upload_waits_without_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"parameters": 2_000_000}) as (coordinator, worker):
            coordinator.hold_uploads = asyncio.Event()
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await worker.until(lambda: worker.sample("ssd_worker_upload_holds_total") == 1)
            await asyncio.sleep(0.3)
            assert coordinator.uploads.empty()
            coordinator.hold_uploads.set()
            await coordinator.uploaded()
            await worker.stop()

    run(scenario())


def test_the_fold_of_several_clients_equals_adding_their_updates_one_by_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path / "x", ["a", "b", "c"]) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b", "c"]))
            folded = await coordinator.uploaded()
            assert folded.clients == ["a", "b", "c"]
            await worker.stop()
        singles: list[Upload] = []
        async with federation(tmp_path / "y", ["a", "b", "c"]) as (coordinator, worker):
            stream = await coordinator.attended()
            for name in "abc":
                stream.send(train=coordinator.train([name]))
                singles.append(await coordinator.uploaded())
            await worker.stop()
        together, apart = Fold(coordinator.plan), Fold(coordinator.plan)
        together.add_fold(folded.body, sum(c.weight for c in folded.envelope.clients), 3)
        for upload in singles:
            apart.add_update(upload.body, upload.envelope.clients[0].weight)
        assert np.array_equal(together.open().delta, apart.open().delta)

    run(scenario())


def test_after_a_fold_refused_as_duplicate_the_worker_asks_anew_whom_the_coordinator_misses(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b", "c"]) as (coordinator, worker):

            def judge(upload: Upload) -> pb.Verdict:
                return discard("duplicate") if "b" in upload.clients else accept_all(upload)

            coordinator.judge = judge
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b", "c"]))
            assert (await coordinator.uploaded()).clients == ["a", "b", "c"]
            # Another worker's "b" is in the round's sum: the others are missed, in a fold without it.
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "c"]))
            assert (await coordinator.uploaded()).clients == ["a", "c"]
            await worker.until(lambda: worker.driver.session.work.delivered == {"a", "c"})
            # Whether the commit has this worker's "b" is not known before it comes.
            assert {key.client for key in worker.driver.session.held} == {"a", "b", "c"}
            await worker.stop()

    run(scenario())


@pytest.mark.parametrize("failure", ["nan", "over_norm", "bad_statistic", "huge_weight", "raise"])
def test_a_client_with_bad_numbers_is_reported_and_left_out_of_the_fold(tmp_path: Path, failure: str) -> None:
    async def scenario() -> None:
        config = {"fail_clients": {"b": failure}}
        async with federation(tmp_path, ["a", "b", "c"], config) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b", "c"]))
            failed = await stream.receive("task_failed")
            assert failed.client == "b"
            expected = {"nan": "training_diverged", "raise": "training_failed", "huge_weight": "weight_out_of_range",
                        "over_norm": "over_norm", "bad_statistic": "statistic_out_of_range"}  # fmt: skip
            assert failed.reason == expected[failure]
            assert (await coordinator.uploaded()).clients == ["a", "c"]
            await worker.stop()

    run(scenario())


def test_a_rejected_update_is_dropped_and_trained_again_when_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            coordinator.judge = lambda _: pb.Verdict(
                fate=pb.Verdict.FATE_REJECTED, reason="over_norm", detail="too much"
            )
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            await worker.until(lambda: worker.store.load_run(coordinator.run_id).held == ())
            await asyncio.sleep(0.2)
            assert coordinator.uploads.empty()
            coordinator.judge = accept_all
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            assert worker.sample("ssd_worker_client_tasks_total", outcome="finished") == 2
            await worker.stop()

    run(scenario())


def test_a_delta_chain_that_ends_elsewhere_falls_back_to_the_whole_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            coordinator.commit([await coordinator.uploaded()])
            size = coordinator.declaration.spec.size
            codec_bytes = coordinator.blobs[coordinator.deltas[0].blob.digest]
            wrong = coordinator.keep_blob(bytes(len(codec_bytes)))
            coordinator.deltas[0].blob.CopyFrom(wrong)
            stream.send(committed=coordinator.committed(["a"]))
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            fetched = [digest for digest, _ in coordinator.fetches]
            assert wrong.digest in fetched
            assert coordinator.version(1).full.digest in fetched
            assert (
                np.fromfile(worker.store.version_path(coordinator.version(1).model_digest), "<f4").size
                == size
            )
            await worker.stop()

    run(scenario())


def test_a_damaged_delta_is_fetched_again_and_not_the_whole_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"parameters": 1_500_000}) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            coordinator.commit([await coordinator.uploaded()])
            delta = coordinator.deltas[0].blob.digest
            coordinator.corrupt_chunks[delta] = 1
            stream.send(committed=coordinator.committed(["a"]))
            stream.send(train=coordinator.train(["a"]))
            await coordinator.uploaded()
            fetched = [digest for digest, _ in coordinator.fetches]
            assert fetched.count(delta) == 2
            assert coordinator.version(1).full.digest not in fetched
            await worker.stop()

    run(scenario())


def test_a_partly_fetched_version_survives_a_crash_and_damage_on_disk_is_noticed(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator({"parameters": 1_500_000})
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        digest = coordinator.version().full.digest
        coordinator.break_fetch_after = 4 * CHUNK_BYTES
        coordinator.stall_fetches_of = digest
        stream.send(train=coordinator.train(["a"]))
        await worker.until(lambda: len([d for d, _ in coordinator.fetches if d == digest]) == 2)
        await worker.crash()
        left = tmp_path / "partial" / digest
        assert left.stat().st_size == 4 * CHUNK_BYTES
        with left.open("r+b") as file:
            file.seek(2 * CHUNK_BYTES + 5)
            file.write(b"damage")
        coordinator.stall_fetches_of = ""
        coordinator.fetches.clear()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a"]))
        await coordinator.uploaded()
        offsets = [offset for fetched, offset in coordinator.fetches if fetched == digest]
        assert offsets == [4 * CHUNK_BYTES, 2 * CHUNK_BYTES]
        await worker.stop()
        await coordinator.stop()

    run(scenario())
