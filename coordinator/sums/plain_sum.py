"""The sum of updates in the clear: exact integers, opened when the accepted set is journaled."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from coordinator.core import effects
from coordinator.core.state import RunState
from coordinator.errors import ClientFault, Reason
from coordinator.ports.blobs import BlobReader
from coordinator.sums.round_sum import SumView
from coordinator.telemetry.tracing import Tracing
from coordinator.versions.privacy import Privacy
from coordinator.versions.quality import QualityRounds
from coordinator.workers.sessions import Session
from ssd.updates.fold import Fold, FoldPlan, OpenedFold
from ssd_wire.uploads import Envelope


class PlainSum:
    """`coordinator.sums.round_sum.RoundSum` in the clear. Memory: one accumulator, twice the model."""

    level = "off"
    wakeup: float | None = None
    view: SumView | None = None
    waiting_for = ""
    awaits_training = False

    def __init__(self, quality: QualityRounds, tracing: Tracing, round_number: int) -> None:
        self._quality = quality
        self._tracing = tracing
        self._fold = Fold(quality.plan(round_number))

    def upload_nbytes(self, plan: FoldPlan) -> int | None:
        """See `RoundSum`."""
        return None

    def max_upload_nbytes(self, plan: FoldPlan) -> int:
        """See `RoundSum`."""
        return max(plan.update_nbytes, plan.max_fold_nbytes)

    async def recover(self, state: RunState) -> None:
        """See `RoundSum`. Workers still hold what they sent: nothing is kept across a restart."""

    def begin(self, opening: effects.OpenAttempt, base_digest: str, task_digest: str) -> None:
        """See `RoundSum`."""
        self._fold = Fold(self._quality.plan(opening.round))

    async def settle(self, state: RunState) -> None:
        """See `RoundSum`."""

    def check(self, session: Session, envelope: Envelope) -> None:
        """See `RoundSum`."""

    async def add(self, worker: str, envelope: Envelope, body: NDArray[np.uint8]) -> None:
        """See `RoundSum`."""
        if envelope.fold:
            await asyncio.to_thread(self._fold.add_fold, body, envelope.weight, len(envelope.clients))
        else:
            await asyncio.to_thread(self._fold.add_update, body, envelope.weight)

    async def close(self, closing: effects.OpenSum) -> None:
        """See `RoundSum`. The core asks for it under secure aggregation only."""
        raise AssertionError("a sum in the clear is opened by its commit")

    async def open(self) -> OpenedFold:
        """See `RoundSum`."""
        with self._tracing.part("open_sum"):
            await self._before_opening(self._fold)
            opened = await asyncio.to_thread(self._fold.open)
        # The accumulator is twice the model: it is gone before the next version is made.
        self._fold = Fold(self._fold.plan)
        return opened

    async def _before_opening(self, fold: Fold) -> None:
        """What happens to the exact sum of a closed attempt before it is reduced."""

    async def committing(self, model_digest: str) -> None:
        """See `RoundSum`."""

    async def committed(self) -> None:
        """See `RoundSum`."""

    async def abandoned(self, reason: str) -> None:
        """See `RoundSum`."""

    def honest_opened(self, state: RunState) -> int | None:
        """See `RoundSum`."""
        return None

    def open_blob(self, digest: str, worker: str) -> BlobReader | None:
        """See `RoundSum`."""
        return None

    async def training_progressed(
        self, session: Session, round_number: int, attempt: int, client: str, step: int, steps: int
    ) -> None:
        """See `RoundSum`."""

    async def receive(self, session: Session, round_id: bytes, content: bytes) -> None:
        """See `RoundSum`."""
        raise ClientFault(Reason.WRONG_ORDER, "this run has no secure aggregation")


class NoisySum(PlainSum):
    """A sum in the clear to which the coordinator adds noise before anybody sees it (central differential privacy)."""

    def __init__(self, quality: QualityRounds, tracing: Tracing, round_number: int, privacy: Privacy) -> None:
        super().__init__(quality, tracing, round_number)
        self._privacy = privacy

    async def _before_opening(self, fold: Fold) -> None:
        await asyncio.to_thread(self._privacy.add_noise, fold)
