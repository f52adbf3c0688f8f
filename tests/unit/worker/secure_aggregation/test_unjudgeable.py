"""A task that makes a worker's own checks raise something is refused like one that they refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from worker.errors import TaskFault
from worker.performers.tasks import TaskEffects


class Preparation:
    async def declaration(self, *_: object) -> None:
        """Whatever was received."""


class Admission:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def check(self, *_: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [OverflowError(), ZeroDivisionError(), AttributeError(), KeyError("x"), TypeError(), ValueError()],
)
def test_it_is_a_refusal_and_not_the_end_of_the_worker(error: Exception) -> None:
    other: Any = None
    effects = TaskEffects(
        access=other, preparation=Preparation(), trainer=other, clock=other, metrics=other, tasks=other,  # type: ignore[arg-type]
        tracing=other, session=other, admission=Admission(error), post=other,  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(TaskFault, match="cannot be judged") as fault:
        asyncio.run(effects._check(other, other, other))
    assert (fault.value.reason, fault.value.whole_task) == ("not_agreed", True)
