"""Fetches the messages of secure aggregation that come in blobs, one after the other, in the order they came."""

from __future__ import annotations

import asyncio
import logging

from ssd.daemon.logs import event as log_event
from ssd.secagg.protocol.errors import MalformedMessage
from ssd.secagg.protocol.messages import decode
from ssd_wire.messages import BlobRef
from worker.connection.background import NamedTasks
from worker.core import effects, events
from worker.downloads.memory_blob import MemoryBlob
from worker.errors import BlobUnavailable, LinkBroken, SessionEnded
from worker.ports import Access, Clock, Post, Transport

_log = logging.getLogger(__name__)
MAX_WAITING = 32
"""Messages that may wait to be fetched. A round has fewer; what a coordinator says beyond them is dropped."""
_FETCH_TRIES = 5
_RETRY_SECONDS = 0.5


class MessageReader:
    """Reads announced messages into memory, and nowhere else. Each one is answered by an event.

    Args:
        access: returns the welcome in use and what a data call needs.
        transport: fetches the blobs.
        clock: for the waits between two tries.
        tasks: where the loop runs.
        post: takes the events.
    """

    def __init__(
        self, *, access: Access, transport: Transport, clock: Clock, tasks: NamedTasks, post: Post
    ) -> None:
        self._access = access
        self._transport = transport
        self._clock = clock
        self._tasks = tasks
        self._post = post
        self._session = ""
        self._unread: asyncio.Queue[effects.FetchSecure] = asyncio.Queue()

    async def fetch(self, effect: effects.FetchSecure) -> None:
        """Queue a message. It is answered by `SecureHeard` or `SecureUnreadable`, unless its session ends before."""
        session = self._access()[1].session
        if session != self._session:
            # What an older session brought comes again if it still matters.
            self._session, self._unread = session, asyncio.Queue()
            self._tasks.spawn("secure-reader", self._fetch_all(self._unread))
        if self._unread.qsize() >= MAX_WAITING:
            log_event(_log, logging.WARNING, "secure_message_dropped", waiting=MAX_WAITING)
            return
        self._unread.put_nowait(effect)

    async def _fetch_all(self, unread: asyncio.Queue[effects.FetchSecure]) -> None:
        while True:
            wanted = await unread.get()
            try:
                content = await self._blob(wanted.blob)
                message = await asyncio.to_thread(decode, content)
            except SessionEnded:
                continue
            except (MalformedMessage, BlobUnavailable, LinkBroken) as error:
                self._post(events.SecureUnreadable(round_id=wanted.round_id, detail=str(error)))
                continue
            self._post(events.SecureHeard(round_id=wanted.round_id, message=message))

    async def _blob(self, blob: BlobRef) -> bytes:
        sink = MemoryBlob(blob)
        for failures in range(_FETCH_TRIES):
            try:
                await self._transport.fetch(self._access()[1], blob, sink)
            except SessionEnded:
                raise
            except LinkBroken:
                if failures + 1 == _FETCH_TRIES:
                    raise
                await self._clock.sleep(_RETRY_SECONDS)
            if sink.complete:
                break
        return sink.content()
