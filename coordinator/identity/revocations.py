"""Who is revoked, known in memory and told at once to whoever must act on it.

The command line writes revocations into the state database while the coordinator runs; a look at the database's change
mark, a few microseconds, four times a second is what makes them count here within a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from coordinator.errors import ClientFault, Reason, StorageFailed
from coordinator.ports.trust import Holder, TrustStore
from ssd.daemon.logs import event as log_event
from ssd.trust.names import Subject

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25

OnRevoked = Callable[[frozenset[Holder]], None]


class RevocationList(Protocol):
    """Whom nothing may be accepted from any more."""

    def is_revoked(self, subject: Subject) -> bool:
        """Behaviour: never blocks; for every call."""
        ...

    def is_revoked_holder(self, holder: Holder) -> bool:
        """The same, for the holder's role and name."""
        ...

    async def revoke(self, holder: Holder, now: float) -> None:
        """Behaviour: counts at once, before it is durable (a call too many refused does no harm), and is durable when
        this returns.
        """
        ...

    def subscribe(self, on_revoked: OnRevoked) -> None:
        """Behaviour: from now on called on the event loop with every holder newly revoked."""
        ...


class NobodyRevoked:
    """`RevocationList` of a federation that has no certificates."""

    def is_revoked(self, subject: Subject) -> bool:
        """No."""
        return False

    def is_revoked_holder(self, holder: Holder) -> bool:
        """No."""
        return False

    async def revoke(self, holder: Holder, now: float) -> None:
        """Refused: nothing proves who calls.

        Raises:
            ClientFault: reason conflict.
        """
        raise ClientFault(
            Reason.CONFLICT,
            "without TLS names prove nothing and cannot be revoked: revoke the clients instead",
        )

    def subscribe(self, on_revoked: OnRevoked) -> None:
        """Nothing will ever be told."""


class Revocations:
    """`RevocationList` over a trust store.

    Raises:
        StorageFailed: the store cannot be read.
    """

    def __init__(self, store: TrustStore) -> None:
        self._store = store
        self._mark = store.change_mark()
        self._revoked = store.revoked()
        self._listeners: list[OnRevoked] = []

    def is_revoked(self, subject: Subject) -> bool:
        """See `RevocationList`."""
        return self.is_revoked_holder(Holder(subject.role, subject.name))

    def is_revoked_holder(self, holder: Holder) -> bool:
        """See `RevocationList`."""
        return holder in self._revoked

    async def revoke(self, holder: Holder, now: float) -> None:
        """See `RevocationList`."""
        self._take_up(frozenset({holder}))
        await asyncio.to_thread(self._store.revoke, holder, now)

    def subscribe(self, on_revoked: OnRevoked) -> None:
        """See `RevocationList`."""
        self._listeners.append(on_revoked)

    async def refresh(self) -> None:
        """Take up what another process wrote since the last look, and tell the listeners.

        Raises:
            StorageFailed: the store cannot be read; what was known stays.
        """
        mark = await asyncio.to_thread(self._store.change_mark)
        if mark == self._mark:
            return
        revoked = await asyncio.to_thread(self._store.revoked)
        # The mark of before reading: what changed while it was read is read again.
        self._mark = mark
        self._take_up(revoked)

    def _take_up(self, revoked: frozenset[Holder]) -> None:
        fresh = revoked - self._revoked
        self._revoked |= revoked
        if not fresh:
            return
        for holder in sorted(fresh):
            log_event(log, logging.WARNING, "revoked", role=holder.role.value, name=holder.name)
        for listener in self._listeners:
            listener(fresh)

    async def watch(self) -> None:
        """Look for ever. A store that fails is said once, and looked at again."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.refresh()
                failing = False
            except StorageFailed as error:
                if not failing:
                    log_event(log, logging.ERROR, error.code, detail=str(error))
                failing = True
