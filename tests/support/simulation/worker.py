"""A worker of a simulation: the product's driver, store, transport and training, without sockets and processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulation.guarded import WORKER_WRITES, GuardedMemory, Writes
from simulation.net.channels import MemoryChannels
from simulation.net.network import Network
from simulation.processes import Process
from simulation.virtual_time import VirtualLoop
from ssd.random_stream import RandomStream
from ssd.secagg.protocol.graph import Level
from ssd.secagg.protocol.policy import ParticipantPolicy
from ssd_wire.messages import Evaluate, TaskClient, Train, UpdateKey
from worker.core import events
from worker.core.finished import Finished
from worker.core.state import SecureTerms, Session
from worker.driver import Driver
from worker.errors import StorageFailed, TaskFault
from worker.ports import Post, PreparedTask
from worker.rpc.client import Greeting, GrpcTransport
from worker.secure_aggregation.identity import SecureIdentity
from worker.secure_aggregation.rounds import SecureSettings
from worker.store.sqlite import SqliteStore
from worker.telemetry.metrics import Metrics
from worker.telemetry.tracing import NoTracing, Tracing
from worker.training.client_data import ClientData
from worker.training.process import fold_written, task_order
from worker.training.together import GrowingFold
from worker.training.train import MethodCache, describe_failure, train, train_client


class WorkerClock:
    """`worker.ports.Clock`: virtual time, and chance from a stream of our own."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self._loop = loop
        self._stream = RandomStream("simulated worker", name)

    def monotonic(self) -> float:
        return self._loop.time()

    def uniform(self) -> float:
        return self._stream.uniform()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Trainer:
    """`worker.ports.Trainer`: what the training process does, here, at once, after `seconds(round, client)`."""

    device = "cpu"
    device_memory = 0
    device_memory_used = 0

    def __init__(
        self, store: Any, post: Post, process: Process, seconds: Callable[[int, str], float]
    ) -> None:
        self._store = store
        self._post = post
        self._process = process
        self._seconds = seconds
        self._methods = MethodCache({})
        self._data = ClientData(None, 1)
        self._job: asyncio.Task[None] | None = None
        self._fold: GrowingFold | None = None
        self._ending = False
        self._jobs = 0

    def busy_seconds(self) -> float:
        return 0.0

    async def train(self, task: Train, client: TaskClient, prepared: PreparedTask) -> None:
        self._job = asyncio.create_task(self._train(task, client, prepared))

    async def _train(self, task: Train, client: TaskClient, prepared: PreparedTask) -> None:
        await asyncio.sleep(self._seconds(task.round, client.client))
        self._process.alive()
        key = task.key(client.client)
        order = self._order(task, client, prepared)
        self._job = None
        try:
            made = train(order, self._methods, self._data, "cpu", lambda *_: None)
        except Exception as error:  # noqa: BLE001 - as the training process does
            self._post(_failed(key, error))
            return
        finished = Finished(
            key=key,
            weight=made["weight"],
            seconds=self._seconds(task.round, client.client),
            body_size=made["body_size"],
            chunk_digests=bytes.fromhex(made["chunk_digests"]),
            state_digest=made["state_digest"],
        )
        self._post(events.ClientTrained(finished=finished))

    def _order(self, task: Train, client: TaskClient, prepared: PreparedTask) -> Any:
        key, state = task.key(client.client), self._store.state_path(client.client)
        order = {**task_order(task, prepared), **_client(client)}
        order |= {
            "state": None if state is None else str(state),
            "state_out": str(self._store.pending_state_path(key)),
            "body_out": str(self._store.body_path(key)),
        }
        # Through JSON, as to the real process.
        return json.loads(json.dumps(order))

    async def train_together(
        self, task: Train, clients: Sequence[TaskClient], prepared: PreparedTask
    ) -> None:
        self._jobs += 1
        self._ending = False
        out = str(self._store.fold_path(f"{self._process.name}-{task.round}-{self._jobs}").with_suffix(""))

        def report(said: dict[str, Any]) -> None:
            self._post(fold_written(task.key(""), json.loads(json.dumps(said))))

        clock = asyncio.get_running_loop().time
        self._fold = GrowingFold(out, report, clock)
        self._job = asyncio.create_task(self._train_together(task, clients, prepared, self._fold))

    async def _train_together(
        self, task: Train, clients: Sequence[TaskClient], prepared: PreparedTask, fold: GrowingFold
    ) -> None:
        for client in clients:
            if self._ending:
                break
            await asyncio.sleep(self._seconds(task.round, client.client))
            self._process.alive()
            order = self._order(task, client, prepared)
            try:
                made = train_client(order, self._methods, self._data, "cpu", lambda *_: None)
                seconds = self._seconds(task.round, client.client)
                fold.add(order, replace(made, seconds=seconds))
            except Exception as error:  # noqa: BLE001 - as the training process does
                self._post(_failed(task.key(client.client), error))
                if isinstance(error, TaskFault) and error.whole_task:
                    break
            if client is not clients[-1]:
                fold.write_if_due()
        fold.close()
        self._fold = self._job = None
        self._post(events.TogetherEnded(key=task.key("")))

    async def end_together(self) -> None:
        self._ending = True
        if self._fold is not None:
            self._fold.close()

    async def evaluate(self, version: int, run_seed: int, prepared: PreparedTask) -> None:
        self._post(events.EvaluationEnded(version=version, values={"accuracy": 0.5}))

    async def evaluate_clients(self, evaluate: Evaluate, prepared: PreparedTask) -> None:
        self._post(events.EvaluationEnded(version=evaluate.version.number, error="not simulated", clients=()))

    async def stop(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self._job = None
        if self._fold is not None:
            self._fold.close()
            self._fold = None
        self._post(events.TrainingStopped())

    async def close(self) -> None:
        if self._job is not None:
            self._job.cancel()


def _failed(key: UpdateKey, error: Exception) -> events.ClientFailed:
    if isinstance(error, TaskFault):
        return events.ClientFailed(
            key=key, reason=error.reason, detail=str(error), whole_task=error.whole_task
        )
    reason, detail = describe_failure(error)
    return events.ClientFailed(key=key, reason=reason, detail=detail)


def _client(client: TaskClient) -> dict[str, Any]:
    return {
        "client": client.client,
        "scaling": None if client.scaling is None else client.scaling.to_json(),
    }


class Worker:
    """One life of a worker."""

    def __init__(
        self,
        name: str,
        state_dir: Path,
        clients: Sequence[str],
        loop: VirtualLoop,
        network: Network,
        process: Process,
        seconds: Callable[[int, str], float],
        tracing: Tracing | None = None,
    ) -> None:
        self.name = name
        self.process = process
        self.writes = Writes(process, loop.time, lambda said: StorageFailed(said, full="no space" in said))
        self.store = SqliteStore(state_dir)
        self.metrics = Metrics("simulated")
        guarded: Any = GuardedMemory(self.store, process, self.writes, WORKER_WRITES)
        process.on_death.append(lambda: network.hang_up(name))
        stored = self.store.load_run(self.store.current_run())
        greeting = Greeting(
            worker=name,
            instance=self.store.instance_id(),
            build="simulated",
            evaluates=False,
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
            newest=stored.newest,
            level=stored.level,
            summed=stored.summed,
            terms=SecureTerms(),
        )
        tracing = tracing or NoTracing()
        channels: Any = MemoryChannels(network, name, process)
        transport = GrpcTransport("coordinator", channels, greeting, self.metrics.moved, tracing)
        secure = SecureSettings(
            policy=ParticipantPolicy(level=Level.PASSIVE),
            identity=SecureIdentity(name=name, folder=state_dir / "identity"),
        )

        def trainer(driver: Driver) -> Any:
            return Trainer(guarded, driver.post, process, seconds)

        self.driver = Driver(
            session, guarded, transport, trainer, WorkerClock(loop, name), self.metrics, secure, tracing
        )
        self.task = process.spawn(self._live())

    async def _live(self) -> None:
        try:
            await self.driver.run()
        finally:
            self.store.close()
