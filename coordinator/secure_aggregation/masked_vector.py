"""The masked sum of one attempt: uploads kept on disk and added as they come, masks taken out at the end.

Memory: one vector, however many participants. Everything slow runs in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.runtime.durable_writes import DurableWrites
from coordinator.store.files.spool import MaskedSpool
from ssd.secagg.numbers.masked_plan import MaskedPlan
from ssd.secagg.numbers.masked_sum import MaskedSum
from ssd.secagg.numbers.masking import MaskKey
from ssd.updates.fold import OpenedFold


class MaskedVector:
    """Uploads of one round id."""

    def __init__(
        self, plan: MaskedPlan, round_id: bytes, spool: MaskedSpool, durability: DurableWrites, threads: int
    ) -> None:
        self._plan = plan
        self._round_id = round_id
        self._spool = spool
        self._durability = durability
        self._threads = threads
        self._sum = MaskedSum(plan)

    async def take(self, worker: str, body: NDArray[np.uint8]) -> None:
        """Keep a verified upload, then add it."""
        await self._durability.write(lambda: self._spool.put(self._round_id, worker, body))
        await asyncio.to_thread(self._sum.add, body)

    async def reload(self, workers: Sequence[str]) -> None:
        """Begin the sum again from what is on disk.

        Raises:
            BlobMissing, BlobCorrupt: an upload is gone or damaged.
        """
        self._sum = MaskedSum(self._plan)

        def add(worker: str) -> None:
            self._sum.add(self._spool.get(self._round_id, worker))

        for worker in workers:
            await asyncio.to_thread(add, worker)

    async def open(self, masks: Sequence[MaskKey], participants: int) -> tuple[OpenedFold, bytes]:
        """Take the masks out; the reduced values, and SHA-256 of the opened vector. The sum is used up.

        Raises:
            NotConsistent: the result is no sum of so many participants.
        """

        def unmask() -> tuple[OpenedFold, bytes]:
            self._sum.subtract(masks, self._threads)
            return self._sum.open(participants), self._sum.packed_digest()

        return await asyncio.to_thread(unmask)
