"""The hook inside a commit: a pure function of base, state and set, that no death and no full disk can change."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.errors import HookFailed, MethodHostFailed, StorageFailed
from coordinator.method_host.hook import TRIES, Hooked, HookRunner
from coordinator.ports.blobs import Blobs
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.runtime.clock import SystemClock
from coordinator.runtime.durable_writes import DurableWrites
from coordinator.store.files.blobs import FileBlobs
from coordinator.telemetry.metrics import CoordinatorMetrics
from rounds.in_process_host import InProcessHost
from ssd.method.protocol import ClientTask
from ssd.method.registry import load
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, FoldPlan, encode_update
from ssd_wire.messages import Artefact, BlobRef

T = TypeVar("T")
CONFIG = {"parameters": 300, "hook": True, "collect": True, "artefacts": {"fixed": [2, 2]}}
METHOD = load("synthetic", CONFIG)
DECLARATION = METHOD.declare()
PLAN = FoldPlan.create(DECLARATION, Encoding.FLOAT16, 10, 64)
CLIENTS = ("a", "b", "c", "d")
BASE = METHOD.initial(3, None)
WEIGHTS: dict[str, int] = {}
BODIES: dict[str, bytes] = {}
for name in CLIENTS:
    task = ClientTask(run_seed=3, round=1, rounds=9, client_id=name, base=BASE, artefacts=METHOD.artefacts(3))
    result = METHOD.train(task, None, lambda *seen: None)
    WEIGHTS[name] = result.weight
    BODIES[name] = bytes(encode_update(PLAN, result.delta, result.statistics))


def put(blobs: Blobs, content: bytes) -> BlobRef:
    writer = blobs.create()
    writer.write(content)
    return writer.finish()


class Scene:
    """A run at version 0 in a directory of its own."""

    def __init__(
        self, state_dir: Path, *, before: Callable[[Mapping[str, Any]], None] = lambda request: None
    ) -> None:
        self.state_dir = state_dir
        self.blobs = FileBlobs(state_dir)
        self.host = InProcessHost(before)
        self.durability = DurableWrites(SystemClock(), CoordinatorMetrics())
        run = RunRecord(
            run_id="run",
            created_at=0.0,
            config={"method": {"name": "synthetic"}},
            declaration=DECLARATION.to_json(),
            declaration_blob=BlobRef(digest="0" * 64, size=0),
            declaration_digest=DECLARATION.digest,
            artefacts=(
                Artefact(
                    name="fixed",
                    blob=put(self.blobs, METHOD.artefacts(3)["fixed"].tobytes()),
                    shape=(2, 2),
                ),
            ),
        )
        self.runner = HookRunner(
            run=run,
            declaration=DECLARATION,
            plan=PLAN,
            seed=3,
            host=self.host,
            blobs=self.blobs,
            durability=self.durability,
            state_dir=state_dir,
        )
        self.zero = VersionRecord(
            number=0, model_digest="m0", full=put(self.blobs, BASE.tobytes()), delta=None
        )

    async def reduce(self, order: tuple[str, ...] = CLIENTS, base: VersionRecord | None = None) -> Hooked:
        fold = Fold(PLAN)
        await self.runner.reset()
        for client in order:
            body = np.frombuffer(BODIES[client], np.uint8)
            await self.runner.collect(client, WEIGHTS[client], body)
            fold.add_update(body, WEIGHTS[client])
        return await self.runner.run(fold.open(), base or self.zero, rounds=9, values={"x": 1.5})

    def next(self, hooked: Hooked, number: int = 1) -> VersionRecord:
        return replace(
            self.zero,
            number=number,
            server_state={"residual": self.zero.full, **hooked.state},
            artefacts=hooked.artefacts,
        )


def play(work: Callable[[], Awaitable[T]]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(work(), 60)

    return asyncio.run(within())


def of(hooked: Hooked) -> tuple[Any, ...]:
    assert hooked.delta is not None
    return hooked.delta.tobytes(), dict(hooked.state), hooked.artefacts, dict(hooked.metrics)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    return of(play(Scene(tmp_path_factory.mktemp("expected")).reduce))


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(CLIENTS))
def test_the_order_of_arrival_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, expected: tuple[Any, ...], order: list[str]
) -> None:
    scene = Scene(tmp_path_factory.mktemp("order"))
    assert of(play(lambda: scene.reduce(tuple(order)))) == expected


def test_the_set_does(tmp_path: Path, expected: tuple[Any, ...]) -> None:
    hooked = play(lambda: Scene(tmp_path).reduce(CLIENTS[:-1]))
    assert of(hooked)[0] != expected[0]
    assert of(hooked)[2] != expected[2]


def test_the_next_hook_gets_what_this_one_left(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = play(scene.reduce)
    second = play(lambda: scene.reduce(base=scene.next(first)))
    assert (first.metrics, second.metrics) == ({"hook_calls": 1.0}, {"hook_calls": 2.0})
    stateless = replace(scene.next(first), server_state={})
    bare = replace(scene.next(first), artefacts=())
    assert (
        len({of(second)[0], *(of(play(lambda b=b: scene.reduce(base=b)))[0] for b in (stateless, bare))}) == 3
    )


def test_its_state_keeps_dtype_and_shape(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    seen: list[Mapping[str, Any]] = []
    scene.host._before = seen.append
    first = play(scene.reduce)
    assert set(first.state) == {"hook.calls", "hook.chain"}
    play(lambda: scene.reduce(base=scene.next(first)))
    assert [set(request["state"]) for request in seen] == [set(), {"calls", "chain"}]
    assert [set(request["artefacts"]) for request in seen] == [{"fixed"}, {"fixed", "drift"}]
    assert [request["round"] for request in seen] == [1, 2]


def test_nothing_is_left_on_the_disk(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    play(scene.reduce)
    play(scene.runner.reset)
    beside = [path for path in tmp_path.iterdir() if path.name != "blobs"]
    assert [path.name for path in beside] == ["collected"]
    assert list(beside[0].rglob("*")) == []
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


@pytest.mark.parametrize("deaths", range(TRIES))
def test_a_host_that_dies_is_asked_again(tmp_path: Path, expected: tuple[Any, ...], deaths: int) -> None:
    left = [MethodHostFailed("killed by signal 9")] * deaths

    def die(_: Mapping[str, Any]) -> None:
        if left:
            raise left.pop()

    assert of(play(Scene(tmp_path, before=die).reduce)) == expected


def test_a_host_that_always_dies_is_given_up_and_nothing_is_lost(
    tmp_path: Path, expected: tuple[Any, ...]
) -> None:
    asked: list[int] = []
    broken = True

    def die(request: Mapping[str, Any]) -> None:
        asked.append(request["round"])
        if broken:
            raise MethodHostFailed("killed by signal 9")

    async def work() -> tuple[Hooked, int]:
        nonlocal broken
        scene = Scene(tmp_path, before=die)
        blobs = scene.blobs.digests()
        with pytest.raises(HookFailed, match=rf"round 1 .* in {TRIES} tries: killed by signal 9"):
            await scene.reduce()
        assert len(asked) == TRIES
        assert scene.blobs.digests() == blobs
        assert "hook-" not in "".join(os.listdir(tmp_path))
        assert scene.host.closed == 1, "a repaired method must be read anew"
        broken = False
        # What was collected is still there: the same call again gives what it would have given.
        fold = Fold(PLAN)
        for client in CLIENTS:
            fold.add_update(BODIES[client], WEIGHTS[client])
        return await scene.runner.run(fold.open(), scene.zero, rounds=9, values={"x": 1.5}), len(asked)

    hooked, calls = play(work)
    assert of(hooked) == expected
    assert calls == TRIES + 1


def test_a_hook_that_raises_is_not_asked_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def fail(request: Mapping[str, Any]) -> None:
        asked.append(1)
        raise HookFailed("the server hook of method m failed")

    with pytest.raises(HookFailed, match="method m failed"):
        play(Scene(tmp_path, before=fail).reduce)
    assert asked == [1]


def test_the_reduced_delta_is_left_as_it_is(tmp_path: Path) -> None:
    fold = Fold(PLAN)
    for client in CLIENTS:
        fold.add_update(BODIES[client], WEIGHTS[client])
    opened = fold.open()
    before = opened.delta.copy()

    async def work() -> None:
        scene = Scene(tmp_path)
        for client in CLIENTS:
            await scene.runner.collect(client, WEIGHTS[client], np.frombuffer(BODIES[client], np.uint8))
        await scene.runner.run(opened, scene.zero, rounds=9, values={})

    play(work)
    assert np.array_equal(opened.delta, before)


@pytest.mark.parametrize("where", ["mkdtemp", "mkdir", "a host that cannot write"])
def test_a_full_disk_is_waited_for(
    tmp_path: Path,
    expected: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    monkeypatch.setattr("coordinator.runtime.durable_writes.RETRY_SECONDS", 0.01)
    refusals = 3

    def refuse() -> bool:
        nonlocal refusals
        refusals -= 1
        return refusals >= 0

    def host(_: Mapping[str, Any]) -> None:
        if where == "a host that cannot write" and refuse():
            raise StorageFailed("the disk is full")

    scene = Scene(tmp_path, before=host)
    if where != "a host that cannot write":
        target = "tempfile.mkdtemp" if where == "mkdtemp" else "pathlib.Path.mkdir"
        original = __import__("tempfile").mkdtemp if where == "mkdtemp" else Path.mkdir

        def full(*arguments: Any, **options: Any) -> Any:
            if refuse():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **options)

        monkeypatch.setattr(target, full)
    assert of(play(scene.reduce)) == expected
    assert refusals < 0
    assert scene.durability.trouble == ""


def test_a_metric_may_not_take_the_name_of_a_figure_every_version_has(tmp_path: Path) -> None:
    for name in ("seconds", "loss", "quality_h_other", "privacy_epsilon"):
        scene = Scene(tmp_path)
        original = scene.host._exchange

        async def renamed(request: Mapping[str, Any], original: Any = original, name: str = name) -> Any:
            return {**await original(request), "metrics": {name: 1.0}}

        scene.host._exchange = renamed  # type: ignore[method-assign]
        with pytest.raises(HookFailed, match=f"'{name}'"):
            play(scene.reduce)


def test_a_hook_that_never_ends_is_told_of_and_can_be_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.method_host.hook.SLOW_SECONDS", 0.02)

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        scene = Scene(tmp_path)
        monkeypatch.setattr(scene.host, "after_reduce", never)
        others = asyncio.all_tasks()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scene.reduce(), 0.5)
        assert asyncio.all_tasks() == others, "nothing goes on telling"

    play(work)
    assert caplog.messages.count("server_hook_slow") >= 2
    assert not list(tmp_path.glob("hook-*"))
