"""The whole worker against a scripted coordinator on a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import safetensors.numpy

from processes.own_log import own_log
from rounds.worker_harness import Worker, federation, start_worker
from ssd.digest import CHUNK_BYTES
from ssd.updates.fold import Fold, check_update
from ssd_proto.v1 import federation_pb2 as pb
from wire.fake_coordinator import FakeCoordinator, Upload, accept_all
from worker.core.finished import Finished
from worker.errors import InternalFault, RefusedForGood, StorageFailed


def run(coroutine: Any) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 90))


def holds_something(worker: Worker) -> bool:
    return bool(worker.driver.session.held)


def discard(reason: str) -> pb.Verdict:
    return pb.Verdict(fate=pb.Verdict.FATE_DISCARDED, reason=reason)


def test_one_client_is_trained_uploaded_and_its_state_promoted_by_the_commit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            stream = await coordinator.attended()
            assert stream.hello.worker == "w1"
            assert [c.client for c in stream.hello.clients] == ["a"]
            stream.send(train=coordinator.train(["a"]))
            held = await stream.receive("version_held")
            assert (held.number, held.model_digest) == (0, coordinator.version().model_digest)
            upload = await coordinator.uploaded()
            assert upload.envelope.kind == pb.Envelope.KIND_UPDATE
            assert upload.envelope.spec_digest == coordinator.declaration.spec.digest
            check_update(coordinator.plan, upload.body, upload.envelope.clients[0].weight)
            await worker.until(lambda: worker.driver.session.work.delivered == {"a"})
            assert (
                worker.store.load_run(coordinator.run_id).rounds.get("a", 0) == 0
            )  # accepted is not committed
            coordinator.commit([upload])
            stream.send(committed=coordinator.committed(["a"]))
            await worker.until(lambda: worker.store.load_run(coordinator.run_id).rounds.get("a") == 1)
            assert worker.store.load_run(coordinator.run_id).held == ()
            assert worker.store.state_path("a") is not None
            await worker.stop()

    run(scenario())


def test_rounds_follow_the_delta_chain_and_keep_the_training_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"]) as (coordinator, worker):
            stream = await coordinator.attended()
            children = set()
            for _ in range(3):
                stream.send(train=coordinator.train(["a", "b"]))
                upload = await coordinator.uploaded()
                assert upload.envelope.kind == pb.Envelope.KIND_FOLD
                children.add(worker.trainer._child.pid)
                coordinator.commit([upload])
                stream.send(committed=coordinator.committed(["a", "b"]))
            await worker.until(lambda: worker.store.load_run(coordinator.run_id).rounds == {"a": 3, "b": 3})
            assert len(children) == 1
            full = [coordinator.version(number).full.digest for number in range(4)]
            fetched = [digest for digest, _ in coordinator.fetches]
            assert full[0] in fetched
            assert not set(full[1:]) & set(fetched)
            assert {delta.blob.digest for delta in coordinator.deltas[:2]} <= set(fetched)
            await worker.stop()

    run(scenario())


def test_a_worker_that_comes_back_after_a_crash_offers_its_finished_update_and_does_not_train_again(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        coordinator.judge = lambda _: discard("too_late")
        stream.send(train=coordinator.train(["a"]))
        first = await coordinator.uploaded()
        await worker.crash()

        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        assert [(h.client, h.round) for h in stream.hello.held_updates] == [("a", 1)]
        coordinator.judge = accept_all
        stream.send(train=coordinator.train(["a"], attempt=2))
        second = await coordinator.uploaded()
        assert second.body == first.body
        assert second.envelope.attempt == 2
        assert worker.sample("ssd_worker_client_tasks_total", outcome="finished") == 0
        await worker.stop()
        await coordinator.stop()

    run(scenario())


def test_a_commit_learned_through_the_fate_of_a_held_update_promotes_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a"]))
        upload = await coordinator.uploaded()
        await worker.crash()  # accepted, and dead before it hears of the commit
        coordinator.commit([upload])
        coordinator.fates = lambda _: pb.HeldFate.FATE_COMMITTED

        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        await worker.until(lambda: worker.store.load_run(coordinator.run_id).rounds.get("a") == 1)
        state = worker.store.state_path("a")
        assert state is not None
        before = state.read_bytes()
        stream.send(committed=coordinator.committed(["a"]))  # the same news again changes nothing
        stream.send(train=coordinator.train(["a"]))
        await coordinator.uploaded()
        assert worker.store.load_run(coordinator.run_id).rounds["a"] == 1
        assert worker.store.state_path("a").read_bytes() == before
        assert worker.sample("ssd_worker_client_states_promoted_total") == 1
        await worker.stop()
        await coordinator.stop()

    run(scenario())


def test_a_discarded_held_update_is_dropped_with_its_pending_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a"]))
        await coordinator.uploaded()
        await worker.crash()
        assert len(list((tmp_path / "states").iterdir())) == 1
        coordinator.fates = lambda _: pb.HeldFate.FATE_DISCARDED
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        await coordinator.attended()
        await worker.until(lambda: not worker.driver.session.held and worker.driver.attending)
        await worker.until(lambda: not list((tmp_path / "states").iterdir()))
        assert not list((tmp_path / "updates").iterdir())
        await worker.stop()
        await coordinator.stop()

    run(scenario())


def test_a_differing_record_reinitialises_the_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        stream = await coordinator.attended()
        stream.send(train=coordinator.train(["a"]))
        coordinator.commit([await coordinator.uploaded()])
        stream.send(committed=coordinator.committed(["a"]))
        await worker.until(lambda: worker.store.state_path("a") is not None)
        await worker.crash()
        coordinator.welcome_changes = {"reinitialise": [pb.HostedClient(client="a", last_committed_round=5)]}
        worker = start_worker(coordinator.target, tmp_path, ["a"])
        await coordinator.attended()
        await worker.until(lambda: worker.store.load_run(coordinator.run_id).rounds["a"] == 5)
        assert worker.store.state_path("a") is None
        await worker.stop()
        await coordinator.stop()

    run(scenario())


def test_training_goes_on_while_the_stream_is_down(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"train_seconds": 1.0}) as (coordinator, worker):
            stream = await coordinator.attended()
            task = coordinator.train(["a"])
            stream.send(train=task)
            await worker.until(lambda: worker.driver.session.job is not None)
            await coordinator.stop()
            await worker.until(lambda: bool(worker.driver.session.held))
            assert not worker.driver.attending
            await coordinator.start()
            stream = await coordinator.attended()
            assert [held.client for held in stream.hello.held_updates] == ["a"]
            stream.send(train=task)
            await coordinator.uploaded()
            assert worker.sample("ssd_worker_client_tasks_total", outcome="finished") == 1
            await worker.stop()

    run(scenario())


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


def test_a_fold_refused_as_duplicate_is_followed_by_single_updates(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b", "c"]) as (coordinator, worker):

            def judge(upload: Upload) -> pb.Verdict:
                if len(upload.clients) > 1 or upload.clients == ["b"]:
                    return discard("duplicate")
                return accept_all(upload)

            coordinator.judge = judge
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b", "c"]))
            seen = [(await coordinator.uploaded()).clients for _ in range(4)]
            assert seen == [["a", "b", "c"], ["a"], ["b"], ["c"]]
            await worker.until(lambda: worker.driver.session.work.delivered == {"a", "b", "c"})
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


def test_killing_the_training_process_costs_one_client_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"], {"train_seconds": 0.5}) as (coordinator, worker):
            stream = await coordinator.attended()
            task = coordinator.train(["a", "b"])
            stream.send(train=task)
            await worker.until(lambda: worker.trainer._child is not None and worker.trainer._job is not None)
            os.kill(worker.trainer._child.pid, signal.SIGKILL)
            failed = await stream.receive("task_failed")
            assert (failed.client, failed.reason) == ("a", "training_process_died")
            assert failed.detail == "the training process died; the worker's own log says more"
            assert "SIGKILL" in own_log(caplog)
            assert (await coordinator.uploaded()).clients == ["b"]
            task.ClearField("clients")
            task.clients.add(client="a")
            stream.send(train=task)  # the coordinator asks for the failed one again
            assert (await coordinator.uploaded()).clients == ["a"]
            await worker.stop()

    run(scenario())


def test_cancel_stops_the_training_and_keeps_what_is_finished(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"], {"train_seconds": 0.6}) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b"]))
            await worker.until(lambda: len(worker.driver.session.held) == 1)
            stream.send(cancel=pb.Cancel(round=1, attempt=1, reason="abandoned"))
            await worker.until(lambda: worker.driver.session.job is None)
            assert len(worker.store.load_run(coordinator.run_id).held) == 1
            child = worker.trainer._child.pid
            stream.send(train=coordinator.train(["a", "b"], attempt=2))
            upload = await coordinator.uploaded()
            assert (upload.clients, upload.envelope.attempt) == (["a", "b"], 2)
            assert worker.trainer._child.pid == child  # it stopped politely
            assert worker.sample("ssd_worker_client_tasks_total", outcome="finished") == 2
            await worker.stop()

    run(scenario())


def test_flush_and_the_time_limit_upload_what_is_finished(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"], {"train_seconds": 0.5}) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b"]))
            await worker.until(lambda: len(worker.driver.session.held) == 1)
            stream.send(flush=pb.Flush(round=1, attempt=1))
            assert (await coordinator.uploaded()).clients == ["a"]
            assert (await coordinator.uploaded()).clients == ["b"]
            coordinator.step(np.zeros(coordinator.declaration.spec.size, np.float32))
            stream.send(committed=coordinator.committed([]))
            stream.send(train=coordinator.train(["a", "b"], upload_within_seconds=0.001))
            assert (await coordinator.uploaded()).clients == ["a"]
            assert (await coordinator.uploaded()).clients == ["b"]
            await worker.stop()

    run(scenario())


def test_a_commit_without_the_client_drops_its_update_and_a_new_base_cancels_the_old_task(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"], {"train_seconds": 0.4}) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b"]))
            await worker.until(lambda: len(worker.driver.session.held) == 1)
            coordinator.step(np.zeros(coordinator.declaration.spec.size, np.float32))
            stream.send(committed=coordinator.committed([]))
            stream.send(train=coordinator.train(["b"]))
            upload = await coordinator.uploaded()
            assert (upload.envelope.round, upload.clients) == (2, ["b"])
            assert [f.key.round for f in worker.store.load_run(coordinator.run_id).held] == [2]
            await worker.stop()

    run(scenario())


def test_an_evaluation_is_answered_also_while_training_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"]) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(evaluate=pb.Evaluate(version=coordinator.version(), run_seed=3))
            stream.send(train=coordinator.train(["a"]))
            done = await stream.receive("evaluation_done")
            assert (done.version, done.error) == (0, "")
            assert "parameter_norm" in done.values
            await coordinator.uploaded()
            await worker.stop()

    run(scenario())


def test_a_declaration_that_differs_refuses_the_whole_task(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"]) as (coordinator, worker):
            # What this program builds from the configuration is version 1.
            coordinator.declaration = type(coordinator.declaration).from_json(
                {**coordinator.declaration.to_json(), "version": 2}
            )
            stream = await coordinator.attended()
            stream.hang_up()
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a", "b"]))
            failed = await stream.receive("task_failed")
            assert (failed.client, failed.reason) == ("", "declaration_differs")
            assert "the same program version" in failed.detail
            await worker.stop()

    run(scenario())


def test_heartbeats_go_on_while_a_client_trains(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a"], {"train_seconds": 1.5}) as (coordinator, worker):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            progress = await stream.receive("progress")
            assert progress.client == "a"
            assert 0 < progress.step <= progress.steps
            beats = [await stream.receive("heartbeat") for _ in range(3)]
            assert max(beat.busy_share for beat in beats) > 0.5
            await worker.stop()

    run(scenario())


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


def test_a_state_advances_exactly_once_per_commit_over_crashes_at_every_point(tmp_path: Path) -> None:
    """The synthetic state counts its own advances: after n commits it must say n, whatever was crashed when."""

    async def scenario() -> None:
        coordinator = FakeCoordinator()
        await coordinator.start()
        committed: set[int] = set()
        coordinator.fates = lambda held: (
            pb.HeldFate.FATE_COMMITTED if held.round in committed else pb.HeldFate.FATE_KEEP
        )
        start = partial(start_worker, coordinator.target, tmp_path, ["a"])

        def recorded(worker: Worker, number: int) -> bool:
            return worker.store.load_run(coordinator.run_id).rounds.get("a") == number

        worker = start()
        for number in range(1, 7):
            stream = await coordinator.attended()
            stream.send(train=coordinator.train(["a"]))
            if number % 3 == 1:  # crash before the upload is judged
                coordinator.hold_uploads = asyncio.Event()
                await worker.until(partial(holds_something, worker))
                await worker.crash()
                coordinator.hold_uploads = None
                worker = start()
                stream = await coordinator.attended()
                stream.send(train=coordinator.train(["a"]))
            upload = await coordinator.uploaded()
            if number % 3 == 2:  # crash between acceptance and the news of the commit
                await worker.crash()
            coordinator.commit([upload])
            committed.add(number)
            if number % 3 == 2:
                worker = start()
            else:
                stream.send(committed=coordinator.committed(["a"]))
                await worker.until(partial(recorded, worker, number))
                stream.hang_up()
        await worker.until(lambda: worker.store.load_run(coordinator.run_id).rounds.get("a") == 6)
        state = worker.store.state_path("a")
        assert state is not None
        assert int(safetensors.numpy.load_file(state)["counter"][0]) == 6
        await worker.stop()
        await coordinator.stop()

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
