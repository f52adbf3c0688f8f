"""What the coordinator will not start on: an exit code, and a message that says what to do."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from processes.federation import Federation
from wire.hostile import SETTINGS, reference

pytestmark = pytest.mark.e2e
CONFIG, REFUSED, STORAGE = 2, 3, 4


def refusal(federation: Federation, **changes: Any) -> tuple[int, str]:
    """Start it and wait for its end: (exit code, what it said)."""
    before = federation.root / "coordinator.log"
    said = len(before.read_text()) if before.exists() else 0
    daemon = federation.start_coordinator(wait=False, **changes)
    try:
        code = daemon.process.wait(30)
    finally:
        daemon.kill()
    text = daemon.log.read_text()[said:]
    assert "Traceback" not in text, text
    return code, text


def federation_in(root: Path, **changes: Any) -> Federation:
    return Federation(root, **{**SETTINGS, **changes})


# -------------------------------------------------------------------------------------------- configuration

MISTAKES: dict[str, tuple[Any, list[str]]] = {
    "round.cohort_sise": (3, ["[round] cohort_sise: unknown key", "cohort_size"]),
    "rounds.cohort_size": (3, ["[rounds]: unknown table", "round"]),
    "run.cohort_size": (3, ["[run] cohort_size: unknown key; it belongs into [round]"]),
    "run.rounds": ("many", ["[run] rounds", "'many'"]),
    "limits.max_client_weight": (0, ["[limits] max_client_weight", "greater than or equal to 1"]),
    "round.cohort_size": (5, ["a cohort of 5 cannot be drawn from 4 clients"]),
    "coordinator.http_listen": ("nowhere", ["[coordinator] http_listen"]),
    "coordinator.listen": ("0.0.0.0:7443", ["[coordinator] listen", "listen on 127.0.0.1", "ca init"]),
}


def test_every_mistake_of_a_configuration_is_named_at_once(tmp_path: Path) -> None:
    code, said = refusal(
        federation_in(tmp_path, insecure=True, **{key: value for key, (value, _) in MISTAKES.items()})
    )
    assert code == CONFIG, said
    assert said.startswith("error: "), said
    for word in (word for _, words in MISTAKES.values() for word in words):
        assert word in said, said
    assert said.count("coordinator.toml") == len(MISTAKES)


REFUSALS: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "no certificates",
        {"transport.authority": "nowhere/ca.pem"},
        ["nowhere/ca.pem: no such file", "ca init", "--insecure"],
    ),
    (
        "no room for any upload",
        {"limits.staging_ram_bytes": 0, "limits.staging_disk_bytes": 0},
        ["both budgets are 0"],
    ),
    (
        "no room for a whole upload",
        {"limits.staging_ram_bytes": 1000, "limits.staging_disk_bytes": 1000},
        ["160096 bytes", "raise limits.staging_disk_bytes"],
    ),
    (
        "a sum that could overflow",
        {"method.config": {"scale": 1e18}},
        ["could overflow", "limits.max_client_weight"],
    ),
    ("a method nobody knows", {"method.name": "synthetik"}, ["synthetik", "synthetic"]),
    ("a method file that is not there", {"method.name": "./mine.py"}, ["mine.py"]),
    ("a method's unknown key", {"method.config": {"parametres": 9}}, ["parametres", "parameters"]),
    ("a method's bad value", {"method.config": {"parameters": 3}}, ["parameters must be at least 16, not 3"]),
]


@pytest.mark.parametrize(
    ("changes", "words"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_a_configuration_it_refuses(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    code, said = refusal(federation_in(tmp_path, **changes))
    assert code == CONFIG, said
    assert said.startswith("error: "), said
    for word in words:
        assert word in said, said


def test_a_method_file_that_breaks(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def create(config):\n    raise ValueError('depth must be odd')\n")
    code, said = refusal(federation_in(tmp_path, **{"method.name": str(mine)}))
    assert (code, "depth must be odd" in said) == (CONFIG, True), said


def test_an_environment_variable_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSD_ROUND_COHORT_SIZE", "many")
    code, said = refusal(federation_in(tmp_path))
    assert code == CONFIG
    assert "SSD_ROUND_COHORT_SIZE" in said


# ---------------------------------------------------------------------------------------------- in its way


@pytest.mark.parametrize("key", ["listen", "http_listen"])
def test_a_port_in_use(tmp_path: Path, key: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        code, said = refusal(federation_in(tmp_path), **{f"coordinator.{key}": address})
    assert code == REFUSED
    assert address in said
    assert key in said


@pytest.mark.parametrize("place", ["file", "proc"])
def test_a_state_directory_that_cannot_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("in the way")
    state_dir = Path("/proc/ssd-federated") if place == "proc" else tmp_path / "file" / "state"
    code, said = refusal(federation_in(tmp_path), **{"coordinator.state_dir": str(state_dir)})
    assert code == STORAGE
    assert str(state_dir) in said
    assert "state_dir" in said or "put this right" in said


def test_a_second_coordinator_on_one_state_directory(tmp_path: Path) -> None:
    with federation_in(tmp_path) as federation:
        first = federation.start_coordinator()
        second = Federation(tmp_path, **SETTINGS)
        second.root = tmp_path / "second"
        second.root.mkdir()
        code, said = refusal(second)
        assert code == REFUSED
        assert f"process {first.process.pid}" in said
        assert "its own state_dir" in said
        assert federation.status().phase == "waiting"
        assert first.running


# --------------------------------------------------------------------------------------- on an existing run


@pytest.fixture(scope="module")
def one_round(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a run with one committed round, stopped."""
    root = tmp_path_factory.mktemp("one-round")
    with federation_in(root, **{"run.rounds": 2}) as federation:
        coordinator = federation.start_coordinator()
        with federation.raw_worker("w", SETTINGS["run.clients"]) as worker:
            worker.attend().learn()
            worker.contribute(worker.expect("train"))
            federation.until(lambda: federation.status().version.number == 1, "one round is committed")
        assert coordinator.terminate() == 0
        return federation.state_dir


