"""`config init|show|check` of both daemons: what init writes loads, show tells no secret, check tells every mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from coordinator.cli.main import main as coordinator_main
from coordinator.config.sections import CoordinatorConfig
from coordinator.config.sections import load as load_coordinator
from coordinator.errors import StorageFailed
from coordinator.ports.records import RunRecord, VersionRecord
from coordinator.store.journal.reading import read_run
from coordinator.store.journal.sqlite import SqliteJournal
from ssd.daemon.secrets_hidden import HIDDEN, without_secrets
from ssd.daemon.setting_text import kind_text, tables
from ssd.daemon.toml_text import document
from ssd_wire.messages import BlobRef
from worker.cli.main import main as worker_main
from worker.config.sections import WorkerConfig
from worker.config.sections import load as load_worker

Run = Callable[..., tuple[int, str, str]]
DAEMONS = {
    "coordinator": (coordinator_main, load_coordinator, CoordinatorConfig),
    "worker": (worker_main, load_worker, WorkerConfig),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SSD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a daemon's command line in this process: exit code, standard output, standard error."""

    def call(daemon: str, *arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code: Any = DAEMONS[daemon][0](list(arguments))
        except SystemExit as ended:
            code = ended.code
        out, err = capfd.readouterr()
        return int(code or 0), out, err

    return call


class TestInit:
    def test_the_coordinators_example_loads_and_says_what_flags_said(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        said = ("--rounds", "7", "--insecure", "--set", "round.over_selection=1.5")
        code, out, err = run("coordinator", "config", "init", "--out", str(path), *said)
        assert (code, err) == (0, "")
        assert f"config check --config {path}" in out
        config = load_coordinator(path, {}, {})
        assert (config.run.rounds, config.transport.insecure, config.round.over_selection) == (7, True, 1.5)
        assert config.method.config["image"] == {"size": 96, "channels": 3}

    def test_the_workers_example_loads_and_hosts_folders(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "w.toml"
        assert run("worker", "config", "init", "--out", str(path), "--name", "north")[0] == 0
        config = load_worker(path, {}, {})
        assert config.worker.name == "north"
        assert (config.data.kind, config.data.clients) == ("folder", ("*",))
        assert set(config.data.folders) == {"client-a", "client-b"}

    def test_data_that_flags_name_take_the_place_of_the_folders(self, run: Run) -> None:
        code, out, _ = run("worker", "config", "init", "--set", "data.kind=digits", "--partition", "p.json")
        assert code == 0
        assert tomllib.loads(out)["data"] == {
            "kind": "digits",
            "clients": [],
            "partition": "p.json",
            "folders": {},
        }

    @pytest.mark.parametrize("daemon", DAEMONS)
    def test_every_setting_is_in_it_and_its_default_is_what_stands_there(
        self, run: Run, tmp_path: Path, daemon: str
    ) -> None:
        _, load, root = DAEMONS[daemon]
        text = run(daemon, "config", "init")[1]
        for table in tables(root):
            for setting in table.settings:
                assert re.search(rf"^(?:\[{table.name}\.|# ?)?{setting.key}\b", text, re.MULTILINE), (
                    setting.name
                )
        path = tmp_path / "as-it-is.toml"
        path.write_text(text)
        uncommented = tmp_path / "uncommented.toml"
        uncommented.write_text(re.sub(r"(?m)^#(?=\w+ = )", "", text))
        assert len(uncommented.read_text()) < len(text)
        assert load(uncommented, {}, {}) == load(path, {}, {})

    @pytest.mark.parametrize("daemon", DAEMONS)
    def test_nothing_is_replaced_unasked(self, run: Run, tmp_path: Path, daemon: str) -> None:
        path = tmp_path / "mine.toml"
        path.write_text("precious")
        code, _, err = run(daemon, "config", "init", "--out", str(path))
        assert (code, path.read_text()) == (2, "precious")
        assert "--force" in err
        assert run(daemon, "config", "init", "--out", str(path), "--force")[0] == 0
        assert path.read_text() != "precious"
        code, _, err = run(daemon, "config", "init", "--config", str(path))
        assert code == 2
        assert "config show" in err

    @pytest.mark.parametrize("daemon", DAEMONS)
    def test_a_folder_that_is_not_there(self, run: Run, tmp_path: Path, daemon: str) -> None:
        code, _, err = run(daemon, "config", "init", "--out", str(tmp_path / "none" / "c.toml"))
        assert code == 4
        assert "cannot be written" in err

    @pytest.mark.parametrize("daemon", DAEMONS)
    def test_a_file_holds_what_was_typed_and_not_this_shells_environment(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, daemon: str
    ) -> None:
        monkeypatch.setenv("SSD_LOG_LEVEL", "debug")
        assert 'level = "info"' in run(daemon, "config", "init")[1]

    @pytest.mark.parametrize("daemon", DAEMONS)
    def test_what_cannot_be_is_not_written(self, run: Run, tmp_path: Path, daemon: str) -> None:
        path = tmp_path / "c.toml"
        code, _, err = run(daemon, "config", "init", "--out", str(path), "--set", "log.level=loud")
        assert code == 2
        assert "[log] level" in err
        assert not path.exists()


class TestShow:
    def test_the_workers_as_toml_and_as_json(self, run: Run, tmp_path: Path) -> None:
        text = run("worker", "config", "show", "--insecure", "--name", "w")[1]
        path = tmp_path / "w.toml"
        path.write_text(text)
        told = json.loads(run("worker", "config", "show", "--config", str(path), "--format", "json")[1])
        assert told == load_worker(path, {}, {}).resolved()
        assert told["worker"]["name"] == "w"

    @pytest.mark.parametrize("form", ["human", "json"])
    def test_secrets_are_not_shown(self, run: Run, form: str) -> None:
        secrets = 'method.config={hub_token = "hf_abc", deep = {Password = "p-w"}, batch = 3}'
        options = ("--insecure", "--set", secrets, "--set", "method.name=ssdjoin1_c2VjcmV0")
        code, out, _ = run("coordinator", "config", "show", "--format", form, *options)
        assert code == 0
        assert not [secret for secret in ("hf_abc", "p-w", "c2VjcmV0") if secret in out]
        assert out.count(HIDDEN) == 3
        assert "batch" in out

    def test_a_token_that_was_pasted_where_a_server_name_belongs(self, run: Run) -> None:
        out = run("worker", "config", "show", "--set", "transport.server_name=ssdjoin1_c2VjcmV0")[1]
        assert "c2VjcmV0" not in out


class TestCheck:
    @pytest.mark.parametrize("daemon", DAEMONS)
    def test_every_mistake_and_exit_code_2(self, run: Run, tmp_path: Path, daemon: str) -> None:
        path = tmp_path / "c.toml"
        path.write_text('[log]\nlevel = "loud"\nfromat = "json"\n')
        code, out, err = run(daemon, "config", "check", "--config", str(path))
        assert (code, out) == (2, "")
        assert "c.toml:2: [log] level" in err
        assert "c.toml:3: [log] fromat: unknown key; did you mean format?" in err
        code, out, err = run(daemon, "config", "check", "--config", str(path), "--format", "json")
        told = json.loads(out)
        assert (code, err, told["ok"], len(told["problems"])) == (2, "", False, 2)

    def test_a_sound_file_of_a_worker(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "w.toml"
        path.write_text("[transport]\ninsecure = true\n")
        assert run("worker", "config", "check", "--config", str(path))[:2] == (0, f"{path} is sound\n")
        told = run("worker", "config", "check", "--config", str(path), "--format", "json")[1]
        assert json.loads(told) == {"ok": True, "problems": []}

    def test_the_methods_settings_are_checked_by_the_method(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text('[method]\nname = "synthetic"\n[method.config]\nscale = -1.0\n')
        state = ("--state-dir", str(tmp_path / "state"))
        code, out, err = run("coordinator", "config", "check", "--config", str(path), *state)
        assert (code, out) == (2, "")
        assert "scale must be positive" in err
        assert run("coordinator", "config", "check", "--no-method", "--config", str(path), *state)[0] == 0
        path.write_text('[method]\nname = "synthetic"\n')
        checked = run("coordinator", "config", "check", "--config", str(path), *state)
        assert checked == (0, f"{path} is sound\n", "")
        assert not (tmp_path / "state").exists()

    def test_what_an_existing_run_does_not_accept(self, run: Run, tmp_path: Path) -> None:
        make_run(tmp_path, CoordinatorConfig().run_config())
        base = ("coordinator", "config", "check", "--no-method", "--state-dir", str(tmp_path))
        assert run(*base)[0] == 0
        before = listing(tmp_path)
        code, _, err = run(*base, "--set", "run.seed=9", "--set", "log.level=debug")
        assert code == 2
        assert "run.seed: the run has 0, now 9" in err
        assert "log.level" not in err
        assert listing(tmp_path) == before

    def test_a_database_that_is_none(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "state.sqlite3").write_text("no database at all, but long enough to look like one" * 40)
        code, _, err = run("coordinator", "config", "check", "--no-method", "--state-dir", str(tmp_path))
        assert code == 4
        assert "cannot be read as a coordinator's state database" in err


def make_run(state_dir: Path, config: dict[str, Any]) -> None:
    blob = BlobRef(digest="ab" * 32, size=4)
    store = SqliteJournal(state_dir)
    record = RunRecord(
        run_id="r",
        created_at=1.0,
        config=config,
        declaration={},
        declaration_blob=blob,
        declaration_digest="",
    )
    store.create_run(record, VersionRecord(number=0, model_digest="cd" * 32, full=blob, delta=None))
    store.close()


def listing(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((path.name, path.read_bytes()) for path in folder.iterdir())


class TestReading:
    def test_beside_a_store_that_is_open(self, tmp_path: Path) -> None:
        make_run(tmp_path, {"run": {"seed": 4}})
        store = SqliteJournal(tmp_path)
        found = read_run(tmp_path)
        assert found == store.current_run()
        store.close()

    def test_no_run_and_no_database(self, tmp_path: Path) -> None:
        assert read_run(tmp_path) is None
        assert list(tmp_path.iterdir()) == []
        SqliteJournal(tmp_path).close()
        assert read_run(tmp_path) is None

    def test_a_newer_database_is_refused(self, tmp_path: Path) -> None:
        SqliteJournal(tmp_path).close()
        with sqlite3.connect(tmp_path / "state.sqlite3") as db:
            db.execute("UPDATE schema_version SET version = 99")
        db.close()
        with pytest.raises(StorageFailed, match="schema version 99"):
            read_run(tmp_path)

    def test_a_damaged_one_is_a_fault_of_storage(self, tmp_path: Path) -> None:
        make_run(tmp_path, {})
        damaged = tmp_path / "damaged"
        damaged.mkdir()
        shutil.copy(tmp_path / "state.sqlite3", damaged)
        with (damaged / "state.sqlite3").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 4096 * 8)
        with pytest.raises(StorageFailed, match="cannot be read"):
            read_run(damaged)


class TestHiding:
    @pytest.mark.parametrize(
        "name", ["token", "api_key", "API-Key", "hub_token", "client_secret", "db-password", "credentials"]
    )
    def test_names_of_secrets(self, name: str) -> None:
        assert without_secrets({name: "x", "n": 1}) == {name: HIDDEN, "n": 1}
        assert without_secrets({"deep": [{name: ["x", "y"]}]}) == {"deep": [{name: [HIDDEN, HIDDEN]}]}

    @pytest.mark.parametrize(
        "text",
        [
            "ssdjoin1_abc",
            "-----BEGIN PRIVATE KEY-----\nabc",
            "-----BEGIN EC PRIVATE KEY-----",
            "s3://u:p@host/b",
        ],
    )
    def test_what_secrets_look_like(self, text: str) -> None:
        assert without_secrets({"path": text}) == {"path": HIDDEN}

    def test_everything_else_is_shown(self) -> None:
        tree = {**CoordinatorConfig().resolved(), "token": None, "tokens_per_batch": 7, "token_file": "t"}
        assert without_secrets(tree) == tree
        assert without_secrets(WorkerConfig().resolved()) == WorkerConfig().resolved()


class TestWords:
    @pytest.mark.parametrize(
        ("kind", "metadata", "words"),
        [
            (bool, [], "true or false"),
            (Annotated[int, Field(ge=1, lt=1 << 63)], [], "whole number, at least 1, less than 2^63"),
            (Annotated[float, Field(gt=0)] | None, [], "number, more than 0"),
            (Path | None, [], "path"),
            (Literal["a", "b", "c"], [], "`a`, `b` or `c`"),
            (tuple[Literal[16], ...], [], "list of `16`"),
            (list[int], [], "list of whole numbers"),
            (dict[str, Path], [], "table: name to path"),
            (dict[str, Any], [], "table"),
            (str, [], "text"),
        ],
    )
    def test_types(self, kind: Any, metadata: list[Any], words: str) -> None:
        assert kind_text(kind, metadata) == words

    def test_a_tree_as_toml_and_back(self) -> None:
        tree = {
            "a": {"x": 1, "odd key": ['q"', "\n", True], "t": {"y": 0.5, "z": [{"u": "ü"}]}},
            "n": {"none": None},
        }
        read = tomllib.loads(document(tree))
        assert read == {"a": tree["a"], "n": {}}
