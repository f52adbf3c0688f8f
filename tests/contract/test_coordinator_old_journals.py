"""Journals that an earlier version of this software wrote open, verify, and go on; nothing in them is rewritten.

`tests/golden/journals` holds dumps of three state databases that commit 1a697a1 wrote, three rounds each: of a method with
a server hook, of central differential privacy, and of measured representation.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.errors import JournalTampered
from coordinator.ports.figures import Figures
from coordinator.ports.records import AttemptRecord
from coordinator.store.journal import chain
from coordinator.store.journal.reading import read_history
from coordinator.store.journal.sqlite import SqliteJournal

DUMPS = Path(__file__).parents[1] / "golden" / "journals"
NAMES = ("hook", "privacy", "quality")


def restored(name: str, state_dir: Path) -> Path:
    """The state directory again, from its dump."""
    with closing(sqlite3.connect(state_dir / "state.sqlite3")) as db:
        db.executescript((DUMPS / f"{name}.sql").read_text())
    return state_dir


def stored(state_dir: Path) -> list[str]:
    """The records of versions as they lie in the file."""
    with closing(sqlite3.connect(state_dir / "state.sqlite3")) as db:
        return [record for (record,) in db.execute("SELECT record FROM versions ORDER BY number")]


@pytest.mark.parametrize("name", NAMES)
def test_an_old_journal_verifies_goes_on_and_keeps_its_rows(name: str, tmp_path: Path) -> None:
    before = stored(restored(name, tmp_path))
    journal = SqliteJournal(tmp_path)
    chain.verify(journal)
    journal.reopen_run()
    newest = journal.versions()[-1]
    assert newest.number == 3
    for attempt in journal.attempts():
        if attempt.outcome == "open":
            journal.abandon_attempt(attempt.round, attempt.attempt, "restart", 1.0)
    number = 1 + sum(attempt.round == 4 for attempt in journal.attempts())
    accepted = tuple(sorted(client.client for client in journal.clients()))
    journal.open_attempt(
        AttemptRecord(
            round=4, attempt=number, base_version=3, base_digest=newest.model_digest, cohort=accepted, opened_at=1.0
        )
    )  # fmt: skip
    journal.close_attempt(4, number, accepted)
    journal.commit(replace(newest, number=4, round=4, attempt=number, model_digest="d"), 2.0)
    chain.verify(journal)
    journal.close()
    assert stored(tmp_path)[:4] == before


@pytest.mark.parametrize("name", NAMES)
def test_its_figures_are_what_was_stored(name: str, tmp_path: Path) -> None:
    history = read_history(restored(name, tmp_path))
    assert history is not None
    told = [json.loads(record)["statistics"] for record in stored(tmp_path)]
    assert [version.figures.statistics for version in history.versions] == told
    start, *rounds = [version.figures for version in history.versions]
    assert start == Figures()
    for each, values in zip(rounds, told[1:], strict=True):
        assert each.cost is not None
        assert (each.cost.clients, each.cost.bytes_up) == (values["clients"], values["bytes_up"])
        assert (each.privacy is not None) == (name == "privacy")
        assert ("loss" in each.losses) == (name != "privacy")
    match name:
        case "hook":
            assert [each.losses["hook_calls"] for each in rounds] == [1.0, 2.0, 3.0]
        case "privacy":
            epsilons = [each.privacy.epsilon for each in rounds if each.privacy]
            assert epsilons == sorted(epsilons)
            assert epsilons[0] == rounds[0].privacy.round_epsilon
        case "quality":
            assert [each.quality and each.quality.version for each in rounds] == [0, None, 2]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"clients":2.0', '"clients":2'),
        ('"clients":2.0', '"clients":2.5'),
        ('"clients":2.0', '"clients":-2.0'),
        ('"clients":2.0,', ""),
        ('"hook_calls":2.0', '"hook_calls":3.0'),
        ('"hook_calls":2.0', '"hook_call":2.0'),
        ('"weight":69.0', '"weight":69.0,"privacy_honest":9.0'),
    ],
)
def test_a_figure_that_was_changed_in_it_is_found(tmp_path: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(restored("hook", tmp_path) / "state.sqlite3")) as db:
        (changed,) = db.execute(
            "SELECT count(*) FROM versions WHERE number = 2 AND instr(record, ?)", (old,)
        ).fetchone()
        assert changed == 1
        db.execute("UPDATE versions SET record = replace(record, ?, ?) WHERE number = 2", (old, new))
        db.commit()
    journal = SqliteJournal(tmp_path)
    with pytest.raises(JournalTampered, match="the record of version 2"):
        chain.verify(journal)
    journal.close()
