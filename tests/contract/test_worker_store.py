"""What the worker's store promises (`worker.ports.Store`), with crashes, damage and full disks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ssd.digest import chunk_digests
from ssd_wire.messages import UpdateKey
from worker.core.finished import Finished
from worker.errors import StateDirectoryLocked, StorageFailed
from worker.ports import Store
from worker.store import files, states
from worker.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[[], SqliteStore]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    """Opens the store of one directory; what was open before is closed first."""
    opened: list[SqliteStore] = []

    def open_store() -> SqliteStore:
        if opened:
            opened.pop().close()
        opened.append(SqliteStore(tmp_path / "state"))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(reopen: Open) -> SqliteStore:
    made = reopen()
    made.enter_run("run-1")
    return made


def key(client: str = "a", round_number: int = 1, task: str = "t") -> UpdateKey:
    return UpdateKey(client=client, round=round_number, base_digest="b" * 64, task_digest=task)


def finish(store: Store, which: UpdateKey, *, state: bytes = b"state", body: bytes = b"body") -> Finished:
    """What the training process leaves behind."""
    store.body_path(which).write_bytes(body)
    if state:
        store.pending_state_path(which).write_bytes(state)
    return Finished(
        key=which,
        weight=3,
        seconds=1.5,
        body_size=len(body),
        chunk_digests=b"".join(chunk_digests(body)),
        state_digest=hashlib.sha256(state).hexdigest() if state else "",
    )


def test_it_implements_the_port(store: SqliteStore) -> None:
    port: Store = store
    assert port.current_run() == "run-1"


def test_the_instance_id_is_made_once(reopen: Open) -> None:
    first = reopen().instance_id()
    assert len(bytes.fromhex(first)) == 16
    assert reopen().instance_id() == first


def test_a_kept_update_is_there_after_a_restart_with_its_files(store: SqliteStore, reopen: Open) -> None:
    kept = finish(store, key())
    store.keep(kept)
    again = reopen()
    assert again.current_run() == "run-1"
    assert again.load_run("run-1").held == (kept,)
    assert again.body_path(key()).read_bytes() == b"body"
    assert again.state_path("a") is None


def test_an_update_that_was_not_kept_leaves_no_file_after_a_restart(store: SqliteStore, reopen: Open) -> None:
    finish(store, key())
    store.body_path(key()).with_name("half.part").write_bytes(b"x")
    again = reopen()
    assert not list(again.body_path(key()).parent.iterdir())
    assert not list(again.pending_state_path(key()).parent.iterdir())


def test_keeping_twice_is_keeping_once(store: SqliteStore) -> None:
    kept = finish(store, key())
    store.keep(kept)
    store.keep(kept)
    assert store.load_run("run-1").held == (kept,)


def test_promotion_makes_the_pending_state_current_and_removes_the_update(
    store: SqliteStore, reopen: Open
) -> None:
    store.keep(finish(store, key()))
    store.promote([key()])
    again = reopen()
    assert again.load_run("run-1").rounds == {"a": 1}
    assert again.load_run("run-1").held == ()
    state = again.state_path("a")
    assert state is not None
    assert state.read_bytes() == b"state"
    assert not again.body_path(key()).exists()


def test_a_later_promotion_replaces_the_state_and_its_file(store: SqliteStore) -> None:
    store.keep(finish(store, key(), state=b"one"))
    store.promote([key()])
    store.keep(finish(store, key(round_number=2), state=b"two"))
    store.promote([key(round_number=2)])
    state = store.state_path("a")
    assert state is not None
    assert state.read_bytes() == b"two"
    assert len(list(state.parent.iterdir())) == 1


def test_promoting_what_is_not_kept_or_not_newer_changes_nothing(store: SqliteStore) -> None:
    store.promote([key()])
    assert store.load_run("run-1").rounds == {}
    store.keep(finish(store, key(round_number=5), state=b"five"))
    store.promote([key(round_number=5)])
    store.keep(finish(store, key(round_number=4), state=b"four"))
    store.promote([key(round_number=4)])
    assert store.load_run("run-1").rounds == {"a": 5}
    state = store.state_path("a")
    assert state is not None
    assert state.read_bytes() == b"five"


def test_a_method_without_state_only_advances_the_round(store: SqliteStore) -> None:
    store.keep(finish(store, key(), state=b""))
    store.promote([key()])
    assert store.load_run("run-1").rounds == {"a": 1}
    assert store.state_path("a") is None


def test_the_newest_version_is_remembered_run_by_run(store: SqliteStore, reopen: Open) -> None:
    assert store.load_run("run-1").newest == (0, "")
    store.remember_version(3, "c" * 64)
    store.remember_version(4, "d" * 64)
    store.enter_run("run-2")
    store.remember_version(0, "e" * 64)
    again = reopen()
    assert again.load_run("run-1").newest == (4, "d" * 64)
    assert again.load_run("run-2").newest == (0, "e" * 64)
    assert again.load_run("run-3").newest == (0, "")


def test_dropping_removes_rows_and_files_and_an_unknown_key_is_no_error(store: SqliteStore) -> None:
    store.keep(finish(store, key()))
    store.drop([key(), key("nobody")])
    assert store.load_run("run-1").held == ()
    assert not store.body_path(key()).exists()
    assert not store.pending_state_path(key()).exists()


def test_reinitialising_takes_the_round_over_and_forgets_the_state(store: SqliteStore, reopen: Open) -> None:
    store.keep(finish(store, key()))
    store.promote([key()])
    store.reinitialise({"a": 9, "new": 2})
    again = reopen()
    assert again.load_run("run-1").rounds == {"a": 9, "new": 2}
    assert again.state_path("a") is None
    assert not list(again.pending_state_path(key()).parent.iterdir())


def test_runs_do_not_see_each_other_and_client_states_survive_a_change(store: SqliteStore) -> None:
    store.keep(finish(store, key()))
    store.promote([key()])
    store.version_path("d" * 64).write_bytes(b"1234")
    store.add_version(1, "d" * 64)
    store.enter_run("run-2")
    assert store.load_run("run-2").rounds == {}
    assert store.state_path("a") is None
    assert not store.version_path("d" * 64).exists()
    store.enter_run("run-1")
    assert store.load_run("run-1").rounds == {"a": 1}
    assert store.state_path("a") is not None
    assert store.runs() == ("run-1",)


def test_versions_are_listed_and_dropped(store: SqliteStore, reopen: Open) -> None:
    for number, digest in ((1, "1" * 64), (2, "2" * 64)):
        store.version_path(digest).write_bytes(b"1234")
        store.add_version(number, digest)
    store.drop_versions(["1" * 64])
    again = reopen()
    assert again.load_run("run-1").versions == {2: "2" * 64}
    assert not again.version_path("1" * 64).exists()
    assert again.version_path("2" * 64).exists()


def test_clients_whose_names_differ_in_case_or_are_odd_have_files_of_their_own(store: SqliteStore) -> None:
    names = ["a", "A", "..", ".", "x" * 128]
    for name in names:
        store.keep(finish(store, key(name), body=name.encode()))
    assert [store.body_path(key(name)).read_bytes() for name in names] == [name.encode() for name in names]


def test_a_second_worker_is_kept_out(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryLocked, match="--state-dir"):
        SqliteStore(tmp_path / "state")


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="make it writable"):
        SqliteStore(tmp_path / "file" / "state")


def test_another_format_is_refused(reopen: Open, tmp_path: Path) -> None:
    reopen().close()
    with sqlite3.connect(tmp_path / "state" / "store.sqlite3") as db:
        db.execute("UPDATE facts SET value = '99' WHERE name = 'format'")
    with pytest.raises(StorageFailed, match="format 99"):
        SqliteStore(tmp_path / "state")


def test_a_full_disk_is_told_apart_and_changes_nothing(store: SqliteStore) -> None:
    before = store.load_run("run-1")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFailed) as caught:
        for number in range(10_000):
            store.keep(finish(store, key(f"client-{number}")))
    assert caught.value.full
    store._db.execute("PRAGMA max_page_count=1000000")
    held = store.load_run("run-1").held
    assert len(held) < 10_000
    assert before.rounds == {}


def test_a_failed_promotion_leaves_the_update_pending(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = finish(store, key(), state=b"x" * (states.MAX_BYTES + 1))
    store.keep(kept)

    def broken(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.store.states.sync_file", broken)
    with pytest.raises(StorageFailed) as caught:
        store.promote([key()])
    assert caught.value.full
    monkeypatch.undo()
    assert store.load_run("run-1").held == (kept,)
    store.promote([key()])
    assert store.load_run("run-1").rounds == {"a": 1}


def test_after_a_power_cut_damaged_updates_are_dropped(
    store: SqliteStore, reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in "abc":
        store.keep(finish(store, key(client), body=b"0123456789"))
    store.body_path(key("a")).write_bytes(b"\0" * 10)
    store.pending_state_path(key("b")).write_bytes(b"\0" * 5)
    monkeypatch.setattr(files, "BOOT_ID", Path("/nonexistent"))
    again = reopen()
    assert [finished.key.client for finished in again.load_run("run-1").held] == ["c"]


def test_without_a_power_cut_files_are_not_hashed_but_missing_ones_are_noticed(
    store: SqliteStore, reopen: Open
) -> None:
    for client in "ab":
        store.keep(finish(store, key(client)))
    store.body_path(key("a")).unlink()
    assert [finished.key.client for finished in reopen().load_run("run-1").held] == ["b"]


def test_a_killed_process_loses_nothing_it_kept(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_worker_store import finish, key
        from worker.store.sqlite import SqliteStore
        store = SqliteStore(Path(sys.argv[1]))
        store.enter_run("run-1")
        store.keep(finish(store, key("a")))
        store.promote([key("a")])
        store.keep(finish(store, key("b")))
        finish(store, key("c"))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto'}"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "state"), str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = SqliteStore(tmp_path / "state")
    stored = store.load_run("run-1")
    assert stored.rounds == {"a": 1}
    assert [finished.key.client for finished in stored.held] == ["b"]
    assert store.state_path("a") is not None
    store.close()


def test_an_imported_client_has_the_state_and_round_of_the_file(store: SqliteStore, tmp_path: Path) -> None:
    packed = safetensors.numpy.save({"x": np.arange(3)})
    (tmp_path / "in").write_bytes(packed)
    store.import_client("run-9", "a", 7, tmp_path / "in")
    number, state = store.client_state("run-9", "a")
    assert number == 7
    assert state is not None
    assert state.read_bytes() == packed
    assert store.current_run() == "run-1"
    store.forget_client("run-9", "a")
    assert store.client_state("run-9", "a") == (0, None)
    assert not state.exists()


def finish_together(store: Store, name: str, clients: str, body: bytes = b"fold") -> tuple[Finished, ...]:
    store.fold_path(name).write_bytes(body)
    single = [finish(store, key(client), body=b"") for client in clients]
    for each in single:
        store.body_path(each.key).unlink()
    return tuple(
        dataclasses.replace(
            each,
            body_size=len(body),
            chunk_digests=b"".join(chunk_digests(body)),
            fold=name,
            fold_clients=len(clients),
        )
        for each in single
    )


def test_a_fold_takes_the_place_of_the_one_before_and_its_file_goes_with_the_last_of_its_clients(
    store: SqliteStore,
) -> None:
    store.keep_fold(finish_together(store, "f1", "ab"))
    kept = finish_together(store, "f2", "abc", b"more")
    store.keep_fold(kept)
    assert store.load_run("run-1").held == kept
    assert not store.fold_path("f1").exists()
    store.promote([key("a")])
    store.drop([key("b")])
    assert store.fold_path("f2").exists()
    store.promote([key("c")])
    assert not store.fold_path("f2").exists()
    assert store.load_run("run-1").rounds == {"a": 1, "c": 1}


def test_a_fold_survives_the_death_of_the_process_and_one_without_a_row_is_swept(reopen: Open) -> None:
    store = reopen()
    store.enter_run("run-1")
    kept = finish_together(store, "f1", "ab")
    store.keep_fold(kept)
    finish_together(store, "f2", "abc")
    store = reopen()
    assert store.load_run("run-1").held == kept
    assert store.fold_path("f1").exists()
    assert not store.fold_path("f2").exists()


def test_after_a_reboot_a_damaged_fold_costs_all_of_its_clients_and_a_damaged_state_one(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = reopen()
    store.enter_run("run-1")
    store.keep_fold(finish_together(store, "f1", "ab"))
    store.keep_fold(finish_together(store, "f2", "cd"))
    store.fold_path("f1").write_bytes(b"dlof")
    store.pending_state_path(key("d")).write_bytes(b"damaged")
    monkeypatch.setattr("worker.store.sqlite.boot_id", lambda: "another boot")
    assert [each.key.client for each in reopen().load_run("run-1").held] == ["c"]


def test_what_was_never_kept_leaves_no_file(store: SqliteStore) -> None:
    kept, never = finish_together(store, "f1", "ab"), finish_together(store, "f2", "cd")
    store.keep_fold(kept)
    store.forget(never)
    assert store.fold_path("f1").exists()
    assert not store.fold_path("f2").exists()
    assert not store.pending_state_path(key("c")).exists()


def test_small_states_that_a_power_cut_spoiled_are_written_anew_and_only_the_current_ones(
    reopen: Open,
) -> None:
    store = reopen()
    store.enter_run("run-1")
    for client in "ab":
        store.keep(finish(store, key(client), state=client.encode() * 9))
    store.promote([key("a"), key("b")])
    first = store.client_state("run-1", "a")[1]
    assert first is not None
    store.keep(finish(store, key("a", 2), state=b"newer"))
    store.promote([key("a", 2)])
    paths = [store.client_state("run-1", client)[1] for client in "ab"]
    assert paths[0] is not None
    assert paths[1] is not None
    paths[0].write_bytes(b"")
    paths[1].unlink()
    reopen()
    assert paths[0].read_bytes() == b"newer"
    assert paths[1].read_bytes() == b"b" * 9
    assert not first.exists()


def test_a_large_state_is_synced_as_a_file_and_small_ones_are_not(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("worker.store.states.sync_file", lambda path: synced.append(path.name))
    large = b"x" * (states.MAX_BYTES + 1)
    store.keep(finish(store, key("a"), state=large))
    store.keep(finish(store, key("b"), state=large[:-1]))
    store.promote([key("a"), key("b")])
    assert synced == [store.pending_state_path(key("a")).name]


def test_a_forgotten_client_leaves_no_copy_of_its_state(reopen: Open) -> None:
    store = reopen()
    store.enter_run("run-1")
    store.keep(finish(store, key("a"), state=b"private"))
    store.promote([key("a")])
    path = store.client_state("run-1", "a")[1]
    assert path is not None
    store.forget_client("run-1", "a")
    reopen()
    assert not path.exists()
