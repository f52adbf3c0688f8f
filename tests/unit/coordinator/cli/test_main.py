"""`ssd-coordinator`: what it prints, where errors go, and the exit code of everything that can go wrong."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from coordinator import app, errors
from coordinator.cli import tables
from coordinator.cli.main import main
from coordinator.config.sections import load
from operations.scripted_operator import Run, ScriptedOperator
from processes.pki import Pki
from ssd.daemon.cli import guard
from ssd_proto.v1.operator_pb2_grpc import add_OperatorServicer_to_server


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def server(pki: Pki) -> Iterator[tuple[ScriptedOperator, str]]:
    servicer = ScriptedOperator()
    serving = grpc.server(futures.ThreadPoolExecutor(4))
    add_OperatorServicer_to_server(servicer, serving)
    port = serving.add_secure_port("127.0.0.1:0", pki.server_credentials())
    serving.start()
    yield servicer, f"127.0.0.1:{port}"
    serving.stop(0).wait()


@pytest.fixture
def operator(server: tuple[ScriptedOperator, str]) -> ScriptedOperator:
    servicer, _ = server
    servicer.told.clear()
    return servicer


@pytest.fixture
def address(server: tuple[ScriptedOperator, str]) -> str:
    return server[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, pki: Pki) -> None:
    for name in list(os.environ):
        if name.startswith("SSD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SSD_PKI", str(pki.folder))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the console script in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


class TestVerbs:
    def test_status_for_people(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        code, out, err = run("status", "--address", address)
        assert (code, err) == (0, "")
        assert "phase     waiting: 2 more clients" in out
        assert "version   2 of 10  abababababababab" in out
        assert "round     3, attempt 1: 1 accepted, 0 failed, 4 invited" in out
        assert "clients   4 of 6 connected, on 1 workers" in out
        assert "round was loss -" in out
        assert "privacy   epsilon 2 at delta 1e-05 after 2 rounds" in out
        assert "\x1b" not in out

    def test_status_for_programs(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        _, out, _ = run("status", "--address", address, "--format", "json")
        value = json.loads(out)
        assert (value["phase"], value["version"], value["statistics"]) == ("waiting", 2, {"loss": None})
        assert value["workers"][0]["worker"] == "w1"
        assert value["privacy"].startswith("epsilon 2 ")

    def test_watching_prints_every_change(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        code, out, _ = run("status", "--watch", "--address", address, "--format", "json")
        assert (code, [json.loads(line)["round"] for line in out.splitlines()]) == (0, [3, 3])

    def test_watch_prints_one_picture_where_there_is_no_terminal(
        self, run: Run, address: str, operator: ScriptedOperator
    ) -> None:
        code, out, err = run("watch", "--address", address)
        assert (code, err) == (0, "")
        assert "phase     waiting: 2 more clients" in out
        assert "1 of 4 uploaded" in out
        assert [line.split()[:2] for line in out.splitlines() if line.startswith("2.2")] == [
            ["2.2", "committed"]
        ]
        assert [line.split() for line in out.splitlines() if line.startswith("w1")] == [
            ["w1", "evaluates", "cpu", "4", "0.5", "s"]
        ]
        assert "\x1b" not in out
        code, out, err = run("watch", "--once", "--address", "127.0.0.1:1")
        assert (code, out) == (3, "")
        assert "no coordinator answers at 127.0.0.1:1" in err

    def test_rounds(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        _, out, _ = run("rounds", "--address", address, "--limit", "7")
        assert operator.told == ["rounds 7"]
        lines = out.splitlines()
        assert lines[0].split() == [
            "round",
            "attempt",
            "outcome",
            "clients",
            "time",
            "up",
            "down",
            "loss",
            "digest",
            "or",
            "reason",
        ]
        assert lines[2].split() == [
            "2",
            "2",
            "committed",
            "3/4",
            "90.0",
            "s",
            "5.0",
            "MiB",
            "0",
            "B",
            "1.25",
            "cdcdcdcdcdcdcdcd",
        ]
        assert lines[3].endswith("deadline")
        _, out, _ = run("rounds", "--address", address, "--format", "json")
        assert [each["outcome"] for each in json.loads(out)] == ["open", "committed", "abandoned"]

    def test_evaluations(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        _, out, _ = run("evaluations", "--address", address)
        assert out.splitlines() == ["version 0: knn 0.25", "version 2: knn 0.5, rank 7"]
        _, out, _ = run("evaluations", "--address", address, "--format", "json")
        assert json.loads(out)[1] == {"version": 2, "values": {"knn": 0.5, "rank": 7.0}}

    def test_clients(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        _, out, _ = run("clients", "--address", address)
        assert "0,1,2,3,4,5,… (9)" in out
        assert out.splitlines()[2].split() == ["b", "-", "revoked", "-", "0", "-"]
        _, out, _ = run("clients", "--address", address, "--format", "json")
        assert [(each["client"], each["index"]) for each in json.loads(out)] == [("a", 0), ("b", None)]

    @pytest.mark.parametrize("verb", ["pause", "resume", "drain"])
    def test_wishes_reach_the_coordinator(
        self, run: Run, address: str, operator: ScriptedOperator, verb: str
    ) -> None:
        code, out, _ = run(verb, "--address", address)
        assert (code, operator.told) == (0, [verb])
        assert verb[:5] in out
        assert json.loads(run(verb, "--address", address, "--format", "json")[1]) == {"done": verb}

    def test_revoke(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        assert run("revoke", "a", "--address", address)[:2] == (0, "revoked a\n")
        code, out, err = run("revoke", "zz", "--address", address)
        assert (code, out) == (3, "")
        assert "refused (not_found): no client is called zz" in err

    def test_revoking_the_holder_of_a_certificate(
        self, run: Run, address: str, operator: ScriptedOperator
    ) -> None:
        there = run("revoke", "--worker", "w1", "--address", address)
        assert there[:2] == (0, "revoked worker w1, which was connected\n")
        away = run("revoke", "--observer", "olga", "--address", address, "--format", "json")[1]
        assert json.loads(away) == {"done": "revoke", "role": "observer", "name": "olga", "connected": False}
        assert operator.told == ["revoke worker w1", "revoke observer olga"]

    @pytest.mark.parametrize("what", [[], ["a", "--worker", "w"], ["--worker", "w", "--operator", "o"]])
    def test_one_thing_is_revoked_at_a_time(self, run: Run, address: str, what: list[str]) -> None:
        code, _, err = run("revoke", *what, "--address", address)
        assert code == 2
        assert "name one CLIENT" in err

    def test_moving_a_client(self, run: Run, address: str, operator: ScriptedOperator) -> None:
        moved = run("clients", "move", "a", "--to", "w2", "--address", address)
        assert moved[:2] == (0, "a belongs to w2 now, before to w1\n")
        assert run("clients", "move", "b", "--to", "w2", "--address", address)[1] == "b belongs to w2 now\n"
        assert operator.told == ["move a w2", "move b w2"]
        assert run("clients", "move", "a", "--address", address)[0] == 2

    def test_the_address_may_come_from_the_configuration_or_the_environment(
        self,
        run: Run,
        address: str,
        operator: ScriptedOperator,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = tmp_path / "c.toml"
        path.write_text(f'[coordinator]\nlisten = "{address}"\n')
        assert run("pause", "--config", str(path))[0] == 0
        monkeypatch.setenv("SSD_COORDINATOR_LISTEN", address)
        assert run("pause")[0] == 0
        assert operator.told == ["pause", "pause"]

    def test_tls_or_not_is_said_and_certificates_are_where_it_is_said(
        self,
        run: Run,
        address: str,
        operator: ScriptedOperator,
        pki: Pki,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        code, _, err = run("pause", "--address", address, "--insecure")
        assert code == 3
        assert "the coordinator speaks TLS: leave out --insecure" in err
        monkeypatch.delenv("SSD_PKI")
        monkeypatch.chdir(tmp_path)
        code, _, err = run("pause", "--address", address)
        assert code == 2
        assert "pki/ca.pem: no such file" in err
        assert "--pki" in err
        assert operator.told == []
        assert run("pause", "--address", address, "--pki", str(pki.folder))[0] == 0
        code, _, err = run("pause", "--address", "198.51.100.7:7443", "--insecure")
        assert code == 2
        assert "another machine" in err

    def test_nobody_there(self, run: Run) -> None:
        code, out, err = run("status", "--address", "127.0.0.1:1")
        assert (code, out) == (3, "")
        assert "no coordinator answers at 127.0.0.1:1" in err
        assert "--address" in err

    def test_somebody_else_there(self, run: Run) -> None:
        other = grpc.server(futures.ThreadPoolExecutor(1))
        port = other.add_insecure_port("127.0.0.1:0")
        other.start()
        code, _, err = run("status", "--address", f"127.0.0.1:{port}", "--insecure")
        said = run("status", "--address", f"127.0.0.1:{port}")
        other.stop(0).wait()
        assert said[0] == 3
        assert "speaks no TLS" in said[2]
        assert code == 3
        assert "it is no coordinator" in err


class TestConfigShow:
    def test_what_is_printed_is_a_configuration_file(self, run: Run, tmp_path: Path) -> None:
        assignments = [
            'method.config={lr = 0.1, "odd key" = ["a\\"b", "c\\nd"], deep = {x = 1}}',
            'run.clients=["b", "a"]',
            "round.cohort_size=2",
        ]
        options = [part for each in assignments for part in ("--set", each)]
        code, out, _ = run("config", "show", "--insecure", "--rounds", "7", "--state-dir", "s", *options)
        assert code == 0
        assert tomllib.loads(out)["run"]["clients"] == ["a", "b"]
        path = tmp_path / "c.toml"
        path.write_text(out)
        config = load(path, {}, {})
        assert config.method.config["odd key"] == ['a"b', "c\nd"]
        assert (config.run.rounds, config.coordinator.state_dir) == (7, tmp_path / "s")
        assert "# warm_start is not set" in out
        code, again, _ = run("config", "show", "--config", str(path), "--format", "json")
        assert json.loads(again) == config.resolved()

    def test_all_mistakes_and_exit_code_2(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "c.toml"
        path.write_text("[run]\nrouds = 3\nseed = -1\n")
        code, out, err = run("config", "show", "--config", str(path), "--insecure")
        assert (code, out) == (2, "")
        assert "c.toml:2: [run] rouds: unknown key; did you mean rounds?" in err
        assert "c.toml:3: [run] seed" in err

    @pytest.mark.parametrize("assignment", ["run.rounds", "rounds=3", "="])
    def test_a_bad_assignment(self, run: Run, assignment: str) -> None:
        code, _, err = run("config", "show", "--insecure", "--set", assignment)
        assert code == 2
        assert "write table.key" in err


class TestRun:
    def test_flags_reach_the_daemon_and_its_exit_code_is_ours(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        def fake(config: object) -> int:
            seen.append(config)
            return 4

        monkeypatch.setattr(app, "run", fake)
        arguments = ["--insecure", "--listen", "unix:/tmp/c", "--state-dir", "s", "--rounds", "3"]
        code, _, _ = run("run", *arguments, "--set", "log.level=debug")
        assert code == 4
        expected = load(
            None,
            {
                "transport.insecure": True,
                "coordinator.listen": "unix:/tmp/c",
                "coordinator.state_dir": "s",
                "run.rounds": 3,
                "log.level": "debug",
            },
            {},
        )
        assert seen == [expected]

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            (errors.ConfigInvalid("x"), 2),
            (errors.RunConfigChanged("x"), 2),
            (errors.MethodRefused("x"), 2),
            (errors.PortUnavailable("x"), 3),
            (errors.StateDirectoryLocked("x"), 3),
            (errors.StorageFailed("x"), 4),
            (errors.BlobMissing("x"), 4),
            (errors.BlobCorrupt("x"), 4),
            (errors.MethodHostFailed("x"), 1),
            (errors.JournalConflict("x"), 1),
            (KeyboardInterrupt(), 130),
        ],
    )
    def test_every_fault_has_its_exit_code(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, fault: BaseException, code: int
    ) -> None:
        def fail(config: object) -> int:
            raise fault

        monkeypatch.setattr(app, "run", fail)
        found, out, err = run("run", "--insecure")
        assert (found, out) == (code, "")
        assert err.startswith("error: x") or code == 130
        assert ("a defect" in err) == (code == 1)

    def test_every_operator_fault_has_a_code(self) -> None:
        def below(kind: type) -> Iterator[type]:
            for each in kind.__subclasses__():
                yield each
                yield from below(each)

        for kind in below(errors.OperatorFault):
            assert kind.exit_code in {2, 3, 4}


class TestUsage:
    def test_help_names_every_verb_and_exit_code(self, run: Run) -> None:
        code, out, _ = run("--help")
        assert code == 0
        for verb in [
            "run",
            "status",
            "rounds",
            "clients",
            "pause",
            "resume",
            "drain",
            "revoke",
            "export",
            "config",
        ]:
            assert f"  {verb}" in out
        assert "Exit codes: 0 done" in out

    @pytest.mark.parametrize(
        "arguments", [["nosuch"], ["run", "--nosuch"], ["revoke"], ["rounds", "--limit", "0"]]
    )
    def test_wrong_usage_is_2_and_goes_to_standard_error(self, run: Run, arguments: list[str]) -> None:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert "Usage:" in err

    def test_colour_only_where_wanted(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = ("config", "show", "--set", "run.rounds=0")
        assert "\x1b" not in run(*wrong)[2]
        monkeypatch.setattr(guard, "colour", lambda: True)
        assert "\x1b" in run(*wrong)[2]


class TestConsole:
    @pytest.mark.parametrize(
        ("nbytes", "text"),
        [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (26_615_628, "25.4 MiB"),
            (5 << 40, "5.0 TiB"),
            (1 << 60, "1048576.0 TiB"),
        ],
    )
    def test_sizes(self, nbytes: int, text: str) -> None:
        assert tables.size(nbytes) == text

    def test_columns_line_up_whatever_their_colour(self) -> None:
        lines = tables.table(("a", "b"), [("\x1b[31mlong\x1b[0m", 1), ("x", 22)]).splitlines()
        assert lines[1] == "\x1b[31mlong\x1b[0m  1"
        assert lines[2] == "x     22"

    def test_empty_answers_say_so(self) -> None:
        assert tables.rounds([]) == "no round was opened yet"
        assert tables.clients([]) == "no client is registered yet"
