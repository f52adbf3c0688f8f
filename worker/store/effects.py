"""Carries out the persisting effects: each is on disk (as durable as its store call promises) when it returns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ssd.daemon.logs import event as log_event
from worker.core import effects
from worker.errors import StorageFailed
from worker.ports import Performers, Store
from worker.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_FULL_DISK_SECONDS = 5.0


class PersistenceEffects:
    """Writes to the store on a thread. A full disk is waited out until `give_up` is set; finished training is not
    thrown away for want of room.

    Raises (all methods):
        StorageFailed: the medium fails otherwise. Whoever gets it must not tell, or do, what was to be written.
    """

    def __init__(self, store: Store, metrics: Metrics, give_up: asyncio.Event) -> None:
        self._store = store
        self._metrics = metrics
        self._give_up = give_up
        self.performers: Performers = {
            effects.EnterRun: self.enter_run,
            effects.KeepUpdate: self.keep_update,
            effects.KeepFold: self.keep_fold,
            effects.ForgetFiles: self.forget_files,
            effects.Promote: self.promote,
            effects.DropUpdates: self.drop_updates,
            effects.Reinitialise: self.reinitialise,
            effects.DropVersions: self.drop_versions,
            effects.RememberVersion: self.remember_version,
            effects.RememberLevel: self.remember_level,
        }

    async def enter_run(self, effect: effects.EnterRun) -> None:
        """Make a run current."""
        await self._write(self._store.enter_run, effect.run_id)

    async def keep_update(self, effect: effects.KeepUpdate) -> None:
        """Record a finished update."""
        self._metrics.training_seconds.observe(effect.finished.seconds)
        self._metrics.client_tasks.labels("finished").inc()
        await self._write(self._store.keep, effect.finished)

    async def keep_fold(self, effect: effects.KeepFold) -> None:
        """Record finished updates in one fold."""
        for finished in effect.finished:
            if finished.key.client in effect.added:
                self._metrics.training_seconds.observe(finished.seconds)
                self._metrics.client_tasks.labels("finished").inc()
        await self._write(self._store.keep_fold, effect.finished)

    async def forget_files(self, effect: effects.ForgetFiles) -> None:
        """Remove what clients nobody asks about any more left."""
        self._metrics.client_tasks.labels("forgotten").inc(len(effect.finished))
        await self._write(self._store.forget, effect.finished)

    async def promote(self, effect: effects.Promote) -> None:
        """Make pending states current."""
        await self._write(self._store.promote, effect.keys)
        self._metrics.promoted.inc(len(effect.keys))

    async def drop_updates(self, effect: effects.DropUpdates) -> None:
        """Remove updates and their pending states."""
        log_event(_log, logging.INFO, "updates_dropped", count=len(effect.keys), reason=effect.reason)
        await self._write(self._store.drop, effect.keys)

    async def reinitialise(self, effect: effects.Reinitialise) -> None:
        """Forget states, take rounds over."""
        clients = sorted(effect.rounds)
        log_event(_log, logging.WARNING, "clients_reinitialised", clients=clients, reason=effect.reason)
        self._metrics.reinitialised.inc(len(clients))
        await self._write(self._store.reinitialise, effect.rounds)

    async def remember_version(self, effect: effects.RememberVersion) -> None:
        """Note the newest version."""
        await self._write(self._store.remember_version, effect.number, effect.model_digest)

    async def remember_level(self, effect: effects.RememberLevel) -> None:
        """Note the run's level of secure aggregation."""
        await self._write(self._store.remember_level, effect.level)

    async def drop_versions(self, effect: effects.DropVersions) -> None:
        """Remove cached versions."""
        await self._write(self._store.drop_versions, effect.model_digests)

    async def _write(self, write: Callable[..., None], *arguments: object) -> None:
        while True:
            try:
                await asyncio.to_thread(write, *arguments)
                return
            except StorageFailed as error:
                if not error.full or self._give_up.is_set():
                    raise
                log_event(
                    _log, logging.ERROR, "storage_full", detail=str(error), retry_seconds=_FULL_DISK_SECONDS
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._give_up.wait(), _FULL_DISK_SECONDS)
