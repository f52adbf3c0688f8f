"""The defect the digest tests must catch: a fold that adds floats."""

from __future__ import annotations

import numpy as np

from ssd.digest import Buffer
from ssd.updates.fold import Fold, FoldPlan
from ssd.updates.fold_plan import OpenedFold


class FloatFold(Fold):
    """Adds weighted float32 updates as they come; statistics and counts stay right."""

    def __init__(self, plan: FoldPlan) -> None:
        super().__init__(plan)
        self._float = np.zeros(plan.size, np.float32)

    def add_update(self, body: Buffer, weight: int) -> None:
        super().add_update(body, weight)
        delta, _ = self.plan.split_update(body)
        self._float += np.float32(weight) * self.plan.codec.decode(delta)

    def open(self) -> OpenedFold:
        opened = super().open()
        return OpenedFold(
            delta=(self._float / np.float32(self.weight)).astype(np.float32),
            statistics=opened.statistics,
            clients=opened.clients,
            weight=opened.weight,
        )
