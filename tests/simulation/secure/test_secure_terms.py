"""Runs and tasks that a worker takes no part in under secure aggregation: nothing is trained, nothing is uploaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from secure.secure_scene import Scene, secure_coordinator, secure_worker
from ssd.methods.synthetic.method import create
from ssd.secagg.protocol.errors import AbortReason
from ssd.secagg.protocol.messages import Refusal
from wire.fake_coordinator import Attended, FakeCoordinator


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(40):
            await scene()

    asyncio.run(bounded())


async def refused(
    tmp_path: Path, config: dict[str, Any], changes: dict[str, Any], reason: AbortReason
) -> None:
    """A worker fails such a task whole, and refuses the attempt that is offered for it all the same."""
    coordinator = secure_coordinator()
    coordinator.use(create({"parameters": 512, **config}))
    await coordinator.start()
    worker = secure_worker(coordinator, tmp_path)
    try:
        attended = await coordinator.attended()
        scene = Scene(coordinator, attended, coordinator.train(["a", "b"], **changes))
        scene.begin()
        failed = await attended.receive("task_failed")
        assert failed.reason == "not_agreed"
        assert reason.value not in failed.detail
        heard = await scene.ask(scene.offer)
        assert isinstance(heard, Refusal)
        assert heard.reason == reason.value
        await asyncio.sleep(0.1)
        assert coordinator.uploads.empty()
        assert not worker.driver.session.held
    finally:
        await worker.crash()
        await coordinator.stop()


POSITION = {"scaling": {"dimension": 8, "alpha": 2.0, "assignment": "position"}}


def test_a_method_that_singles_clients_out(tmp_path: Path) -> None:
    play(lambda: refused(tmp_path, POSITION, {}, AbortReason.STEERABLE_SETTING))


@pytest.mark.parametrize("values", [{"scale": 0.0}, {"scale": 2.0, "lr": 0.0}, {}], ids=str)
def test_scheduled_values_that_are_not_the_declarations(tmp_path: Path, values: dict[str, float]) -> None:
    schedules = {"schedules": {"scale": 2.0}}
    play(lambda: refused(tmp_path, schedules, {"values": values}, AbortReason.SCHEDULE_DIFFERS))


def test_in_the_clear_the_coordinator_may_choose(tmp_path: Path) -> None:
    """It sees every update there; nothing would be hidden by refusing."""

    async def scene() -> None:
        coordinator = FakeCoordinator({"parameters": 512, "schedules": {"scale": 2.0}})
        await coordinator.start()
        worker = secure_worker(coordinator, tmp_path)
        try:
            attended: Attended = await coordinator.attended()
            attended.send(train=coordinator.train(["a", "b"], values={"scale": 0.0}))
            assert (await coordinator.uploaded()).clients == ["a", "b"]
        finally:
            await worker.crash()
            await coordinator.stop()

    play(scene)
