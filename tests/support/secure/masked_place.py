"""A coordinator under secure aggregation and its workers, all in one process; either can die and come back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.core.strategies.registry import Rates, create
from coordinator.parts import Coordinator
from coordinator.secure_aggregation.round_sum import MaskedRoundSum
from coordinator.store.files.blobs import FileBlobs
from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.telemetry.tracing import Tracing
from coordinator.versions.next_version import VersionMaker
from rounds.driver_harness import driver
from secure.masked_worker import MaskedWorker, expected_sum
from ssd.trust.participants import Participant, Registry, introduce
from ssd.updates.codec import Encoding

CLIENTS = ("a", "b", "c", "d", "e", "f")
PATIENCE = 30.0
ELASTIC: dict[str, Any] = {
    "run": {"mode": "elastic"},
    "round": {"deadline_seconds": 1.0, "min_updates": 2},
    "secure_aggregation": {"phase_seconds": 0.3},
}


def registry_of(
    parts: Mapping[str, str], max_weight: int = 1 << 20
) -> tuple[Registry, dict[str, Ed25519PrivateKey]]:
    """A registry of these workers with their clients, and their keys."""
    signers = {
        name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()) for name in parts
    }
    introduced = [introduce("federation", name, key) for name, key in sorted(signers.items())]
    participants = tuple(
        Participant(
            worker=each["worker"],
            key=each["key"],
            proof=each["proof"],
            clients=tuple(parts[each["worker"]]),
            max_weight=max_weight,
        )
        for each in introduced
    )
    return Registry(federation="federation", version=1, issued_at=1, participants=participants), signers


class Crash(Exception):
    """The coordinator's process ended here."""


def die_at(holder: object, name: str, when: str, count: int = 1) -> None:
    """Let the `count`-th call of a method end the process, before or after it did anything; later ones work."""
    original, calls = getattr(holder, name), 0

    def fatal(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and when == "before":
            raise Crash(name)
        result = original(*args, **kwargs)
        if calls == count:
            raise Crash(name)
        return result

    setattr(holder, name, fatal)


class Place:
    """A coordinator that can be stopped and started again on the same state, and its workers."""

    def __init__(self, root: Path, *, rounds: int = 2, level: str = "passive", **changes: Any) -> None:
        self.root = root
        self.store, self.blobs = SqliteJournal(root), FileBlobs(root)
        self.changes: dict[str, dict[str, Any]] = {
            "run": {"rounds": rounds},
            "round": {"retry_seconds": 0.0},
            "secure_aggregation": {"level": level, "assumed_corrupt": 0.0, "tolerated_dropout": 0.34},
        }
        for table, values in changes.items():
            self.changes[table] = {**self.changes.get(table, {}), **values}
        self.level = level
        self.registry: Registry | None = None
        self.signers: dict[str, Ed25519PrivateKey] = {}
        self.tracing: Callable[[], Tracing | None] = lambda: None
        """Asked at every start: a process has its own."""
        self.subject: Coordinator | None = None
        self.loop: asyncio.Future[None] | None = None
        self.tasks: list[asyncio.Future[None]] = []

    def now(self) -> Coordinator:
        assert self.subject is not None
        return self.subject

    def start(self) -> Coordinator:
        self.subject = driver(
            self.root,
            self.store,
            clients=CLIENTS,
            changes=self.changes,
            blobs=self.blobs,
            participants=lambda: self.registry,
            tracing=self.tracing(),
        )
        self.loop = asyncio.ensure_future(self.subject.driver.run())
        return self.subject

    async def stop(self) -> None:
        self.now().driver.stop()
        assert self.loop is not None
        await self.loop
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []

    def begin(self, *workers: MaskedWorker) -> None:
        for worker in workers:
            worker.process = asyncio.ensure_future(worker.live())
            self.tasks.append(worker.process)

    async def stop_worker(self, worker: MaskedWorker) -> None:
        """End one worker's process, whatever it was at: its stream is gone, and its keys are."""
        assert worker.session is not None
        assert worker.process is not None
        # Not another step of it: the next process works with the same object.
        worker.process.cancel()
        await asyncio.wait((worker.process,))
        self.now().attendance.detach(worker.session)
        worker.session.close()
        worker._forget()

    async def crashed(self) -> None:
        """Wait until the coordinator died of what was planted in it; its workers notice."""
        assert self.loop is not None
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait((self.loop,))
        assert isinstance(self.loop.exception(), Crash)
        for session in self.now().sessions:
            session.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []

    def workers(self, parts: Mapping[str, str]) -> dict[str, MaskedWorker]:
        if self.level == "active":
            self.registry, self.signers = registry_of(parts)
        return {
            name: MaskedWorker(
                self.now, name, tuple(own), registry=self.registry, signer=self.signers.get(name)
            )
            for name, own in parts.items()
        }

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not what():
                for task in self.tasks:
                    if task.done() and not task.cancelled() and task.exception() is not None:
                        raise AssertionError("a worker failed") from task.exception()
                assert self.loop is not None
                assert not self.loop.done() or self.now().mailbox.stopping
                await asyncio.sleep(0.005)

    def digests(self) -> list[str]:
        return [version.model_digest for version in self.store.versions()]


def play(scene: Callable[[Place], Awaitable[None]], place: Place) -> None:
    async def run() -> None:
        place.start()
        try:
            await scene(place)
        finally:
            await place.stop()

    asyncio.run(run())


THREE = {"w1": "ab", "w2": "cd", "w3": "ef"}


def committed(place: Place, version: int) -> Callable[[], bool]:
    return lambda: place.now().machine.state.version >= version


def model_of(place: Place, accepted: Mapping[int, str]) -> list[str]:
    """The digests of a run whose rounds sum up these clients, computed without any protocol."""
    subject, versions = place.now(), place.store.versions()
    found = [versions[0].model_digest]
    for number, clients in sorted(accepted.items()):
        secure = subject.round_sum
        assert isinstance(secure, MaskedRoundSum)
        total = expected_sum(secure.plan(subject.quality.plan(number)), tuple(clients), number)
        facts = subject.reports.facts
        maker = VersionMaker(
            facts.declaration,
            create("average", Rates()),
            Encoding.FLOAT16,
            place.blobs,
        )
        before = versions[number - 1]
        made = maker.make(total.open(len(clients)), before.full, before.server_state, lambda write: write())
        found.append(made.model_digest)
    return found
