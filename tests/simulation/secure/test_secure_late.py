"""`[secure_aggregation] keys = "late"`: keys are exchanged when the clients are trained, and not before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.state import Phase
from secure.masked_place import CLIENTS, ELASTIC, THREE, Place, committed, model_of, play
from secure.masked_worker import MaskedWorker
from ssd.secagg.protocol.messages import Offer, Roster

LATE: dict[str, Any] = {"secure_aggregation": {"keys": "late"}}
ELASTIC_LATE: dict[str, Any] = {
    **ELASTIC,
    # Keys are exchanged in the last fifth of a round that is not over before.
    "round": {"deadline_seconds": 4.0, "min_updates": 2},
    "secure_aggregation": {**ELASTIC["secure_aggregation"], "keys": "late"},
}


def offers(workers: dict[str, MaskedWorker]) -> dict[str, int]:
    """Worker -> how many round ids it was offered."""
    return {name: len({offer.round_id for offer in worker.said(Offer)}) for name, worker in workers.items()}


def told(place: Place, client: str) -> bool:
    """Whether the coordinator has heard how far a client's training is."""
    return place.now().reports.recent.steps(client) is not None


async def settled(place: Place) -> None:
    """Everything that was said has been looked at."""
    for _ in range(3):
        await asyncio.sleep(0.01)
        await place.now().mailbox.call(nothing)


async def nothing() -> None:
    pass


@pytest.mark.parametrize("level", ["passive", "active"])
def test_the_model_is_that_of_early_keys(tmp_path: Path, level: str) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        place.begin(*workers.values())
        await place.until(committed(place, 2))
        assert place.digests() == model_of(place, {1: "abcdef", 2: "abcdef"})

    play(scene, Place(tmp_path, level=level, **LATE))


def test_nobody_is_offered_anything_before_the_last_client_is_all_but_trained(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"].trains_slowly = {"d"}
        place.begin(*workers.values())
        await place.until(lambda: all(worker.train is not None for worker in workers.values()))
        await workers["w2"].trained("d", 89, 100)
        await workers["w1"].trained("d")
        await settled(place)
        assert offers(workers) == {"w1": 0, "w2": 0, "w3": 0}
        assert place.now().machine.state.phase is Phase.TRAINING
        await workers["w2"].trained("d", 90, 100)
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1, **LATE))


@pytest.mark.parametrize(("keys", "attempts"), [("late", 1), ("early", 2)])
def test_one_that_starts_again_in_training_costs_no_attempt_when_keys_are_late(
    tmp_path: Path, keys: str, attempts: int
) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        slow = workers["w2"]
        slow.trains_slowly = {"d"}
        slow.dies_before = "upload" if keys == "early" else ""
        place.begin(*workers.values())
        if keys == "early":
            # Its keys are gone with its process, before anything was uploaded.
            await place.until(place.tasks[1].done)
        else:
            # It has told of the one client that it trains at once.
            await place.until(lambda: told(place, "c"))
            await place.stop_worker(slow)
        slow.trains_slowly = set()
        place.begin(slow)
        await place.until(committed(place, 1))
        assert len(place.store.attempts()) == attempts
        assert offers(workers)["w1"] == attempts
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1, secure_aggregation={"keys": keys}))


def test_a_worker_that_is_stopped_in_the_middle_of_telling_does_nothing_more(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        slow = workers["w2"]
        slow.trains_slowly = {"d"}
        place.begin(*workers.values())
        # It has the task and tells of its first client: the coordinator has not taken that in.
        await place.until(lambda: slow.train is not None)
        first = slow.process
        assert first is not None
        await place.stop_worker(slow)
        assert first.done()
        slow.trains_slowly = set()
        place.begin(slow)
        await place.until(committed(place, 1))
        assert first.cancelled()
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1, **LATE))


