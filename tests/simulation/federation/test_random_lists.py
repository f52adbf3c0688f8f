"""Whole federations on virtual time: random lists of operations, and proofs that what is checked can fail."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import coordinator.sums.plain_sum as plain_sum
from coordinator.store.journal.sqlite import SqliteJournal
from rounds.float_fold import FloatFold
from simulation.lists import lists
from simulation.operations import Kill, KillAtWrite, Operation, Wait
from simulation.play import play
from simulation.setting import Setting
from ssd.updates.fold import Fold
from worker.store.sqlite import SqliteStore

EXAMPLES = int(os.environ.get("SSD_SIMULATION_EXAMPLES", "12"))
SETTINGS = {
    "reproducible": Setting(),
    "elastic": Setting(mode="elastic"),
    "jitter": Setting(jitter_seconds=3.0, seed=7),
    "masked": Setting(level="passive"),
}


@pytest.mark.parametrize("name", SETTINGS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="SSD_SIMULATION_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_whatever_happens_every_rule_holds(name: str, data: st.DataObject) -> None:
    operations: Sequence[Operation] = data.draw(lists(SETTINGS[name]))
    # Time for a fault that is armed last to strike: after the list everything is mended.
    play(SETTINGS[name], [*operations, Wait(45.0)])


def test_a_sum_that_depends_on_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_sum, "Fold", FloatFold)
    with pytest.raises(AssertionError):
        play(Setting(parameters=65))


def test_an_update_that_is_counted_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Fold.add_fold

    def twice(self: Fold, body: object, weight: int, clients: int) -> None:
        add(self, body, weight, clients)  # type: ignore[arg-type]
        add(self, body, weight, clients)  # type: ignore[arg-type]

    monkeypatch.setattr(plain_sum, "Fold", type("Twice", (Fold,), {"add_fold": twice}))
    with pytest.raises(AssertionError):
        play(Setting(parameters=66))


def test_a_journal_that_forgets_the_accepted_set_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    close = SqliteJournal.close_attempt

    def forget(
        self: SqliteJournal, round_number: int, attempt: int, accepted: Sequence[str], *more: object
    ) -> None:
        close(self, round_number, attempt, tuple(accepted)[:-1], *more)  # type: ignore[arg-type]

    monkeypatch.setattr(SqliteJournal, "close_attempt", forget)
    with pytest.raises(AssertionError):
        play(Setting(parameters=67))


def test_a_worker_that_forgets_a_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteStore, "promote", lambda self, keys: None)
    with pytest.raises(AssertionError):
        play(Setting(parameters=68), [Wait(1.0), Kill(1.0)])


def test_a_kill_that_is_armed_does_kill() -> None:
    seen: list[int] = []

    def prepare(world: object) -> None:
        seen.append(0)
        world.network.observers.append(lambda _: seen.__setitem__(0, world.lives))  # type: ignore[attr-defined]

    play(Setting(), [KillAtWrite(3), Wait(20.0)], prepare)
    assert seen[0] == 2
