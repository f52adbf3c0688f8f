"""The whole worker against a scripted coordinator on a real socket: rounds, commits and the fates of updates."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import safetensors.numpy

from rounds.daemon_steps import discard, run
from rounds.worker_harness import Worker, federation, start_worker
from ssd.updates.fold import check_update
from ssd_proto.v1 import federation_pb2 as pb
from wire.fake_coordinator import FakeCoordinator, accept_all


def holds_something(worker: Worker) -> bool:
    return bool(worker.driver.session.held)


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
