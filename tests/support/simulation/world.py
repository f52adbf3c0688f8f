"""A whole federation on virtual time: lives of the coordinator and of workers, and whoever starts them again."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.core.state import Phase
from coordinator.errors import StorageFailed as JournalFailed
from simulation.coordinator import Clock, Coordinator
from simulation.guarded import DeathPoint
from simulation.net.channels import ask
from simulation.net.network import Network
from simulation.net.uploads import Uploads
from simulation.processes import Died, Medium, Process, watch
from simulation.setting import Setting
from simulation.virtual_time import VirtualLoop
from simulation.worker import Worker
from ssd_proto.v1 import operator_pb2 as pb
from worker.errors import RefusedForGood, StorageFailed, TransferRefused
from worker.store.move_client import export_client, import_client
from worker.store.sqlite import SqliteStore

START_SECONDS = 0.05
"""Workers start so much later than the coordinator, so that the first dial of an undisturbed run finds it."""
RESTART_SECONDS = 1.0
LIVENESS_SECONDS = 900.0
"""Once faults have stopped, the run is over within this (virtual)."""
SETTLING_SECONDS = 120.0
"""Once the run is over, every worker knows it within this (virtual)."""


class Stuck(AssertionError):
    """The federation did not get where it has to get."""


@dataclass
class Place:
    """A worker's host: its disk outlives its processes."""

    name: str
    state_dir: Path
    clients: tuple[str, ...]
    medium: Medium = field(default_factory=Medium)
    worker: Worker | None = None
    wanted: bool = True
    lost_disk: bool = False
    refused: bool = False
    """Whether the coordinator will never take it again."""
    ended: list[str] = field(default_factory=list)
    """Why processes of it ended, but for deaths."""


