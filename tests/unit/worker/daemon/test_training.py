"""The whole worker against a scripted coordinator on a real socket: the training process, tasks and heartbeats."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from processes.own_log import own_log
from rounds.daemon_steps import run
from rounds.worker_harness import federation
from ssd_proto.v1 import federation_pb2 as pb


def test_killing_the_training_process_costs_one_client_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with federation(tmp_path, ["a", "b"], {"train_seconds": 0.5}) as (coordinator, worker):
            stream = await coordinator.attended()
            task = coordinator.train(["a", "b"])
            stream.send(train=task)
            await worker.until(lambda: worker.trainer._child is not None and worker.trainer._job is not None)
            first = worker.trainer._child.pid
            os.kill(first, signal.SIGKILL)
            # Of two that were trained together it is not known who it was: they are trained again, one by one.
            await worker.until(
                lambda: worker.trainer._child is not None and worker.trainer._child.pid != first
            )
            await worker.until(lambda: worker.trainer._job is not None and not worker.trainer._job.together)
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
