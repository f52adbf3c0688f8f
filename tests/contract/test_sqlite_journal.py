"""The journal in SQLite: what the port does not say, as damage, other processes, older schemas and what stays on the disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.errors import JournalTampered, StorageFailed
from coordinator.ports.journal import Journal
from coordinator.store.journal import chain
from coordinator.store.journal.sqlite import SqliteJournal
from journals.journal_runs import (
    SCALING,
    a_run,
    a_version,
    an_attempt,
    commit_round,
    everything,
    started,
)


@pytest.fixture(params=[SqliteJournal])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    opened: Journal = request.param(tmp_path)
    yield opened
    opened.close()


def test_what_opened_a_sum_is_nowhere_on_the_disk_after_its_commit(tmp_path: Path) -> None:
    secret = b"a share that opened a masked sum" * 200
    store = SqliteJournal(tmp_path)
    started(store)
    store.open_attempt(an_attempt(1))
    store.close_attempt(1, 1, ["a"], secret)
    store.close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(secret[:32] in file.read_bytes() for file in files)
    store = SqliteJournal(tmp_path)
    store.commit(a_version(1), 7.0)
    store.close()
    assert not any(secret[:32] in file.read_bytes() for file in files if file.exists())


class TestSqlite:
    def test_everything_is_there_after_reopening(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        store.assign({"a": (0, SCALING)})
        commit_round(store, 1)
        store.open_attempt(an_attempt(2))
        store.record_evaluation(1, {"knn": 0.5}, 5.0)
        store.set_flag("paused", True)
        before = everything(store)
        store.close()
        again = SqliteJournal(tmp_path)
        assert everything(again) == before
        again.close()

    def test_it_is_durable_by_its_settings(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        assert store._rows("PRAGMA journal_mode") == [("wal",)]
        assert store._rows("PRAGMA synchronous") == [(2,)]
        assert store._rows("PRAGMA foreign_keys") == [(1,)]
        assert store._rows("PRAGMA secure_delete") == [(1,)]
        store.close()

    @pytest.mark.parametrize("method", ["commit", "assign", "create_run"])
    def test_a_kill_in_the_middle_of_a_transaction_leaves_no_trace(self, tmp_path: Path, method: str) -> None:
        """Should: all of the transaction before, none of the one under way. Should not: half a commit."""
        script = f"""
import os, signal, sys
from pathlib import Path
from coordinator.store.journal.sqlite import SqliteJournal
from journals.journal_runs import *
store = SqliteJournal(Path({str(tmp_path)!r}))
if {method!r} != "create_run":
    started(store)
    store.open_attempt(an_attempt(1))
    store.close_attempt(1, 1, ["a"])
statements = []
def trace(statement):
    if statement.startswith(("INSERT", "UPDATE")):
        statements.append(statement)
        if len(statements) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
store._db.set_trace_callback(trace)
if {method!r} == "commit":
    store.commit(a_version(1), 5.0)
elif {method!r} == "assign":
    store.assign({{"a": (0, SCALING), "b": (1, None)}})
else:
    store.create_run(a_run(), a_version(0))
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        store = SqliteJournal(tmp_path)
        if method == "create_run":
            assert store.current_run() is None
            store.create_run(a_run(), a_version(0))
        else:
            assert [version.number for version in store.versions()] == [0]
            assert store.attempts()[0].outcome == "closed"
            assert all(client.index is None and client.rounds_included == 0 for client in store.clients())
            store.commit(a_version(1), 5.0)
        store.close()

    def test_a_newer_schema_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        store._db.execute("UPDATE schema_version SET version = 99")
        store.close()
        with pytest.raises(StorageFailed, match=r"schema version 99.*newer version"):
            SqliteJournal(tmp_path)
        db = sqlite3.connect(tmp_path / "state.sqlite3")
        assert db.execute("SELECT version FROM schema_version").fetchone() == (99,)
        db.close()

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE versions SET record = replace(record, '\"m1\"', '\"m9\"') WHERE number = 1",
            "UPDATE versions SET record = replace(record, '0.5', '0.6') WHERE number = 0",
            "UPDATE versions SET record = (SELECT record FROM versions WHERE number = 1) WHERE number = 2",
            "UPDATE attempts SET accepted = '[\"a\"]' WHERE round = 1",
            "UPDATE attempts SET outcome = 'abandoned' WHERE round = 2",
            "UPDATE runs SET record = replace(record, 'synthetic', 'sympathic')",
            "UPDATE chain SET value = 'f' || substr(value, 2) || 'f' WHERE number = 2",
            "DELETE FROM chain WHERE number = 0",
            "DELETE FROM chain",
        ],
    )
    def test_a_past_that_was_changed_is_found_and_says_what_to_do(self, tmp_path: Path, damage: str) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        commit_round(store, 1)
        commit_round(store, 2)
        chain.verify(store)
        assert store._db.execute(damage).rowcount > 0
        with pytest.raises(
            JournalTampered, match=r"Restore the state directory from a backup, or start a new"
        ):
            chain.verify(store)
        store.close()

    def test_a_version_that_was_cut_out_is_missed(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        for number in (1, 2, 3):
            commit_round(store, number)
        store._db.execute("PRAGMA foreign_keys = OFF")
        for table in ("chain", "versions"):
            store._db.execute(f"DELETE FROM {table} WHERE number = 2")
        with pytest.raises(JournalTampered, match="version 2"):
            chain.verify(store)
        store.close()

    def test_somebody_elses_database_is_refused(self, tmp_path: Path) -> None:
        db = sqlite3.connect(tmp_path / "state.sqlite3")
        db.execute("CREATE TABLE shopping (item TEXT)")
        db.close()
        with pytest.raises(StorageFailed, match="choose another state_dir"):
            SqliteJournal(tmp_path)

    def test_a_file_that_is_no_database_says_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "state.sqlite3").write_bytes(b"not a database, certainly not one" * 100)
        with pytest.raises(StorageFailed, match="restore the state directory from a backup"):
            SqliteJournal(tmp_path)

    def test_a_damaged_database_says_what_to_do(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        store.register_clients([f"client-{number:05}" for number in range(3000)], 1.0)
        store.close()
        path = tmp_path / "state.sqlite3"
        content = bytearray(path.read_bytes())
        content[4096 * 4 :] = b"\xa5" * (len(content) - 4096 * 4)
        path.write_bytes(content)
        with pytest.raises(StorageFailed, match="damaged: restore"):
            SqliteJournal(tmp_path).clients()

    def test_a_full_disk_changes_nothing_and_is_got_over(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        started(store)
        (pages,) = store._rows("PRAGMA page_count")[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        before = everything(store)
        many = [f"client-{number:05}" for number in range(3000)]
        with pytest.raises(StorageFailed, match="disk is full: free space"):
            store.register_clients(many, 1.0)
        assert everything(store) == before
        store._db.execute("PRAGMA max_page_count = 1000000")
        store.register_clients(many, 1.0)
        assert len(store.clients()) == 3003
        store.close()

    def test_a_locked_database_says_so(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        store._db.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageFailed, match="another program holds it locked"):
            store.set_flag("paused", True)
        other.execute("ROLLBACK")
        store.set_flag("paused", True)
        other.close()
        store.close()

    def test_a_read_only_database_says_so(self, tmp_path: Path) -> None:
        store = SqliteJournal(tmp_path)
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageFailed, match="cannot be written"):
            store.set_flag("paused", True)
        store.close()

    def test_a_state_directory_that_is_a_file_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("")
        with pytest.raises(StorageFailed):
            SqliteJournal(tmp_path / "state")