def test_a_client_that_moved_is_awaited_where_it_is_now(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers({"w1": "ab", "w2": "cd", "w3": "ef"})
        workers["w3"].trains_slowly = {"e"}
        place.begin(workers["w1"], workers["w3"])
        await place.until(lambda: workers["w3"].train is not None and told(place, "a") and told(place, "b"))
        # w1 trained a and b; they belong to w4 from now on.
        await place.stop_worker(workers["w1"])
        moved = place.workers({"w4": "ab"})["w4"]
        moved.trains_slowly = {"a"}
        place.begin(moved, workers["w2"])
        await place.until(lambda: moved.train is not None and workers["w2"].train is not None)
        await workers["w3"].trained("e")
        await settled(place)
        assert offers({"w4": moved, **workers}) == {"w1": 0, "w2": 0, "w3": 0, "w4": 0}
        await moved.trained("a")
        await place.until(committed(place, 1))
        assert place.digests()[:2] == model_of(place, {1: "abcdef"})

    play(scene, Place(tmp_path, rounds=1, **LATE))


def test_too_few_workers_are_refused_before_they_train_for_nothing(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers({"w1": "abcdef"})
        workers["w1"].trains_slowly = set(CLIENTS)
        place.begin(*workers.values())
        await place.until(lambda: place.now().machine.state.phase is Phase.HALTED)
        assert "one participant alone would be laid open" in place.now().reports.status(0.0).waiting_for

    play(scene, Place(tmp_path, **LATE))


def test_an_elastic_round_makes_no_keys_for_one_that_is_not_trained_in_time(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"].trains_slowly = {"c", "d"}
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.store.attempts()[-1].accepted == tuple("abef")
        assert offers(workers) == {"w1": 1, "w2": 0, "w3": 1}
        # It shared nothing, so none of its masks had to be rebuilt.
        assert len(workers["w1"].said(Roster)[0].adverts) == 2
        assert place.digests()[:2] == model_of(place, {1: "abef"})

    play(scene, Place(tmp_path, rounds=1, **ELASTIC_LATE))


def test_an_elastic_round_does_not_wait_for_those_it_invited_beyond_its_goal(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers({"w1": "abc", "w2": "d", "w3": "ef"})
        workers["w2"].trains_slowly = {"d"}
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.store.attempts()[-1].accepted == tuple("abcef")
        assert offers(workers)["w2"] == 0

    changes = {**ELASTIC_LATE, "round": {"deadline_seconds": 60.0, "cohort_size": 5, "over_selection": 1.2}}
    play(scene, Place(tmp_path, rounds=1, **changes))


def test_one_that_is_silent_in_the_exchange_does_not_use_up_an_elastic_round(tmp_path: Path) -> None:
    """The wait for each phase is bounded by what is left of the round, whatever `phase_seconds` says."""

    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        workers["w2"].mute = "Offer"
        place.begin(*workers.values())
        await place.until(committed(place, 1))
        assert place.store.attempts()[-1].accepted == tuple("abef")

    changes = {**ELASTIC_LATE, "secure_aggregation": {"keys": "late", "phase_seconds": 600.0}}
    play(scene, Place(tmp_path, rounds=1, **changes))


def test_a_failed_client_is_not_waited_for_in_an_elastic_round(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        slow = workers["w3"]
        slow.trains_slowly = {"e", "f"}
        place.begin(*workers.values())
        await place.until(lambda: slow.train is not None)
        for client in "ef":
            await place.now().attendance.client_failed(slow.session, 1, 1, client, "no_data")
        await place.until(committed(place, 1))
        assert place.store.attempts()[-1].accepted == tuple("abcd")
        assert offers(workers)["w3"] == 0

    changes = {**ELASTIC_LATE, "round": {"deadline_seconds": 60.0, "min_updates": 2}}
    play(scene, Place(tmp_path, rounds=1, **changes))


@pytest.mark.parametrize(
    "said",
    [
        {"client": "c", "step": 0, "steps": 0},
        {"client": "a"},
        {"client": "nobody"},
        {"client": "c", "step": 2**64 - 1, "steps": 2**64 - 1, "attempt": 9},
        {"client": "c", "round": 9},
    ],
)
def test_word_of_training_that_concerns_nobody_begins_nothing(tmp_path: Path, said: dict[str, Any]) -> None:
    async def scene(place: Place) -> None:
        workers = place.workers(THREE)
        liar = workers["w2"]
        liar.trains_slowly = {"c"}
        workers["w1"].trains_slowly = {"a"}
        place.begin(*workers.values())
        await place.until(lambda: all(worker.train is not None for worker in workers.values()))
        await workers["w1" if said["client"] == "c" else "w2"].trained("a" if said["client"] == "c" else "c")
        told = {"round": 1, "attempt": 1, "step": 1, "steps": 1, **said}
        await place.now().attendance.progressed(
            liar.session, told["round"], told["attempt"], told["client"], told["step"], told["steps"]
        )
        await settled(place)
        assert offers(workers) == {"w1": 0, "w2": 0, "w3": 0}

    play(scene, Place(tmp_path, rounds=1, **LATE))
