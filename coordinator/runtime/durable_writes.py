"""Writes that everything after them depends on: tried until the medium takes them or the daemon is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from coordinator.errors import StorageFailed
from coordinator.ports.clock import Clock
from coordinator.telemetry.metrics import CoordinatorMetrics
from ssd.daemon.logs import event as log_event
from ssd_wire.messages import BlobRef

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class DurableWrites:
    """Stands still while the medium refuses, says so, and loses nothing."""

    def __init__(self, clock: Clock, metrics: CoordinatorMetrics) -> None:
        self.trouble = ""
        """What the medium last said; empty while it takes writes."""
        self._clock = clock
        self._metrics = metrics
        self._stopping = asyncio.Event()
        self._stopping_threads = threading.Event()

    def stop(self) -> None:
        """From now on a failing write raises instead of being tried again."""
        self._stopping.set()
        self._stopping_threads.set()

    async def write(self, write: Callable[[], T]) -> T:
        """Do `write` in a thread and return what it gives.

        Raises:
            StorageFailed: it failed and the daemon is stopping.
        """

        async def timed() -> T:
            started = self._clock.monotonic()
            result = await asyncio.to_thread(write)
            self._metrics.journal_write(self._clock.monotonic() - started)
            return result

        return await self.insist(timed)

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, which writes and is begun again while the medium refuses.

        Raises:
            StorageFailed: it failed and the daemon is stopping.
        """
        while True:
            try:
                result = await attempt()
            except StorageFailed as error:
                self._in_trouble(str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RETRY_SECONDS)
                if self._stopping.is_set():
                    raise
            else:
                self._out_of_trouble()
                return result

    def insister(self) -> Callable[[Callable[[], BlobRef]], BlobRef]:
        """The same for a worker thread in the middle of a computation it should not repeat."""
        loop = asyncio.get_running_loop()

        def insist(write: Callable[[], BlobRef]) -> BlobRef:
            while True:
                try:
                    result = write()
                except StorageFailed as error:
                    loop.call_soon_threadsafe(self._in_trouble, str(error))
                    if self._stopping_threads.wait(RETRY_SECONDS):
                        raise
                else:
                    loop.call_soon_threadsafe(self._out_of_trouble)
                    return result

        return insist

    def _in_trouble(self, detail: str) -> None:
        if detail != self.trouble:
            log_event(log, logging.ERROR, "storage_failed", detail=detail)
        self.trouble = detail
        self._metrics.storage_failure()

    def _out_of_trouble(self) -> None:
        if self.trouble:
            log_event(log, logging.INFO, "storage_recovered")
            self.trouble = ""
