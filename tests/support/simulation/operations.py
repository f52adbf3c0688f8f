"""What can happen to a federation: each operation is a small frozen record, so that a failing list reads as a script.

A list of operations is carried out one after the other; `Wait` lets time pass between them. Faults that wait for a
message or a write are armed by their operation and strike later, if at all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from simulation.guarded import DeathPoint
from simulation.net.network import Act, Fault
from simulation.world import World
from ssd_proto.v1 import operator_pb2 as pb


class Operation(Protocol):
    """Something that happens."""

    async def apply(self, world: World) -> None:
        """Let it happen."""
        ...


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: float

    async def apply(self, world: World) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Join:
    """A worker that was down comes up."""

    worker: str

    async def apply(self, world: World) -> None:
        world.start_worker(self.worker)


@dataclass(frozen=True)
class Leave:
    """A worker ends in good order, and stays down until it joins or the faults stop."""

    worker: str

    async def apply(self, world: World) -> None:
        await world.stop_worker(self.worker)


@dataclass(frozen=True)
class Crash:
    """A worker's process dies; it keeps its disk and is started again."""

    worker: str

    async def apply(self, world: World) -> None:
        world.crash(self.worker)


@dataclass(frozen=True)
class CrashAtWrite:
    """A worker's process dies at its n-th write from now, before or after it."""

    worker: str
    count: int
    after: bool = False

    async def apply(self, world: World) -> None:
        worker = world.places[self.worker].worker
        if worker is not None:
            worker.writes.points.append(DeathPoint(self.count, self.after))


@dataclass(frozen=True)
class LoseDisk:
    """A worker comes back with an empty disk."""

    worker: str

    async def apply(self, world: World) -> None:
        await world.lose_disk(self.worker)


@dataclass(frozen=True)
class Strike:
    """A fault waits for a message of a worker's calls; see `simulation.network.Fault`."""

    act: Act
    worker: str
    method: str = ""
    up: bool = True
    kind: str = ""
    count: int = 1
    seconds: float = 0.0

    async def apply(self, world: World) -> None:
        world.network.faults.append(
            Fault(self.act, self.worker, self.method, self.up, self.kind, self.count, self.seconds)
        )


@dataclass(frozen=True)
class Kill:
    """The coordinator dies now, and is started again after a while."""

    down_seconds: float = 1.0

    async def apply(self, world: World) -> None:
        world.down_seconds = self.down_seconds
        world.kill_coordinator()


@dataclass(frozen=True)
class KillAtWrite:
    """The coordinator dies at its n-th write from now (of that name, if there is one), before or after it."""

    count: int
    after: bool = False
    name: str = ""
    down_seconds: float = 1.0

    async def apply(self, world: World) -> None:
        world.down_seconds = self.down_seconds
        world.death_points.append(DeathPoint(self.count, self.after, self.name))


@dataclass(frozen=True)
class DiskFull:
    """No room for so many seconds; `worker` empty: the coordinator's disk."""

    seconds: float
    worker: str = ""

    async def apply(self, world: World) -> None:
        _medium(world, self.worker).full_until = world.loop.time() + self.seconds


@dataclass(frozen=True)
class DiskReadOnly:
    """Every write of the coordinator fails for so many seconds."""

    seconds: float

    async def apply(self, world: World) -> None:
        world.medium.read_only_until = world.loop.time() + self.seconds


@dataclass(frozen=True)
class DiskSlow:
    """For so many seconds each piece of work with the disk takes `each` seconds."""

    seconds: float
    each: float
    worker: str = ""

    async def apply(self, world: World) -> None:
        medium = _medium(world, self.worker)
        medium.slow_until, medium.seconds_per_write = world.loop.time() + self.seconds, self.each


@dataclass(frozen=True)
class SetClock:
    """Somebody sets the coordinator's wall clock."""

    seconds: float

    async def apply(self, world: World) -> None:
        world.clock.jumped += self.seconds


@dataclass(frozen=True)
class Pause:
    """The operator pauses the run."""

    async def apply(self, world: World) -> None:
        await world.operator("Pause", pb.PauseRequest(), pb.PauseReply)


@dataclass(frozen=True)
class Resume:
    """The operator resumes it."""

    async def apply(self, world: World) -> None:
        await world.operator("Resume", pb.ResumeRequest(), pb.ResumeReply)


@dataclass(frozen=True)
class Drain:
    """The operator drains the coordinator, which ends when its round does; it is started again."""

    async def apply(self, world: World) -> None:
        await world.operator("Drain", pb.DrainRequest(), pb.DrainReply)


@dataclass(frozen=True)
class Revoke:
    """The operator revokes a client."""

    client: str

    async def apply(self, world: World) -> None:
        world.revoked.add(self.client)
        await world.operator("Revoke", pb.RevokeRequest(client=self.client), pb.RevokeReply)


@dataclass(frozen=True)
class Move:
    """A client and its state move to another worker."""

    client: str
    worker: str

    async def apply(self, world: World) -> None:
        await world.move(self.client, self.worker)


def _medium(world: World, worker: str):
    return world.places[worker].medium if worker else world.medium
