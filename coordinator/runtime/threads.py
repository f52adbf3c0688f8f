"""Work in threads that its caller must not leave half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def finished(work: Awaitable[None]) -> None:
    """Wait for work in a thread, which goes on when its call is cancelled: nothing may build on it half done."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