@pytest.fixture
def stopped(one_round: Path, tmp_path: Path) -> Iterator[Federation]:
    with federation_in(tmp_path) as federation:
        shutil.copytree(one_round, federation.state_dir)
        yield federation


def test_a_run_it_was_not_made_for(stopped: Federation) -> None:
    changes = {
        "run.seed": 6,
        "run.rounds": 1,
        "wire.delta_encoding": "int8",
        "method.config": {"parameters": 20001},
        "round.cohort_size": 2,
    }
    code, said = refusal(stopped, **changes)
    assert code == CONFIG
    for line in (
        "run.seed: the run has 5, now 6",
        "run.rounds: the run has 2, now 1 (it may only grow)",
        "wire.delta_encoding: the run has 'float16', now 'int8'",
        "method.config.parameters: the run has 20000, now 20001",
        "round.cohort_size: the run has 3, now 2",
        "start a new run in another state_dir",
    ):
        assert line in said, said


def damage_content(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: list[tuple[str, Callable[[Path], object], list[str]]] = [
    ("one bit", damage_content, ["chunk 0", "is damaged"]),
    ("cut short", lambda path: path.write_bytes(path.read_bytes()[:-1]), ["do not prove it"]),
    ("missing", lambda path: path.unlink(), ["is not here"]),
    ("without its chunk list", lambda path: path.with_name(path.name + ".chunks").unlink(), ["missing"]),
]


@pytest.mark.parametrize("role", ["model", "residual"])
@pytest.mark.parametrize(
    ("damage", "words"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)
def test_a_blob_that_is_not_intact(
    stopped: Federation, damage: Callable[[Path], object], words: list[str], role: str
) -> None:
    store = stopped.store()
    version = store.versions()[-1]
    store.close()
    digest = version.full.digest if role == "model" else version.server_state["residual"].digest
    damage(stopped.state_dir / "blobs" / digest[:2] / digest)
    code, said = refusal(stopped)
    assert code == STORAGE, said
    named = "version 1" if role == "model" else "server state 'residual'"
    for word in (*words, named, digest, "Restore the state directory from a backup"):
        assert word in said, said


def test_a_journal_that_is_none(stopped: Federation) -> None:
    journal = stopped.state_dir / "state.sqlite3"
    journal.write_bytes(b"this is no database, whatever its name says" * 100)
    code, said = refusal(stopped)
    assert code == STORAGE
    assert "not a database" in said
    assert "backup" in said


def test_a_journal_of_a_newer_version(stopped: Federation) -> None:
    with closing(sqlite3.connect(stopped.state_dir / "state.sqlite3")) as database:
        database.execute("UPDATE schema_version SET version = 1000")
        database.commit()
    code, said = refusal(stopped)
    assert code == STORAGE
    assert "newer" in said


def test_after_all_those_refusals_the_run_goes_on(stopped: Federation) -> None:
    """A refused start leaves the state directory as it was."""
    assert refusal(stopped, **{"run.seed": 6})[0] == CONFIG
    coordinator = stopped.start_coordinator()
    with stopped.raw_worker("w", SETTINGS["run.clients"]) as worker:
        run = stopped.store()
        record = run.current_run()
        included = {each.client: each.last_committed_round for each in run.clients()}
        run.close()
        assert record is not None
        # A worker that lost its store: every client's state begins anew, which the synthetic method's digest shows.
        worker.attend(run_id=record.run_id)
        assert {each.client for each in worker.welcome.reinitialise} == {c for c, r in included.items() if r}
        worker.learn()
        worker.contribute(worker.expect("train"))
        stopped.until(lambda: stopped.status().version.number == 2, "the second round is committed")
    assert coordinator.terminate() == 0
    assert stopped.digests()[:2] == reference(SETTINGS)[:2]
