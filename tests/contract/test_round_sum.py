"""Sums in the clear keep the Behaviour lines of `coordinator.sums.round_sum.RoundSum`.

The masked sum keeps them too, but only a whole round can show it: tests/simulation/secure do that.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from coordinator.core import effects
from coordinator.errors import ClientFault, Reason
from coordinator.sums.plain_sum import NoisySum, PlainSum
from coordinator.telemetry.tracing import NoTracing
from coordinator.versions.quality import QualityRounds
from rounds.fold_samples import SampleUpdate, fold_of, sample_plan, sample_update
from ssd.updates.codec import Encoding
from ssd.updates.fold import Fold, OpenedFold
from ssd_wire.uploads import Envelope, UploadKind, WeightedClient

PLAN = sample_plan()
UPDATES = [sample_update(PLAN, seed) for seed in range(4)]
OPENING = effects.OpenAttempt(round=1, attempt=1, cohort=("a", "b", "c", "d"))
NOISE = 1 << 40
"""What the noisy sum of these tests adds to every value: known, so that it can be told apart."""


class KnownNoise:
    """In place of `Privacy`: noise that everybody knows, and how often it was drawn."""

    def __init__(self) -> None:
        self.draws = 0

    def add_noise(self, fold: Fold) -> None:
        self.draws += 1

        def add(total: Any) -> None:
            total += NOISE

        fold.add_noise(add)


def quality() -> QualityRounds:
    return QualityRounds(PLAN, Encoding.FLOAT32, 0, dict)


def plain() -> PlainSum:
    return PlainSum(quality(), NoTracing(), 1)


def noisy() -> PlainSum:
    return NoisySum(quality(), NoTracing(), 1, KnownNoise())  # type: ignore[arg-type]


SUMS = pytest.mark.parametrize("make", [plain, noisy])


def envelope(update: SampleUpdate, name: str) -> Envelope:
    return Envelope(
        run_id="run",
        round=1,
        attempt=1,
        base_digest="",
        task_digest="",
        spec_digest="",
        kind=UploadKind.UPDATE,
        clients=(WeightedClient(client=name, weight=update.weight, training_seconds=0.0),),
        body_size=len(update.body),
        chunk_digests=(),
    )


def opened(subject: PlainSum, updates: Sequence[SampleUpdate]) -> OpenedFold:
    async def play() -> OpenedFold:
        subject.begin(OPENING, "", "")
        for number, update in enumerate(updates):
            body = np.frombuffer(update.body, np.uint8)
            await subject.add("w", envelope(update, f"c{number}"), body)
        return await subject.open()

    return asyncio.run(play())


def bits(found: OpenedFold) -> tuple[bytes, dict[str, bytes], int, int]:
    statistics = {name: value.tobytes() for name, value in found.statistics.items()}
    return found.delta.tobytes(), statistics, found.weight, found.clients


@SUMS
def test_the_order_of_updates_changes_no_bit(make: Callable[[], PlainSum]) -> None:
    results = {str(bits(opened(make(), order))) for order in itertools.permutations(UPDATES)}
    assert len(results) == 1


@SUMS
def test_an_attempt_that_begins_forgets_the_one_before(make: Callable[[], PlainSum]) -> None:
    subject = make()
    alone = bits(opened(make(), UPDATES[1:2]))

    async def interrupted() -> None:
        subject.begin(OPENING, "", "")
        await subject.add("w", envelope(UPDATES[0], "a"), np.frombuffer(UPDATES[0].body, np.uint8))

    asyncio.run(interrupted())
    assert bits(opened(subject, UPDATES[1:2])) == alone


@SUMS
def test_a_sum_is_used_up_when_it_is_opened(make: Callable[[], PlainSum]) -> None:
    subject = make()
    first = bits(opened(subject, UPDATES[:2]))
    assert bits(opened(subject, UPDATES[:2])) == first


def test_the_plain_sum_is_the_fold_of_its_updates() -> None:
    assert bits(opened(plain(), UPDATES)) == bits(fold_of(PLAN, UPDATES).open())


def test_noise_is_drawn_once_for_each_opening_and_is_in_the_result() -> None:
    noise = KnownNoise()
    subject = NoisySum(quality(), NoTracing(), 1, noise)  # type: ignore[arg-type]
    found = opened(subject, UPDATES)
    assert noise.draws == 1
    assert not np.array_equal(found.delta, opened(plain(), UPDATES).delta)
    opened(subject, UPDATES)
    assert noise.draws == 2


@SUMS
def test_a_sum_in_the_clear_has_no_messages_no_masks_and_no_times(make: Callable[[], PlainSum]) -> None:
    subject = make()
    assert (subject.level, subject.wakeup, subject.view, subject.waiting_for) == ("off", None, None, "")
    assert subject.upload_nbytes(PLAN) is None
    assert subject.max_upload_nbytes(PLAN) >= max(PLAN.update_nbytes, PLAN.max_fold_nbytes)
    assert subject.open_blob("d" * 64, "w") is None
    with pytest.raises(ClientFault) as raised:
        asyncio.run(subject.receive(None, b"r" * 16, b"message"))  # type: ignore[arg-type]
    assert raised.value.reason is Reason.WRONG_ORDER
    with pytest.raises(AssertionError):
        asyncio.run(subject.close(effects.OpenSum(round=1, attempt=1, accepted=("a",))))
