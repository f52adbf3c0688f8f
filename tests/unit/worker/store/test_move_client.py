"""Moving a client between hosts, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from ssd_wire.messages import UpdateKey
from worker.cli.main import main
from worker.core.finished import Finished
from worker.errors import TransferRefused
from worker.store.move_client import export_client, import_client, list_clients
from worker.store.sqlite import SqliteStore


def key(round_number: int) -> UpdateKey:
    return UpdateKey(client="a", round=round_number, base_digest="b", task_digest="t")


def hold(store: SqliteStore, round_number: int, value: int) -> None:
    packed = safetensors.numpy.save({"chain": np.array([value])})
    store.body_path(key(round_number)).write_bytes(b"body")
    store.pending_state_path(key(round_number)).write_bytes(packed)
    store.keep(
        Finished(
            key=key(round_number),
            weight=1,
            seconds=1.0,
            body_size=4,
            chunk_digests=b"",
            state_digest="0" * 64,
        )
    )


@pytest.fixture
def here(tmp_path: Path) -> SqliteStore:
    store = SqliteStore(tmp_path / "here")
    store.enter_run("run-1")
    hold(store, 3, 33)
    store.promote([key(3)])
    return store


def test_a_client_moves_with_its_state_and_record(
    here: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here.close()
    file = tmp_path / "a.client"
    assert (
        main(["client", "export", "a", "--state-dir", str(tmp_path / "here"), "--out", str(file), "--remove"])
        == 0
    )
    assert main(["client", "import", str(file), "--state-dir", str(tmp_path / "there")]) == 0
    assert "as of round 3" in capsys.readouterr().out
    assert main(["client", "list", "--state-dir", str(tmp_path / "there"), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["run"], row["client"], row["last_committed_round"]) == ("run-1", "a", 3)
    assert main(["client", "list", "--state-dir", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out == ""
    there = SqliteStore(tmp_path / "there")
    _, state = there.client_state("run-1", "a")
    assert state is not None
    assert safetensors.numpy.load_file(state)["chain"] == [33]
    there.close()


def test_a_host_without_a_run_enters_that_of_its_first_client_and_another_stays_where_it_is(
    here: SqliteStore, tmp_path: Path
) -> None:
    """Its first hello must not deny the state it was given."""
    export_client(here, "a", tmp_path / "file", remove=False)
    for directory, before, after in (("fresh", "", "run-1"), ("busy", "run-2", "run-2")):
        store = SqliteStore(tmp_path / directory)
        if before:
            store.enter_run(before)
        import_client(store, tmp_path / "file")
        assert store.current_run() == after
        assert store.load_run("run-1").rounds == {"a": 3}
        assert store.client_state("run-1", "a")[1] is not None
        store.close()


def test_a_client_with_an_open_update_stays(here: SqliteStore, tmp_path: Path) -> None:
    hold(here, 4, 44)
    with pytest.raises(TransferRefused, match="fate is open"):
        export_client(here, "a", tmp_path / "a.client")
    assert not (tmp_path / "a.client").exists()
    here.close()


def test_an_unknown_client_is_refused(here: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(TransferRefused, match="nothing of client z"):
        export_client(here, "z", tmp_path / "z.client")
    here.close()


def test_an_older_file_does_not_replace_a_newer_state(here: SqliteStore, tmp_path: Path) -> None:
    export_client(here, "a", tmp_path / "old")
    hold(here, 4, 44)
    with pytest.raises(TransferRefused, match="fate is open"):
        import_client(here, tmp_path / "old")
    here.promote([key(4)])
    with pytest.raises(TransferRefused, match="as of round 4"):
        import_client(here, tmp_path / "old")
    assert list_clients(here)[0].last_committed_round == 4
    here.close()


@pytest.mark.parametrize("content", [b"", b"rubbish", safetensors.numpy.save({"x": np.zeros(1)})])
def test_a_file_that_is_no_export_is_refused(here: SqliteStore, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TransferRefused):
        import_client(here, tmp_path / "x")
    here.close()


def test_a_running_worker_keeps_the_commands_out(
    here: SqliteStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["client", "list", "--state-dir", str(tmp_path / "here")]) == 3
    assert "another worker uses" in capsys.readouterr().err
    here.close()


def test_a_state_directory_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert main(["client", "list", "--state-dir", str(tmp_path / "none")]) == 2


def test_a_wrong_configuration_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "w.toml"
    file.write_text("[worker]\nnmae = 1\n")
    assert main(["run", "--config", str(file)]) == 2
    assert "did you mean name?" in capsys.readouterr().err
    assert main(["run", "--insecure", "--set", "novalue"]) == 2
    assert main(["run", "--insecure", "--state-dir", str(tmp_path)]) == 2  # hosts nobody
    assert "hosts no client" in capsys.readouterr().err
