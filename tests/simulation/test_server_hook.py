"""Whole runs of a method with a server hook, in one process: the driver, its host, and a worker that trains."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.composition import compose
from coordinator.config.derived import plan_of, policy_of, settings_of
from coordinator.config.new_run import new_run_of
from coordinator.config.sections import CoordinatorConfig
from coordinator.core import events
from coordinator.core.state import Phase
from coordinator.core.strategies.registry import create
from coordinator.errors import BlobCorrupt, ClientFault, HookFailed, MethodHostFailed, Reason
from coordinator.identity.revocations import NobodyRevoked
from coordinator.parts import Coordinator, Given
from coordinator.rounds.restore import restore
from coordinator.rounds.run_lifecycle import create_run
from coordinator.runtime.clock import SystemClock
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.files.staging import BudgetedStaging
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.telemetry.metrics import CoordinatorMetrics
from coordinator.telemetry.tracing import NoTracing
from coordinator.versions.next_version import VersionMaker
from coordinator.workers.sessions import Session
from rounds.in_process_host import InProcessHost
from ssd.digest import CHUNK_BYTES, chunk_digests
from ssd.method.protocol import ClientTask
from ssd.method.registry import load
from ssd.updates.codec import Encoding
from ssd.updates.declaration import Declaration
from ssd.updates.fold import Fold, encode_update
from ssd_wire.messages import BlobRef, Hello, Train
from ssd_wire.uploads import Envelope, UploadKind, WeightedClient

CLIENTS = ("a", "b", "c", "d")
HELLO = Hello(worker="w", instance="0" * 32, clients=dict.fromkeys(CLIENTS, 0))
METHOD = {"parameters": 200, "hook": True, "collect": True, "state": False}
ROUNDS = 3
Before = Callable[[Mapping[str, Any]], None]


class World:
    """What outlives a coordinator: its store and its blobs."""

    def __init__(self, root: Path, *, full_versions: int = 3, elastic: bool = False) -> None:
        self.root = root
        self.store = SqliteJournal(root)
        self.blobs = FileBlobs(root)
        self.config = CoordinatorConfig.model_validate(
            {
                "coordinator": {"state_dir": root},
                "transport": {"insecure": True},
                "run": {
                    "mode": "elastic" if elastic else "reproducible",
                    "rounds": ROUNDS,
                    "clients": CLIENTS,
                },
                "round": {
                    "cohort_size": len(CLIENTS),
                    "min_updates": len(CLIENTS),
                    "deadline_seconds": 1.5,
                    "retry_seconds": 0.05,
                },
                "limits": {"min_free_bytes": 0},
                "evaluation": {"every": 0},
                "retention": {"full_versions": full_versions, "deltas": 0},
                "method": {"name": "synthetic", "config": METHOD},
            }
        )

    async def start(self, host: InProcessHost | None = None) -> Coordinator:
        """A coordinator as a process would start it."""
        host, clock = host or InProcessHost(), SystemClock()
        run = self.store.current_run() or await create_run(
            new_run_of(self.config), self.store, self.blobs, InProcessHost(), clock
        )
        declaration = Declaration.from_json(run.declaration)
        strategy = create("momentum", learning_rate=1.0, momentum=0.5)
        subject = compose(
            Given(
                record=run,
                declaration=declaration,
                plan=plan_of(declaration, self.config),
                maker=VersionMaker(declaration, strategy, Encoding.FLOAT16, self.blobs),
                state=restore(policy_of(self.config, declaration), self.store, clock, proven=False),
                settings=settings_of(self.config),
                journal=self.store,
                blobs=self.blobs,
                staging=BudgetedStaging(self.root / "staging", 1 << 20, 1 << 20),
                host=host,
                state_dir=self.root,
                clock=clock,
                revocations=NobodyRevoked(),
                metrics=CoordinatorMetrics(),
                tracing=NoTracing(),
            )
        )
        subject.catalogue.verify_newest()
        return subject

    def history(self) -> list[tuple[Any, ...]]:
        """All that the commits left behind."""
        return [
            (
                each.model_digest,
                dict(each.server_state),
                each.artefacts,
                each.figures.statistics.get("hook_calls"),
            )
            for each in self.store.versions()
        ]


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # a condition on state that has no event of its own
        await asyncio.sleep(0.005)


def read(subject: Coordinator, blob: BlobRef) -> bytes:
    """A blob as a worker fetches it."""
    reader = subject.catalogue.open_blob(blob.digest)
    try:
        return reader.read(0, blob.size)
    finally:
        reader.close()


def bodies(subject: Coordinator, train: Train) -> dict[str, tuple[bytes, int]]:
    """What a worker makes of a task."""
    method = load("synthetic", subject.reports.facts.declaration.config)
    base = np.frombuffer(read(subject, train.base.full), "<f4")
    artefacts = {
        each.name: np.frombuffer(read(subject, each.blob), "<f4").reshape(each.shape)
        for each in train.artefacts
    }
    made = {}
    for client in (each.client for each in train.clients):
        task = ClientTask(
            run_seed=train.run_seed,
            round=train.round,
            rounds=train.rounds,
            client_id=client,
            base=base,
            artefacts=artefacts,
        )
        result = method.train(task, None, lambda *seen: None)
        made[client] = (
            bytes(encode_update(subject.quality.plain, result.delta, result.statistics)),
            result.weight,
        )
    return made


def envelope(
    subject: Coordinator, train: Train, body: bytes, weights: dict[str, int], *, fold: bool
) -> Envelope:
    return Envelope(
        run_id=subject.reports.facts.record.run_id,
        round=train.round,
        attempt=train.attempt,
        base_digest=train.base.model_digest,
        spec_digest=subject.reports.facts.declaration.spec.digest,
        task_digest=train.task_digest,
        kind=UploadKind.FOLD if fold else UploadKind.UPDATE,
        clients=tuple(WeightedClient(client=client, weight=weight) for client, weight in weights.items()),
        body_size=len(body),
        chunk_digests=chunk_digests(body),
    )


async def deliver(subject: Coordinator, session: Session, train: Train, order: list[str]) -> list[str]:
    """Upload each client alone, in this order; the fates."""
    fates = []
    made = bodies(subject, train)
    for client in order:
        body, weight = made[client]
        assert len(body) <= CHUNK_BYTES
        sent = envelope(subject, train, body, {client: weight}, fold=False)
        subject.uploads.let_in(session, sent)
        upload = subject.in_flight.claim(session.worker, sent)
        assert upload is not None
        upload.take(0, body)
        fates.append((await subject.verification.judge(session, upload)).fate.value)
    return fates


def trains(session: Session) -> list[Train]:
    return [each for each in session.outbox._queue if isinstance(each, Train)]  # type: ignore[attr-defined]


async def work_through(subject: Coordinator, seed: int, *, stop_at: int = ROUNDS) -> None:
    """Attend, and train every round up to version `stop_at`."""
    chance = random.Random(seed)
    session = await subject.attendance.attach(HELLO)
    while subject.machine.state.version < stop_at and subject.machine.state.phase is not Phase.HALTED:
        wanted = subject.machine.state.version + 1
        await until(lambda: bool(trains(session)) and trains(session)[-1].round == wanted)  # noqa: B023
        train = trains(session)[-1]
        order = [each.client for each in train.clients]
        chance.shuffle(order)
        assert set(await deliver(subject, session, train, order)) <= {"accepted"}
        await until(
            lambda: subject.machine.state.version >= wanted or subject.machine.state.phase is Phase.HALTED  # noqa: B023
        )


async def whole_run(
    world: World, host: InProcessHost | None = None, seed: int = 0, **options: int
) -> Coordinator:
    subject = await world.start(host)
    loop = asyncio.ensure_future(subject.driver.run())
    try:
        await work_through(subject, seed, **options)
    finally:
        subject.driver.stop()
        await loop
    return subject


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
