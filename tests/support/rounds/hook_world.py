"""A coordinator with a server hook and workers that do what is asked, in one process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.composition import compose
from coordinator.config.derived import plan_of, policy_of, settings_of
from coordinator.config.new_run import new_run_of
from coordinator.config.sections import CoordinatorConfig
from coordinator.core.state import Phase
from coordinator.core.strategies.registry import Rates, create
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
from ssd.updates.fold import encode_update
from ssd_wire.messages import BlobRef, Hello, Train
from ssd_wire.uploads import Envelope, UploadKind, WeightedClient

CLIENTS = ("a", "b", "c", "d")


HELLO = Hello(worker="w", instance="0" * 32, clients=dict.fromkeys(CLIENTS, 0))


METHOD = {"parameters": 200, "hook": True, "collect": True, "state": False}


ROUNDS = 3


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
        strategy = create("momentum", Rates(momentum=0.5))
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