class World:
    """One simulated federation. Operations (`simulation.operations`) do things to it."""

    def __init__(self, setting: Setting, root: Path, loop: VirtualLoop) -> None:
        self.setting = setting
        self.root = root
        self.loop = loop
        self.defects: list[str] = []
        watch(loop, self.defects)
        self.network = Network(
            loop, random.Random(setting.seed), setting.jitter_seconds, defects=self.defects
        )
        self.clock = Clock(loop)
        self.medium = Medium()
        self.coordinator: Coordinator | None = None
        self.lives = 0
        self.down_seconds = RESTART_SECONDS
        self.death_points: list[DeathPoint] = []
        """For the coordinator's present life or, if it is down, the next."""
        self.places = {name: Place(name, root / name, clients) for name, clients in setting.hosts}
        self.revoked: set[str] = set()
        self.moved_without_state: set[str] = set()
        self.committed: list[tuple[int, str]] = []
        """(version, digest) in the order the journal took them, over all lives."""
        self.uploads = Uploads(lambda: self.lives)
        self.network.observers.append(self.uploads.saw)
        self.coordinator_tracing: Callable[[], Any] = lambda: None
        self.worker_tracing: Callable[[str], Any] = lambda name: None
        self._keepers: list[asyncio.Task[None]] = []
        self._closing = False

    # ------------------------------------------------------------------------------------------------ supervision

    def begin(self) -> None:
        """Start everything, and start again what ends."""
        self._keep(self._keep_coordinator())
        for place in self.places.values():
            self._keep(self._keep_worker(place))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._keepers.append(asyncio.ensure_future(work))

    async def _keep_coordinator(self) -> None:
        while not self._closing:
            self.lives += 1
            process = Process(f"coordinator {self.lives}", self.loop, self.medium)
            life = self.coordinator = Coordinator(
                self.root / "coordinator",
                self.setting.tables(),
                self.loop,
                self.network,
                self.clock,
                process,
                self.coordinator_tracing(),
            )
            life.writes.points = self.death_points
            life.writes.after = self._wrote
            await asyncio.wait(
                {life.task, asyncio.ensure_future(_death(process))}, return_when="FIRST_COMPLETED"
            )
            if not process.dead:
                error = life.task.exception()
                if error is not None and not isinstance(error, JournalFailed):
                    self.defects.append(f"the coordinator ended: {error!r}")
                process.die()
            await process.buried()
            self.coordinator = None
            self.death_points = []
            await asyncio.sleep(self.down_seconds)

    def _wrote(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "commit":
            self.committed.append((arguments[0].number, arguments[0].model_digest))

    async def _keep_worker(self, place: Place) -> None:
        await asyncio.sleep(START_SECONDS)
        while not self._closing:
            if not place.wanted:
                await asyncio.sleep(RESTART_SECONDS)
                continue
            process = Process(place.name, self.loop, place.medium)
            try:
                life = place.worker = Worker(
                    place.name,
                    place.state_dir,
                    place.clients,
                    self.loop,
                    self.network,
                    process,
                    self.setting.training_seconds,
                    self.worker_tracing(place.name),
                )
            except Died:
                continue
            await asyncio.wait(
                {life.task, asyncio.ensure_future(_death(process))}, return_when="FIRST_COMPLETED"
            )
            if not process.dead:
                error = life.task.exception()
                if isinstance(error, RefusedForGood):
                    place.wanted, place.refused = False, True
                elif error is not None and not isinstance(error, StorageFailed):
                    self.defects.append(f"worker {place.name} ended: {error!r}")
                place.ended.append("" if error is None else str(error))
                process.die()
            await process.buried()
            life.store.close()
            place.worker = None
            await asyncio.sleep(RESTART_SECONDS)

    # ---------------------------------------------------------------------------------------- what operations need

    def kill_coordinator(self) -> None:
        """As by `kill -9`."""
        if self.coordinator is not None:
            self.coordinator.process.die()

    def crash(self, name: str) -> None:
        """A worker's process ends as by `kill -9`; it is started again."""
        worker = self.places[name].worker
        if worker is not None:
            worker.process.die()

    async def stop_worker(self, name: str) -> None:
        """A worker ends in good order and stays down."""
        place = self.places[name]
        place.wanted = False
        if place.worker is not None:
            place.worker.driver.stop()
        await self.until(lambda: place.worker is None, 60.0, f"worker {name} stops")

    def start_worker(self, name: str) -> None:
        """A worker that is down comes up."""
        self.places[name].wanted = True

    async def lose_disk(self, name: str) -> None:
        """A worker's process dies, and its disk with it; it comes back with an empty one."""
        place = self.places[name]
        wanted, place.wanted = place.wanted, False
        self.crash(name)
        await self.until(lambda: place.worker is None, 60.0, f"worker {name} is gone")
        shutil.rmtree(place.state_dir, ignore_errors=True)
        place.lost_disk = True
        place.wanted = wanted

    async def operator(self, method: str, request: Any, reply: Any, *, patience: float = 0.0) -> Any:
        """Ask once, or until `patience` seconds are over; the reply, or the refusal in words."""
        until = self.loop.time() + patience
        while True:
            answer = await ask(self.network, method, request, reply)
            if not isinstance(answer, str) or self.loop.time() >= until:
                return answer
            await asyncio.sleep(1.0)

    async def move(self, client: str, to: str) -> None:
        """Take a client with its state to another worker; nothing happens while an update of it is open."""
        old = next(place for place in self.places.values() if client in place.clients)
        new = self.places[to]
        if old is new:
            return
        await self.stop_worker(old.name)
        await self.stop_worker(new.name)
        if self._carry(client, old, new):
            old.clients = tuple(each for each in old.clients if each != client)
            new.clients = (*new.clients, client)
            self.start_worker(old.name)
            request = pb.MoveClientRequest(client=client, worker=to)
            answer = await self.operator("MoveClient", request, pb.MoveClientReply, patience=300.0)
            if isinstance(answer, str):
                raise Stuck(f"client {client} cannot be moved to {to}: {answer}")
        self.start_worker(old.name)
        self.start_worker(new.name)

    def _carry(self, client: str, old: Place, new: Place) -> bool:
        parcel = self.root / f"{client}.safetensors"
        source = SqliteStore(old.state_dir)
        try:
            export_client(source, client, parcel, remove=True)
        except TransferRefused:
            return False
        finally:
            source.close()
        target = SqliteStore(new.state_dir)
        try:
            import_client(target, parcel)
        finally:
            target.close()
        return True

    # ------------------------------------------------------------------------------------------------- to the end

    async def until(self, what: Callable[[], bool], seconds: float, words: str) -> None:
        """Wait for something that has to happen.

        Raises:
            Stuck: it did not, within so many virtual seconds.
        """
        deadline = self.loop.time() + seconds
        while not what():
            if self.loop.time() >= deadline:
                raise Stuck(f"{words}: not within {seconds:g} s; {self.describe()}")
            await asyncio.sleep(0.25)

    async def calm(self) -> None:
        """From now on nothing goes wrong any more, and everything that was stopped comes back."""
        self.network.faults.clear()
        self.death_points.clear()
        self.medium.mend()
        self.down_seconds = RESTART_SECONDS
        for place in self.places.values():
            place.medium.mend()
            if place.worker is not None:
                place.worker.writes.points.clear()
            place.wanted = not place.refused
        answer = await self.operator("Resume", pb.ResumeRequest(), pb.ResumeReply, patience=120.0)
        if isinstance(answer, str):
            raise Stuck(f"the run cannot be resumed: {answer}")

    async def over(self) -> None:
        """Return when the run is over, and everybody knows."""
        await self.until(self._finished, LIVENESS_SECONDS, "the run finishes")
        await self.until(self._settled, SETTLING_SECONDS, "the workers hear of the last commit")

    async def finish(self) -> None:
        """Let the run come to its end, and stop everything in good order."""
        await self.over()
        self._closing = True
        for name in self.places:
            await self.stop_worker(name)
        assert self.coordinator is not None
        assert self.coordinator.parts is not None
        self.coordinator.parts.driver.stop()
        await self.until(lambda: self.coordinator is None, 60.0, "the coordinator stops")
        await asyncio.wait(self._keepers)
        for keeper in self._keepers:
            keeper.result()

    def _finished(self) -> bool:
        for keeper in self._keepers:
            if keeper.done():
                keeper.result()
        parts = None if self.coordinator is None else self.coordinator.parts
        return parts is not None and parts.machine.state.phase is Phase.FINISHED

    def _settled(self) -> bool:
        parts = None if self.coordinator is None else self.coordinator.parts
        if parts is None:
            return False
        rounds = parts.reports.inclusions.last_rounds
        for place in self.places.values():
            if not place.wanted:
                continue
            if place.worker is None:
                return False
            session = place.worker.driver.session
            for client in place.clients:
                if session.clients.get(client, 0) != rounds.get(client, 0):
                    return False
            if session.held:
                return False
        return True

    def describe(self) -> str:
        """Where everybody stands, for a failure's sentence."""
        parts = None if self.coordinator is None else self.coordinator.parts
        told = ["the coordinator is down"] if parts is None else [f"coordinator: {parts.machine.state}"]
        for place in self.places.values():
            if place.worker is None:
                told.append(f"{place.name} is down ({place.ended[-1:]})")
            else:
                told.append(f"{place.name}: {place.worker.driver.session}")
        return "\n".join(told)


async def _death(process: Process) -> None:
    """Returns when the process has died."""
    died = asyncio.Event()
    process.on_death.append(died.set)
    if not process.dead:
        await died.wait()
