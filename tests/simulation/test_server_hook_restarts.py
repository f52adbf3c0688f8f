"""A server hook that fails, runs long or leaves files behind: halts, restarts, retention."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.state import Phase
from coordinator.errors import BlobCorrupt, HookFailed, MethodHostFailed
from rounds.hook_world import (
    HELLO,
    ROUNDS,
    World,
    play,
    trains,
    until,
    whole_run,
    work_through,
)
from rounds.in_process_host import InProcessHost

Before = Callable[[Mapping[str, Any]], None]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    world = World(tmp_path_factory.mktemp("reference"))
    play(lambda: whole_run(world))  # type: ignore[arg-type, return-value]
    assert [calls for *_, calls in world.history()] == [None, 1.0, 2.0, 3.0]
    return world.history()


def failing(at: int, error: Exception, times: int = 1000) -> Before:
    left = times

    def before(request: Mapping[str, Any]) -> None:
        nonlocal left
        if request["op"] == "after_reduce" and request["round"] == at and left > 0:
            left -= 1
            raise error

    return before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (HookFailed("the server hook of method synthetic failed in round 2: no luck"), "no luck"),
        (MethodHostFailed("the method host died"), "in 3 tries: the method host died"),
    ],
)
def test_a_failing_hook_halts_the_run_and_resuming_goes_on_with_what_is_there(
    tmp_path: Path, reference: list[tuple[Any, ...]], error: Exception, said: str
) -> None:
    world = World(tmp_path)
    host = InProcessHost(failing(2, error))

    async def scene() -> None:
        subject = await world.start(host)
        loop = asyncio.ensure_future(subject.driver.run())
        await work_through(subject, 0)
        assert subject.machine.state.phase is Phase.HALTED
        assert said in subject.reports.status(0.0).waiting_for
        assert len(world.store.versions()) == 2
        assert world.store.attempts(1)[0].outcome == "closed"
        # Nobody is asked to train again, and what would change the set is refused.
        session = await subject.attendance.attach(HELLO)
        assert not trains(session)
        await subject.driver.operate(lambda now: events.ResumeRequested(now=now))
        assert subject.machine.state.phase is Phase.HALTED
        host._before = lambda request: None
        await subject.driver.operate(lambda now: events.ResumeRequested(now=now))
        await work_through(subject, 0)
        subject.driver.stop()
        await loop

    play(scene)
    assert world.history() == reference


def test_a_halted_commit_survives_a_restart(tmp_path: Path, reference: list[tuple[Any, ...]]) -> None:
    world = World(tmp_path)

    async def scene() -> None:
        halted = await whole_run(world, InProcessHost(failing(3, HookFailed("no luck"))))
        assert halted.machine.state.phase is Phase.HALTED
        assert len(world.store.versions()) == ROUNDS
        await whole_run(world, seed=5)

    play(scene)
    assert world.history() == reference


def test_the_loop_lives_while_a_hook_runs_and_a_stop_ends_it(
    tmp_path: Path, reference: list[tuple[Any, ...]]
) -> None:
    world = World(tmp_path)

    class Slow(InProcessHost):
        running = False

        async def _exchange(self, request: Mapping[str, Any]) -> dict[str, Any]:
            if request["op"] == "after_reduce" and request["round"] == 2:
                self.running = True
                await asyncio.sleep(3600)
            return await super()._exchange(request)

    async def scene() -> None:
        host = Slow()
        subject = await world.start(host)
        loop = asyncio.ensure_future(subject.driver.run())
        working = asyncio.ensure_future(work_through(subject, 0))
        await until(lambda: host.running)
        assert subject.driver.ready
        assert subject.reports.status(0.0).phase == "committing"
        await asyncio.sleep(0.05)
        assert host.running
        subject.driver.stop()
        await asyncio.wait_for(loop, 5)
        working.cancel()
        assert world.store.attempts(1)[0].outcome == "closed"
        assert not list(filter(lambda name: name.startswith("hook-"), _names(world.root)))
        await whole_run(world, seed=4)

    play(scene)
    assert world.history() == reference


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("full_versions", [1, 2])
def test_retention_keeps_round_artefacts_with_whole_versions_and_state_with_the_newest(
    tmp_path: Path, reference: list[tuple[Any, ...]], full_versions: int
) -> None:
    world = World(tmp_path, full_versions=full_versions)
    play(lambda: whole_run(world))  # type: ignore[arg-type, return-value]
    assert world.history() == reference
    kept = world.store.versions()[-full_versions:]
    run = world.store.current_run()
    assert run is not None
    wanted = {run.declaration_blob.digest, *(blob.digest for blob in kept[-1].server_state.values())}
    for version in kept:
        wanted |= {version.full.digest, *(made.blob.digest for made in version.artefacts)}
    deltas = {version.delta.digest for version in kept if version.delta}
    assert world.blobs.digests() - deltas == wanted


def test_a_start_removes_orphans_only_and_notices_a_damaged_artefact(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene() -> None:
        await whole_run(world, stop_at=2)
        before = world.blobs.digests()
        writer = world.blobs.create()
        writer.write(b"left by a crash")
        orphan = writer.finish()
        subject = await world.start()
        subject.catalogue.remove_orphans()
        assert world.blobs.digests() == before
        assert orphan.digest not in before
        damaged = subject.catalogue.newest.artefacts[0].blob.digest
        path = world.blobs.root / damaged[:2] / damaged
        path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(BlobCorrupt, match="round artefact 'drift'"):
            subject.catalogue.verify_newest()

    play(scene)
