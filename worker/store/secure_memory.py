"""What a participant of secure aggregation must not forget. `ssd.secagg`'s `RoundMemory`, in the worker's store.

- Every round id it took an offer of: a process started again has no keys of it and must not make new ones for it.
- Every base it revealed shares for, with the survivor set: two sums opened over one base, of sets that differ by one
  participant, give that one away.
- Every attempt it uploaded for: who else was in it, which of its own clients, and the survivor set it signed. A client's
  state is promoted for such an attempt only, and `ssd-worker receipts` shows them.

All are on disk, through a power cut, before the call returns, because what follows from them is told right after.
The oldest are forgotten beyond `MAX_ROUNDS` and `MAX_OPENED`: an attempt on a base that old is not worked at anyway
(`worker.core.history`), and keys are fresh in every round id.

The secret that rounding is drawn from is a file of its own, made once and readable for its owner alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, Protocol

from ssd.secagg.client.receipts import Receipt
from ssd.secagg.protocol.graph import Level
from ssd.trust.private_files import replace_private
from worker.core.events import Summed
from worker.errors import StorageFailed
from worker.store.files import storage_faults

MAX_ROUNDS = 100_000
MAX_OPENED = 100_000
MAX_RECEIPTS = 100_000
RECENT_SETS = 16
"""How many of the sets that were signed last a new one is compared with."""
SECRET_BYTES = 32
SECRET_FILE = "rounding.secret"  # noqa: S105  # a name
SCHEMA = """
CREATE TABLE IF NOT EXISTS secure_rounds (
    number INTEGER PRIMARY KEY AUTOINCREMENT, round_id BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE IF NOT EXISTS secure_opened (
    number INTEGER PRIMARY KEY AUTOINCREMENT, base BLOB NOT NULL UNIQUE, round_id BLOB NOT NULL, survivors BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS secure_receipts (
    number INTEGER PRIMARY KEY AUTOINCREMENT, round_id BLOB NOT NULL UNIQUE, base BLOB NOT NULL, round INTEGER NOT NULL,
    attempt INTEGER NOT NULL, level TEXT NOT NULL, roster TEXT NOT NULL, threshold INTEGER NOT NULL,
    corrupt INTEGER NOT NULL, signed TEXT NOT NULL DEFAULT '[]', survivors BLOB NOT NULL DEFAULT x'',
    run TEXT NOT NULL DEFAULT '', clients TEXT NOT NULL DEFAULT '[]', refused INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS secure_receipts_base ON secure_receipts (base);
"""
_COLUMNS = "round_id, base, round, attempt, level, roster, threshold, corrupt, signed, survivors"


class Write(Protocol):
    """A transaction of the store."""

    def __call__(self, *, durable: bool) -> AbstractContextManager[sqlite3.Connection]:
        """Begin one; `durable`: on disk when it ends."""
        ...


class SecureMemory:
    """Reads and writes through the store's own transactions; safe to call from any thread.

    Raises (all methods):
        StorageFailed: nothing was written, and nothing may be told that depends on it.
    """

    def __init__(self, read: Callable[[], AbstractContextManager[sqlite3.Connection]], write: Write) -> None:
        self._read = read
        self._write = write

    def seen(self, round_id: bytes) -> bool:
        """Whether an offer of that id was ever taken."""
        with self._read() as db:
            found = db.execute("SELECT 1 FROM secure_rounds WHERE round_id = ?", (round_id,)).fetchone()
        return found is not None

    def remember_round(self, round_id: bytes) -> None:
        """Never take an offer of that id again."""
        with self._write(durable=True) as db:
            db.execute("INSERT OR IGNORE INTO secure_rounds (round_id) VALUES (?)", (round_id,))
            db.execute(
                "DELETE FROM secure_rounds WHERE number <= (SELECT max(number) FROM secure_rounds) - ?",
                (MAX_ROUNDS,),
            )

    def opened(self, base_digest: bytes) -> bytes | None:
        """Hash of the survivor set this worker revealed shares for over that base; None: it revealed none."""
        with self._read() as db:
            row = db.execute("SELECT survivors FROM secure_opened WHERE base = ?", (base_digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def remember_opened(self, base_digest: bytes, round_id: bytes, survivor_hash: bytes) -> None:
        """Reveal for no other set over that base. The first one stands: it is never replaced.

        Raises:
            ValueError: another set was remembered for that base.
        """
        with self._write(durable=True) as db:
            row = db.execute("SELECT survivors FROM secure_opened WHERE base = ?", (base_digest,)).fetchone()
            if row is not None:
                if bytes(row[0]) != survivor_hash:
                    raise ValueError("shares were revealed over this base for another survivor set")
                return
            db.execute(
                "INSERT INTO secure_opened (base, round_id, survivors) VALUES (?, ?, ?)",
                (base_digest, round_id, survivor_hash),
            )
            db.execute(
                "DELETE FROM secure_opened WHERE number <= (SELECT max(number) FROM secure_opened) - ?",
                (MAX_OPENED,),
            )

    def uploads(self, base_digest: bytes) -> tuple[Receipt, ...]:
        """The attempts over that base that a masked vector was made for, oldest first."""
        with self._read() as db:
            return _receipts(db, " WHERE base = ?", (base_digest,))

    def signed_sets(self) -> tuple[tuple[str, ...], ...]:
        """The survivor sets signed last."""
        with self._read() as db:
            rows = db.execute(
                "SELECT signed FROM secure_receipts WHERE survivors <> x'' ORDER BY number DESC LIMIT ?",
                (RECENT_SETS,),
            ).fetchall()
        return tuple(tuple(json.loads(signed)) for (signed,) in rows)

    def remember_upload(self, receipt: Receipt) -> None:
        """Keep an attempt that a masked vector is made for; of a round id that is kept, nothing changes."""
        row = (
            receipt.round_id,
            receipt.base_digest,
            receipt.round,
            receipt.attempt,
            receipt.level.value,
            json.dumps(receipt.roster),
            receipt.threshold,
            receipt.corrupt,
        )
        with self._write(durable=True) as db:
            db.execute(
                "INSERT OR IGNORE INTO secure_receipts"
                " (round_id, base, round, attempt, level, roster, threshold, corrupt) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            db.execute(
                "DELETE FROM secure_receipts WHERE number <= (SELECT max(number) FROM secure_receipts) - ?",
                (MAX_RECEIPTS,),
            )

    def remember_clients(self, round_id: bytes, run_id: str, clients: Iterable[str]) -> None:
        """Whose updates are in the masked vector of an attempt that is kept."""
        with self._write(durable=True) as db:
            db.execute(
                "UPDATE secure_receipts SET run = ?, clients = ? WHERE round_id = ?",
                (run_id, json.dumps(sorted(clients)), round_id),
            )

    def remember_signed(self, round_id: bytes, names: tuple[str, ...], survivor_hash: bytes) -> None:
        """Add the survivor set to an attempt that is kept; the first one stands."""
        with self._write(durable=True) as db:
            db.execute(
                "UPDATE secure_receipts SET signed = ?, survivors = ? WHERE round_id = ? AND survivors = x''",
                (json.dumps(names), survivor_hash, round_id),
            )

    def remember_refused(self, round_id: bytes) -> None:
        """Keep that this worker did not go on with an attempt: what it uploaded counts for nothing."""
        with self._write(durable=True) as db:
            db.execute("UPDATE secure_receipts SET refused = 1 WHERE round_id = ?", (round_id,))

    def receipts(self) -> tuple[Receipt, ...]:
        """All that are kept, oldest first."""
        with self._read() as db:
            return _receipts(db)


def read_receipts(state_dir: Path) -> tuple[Receipt, ...]:
    """All receipts of a worker's state directory, which may be in use; nothing is written.

    Raises:
        StorageFailed: there is no store, or it cannot be read.
    """
    path = state_dir / "store.sqlite3"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return _receipts(db)
    except sqlite3.Error as error:
        raise StorageFailed(
            f"{path} cannot be read ({error}): is that a worker's state directory?"
        ) from error


def _receipts(db: sqlite3.Connection, where: str = "", values: tuple[bytes, ...] = ()) -> tuple[Receipt, ...]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM secure_receipts{where} ORDER BY number", values).fetchall()  # noqa: S608  # constants of ours
    return tuple(_receipt(row) for row in rows)


def summed(db: sqlite3.Connection, run_id: str) -> frozenset[Summed]:
    """Whose updates went into masked vectors of a run, and over which base; of bases that updates are kept of."""
    rows = db.execute(
        "SELECT round, base, clients FROM secure_receipts WHERE run = ? AND refused = 0"
        " AND lower(hex(base)) IN (SELECT base FROM updates WHERE run = ?)",
        (run_id, run_id),
    ).fetchall()
    return frozenset(
        (number, bytes(base).hex(), client)
        for number, base, clients in rows
        for client in json.loads(clients)
    )


def _receipt(row: Sequence[Any]) -> Receipt:
    round_id, base, number, attempt, level, roster, threshold, corrupt, signed, survivors = row
    return Receipt(
        round_id=bytes(round_id),
        base_digest=bytes(base),
        round=number,
        attempt=attempt,
        level=Level(level),
        roster=tuple(json.loads(roster)),
        threshold=threshold,
        corrupt=corrupt,
        signed=tuple(json.loads(signed)),
        survivors_digest=bytes(survivors),
    )


def rounding_secret(directory: Path, entropy: Callable[[int], bytes]) -> bytes:
    """The 32 bytes that the rounding of this worker's updates is drawn from; made when first asked for.

    Raises:
        StorageFailed: the file cannot be made, or does not hold 32 bytes.
    """
    path = directory / SECRET_FILE
    with storage_faults(directory):
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            secret = entropy(SECRET_BYTES)
            replace_private(path, secret)
    if len(secret) != SECRET_BYTES:
        raise StorageFailed(
            f"{path} does not hold {SECRET_BYTES} bytes: it was damaged. Remove it while no round is under way, and a"
            " new one is made"
        )
    return secret
