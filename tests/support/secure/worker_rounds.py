"""Whole secure rounds of one worker, played step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rounds.worker_harness import Worker
from secure.secure_scene import Scene
from ssd.secagg.protocol.messages import (
    Opened,
    Refusal,
)
from wire.fake_coordinator import Attended, FakeCoordinator

ENDED = "ssd_worker_secure_aggregation_rounds_total"


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40):
            await scene()

    asyncio.run(bounded())


async def whole_round(scene: Scene, worker: Worker, clients: list[str]) -> None:
    scene.begin()
    await scene.share_keys()
    await finish_round(scene, worker, clients)


async def finish_round(scene: Scene, worker: Worker, clients: list[str]) -> None:
    """From the masked uploads on."""
    upload = await scene.take_upload()
    assert upload.clients == clients
    bodies = [upload.body, *map(scene.peer_body, scene.peers)]
    await scene.reveal()
    opened, digest = scene.open(bodies)
    assert digest == scene.expected(worker.store.rounding_secret(), clients, tuple(scene.peers))
    assert opened.clients == len(clients) + len(scene.peers)
    scene.say(Opened(opened_digest=digest, survivors=3, next_model_digest=bytes(32)))
    scene.coordinator.step(opened.delta)
    scene.attended.send(committed=scene.coordinator.committed(clients))


def retry(coordinator: FakeCoordinator, attended: Attended, before: Scene) -> Scene:
    """The next attempt of the same round."""
    train = coordinator.train(["a", "b"], attempt=before.train.attempt + 1)
    return Scene(coordinator, attended, train)


async def refusal(scene: Scene) -> Refusal:
    heard = await scene.hear()
    assert isinstance(heard, Refusal)
    return heard


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def silent(coordinator: FakeCoordinator) -> None:
    """Nothing is uploaded, however long one waits."""
    await asyncio.sleep(0.1)
    assert coordinator.uploads.empty()
