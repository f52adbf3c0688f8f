"""Databases are their owner's alone from the first moment, under any mask; partial files follow no link."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.store.journal.sqlite import SqliteJournal
from coordinator.store.trust import SqliteTrust
from ssd.files import no_link
from ssd.trust.private_files import make_database_private
from ssd_wire.messages import BlobRef
from worker.downloads.blobs import PartialBlob
from worker.errors import StorageFailed
from worker.store.files import write_file
from worker.store.sqlite import SqliteStore


@pytest.fixture(autouse=True)
def a_generous_mask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path, name: str) -> set[int]:
    found = list(folder.glob(f"{name}*"))
    assert found
    return {stat.S_IMODE(path.stat().st_mode) for path in found}


@pytest.mark.parametrize("kind", [SqliteJournal, SqliteTrust])
def test_the_coordinators_database(tmp_path: Path, kind: type[SqliteJournal | SqliteTrust]) -> None:
    store = kind(tmp_path)
    assert modes(tmp_path, "state.sqlite3") == {0o600}
    store.close()


def test_the_workers_database(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.enter_run("r")
    assert modes(tmp_path, "store.sqlite3") == {0o600}
    store.close()


def test_a_database_of_an_earlier_version_is_closed_to_others_with_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE t (x)")
    writer.commit()
    assert modes(tmp_path, "state.sqlite3") == {0o644}
    assert len(list(tmp_path.iterdir())) == 3
    make_database_private(path)
    assert modes(tmp_path, "state.sqlite3") == {0o600}
    writer.execute("INSERT INTO t VALUES (1)")
    writer.commit()
    writer.close()
    assert sqlite3.connect(path).execute("SELECT x FROM t").fetchall() == [(1,)]


def test_no_partial_file_is_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    link = tmp_path / "x.part"
    link.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        write_file(link, memoryview(b"evil"))
    with pytest.raises(StorageFailed):
        PartialBlob(BlobRef(digest="ab" * 32, size=4), link)
    with pytest.raises(OSError, match="symbolic"):
        no_link(str(link), os.O_WRONLY | os.O_CREAT)
    dangling = tmp_path / "database"
    dangling.symlink_to(tmp_path / "elsewhere")
    make_database_private(dangling)
    assert precious.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()
