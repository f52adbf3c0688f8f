"""Whole federations on virtual time: lists of operations with a name. A bug that a random list finds is kept here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coordinator.core.strategies.registry import STRATEGIES
from simulation.guarded import JOURNAL_WRITES
from simulation.net.network import Act
from simulation.operations import (
    Crash,
    CrashAtWrite,
    DiskFull,
    DiskReadOnly,
    DiskSlow,
    Drain,
    Join,
    Kill,
    KillAtWrite,
    Leave,
    LoseDisk,
    Move,
    Operation,
    Pause,
    Resume,
    Revoke,
    SetClock,
    Strike,
    Wait,
)
from simulation.play import play, undisturbed
from simulation.setting import Setting
from simulation.world import World

PLAIN = Setting()
ELASTIC = Setting(mode="elastic")
MASKED = Setting(level="passive")
HOOKED = Setting(hook=True)

LISTS: dict[str, Sequence[Operation]] = {
    "nothing happens": (),
    "a worker dies in training and comes back": (Wait(1.0), Crash("w1")),
    "a worker dies at its third write": (CrashAtWrite("w2", 3), Wait(5.0)),
    "a worker leaves and joins again": (Wait(0.5), Leave("w3"), Wait(17.0), Join("w3")),
    "the verdict of an upload is lost": (Strike(Act.CUT, "w1", "SubmitUpdate", False, "verdict"),),
    "the coordinator's answers to an upload fall silent": (
        Strike(Act.SILENCE, "w2", "SubmitUpdate", False, "proceed"),
    ),
    "a chunk of an upload is the last that arrives": (
        Strike(Act.CUT_AFTER, "w3", "SubmitUpdate", True, "chunk"),
    ),
    "a download breaks off": (Strike(Act.CUT, "w1", "FetchBlob", False, "part"),),
    "a task comes twice": (Strike(Act.DOUBLE, "w1", "Attend", False, "train"),),
    "a task comes late": (Strike(Act.DELAY, "w2", "Attend", False, "train", seconds=17.0),),
    "the news of a commit is lost": (Strike(Act.CUT, "w1", "Attend", False, "committed"),),
    "the news of a commit comes twice": (Strike(Act.DOUBLE, "w3", "Attend", False, "committed"),),
    "a hello is lost": (Strike(Act.CUT, "w2", "Attend", True, "hello"),),
    "a control stream falls silent": (Strike(Act.SILENCE, "w1", "Attend", True, "", count=2),),
    "the coordinator dies in training": (Wait(1.0), Kill(5.0)),
    "the coordinator dies twice": (Wait(1.0), Kill(1.0), Wait(5.0), Kill(17.0)),
    "coordinator and worker die together": (Wait(1.0), Crash("w2"), Kill(1.0)),
    "the coordinator's disk is full for a while": (Wait(1.0), DiskFull(17.0)),
    "the coordinator's disk is read-only for a while": (Wait(1.0), DiskReadOnly(17.0)),
    "both disks are slow": (DiskSlow(45.0, 0.7), DiskSlow(45.0, 0.7, "w1")),
    "a worker's disk is full for a while": (Wait(0.5), DiskFull(17.0, "w1")),
    "a worker's disk is full before it can keep what it fetches": (DiskFull(45.0, "w1"),),
    "the wall clock goes back an hour": (Wait(1.0), SetClock(-3600.0)),
    "the wall clock jumps into the future": (Wait(1.0), SetClock(1e9), Wait(2.0), SetClock(-1e9)),
    "the run is paused and resumed": (Wait(0.5), Pause(), Wait(45.0), Resume()),
    "the coordinator is drained": (Wait(0.5), Drain(), Wait(17.0)),
    "a client moves with its state": (Wait(1.0), Move("b", "w2"), Wait(5.0)),
    "a disk is lost": (Wait(3.5), LoseDisk("w1"), Wait(5.0)),
    "a client is revoked": (Wait(0.5), Revoke("d"), Wait(5.0)),
}


def played(setting: Setting, operations: Sequence[Operation]) -> tuple[World, list[str]]:
    """The world after a list, with time for its last fault to strike, and the fates of messages that did not arrive."""
    worlds: list[World] = []
    struck: list[str] = []

    def prepare(world: World) -> None:
        worlds.append(world)
        world.network.observers.append(
            lambda passed: None if passed.fate == "arrives" else struck.append(passed.fate)
        )

    play(setting, [*operations, Wait(45.0)], prepare)
    return worlds[0], struck


@pytest.mark.parametrize("name", LISTS)
def test_a_reproducible_run_comes_to_the_undisturbed_digests(name: str) -> None:
    _, struck = played(PLAIN, LISTS[name])
    assert bool(struck) or not any(isinstance(each, Strike) for each in LISTS[name]), "the fault never struck"


@pytest.mark.parametrize("name", LISTS)
def test_an_elastic_run_is_what_its_journaled_sets_make_of_it(name: str) -> None:
    played(ELASTIC, LISTS[name])


@pytest.mark.parametrize(
    "name", [each for each in LISTS if "dies" in each or "lost" in each or "die " in each]
)
def test_a_masked_run_comes_to_its_end(name: str) -> None:
    played(MASKED, LISTS[name])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "write", sorted(JOURNAL_WRITES & {"open_attempt", "close_attempt", "commit", "assign", "finish_run"})
)
@pytest.mark.parametrize("setting", [PLAIN, HOOKED], ids=["plain", "hook"])
def test_a_coordinator_that_dies_at_a_write_loses_no_round(setting: Setting, write: str, after: bool) -> None:
    assert play(setting, [KillAtWrite(1, after, write), Wait(45.0)]) == list(undisturbed(setting))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("count", range(1, 25))
def test_a_coordinator_may_die_at_any_write(count: int, after: bool) -> None:
    world, _ = played(PLAIN, [KillAtWrite(count, after)])
    assert world.lives == 2, "the kill never struck"


@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_may_die_at_any_write(count: int, after: bool) -> None:
    play(PLAIN, [CrashAtWrite("w1", count, after), Wait(45.0)])


@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each != "average"])
def test_moments_commit_with_the_version_and_survive_a_death_at_any_write_around_it(strategy: str) -> None:
    setting = Setting(strategy=strategy, rounds=3)
    for after in (False, True):
        assert play(setting, [KillAtWrite(2, after, "commit"), Wait(45.0)]) == list(undisturbed(setting))
    assert undisturbed(setting) != undisturbed(Setting(rounds=3)), "the strategy made no difference"


@pytest.mark.parametrize("strategy", ["adam", "nesterov"])
def test_strategies_move_the_model_by_a_masked_sum(strategy: str) -> None:
    played(Setting(level="passive", strategy=strategy), LISTS["a worker dies in training and comes back"])


def test_delays_and_the_order_of_messages_change_no_bit() -> None:
    found = {
        tuple(play(Setting(jitter_seconds=jitter, seed=seed)))
        for jitter, seed in [(0.0, 0), (2.0, 1), (5.0, 2)]
    }
    assert len(found) == 1
