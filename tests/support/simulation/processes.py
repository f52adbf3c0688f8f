"""Processes that are none: the tasks of one daemon, which end together when it dies, and the medium it writes to."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from simulation.virtual_time import VirtualLoop

_CURRENT: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Died(BaseException):
    """The process ended here, as by `kill -9`. No `except Exception` of the product sees it."""


@dataclass
class Medium:
    """The disk under one state directory. Times are virtual seconds."""

    full_until: float = 0.0
    read_only_until: float = 0.0
    slow_until: float = 0.0
    seconds_per_write: float = 0.0

    def trouble(self, now: float) -> str:
        """What a write meets now; empty: it goes well."""
        if now < self.read_only_until:
            return "read-only file system"
        return "no space left on device" if now < self.full_until else ""

    def seconds(self, now: float) -> float:
        """How long a write takes that begins now."""
        return self.seconds_per_write if now < self.slow_until else 0.0

    def mend(self) -> None:
        """From now on everything goes well."""
        self.full_until = self.read_only_until = self.slow_until = 0.0


class Process:
    """One life of a daemon."""

    def __init__(self, name: str, loop: VirtualLoop, medium: Medium) -> None:
        self.name = name
        self.medium = medium
        self.dead = False
        self.on_death: list[Callable[[], None]] = []
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine as part of this process; so is whatever it starts."""
        context = contextvars.copy_context()
        context.run(_CURRENT.set, self)
        return self._loop.create_task(work, context=context)

    def belongs(self, task: asyncio.Task[Any]) -> None:
        """A task of this process began."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def alive(self) -> None:
        """Called before anything that leaves a trace outside the process.

        Raises:
            Died: there is no process any more that could leave one.
        """
        if self.dead:
            raise Died(self.name)

    def die(self) -> None:
        """End it. Nothing it still does has an effect; its tasks are taken down by `buried`."""
        if self.dead:
            return
        self.dead = True
        for each in self.on_death:
            each()

    async def buried(self) -> None:
        """Return when nothing of it runs any more."""
        assert self.dead
        while self._tasks:
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.wait(tuple(self._tasks), timeout=1.0)


def watch(loop: VirtualLoop, defects: list[str]) -> None:
    """Let the loop note to whom every task belongs; failures that nobody looks at go to `defects`."""

    def make(_: Any, work: Any, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
        process = _CURRENT.get() if context is None else context.get(_CURRENT)
        if process is not None:
            process.belongs(task)
        return task

    def failed(_: Any, what: dict[str, Any]) -> None:
        error = what.get("exception")
        if not isinstance(error, Died):
            defects.append(f"{what.get('message')}: {error!r}")

    def seconds() -> float:
        process = _CURRENT.get()
        return 0.0 if process is None else process.medium.seconds(loop.time())

    loop.set_task_factory(make)
    loop.set_exception_handler(failed)
    loop.storage_seconds = seconds
