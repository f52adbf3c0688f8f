"""Whole rounds of secure aggregation around one real worker: honest ones, broken ones, and coordinators that lie."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

from secure_scene import Scene, secure_federation
from ssd.secagg.messages import Opened
from worker_harness import Worker


def play(scene: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scene

    asyncio.run(bounded())


async def whole_round(scene: Scene, worker: Worker, clients: list[str]) -> None:
    scene.begin()
    await scene.share_keys()
    upload = await scene.take_upload()
    assert upload.clients == clients
    bodies = [upload.body, *map(scene.peer_body, scene.peers)]
    await scene.reveal()
    opened, digest = scene.open(bodies)
    secret = worker.store.rounding_secret()
    assert digest == scene.expected(secret, clients, tuple(scene.peers))
    assert opened.clients == len(clients) + len(scene.peers)
    scene.say(Opened(opened_digest=digest, survivors=3, next_model_digest=bytes(32)))
    scene.coordinator.step(opened.delta)
    scene.attended.send(committed=scene.coordinator.committed(clients))


def test_two_whole_rounds_open_to_the_sum_of_what_was_quantised(tmp_path: Path) -> None:
    async def scene() -> None:
        async with secure_federation(tmp_path) as (coordinator, worker):
            attended = await coordinator.attended()
            for number in (1, 2):
                train = coordinator.train(["a", "b"])
                await whole_round(Scene(coordinator, attended, train), worker, ["a", "b"])
                await worker.until(lambda number=number: worker.driver.session.clients["a"] == number)
            assert worker.driver.session.secure is None
            assert not worker.driver.session.held
            assert not list((tmp_path / "masked").iterdir())
            name = "ssd_worker_secure_aggregation_rounds_total"
            assert worker.sample(name, outcome="opened") == 2
            assert worker.sample("ssd_worker_secure_aggregation_step_seconds_count", step="mask") == 2
            assert coordinator.uploads.empty()

    play(scene())
