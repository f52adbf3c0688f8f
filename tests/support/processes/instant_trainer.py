"""A training process that takes no time: every client's update is a pure function of round and client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssd.digest import chunk_digests
from ssd.updates.fold import Fold, FoldPlan, encode_update
from ssd_wire.messages import TaskClient, Train
from worker.core import events
from worker.core.finished import Finished
from worker.ports import Post, PreparedTask, Store


def update_of(plan: FoldPlan, round_number: int, client: str) -> tuple[bytearray, int]:
    """Body and weight of a client's update."""
    seed = int.from_bytes(hashlib.sha256(f"{round_number} {client}".encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    delta = rng.normal(scale=0.01, size=plan.size).astype(np.float32)
    statistics = {each.name: rng.uniform(0, 0.5, each.shape) * each.max_abs for each in plan.statistics}
    return encode_update(plan, delta, statistics), int(rng.integers(1, 9))


class InstantTrainer:
    """`worker.ports.Trainer`. A client in `slow` is trained when its event is set; one in `broken` is not finite."""

    device = "cpu"
    device_memory = 0
    device_memory_used = 0

    def __init__(self, store: Store, post: Post, plan: Callable[[], FoldPlan]) -> None:
        self._store = store
        self._post = post
        self._plan = plan
        self.slow: dict[str, asyncio.Event] = {}
        self.broken: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def busy_seconds(self) -> float:
        return 0.0

    async def train(self, task: Train, client: TaskClient, _: PreparedTask) -> None:
        training = asyncio.create_task(self._train(task, client.client))
        self._tasks.add(training)
        training.add_done_callback(self._tasks.discard)

    async def _train(self, task: Train, client: str) -> None:
        if client in self.slow:
            await self.slow[client].wait()
        body, weight = update_of(self._plan(), task.round, client)
        if client in self.broken:
            body[:4] = np.float32(np.nan).tobytes()
        key = task.key(client)
        self._store.body_path(key).write_bytes(body)
        finished = Finished(
            key=key,
            weight=weight,
            seconds=0.5,
            body_size=len(body),
            chunk_digests=b"".join(chunk_digests(body)),
        )
        self._post(events.ClientTrained(finished=finished))

    async def train_together(self, task: Train, clients: Sequence[TaskClient], _: PreparedTask) -> None:
        training = asyncio.create_task(self._train_together(task, [each.client for each in clients]))
        self._tasks.add(training)
        training.add_done_callback(self._tasks.discard)

    async def _train_together(self, task: Train, clients: list[str]) -> None:
        fold, weights = Fold(self._plan()), {}
        for client in clients:
            if client in self.slow:
                await self.slow[client].wait()
            body, weight = update_of(self._plan(), task.round, client)
            if client in self.broken:
                failed = events.ClientFailed(key=task.key(client), reason="not_finite", detail="")
                self._post(failed)
                continue
            fold.verify_and_add(body, weight)
            weights[client] = weight
        if weights:
            body = fold.pack()
            name = f"fold-{task.round}-{clients[0]}-{len(clients)}"
            self._store.fold_path(name).write_bytes(body)
            finished = tuple(
                Finished(
                    key=task.key(client),
                    weight=weight,
                    seconds=0.5,
                    body_size=len(body),
                    chunk_digests=b"".join(chunk_digests(body)),
                    fold=name,
                    fold_clients=len(weights),
                )
                for client, weight in weights.items()
            )
            written = events.FoldWritten(
                key=task.key(""), finished=finished, added=frozenset(weights), closed=True
            )
            self._post(written)
        self._post(events.TogetherEnded(key=task.key("")))

    async def end_together(self) -> None:
        """What is trained here takes no time."""

    async def evaluate(self, *_: Any) -> None:
        raise AssertionError("nothing is evaluated here")

    evaluate_clients = evaluate

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._post(events.TrainingStopped())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
