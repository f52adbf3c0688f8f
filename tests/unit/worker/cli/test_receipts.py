"""`ssd-worker receipts`: what this worker signed, for people and for `ssd-coordinator audit --receipts`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from ssd.secagg.audit.receipts import read_receipts
from ssd.secagg.client.receipts import Receipt
from ssd.secagg.protocol.graph import Level
from worker.cli.main import cli
from worker.errors import StorageFailed
from worker.store.sqlite import SqliteStore

RECEIPT = Receipt(
    round_id=b"r" * 16,
    base_digest=b"b" * 32,
    round=3,
    attempt=2,
    level=Level.ACTIVE,
    roster=("w1", "w2", "w3"),
    threshold=2,
    corrupt=1,
)


def test_receipts_are_listed_beside_a_worker_that_runs(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.secure.remember_upload(RECEIPT)
    arguments = ["receipts", "--state-dir", str(tmp_path), "--name", "w1"]
    said = CliRunner().invoke(cli, arguments)
    assert said.exit_code == 0, said.exception
    assert "round 3, attempt 2" in said.output
    assert "signed nothing" in said.output
    store.secure.remember_signed(b"r" * 16, ("w1", "w2"), b"s" * 32)
    assert "signed a set of 2" in CliRunner().invoke(cli, arguments).output
    found = read_receipts(CliRunner().invoke(cli, [*arguments, "--format", "json"]).stdout.encode())
    assert found.worker == "w1"
    assert [(each.round, each.signed) for each in found.receipts] == [(3, ("w1", "w2"))]
    store.close()


def test_a_folder_that_is_no_workers(tmp_path: Path) -> None:
    said = CliRunner().invoke(cli, ["receipts", "--state-dir", str(tmp_path / "nowhere")])
    assert isinstance(said.exception, StorageFailed)
    assert "is that a worker's state directory" in str(said.exception)
