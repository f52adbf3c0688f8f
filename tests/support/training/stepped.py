"""The synthetic method with updates that are multiples of 2^-12: quantising them loses nothing, so sums compare bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ssd.method.protocol import ClientResult, ClientTask, Progress
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod

STEPS = 4096.0


class Stepped(SyntheticMethod):
    """See the module docstring."""

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self._declaration = replace(self._declaration, method="stepped")

    def train(self, task: ClientTask, data: object, progress: Progress) -> ClientResult:
        result = super().train(task, data, progress)
        return replace(result, delta=np.round(result.delta * STEPS) / np.float32(STEPS))


def create(config: Mapping[str, Any]) -> Stepped:
    return Stepped(SyntheticConfig(**config))
