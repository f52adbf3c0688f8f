"""Whole runs of a method with a server hook, in one process: the driver, its host, and a worker that trains."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.errors import ClientFault, Reason
from rounds.hook_world import (
    CLIENTS,
    HELLO,
    METHOD,
    ROUNDS,
    World,
    bodies,
    deliver,
    envelope,
    play,
    trains,
    until,
    whole_run,
    work_through,
)
from rounds.in_process_host import InProcessHost
from ssd.method.registry import load
from ssd.updates.fold import Fold
from ssd_wire.messages import Train


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    world = World(tmp_path_factory.mktemp("reference"))
    play(lambda: whole_run(world))  # type: ignore[arg-type, return-value]
    assert [calls for *_, calls in world.history()] == [None, 1.0, 2.0, 3.0]
    return world.history()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_arrival_does_not_matter(
    tmp_path: Path, reference: list[tuple[Any, ...]], seed: int
) -> None:
    world = World(tmp_path)
    play(lambda: whole_run(world, seed=seed))  # type: ignore[arg-type, return-value]
    assert world.history() == reference


def test_round_artefacts_are_absent_at_first_and_then_those_of_the_newest_version(tmp_path: Path) -> None:
    world = World(tmp_path)
    seen: list[Train] = []

    async def scene() -> None:
        subject = await world.start()
        loop = asyncio.ensure_future(subject.driver.run())
        for version in range(ROUNDS):
            session = await subject.attendance.attach(HELLO)
            seen.append(trains(session)[-1])
            newest = subject.catalogue.newest
            assert seen[-1].artefacts == newest.artefacts
            for blob in newest.server_state.values():
                with pytest.raises(ClientFault):
                    subject.catalogue.open_blob(blob.digest)
            await work_through(subject, 0, stop_at=version + 1)
        subject.driver.stop()
        await loop

    play(scene)
    assert seen[0].artefacts == ()
    assert [[each.name for each in train.artefacts] for train in seen[1:]] == [["drift"]] * (ROUNDS - 1)
    assert seen[1].artefacts != seen[2].artefacts


def test_a_fold_is_refused_before_a_byte_of_it_is_taken(tmp_path: Path) -> None:
    async def scene() -> None:
        subject = await World(tmp_path).start()
        loop = asyncio.ensure_future(subject.driver.run())
        session = await subject.attendance.attach(HELLO)
        assert session.outbox._queue[0].individual_updates  # type: ignore[attr-defined]
        train = trains(session)[-1]
        fold = Fold(subject.quality.plain)
        made = bodies(subject, train)
        for body, weight in made.values():
            fold.add_update(body, weight)
        weights = {client: weight for client, (_, weight) in made.items()}
        with pytest.raises(ClientFault) as caught:
            subject.uploads.let_in(session, envelope(subject, train, fold.pack(), weights, fold=True))
        assert caught.value.reason is Reason.FOLD_NOT_ALLOWED
        subject.driver.stop()
        await loop

    play(scene)


def test_the_strategy_steps_by_what_the_hook_returned_and_not_by_the_mean(tmp_path: Path) -> None:
    world = World(tmp_path)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    class Watched(InProcessHost):
        async def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
            reply = await super()._exchange(request)
            seen.append((np.load(request["delta"]["path"]), np.load(reply["delta"]["path"])))
            return reply

    play(lambda: whole_run(world, Watched(), stop_at=1))  # type: ignore[arg-type, return-value]
    zero, one = (
        np.frombuffer(world.blobs.open(each.full.digest).map(), "<f4") for each in world.store.versions()[:2]
    )
    mean, returned = seen[0]
    where = load("synthetic", METHOD).declare().spec.groups["encoder"]
    # The first step of server momentum is the delta itself; float16 rounds it a little.
    assert np.abs(one - zero - returned)[where].max() < 3e-5
    assert np.abs(one - zero - mean)[where].max() > 3e-4


def test_what_an_abandoned_attempt_collected_does_not_reach_the_next_ones_hook(
    tmp_path: Path, reference: list[tuple[Any, ...]]
) -> None:
    world = World(tmp_path, elastic=True)

    async def scene() -> None:
        subject = await world.start()
        loop = asyncio.ensure_future(subject.driver.run())
        session = await subject.attendance.attach(HELLO)
        first = trains(session)[-1]
        assert await deliver(subject, session, first, ["d", "a"]) == ["accepted", "accepted"]
        await until(lambda: trains(session)[-1].attempt > 1)
        assert world.store.attempts()[-1].outcome == "abandoned"
        # (On a slow machine a whole attempt may come too late as well.)
        while subject.machine.state.version < 1:
            newest = trains(session)[-1]
            with contextlib.suppress(ClientFault):
                await deliver(subject, session, newest, list(CLIENTS))
            await until(
                lambda: subject.machine.state.version > 0 or trains(session)[-1] is not newest  # noqa: B023
            )
        subject.driver.stop()
        await loop

    play(scene)
    assert world.history()[1] == reference[1]
