"""Play a list of operations to the end and check what has to hold."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from simulation import virtual_time
from simulation.coordinator import threadless
from simulation.invariants import check
from simulation.operations import LoseDisk, Operation, Revoke
from simulation.setting import Setting
from simulation.virtual_time import VirtualLoop
from simulation.world import World

MEMORY = Path("/dev/shm")  # a folder of our own is made in it


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """For one run; in memory if there is a place, as a disk's syncs would be most of the run's time."""
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play(
    setting: Setting,
    operations: Sequence[Operation] = (),
    prepare: Callable[[World], Any] = lambda world: None,
) -> list[str]:
    """The digests of the run's versions, after everything was checked.

    Args:
        setting: what federation.
        operations: what happens, in order.
        prepare: called before anything starts.

    Raises:
        AssertionError: an invariant does not hold, or the run did not come to its end.
    """
    with temporary_folder() as root, threadless():

        async def scene(loop: VirtualLoop) -> list[str]:
            world = World(setting, root, loop)
            prepare(world)
            world.begin()
            for operation in operations:
                await operation.apply(world)
            await world.calm()
            await world.finish()
            return check(world)

        digests = virtual_time.run(scene)
    steady = not any(isinstance(each, LoseDisk | Revoke) for each in operations)
    if setting.mode == "reproducible" and setting.level == "off" and steady:
        assert digests == list(undisturbed(setting)), "not the digests of the undisturbed run"
    return digests


@cache
def undisturbed(setting: Setting) -> tuple[str, ...]:
    """The digests of the same run without any operation."""
    with temporary_folder() as root, threadless():

        async def scene(loop: VirtualLoop) -> list[str]:
            world = World(setting, root, loop)
            world.begin()
            await world.finish()
            return check(world)

        return tuple(virtual_time.run(scene))
