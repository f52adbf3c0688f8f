"""The driver's table: every effect that the session machine can ask for has one who carries it out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

from rounds.worker_harness import start_worker
from worker.core import effects


def test_every_effect_has_a_performer_and_no_performer_is_left_over(tmp_path: Path) -> None:
    async def performed() -> set[type]:
        worker = start_worker("localhost:1", tmp_path, ["a"])
        try:
            return set(worker.driver._performers)
        finally:
            await worker.crash()

    assert asyncio.run(performed()) == set(get_args(effects.Effect))
