"""The server hook as a step of the commit: run it, and let the run know if it failed."""

from __future__ import annotations

import asyncio
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.core import events
from coordinator.errors import HookFailed, MethodRefused
from coordinator.method_host.hook import Hooked, HookRunner
from coordinator.ports.clock import Clock
from coordinator.ports.run import Run
from coordinator.runtime.mailbox import Mailbox
from coordinator.telemetry.tracing import Tracing
from coordinator.versions.catalogue import Catalogue
from coordinator.workers.tasks import Tasks
from ssd.updates.fold import OpenedFold


class HookStep(Protocol):
    """What the commit needs of a method's server hook.

    Behaviour: the same journaled set gives the same result, and nothing a hook made counts before the commit.
    """

    async def reset(self) -> None:
        """An attempt begins or has ended: nothing is collected."""
        ...

    async def collect(self, client: str, weight: int, body: NDArray[np.uint8]) -> None:
        """Keep what the hook may see of an accepted update."""
        ...

    async def run(self, opened: OpenedFold) -> Hooked | None:
        """What the hook makes of the reduced updates; None: it failed and the run is halted, or the daemon stops."""
        ...


class NoHook:
    """The step of a method without a server hook: the reduced updates stay as they are."""

    async def reset(self) -> None:
        """See `HookStep`."""

    async def collect(self, client: str, weight: int, body: NDArray[np.uint8]) -> None:
        """See `HookStep`."""

    async def run(self, opened: OpenedFold) -> Hooked | None:
        """See `HookStep`."""
        return Hooked(delta=None, state={}, artefacts=(), metrics={})


class HostedHook:
    """`HookStep` in the method host.

    Args:
        run: the run's present state and its events.
        mailbox: says when the daemon stops.
        runner: runs the hook.
        tasks: resolves the method's schedules.
        catalogue: for the base version.
        tracing: gets a span.
        clock: for the time of an event.
    """

    def __init__(
        self,
        run: Run,
        mailbox: Mailbox,
        runner: HookRunner,
        tasks: Tasks,
        catalogue: Catalogue,
        tracing: Tracing,
        clock: Clock,
    ) -> None:
        self._run = run
        self._mailbox = mailbox
        self._runner = runner
        self._tasks = tasks
        self._catalogue = catalogue
        self._tracing = tracing
        self._clock = clock

    async def reset(self) -> None:
        """See `HookStep`."""
        await self._runner.reset()

    async def collect(self, client: str, weight: int, body: NDArray[np.uint8]) -> None:
        """See `HookStep`."""
        await self._runner.collect(client, weight, body)

    async def run(self, opened: OpenedFold) -> Hooked | None:
        """See `HookStep`."""
        with self._tracing.part("server_hook"):
            return await self._run_hook(opened)

    async def _run_hook(self, opened: OpenedFold) -> Hooked | None:
        newest, rounds = self._catalogue.newest, self._run.state.policy.rounds
        values = self._tasks.values(newest.number + 1, rounds)
        running = asyncio.ensure_future(self._runner.run(opened, newest, rounds=rounds, values=values))
        try:
            await self._mailbox.or_stopped(running)
        finally:
            if not running.done():
                # The set is journaled: the next start asks the workers for its updates again.
                running.cancel()
                await asyncio.wait((running,))
        if running.cancelled():
            return None
        try:
            return running.result()
        except (HookFailed, MethodRefused) as error:
            await self._run.apply(events.CommitFailed(now=self._clock.monotonic(), reason=str(error)))
            return None
