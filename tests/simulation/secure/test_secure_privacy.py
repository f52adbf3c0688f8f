"""The account of differential privacy and sums that were opened but came to no version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.core import events
from coordinator.core.state import Phase
from coordinator.runtime.clock import SystemClock
from coordinator.web import overview
from secure.masked_place import ELASTIC, THREE, Crash, Place, committed, die_at, play, registry_of
from secure.masked_worker import MaskedWorker
from ssd.privacy.account import spent
from ssd.privacy.noise import NoisePlan
from training import straight

NOISY = {
    **ELASTIC,
    "round": {"deadline_seconds": 20.0, "min_updates": 6},
    "method": {"name": straight.__file__, "config": {"parameters": 64, "length": 1.0}},
    "wire": {"delta_encoding": "float32", "update_encoding": "float32"},
    "privacy": {
        "mechanism": "distributed",
        "clip_norm": 1.0,
        "noise_multiplier": 1.0,
        "delta": 1e-5,
        "min_honest": 3,
    },
}


class Spoils(MaskedWorker):
    """Of a round of its choice it uploads nonsense: the sum that is opened contradicts itself."""

    spoilt_round = 2

    def body(self) -> bytes:
        body = super().body()
        assert self.train is not None
        return os.urandom(len(body)) if self.train.round == self.spoilt_round else body


def epsilon_of(place: Place, rounds: int) -> float:
    """Of so many opened sums."""
    plan = place.now().given.privacy._plan  # type: ignore[union-attr]
    assert isinstance(plan, NoisePlan)
    return spent(plan, rounds, 3).epsilon


def shown(place: Place) -> tuple[float, str, str]:
    """Epsilon in the status, the sentence beside it, and what Prometheus gets; the page shows the same two."""
    status = place.now().reports.status(0.0)
    page = overview.status(place.now().reports, SystemClock(), "build", names=True)["privacy"]
    assert (page["epsilon"], page["described"]) == (status.figures.privacy.epsilon, status.privacy)
    lines = place.now().given.metrics.render().decode().splitlines()
    (gauge,) = [line for line in lines if line.startswith('ssd_coordinator_privacy_epsilon{scope="total"}')]
    return status.figures.privacy.epsilon, status.privacy, gauge.split()[-1]


def test_a_sum_that_was_opened_and_is_not_consistent_counts_also_after_a_restart(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"] = Spoils(place.now, "w2", ("c", "d"))
        place.begin(*workers.values())
        await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
        assert "the opened sum is none" in place.now().reports.status(0.0).waiting_for
        assert place.store.versions()[-1].figures.privacy.epsilon == epsilon_of(place, 1)
        for _ in range(2):
            # (Gauges are brought up to date after the event in hand.)
            await place.now().driver.operate(lambda now: events.Tick(now=now))
            told, said, gauge = shown(place)
            assert told == epsilon_of(place, 2) > epsilon_of(place, 1)
            assert f"epsilon {told:.4g} at delta 1e-05 after 2 rounds" in said
            assert said.endswith("the sum of round 2 counts: it was opened")
            assert float(gauge) == pytest.approx(told)
            provenance = await place.now().reports.provenance(1)
            assert provenance.privacy == said
            await place.stop()
            place.start()
            await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)

    play(scene, Place(tmp_path, rounds=2, **NOISY))


def test_a_sum_that_is_opened_again_after_a_crash_counts_once(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        die_at(place.store, "commit", "before")
        place.begin(*workers.values())
        await place.crashed()
        place.start()
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        await place.now().driver.operate(lambda now: events.Tick(now=now))
        told, said, _ = shown(place)
        assert told == epsilon_of(place, 1)
        assert "counts: it was opened" not in said

    play(scene, Place(tmp_path, rounds=1, **NOISY))


def test_a_sum_is_counted_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the two must not make it free."""

    async def scene(place: Place) -> None:
        from coordinator.secure_aggregation.masked_vector import MaskedVector

        with monkeypatch.context() as planted:
            planted.setattr(MaskedVector, "open", MaskedVector.open)
            die_at(MaskedVector, "open", "before")
            place.begin(*place.workers(THREE).values())
            await place.crashed()
            assert isinstance(place.loop and place.loop.exception(), Crash)
        subject = place.now()
        secure = subject.round_sum
        assert secure is not None
        secure._present = secure._opening._journaled = None
        assert secure.honest_opened(subject.machine.state) == 3
        place.start()
        place.begin(*place.workers(THREE).values())

    play(scene, Place(tmp_path, rounds=1, **NOISY))


def test_a_set_that_cannot_be_gone_on_with_is_read_once_to_be_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its participants are registered no more: nothing is resumed, and what was opened counts at every turn."""
    reads = 0

    async def scene(place: Place) -> None:
        die_at(place.store, "commit", "before")
        place.begin(*place.workers(THREE).values())
        await place.crashed()
        read, place.registry = place.store.secure_sum, registry_of({"w7": "ab", "w8": "cd", "w9": "ef"})[0]

        def counted(round_number: int, attempt: int) -> bytes:
            nonlocal reads
            reads += 1
            return read(round_number, attempt)

        monkeypatch.setattr(place.store, "secure_sum", counted)
        place.start()
        await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
        for _ in range(5):
            await place.now().driver.operate(lambda now: events.Tick(now=now))
            assert shown(place)[0] == epsilon_of(place, 1)
        assert "does not fit the registry" in place.now().reports.status(0.0).waiting_for
        assert reads == 1

    play(scene, Place(tmp_path, rounds=1, level="active", **NOISY))
