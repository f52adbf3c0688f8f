"""A whole worker, in process but for its training child, attached to a `FakeCoordinator`."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.policy import ParticipantPolicy
from wire.fake_coordinator import FakeCoordinator
from worker.core.backoff import Backoff
from worker.core.state import SecureTerms, Session
from worker.driver import Driver
from worker.rpc.channels import Channels
from worker.rpc.client import MAX_MESSAGE_BYTES, Greeting, GrpcTransport
from worker.secure_aggregation.identity import SecureIdentity
from worker.secure_aggregation.rounds import SecureSettings
from worker.store.sqlite import SqliteStore
from worker.telemetry.metrics import Metrics
from worker.training.process import ProcessTrainer, TrainerSettings


class QuickClock:
    """Real waits, but never long ones, and no chance."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def uniform(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, 0.2))


class Worker:
    """A running worker; `crash` ends it like kill -9 would: nothing is finished, nothing is said."""

    def __init__(self, driver: Driver, store: SqliteStore, trainer: Any, metrics: Metrics) -> None:
        self.driver = driver
        self.store = store
        self.trainer = trainer
        self.metrics = metrics
        self.task = asyncio.create_task(driver.run())

    async def stop(self) -> None:
        self.driver.stop()
        await asyncio.wait_for(self.task, 20)
        self.store.close()

    async def crash(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.store.close()

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.01)


def start_worker(
    target: str,
    state_dir: Path,
    clients: Sequence[str],
    *,
    max_versions: int = 2,
    name: str = "w1",
    terms: SecureTerms | None = None,
    secure: SecureSettings | None = None,
    trainer: Callable[[SqliteStore, Driver], Any] | None = None,
) -> Worker:
    store = SqliteStore(state_dir)
    stored = store.load_run(store.current_run())
    metrics = Metrics("test")
    trainers: list[Any] = []

    def make_trainer(driver: Driver) -> Any:
        if trainer is not None:
            trainers.append(trainer(store, driver))
            return trainers[0]
        settings = TrainerSettings(device="cpu", stop_seconds=1.0, log_level="warning")
        trainers.append(ProcessTrainer(settings, store, driver.post, driver.progress))
        return trainers[0]

    greeting = Greeting(
        worker=name,
        instance=store.instance_id(),
        build="test",
        evaluates=True,
        labels=False,
        client_tests=False,
        device=lambda: ("cpu", 0),
    )
    session = Session(
        clients={client: stored.rounds.get(client, 0) for client in clients},
        adds_up=True,
        run_id=stored.run_id,
        held={finished.key: finished for finished in stored.held},
        versions=dict(stored.versions),
        level=stored.level,
        summed=stored.summed,
        max_versions=max_versions,
        backoff=Backoff(first=0.1, cap=0.4),
        terms=terms or SecureTerms(),
    )
    channels = Channels(folder=None, max_message_bytes=MAX_MESSAGE_BYTES, now=lambda: dt.datetime.now(dt.UTC))
    transport = GrpcTransport(target, channels, greeting, metrics.moved)
    secure = secure or SecureSettings(
        policy=ParticipantPolicy(level=Level.PASSIVE),
        identity=SecureIdentity(name=name, folder=state_dir / "identity"),
    )
    driver = Driver(session, store, transport, make_trainer, QuickClock(), metrics, secure)
    return Worker(driver, store, trainers[0], metrics)


@asynccontextmanager
async def federation(
    state_dir: Path, clients: Sequence[str], config: dict[str, object] | None = None
) -> AsyncIterator[tuple[FakeCoordinator, Worker]]:
    """A fake coordinator and one worker that has begun to attend it."""
    coordinator = FakeCoordinator(config)
    await coordinator.start()
    worker = start_worker(coordinator.target, state_dir, clients)
    try:
        yield coordinator, worker
    finally:
        if not worker.task.done():
            await worker.crash()
        await coordinator.stop()
