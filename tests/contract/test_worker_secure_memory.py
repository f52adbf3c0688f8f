"""What a participant must not forget: `ssd.secagg`'s `RoundMemory` as the worker's store keeps it."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ssd.secagg.client.receipts import Receipt
from ssd.secagg.protocol.graph import Level
from ssd_wire.messages import UpdateKey
from worker.core.finished import Finished
from worker.errors import StorageFailed
from worker.store import secure_memory
from worker.store.sqlite import SqliteStore

ROOT = Path(__file__).resolve().parents[2]
Open = Callable[[], SqliteStore]
BASE, OTHER = b"b" * 32, b"c" * 32


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


def round_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_a_round_id_is_known_for_good(reopen: Open) -> None:
    memory = reopen().secure
    assert not memory.seen(round_id(1))
    memory.remember_round(round_id(1))
    memory.remember_round(round_id(1))
    assert memory.seen(round_id(1))
    again = reopen().secure
    assert again.seen(round_id(1))
    assert not again.seen(round_id(2))


def test_a_base_that_was_opened_keeps_its_survivor_set(reopen: Open) -> None:
    memory = reopen().secure
    assert memory.opened(BASE) is None
    memory.remember_opened(BASE, round_id(1), b"s" * 32)
    memory.remember_opened(BASE, round_id(1), b"s" * 32)
    again = reopen().secure
    assert again.opened(BASE) == b"s" * 32
    assert again.opened(OTHER) is None


def test_a_base_is_never_opened_for_another_set(reopen: Open) -> None:
    memory = reopen().secure
    memory.remember_opened(BASE, round_id(1), b"s" * 32)
    with pytest.raises(ValueError, match="another survivor set"):
        memory.remember_opened(BASE, round_id(2), b"t" * 32)
    assert memory.opened(BASE) == b"s" * 32


def test_it_is_remembered_across_runs(reopen: Open) -> None:
    store = reopen()
    store.enter_run("run-1")
    store.secure.remember_round(round_id(1))
    store.secure.remember_opened(BASE, round_id(1), b"s" * 32)
    store.enter_run("run-2")
    assert store.secure.seen(round_id(1))
    assert store.secure.opened(BASE) == b"s" * 32


def test_it_stays_small_and_forgets_the_oldest_first(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_memory, "MAX_ROUNDS", 5)
    monkeypatch.setattr(secure_memory, "MAX_OPENED", 3)
    memory = reopen().secure
    for number in range(20):
        memory.remember_round(round_id(number))
        memory.remember_opened(number.to_bytes(32, "big"), round_id(number), b"s" * 32)
    assert [number for number in range(20) if memory.seen(round_id(number))] == [15, 16, 17, 18, 19]
    kept = [number for number in range(20) if memory.opened(number.to_bytes(32, "big")) is not None]
    assert kept == [17, 18, 19]


def test_what_it_was_told_survives_sigkill_right_after(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from worker.store.sqlite import SqliteStore
        memory = SqliteStore(Path(sys.argv[1])).secure
        memory.remember_round(b"r" * 16)
        memory.remember_opened(b"b" * 32, b"r" * 16, b"s" * 32)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    path = os.pathsep.join((str(ROOT), str(ROOT / "proto")))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    store = SqliteStore(tmp_path)
    assert store.secure.seen(b"r" * 16)
    assert store.secure.opened(BASE) == b"s" * 32
    store.close()


def test_both_are_written_through_a_power_cut(reopen: Open) -> None:
    store = reopen()
    levels: list[int] = []

    def trace(statement: str) -> None:
        if statement.startswith("INSERT"):
            levels.append(store._db.execute("PRAGMA synchronous").fetchone()[0])

    store._db.set_trace_callback(trace)
    store.secure.remember_round(round_id(1))
    store.secure.remember_opened(BASE, round_id(1), b"s" * 32)
    store._db.set_trace_callback(None)
    assert levels == [2, 2]  # FULL


def test_a_store_that_cannot_write_says_so_and_remembers_nothing(reopen: Open) -> None:
    store = reopen()
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StorageFailed):
        store.secure.remember_round(round_id(1))
    with pytest.raises(StorageFailed):
        store.secure.remember_opened(BASE, round_id(1), b"s" * 32)
    store._db.execute("PRAGMA query_only = 0")
    assert not store.secure.seen(round_id(1))
    assert store.secure.opened(BASE) is None


def test_a_store_of_an_older_program_gets_the_tables(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.sqlite3") as db:
        db.executescript("DROP TABLE secure_rounds; DROP TABLE secure_opened; DROP TABLE secure_receipts")
    store = SqliteStore(tmp_path)
    assert not store.secure.seen(round_id(1))
    store.close()


def test_the_rounding_secret_is_made_once_and_private(reopen: Open, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret = reopen().rounding_secret()
    finally:
        os.umask(before)
    assert len(secret) == 32
    assert reopen().rounding_secret() == secret
    path = tmp_path / "state" / "rounding.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = SqliteStore(tmp_path / "other")
    assert other.rounding_secret() != secret
    other.close()


def test_a_damaged_rounding_secret_is_not_used(reopen: Open, tmp_path: Path) -> None:
    store = reopen()
    store.rounding_secret()
    (tmp_path / "state" / "rounding.secret").write_bytes(b"short")
    with pytest.raises(StorageFailed, match="32 bytes"):
        store.rounding_secret()


def test_masked_uploads_of_an_earlier_process_are_gone(reopen: Open) -> None:
    path = reopen().masked_path("x.body")
    path.write_bytes(b"masked")
    assert not reopen().masked_path("x.body").exists()


def test_the_level_of_each_run_is_remembered(reopen: Open) -> None:
    store = reopen()
    store.enter_run("run-1")
    assert store.load_run("run-1").level == "off"
    store.remember_level("active")
    store.enter_run("run-2")
    again = reopen()
    assert again.load_run("run-1").level == "active"
    assert again.load_run("run-2").level == "off"


# ---------------------------------------------------------------------------------------------------- receipts

RECEIPT = Receipt(
    round_id=round_id(1),
    base_digest=BASE,
    round=3,
    attempt=2,
    level=Level.ACTIVE,
    roster=("w1", "w2", "w3"),
    threshold=2,
    corrupt=1,
)


def key(client: str) -> UpdateKey:
    return UpdateKey(client=client, round=3, base_digest=BASE.hex(), task_digest="t")


def keep(store: SqliteStore, *clients: str) -> None:
    """Updates with their files, as a worker has them after training."""
    for client in clients:
        body = b"body"
        store.body_path(key(client)).write_bytes(body)
        digest = hashlib.sha256(body).digest()
        store.keep(
            Finished(key=key(client), weight=1, seconds=0.0, body_size=len(body), chunk_digests=digest)
        )


def test_a_receipt_outlives_the_process_and_its_set_stands(reopen: Open) -> None:
    memory = reopen().secure
    memory.remember_upload(RECEIPT)
    memory.remember_upload(replace(RECEIPT, roster=("w1", "w9")))
    assert memory.receipts() == (RECEIPT,)
    memory.remember_signed(round_id(1), ("w1", "w2"), b"s" * 32)
    memory.remember_signed(round_id(1), ("w1", "w3"), b"t" * 32)
    memory.remember_signed(round_id(2), ("w1",), b"t" * 32)
    signed = replace(RECEIPT, signed=("w1", "w2"), survivors_digest=b"s" * 32)
    assert reopen().secure.receipts() == (signed,)
    assert reopen().secure.uploads(BASE) == (signed,)
    assert reopen().secure.uploads(OTHER) == ()


def test_what_was_masked_is_known_of_updates_that_are_kept(reopen: Open) -> None:
    store = reopen()
    store.enter_run("run-1")
    keep(store, "a", "b")
    store.secure.remember_upload(RECEIPT)
    assert store.load_run("run-1").summed == frozenset()
    store.secure.remember_clients(round_id(1), "run-1", ["b", "a"])
    both = {(3, BASE.hex(), "a"), (3, BASE.hex(), "b")}
    assert reopen().load_run("run-1").summed == both
    assert reopen().load_run("run-2").summed == frozenset()
    store = reopen()
    store.drop([key("a"), key("b")])
    assert store.load_run("run-1").summed == frozenset()


def test_an_attempt_that_was_refused_counts_for_nothing(reopen: Open) -> None:
    store = reopen()
    store.enter_run("run-1")
    keep(store, "a")
    store.secure.remember_upload(RECEIPT)
    store.secure.remember_clients(round_id(1), "run-1", ["a"])
    store.secure.remember_refused(round_id(1))
    store.secure.remember_refused(round_id(7))
    assert reopen().load_run("run-1").summed == frozenset()


def test_receipts_stay_few(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_memory, "MAX_RECEIPTS", 3)
    memory = reopen().secure
    for number in range(9):
        memory.remember_upload(replace(RECEIPT, round_id=round_id(number)))
    assert [each.round_id for each in memory.receipts()] == [round_id(6), round_id(7), round_id(8)]


def test_receipts_are_read_beside_a_worker_that_runs(reopen: Open, tmp_path: Path) -> None:
    memory = reopen().secure
    memory.remember_upload(RECEIPT)
    assert secure_memory.read_receipts(tmp_path / "state") == (RECEIPT,)
    with pytest.raises(StorageFailed, match="is that a worker's state directory"):
        secure_memory.read_receipts(tmp_path / "nowhere")


def test_the_sets_that_were_signed_last(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secure_memory, "RECENT_SETS", 2)
    memory = reopen().secure
    for number in range(4):
        memory.remember_upload(replace(RECEIPT, round_id=round_id(number)))
        if number != 2:
            memory.remember_signed(round_id(number), ("w1", f"w{number}"), bytes(32))
    assert reopen().secure.signed_sets() == (("w1", "w3"), ("w1", "w1"))
