"""How this run's updates, folds and masked vectors are laid out; made once, as long as the run's numbers stay."""

from __future__ import annotations

from ssd.secagg.numbers.masked_plan import MaskedPlan, MaskedSettings
from ssd.updates.codec import Encoding
from ssd.updates.fold import FoldPlan
from ssd_wire.messages import Welcome
from worker.downloads.prepare import Preparation
from worker.errors import TaskFault
from worker.ports import DataAccess


class BodyLayouts:
    """Made from the run's declaration and the welcome.

    Raises (all methods):
        SessionEnded: the declaration has to be fetched, in a new session.
        TaskFault: the declaration cannot be had, or the numbers contradict each other.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._fold: tuple[object, FoldPlan] | None = None
        self._masked: tuple[object, MaskedPlan] | None = None

    async def fold(self, welcome: Welcome, access: DataAccess, *, quality: bool) -> FoldPlan:
        """Of updates and plain folds; `quality`: in a round that measures."""
        key = (
            welcome.declaration_digest,
            welcome.update_encoding,
            welcome.max_cohort,
            welcome.max_client_weight,
            welcome.clip_norm,
            quality,
        )
        if self._fold is None or self._fold[0] != key:
            declaration = await self._preparation.declaration(welcome, access)
            encoding = Encoding(welcome.update_encoding)
            try:
                plan = FoldPlan.create(
                    declaration,
                    encoding,
                    welcome.max_cohort,
                    welcome.max_client_weight,
                    quality=quality,
                    clip_norm=welcome.clip_norm,
                )
            except ValueError as error:
                raise TaskFault("declaration_unreadable", str(error), whole_task=True) from error
            self._fold = (key, plan)
        return self._fold[1]

    async def masked(self, welcome: Welcome, access: DataAccess, *, quality: bool) -> MaskedPlan:
        """Of masked vectors; only under secure aggregation."""
        plan, masking = await self.fold(welcome, access, quality=quality), welcome.masking
        assert masking is not None  # a welcome with a level has one
        key = (
            plan.declaration.digest,
            welcome.max_cohort,
            welcome.max_client_weight,
            quality,
            masking,
            welcome.privacy,
        )
        if self._masked is None or self._masked[0] != key:
            try:
                settings = MaskedSettings(
                    ring_bits=masking.ring_bits,
                    clip=masking.clip,
                    max_client_weight=masking.max_client_weight,
                    max_cohort=welcome.max_cohort,
                    dp=welcome.privacy,
                )
                self._masked = (key, MaskedPlan.create(plan, settings))
            except ValueError as error:
                raise TaskFault("declaration_unreadable", str(error), whole_task=True) from error
        return self._masked[1]
