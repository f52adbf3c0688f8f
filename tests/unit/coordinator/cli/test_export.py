"""`ssd-coordinator export`: the file it writes, and what is refused before or while it is written."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from coordinator.cli.main import main
from operations.scripted_operator import DECLARATION, Run, ScriptedOperator
from processes.pki import Pki
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


class TestExport:
    def test_the_newest_version_becomes_an_encoder_file(
        self,
        run: Run,
        address: str,
        operator: ScriptedOperator,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        out = tmp_path / "encoder.safetensors"
        code, said, _ = run("export", "--out", str(out), "--address", address, "--format", "json")
        assert code == 0
        assert json.loads(said) == {"out": str(out), "version": 2, "model_digest": operator.model_digest}
        content = out.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert header["__metadata__"]["run"] == "run-1"
        assert header["__metadata__"]["version"] == "2"
        assert header["__metadata__"]["declaration_digest"] == DECLARATION.digest
        assert json.loads(header["__metadata__"]["config"]) == dict(DECLARATION.config)
        assert json.loads(header["__metadata__"]["provenance"]) == {
            "parent_digest": "cd" * 32,
            "mode": "elastic",
            "rounds": 10,
            "registered_clients": 6,
            "included_clients": 3,
            "total_weight": 420,
            "statistics": {"weight": 210.0, "loss": None},
            "evaluation": {"knn": 0.5},
            "secure_aggregation": "passive",
            "privacy": "epsilon 2 at delta 1e-05 after 2 rounds",
            "build": "test/1",
        }
        assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]

    def test_what_the_exporter_knows_is_noted_and_a_missing_part_is_explained(
        self, run: Run, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        out = tmp_path / "encoder.safetensors"
        assert run("export", "--out", str(out), "--address", address, "--trained-on", "cifar100")[0] == 0
        content = out.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert header["__metadata__"]["trained_on"] == "cifar100"
        other = tmp_path / "part.safetensors"
        code, _, err = run("export", "--out", str(other), "--address", address, "--part", "projector")
        assert code != 0
        assert "no part 'projector'" in err
        assert not other.exists()

    def test_an_existing_file_is_kept_unless_forced(
        self,
        run: Run,
        address: str,
        operator: ScriptedOperator,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        out = tmp_path / "encoder.safetensors"
        out.write_text("precious")
        code, _, err = run("export", "--out", str(out), "--address", address)
        assert (code, out.read_text()) == (2, "precious")
        assert "--force" in err
        code, _, _ = run("export", "--out", str(out), "--address", address, "--force", "--version", "1")
        assert (code, operator.told) == (0, ["version 1"])
        assert out.read_bytes() != b"precious"

    @pytest.mark.parametrize("damage", ["bit", "short", "long", "digest"])
    def test_what_arrives_damaged_is_refused(
        self,
        run: Run,
        address: str,
        operator: ScriptedOperator,
        tmp_path: Path,
        damage: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        good = operator.blob
        changed = {"bit": bytes([good[0] ^ 1]) + good[1:], "short": good[:-4], "long": good + b"1234"}
        monkeypatch.setattr(operator, "blob", changed.get(damage, good))
        if damage == "digest":
            monkeypatch.setattr(operator, "model_digest", hashlib.sha256(b"other").hexdigest())
        code, _, err = run("export", "--out", str(tmp_path / "e.safetensors"), "--address", address)
        assert code == 4
        assert "damaged" in err or "digest" in err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("{file}", "no name of a method"),
            ("evil.py", "no name of a method"),
            (
                "evil",
                "unknown method 'evil'; if you have the method's file, name it with --method; valid are",
            ),
            ("syntetic", "if you have the method's file, name it with --method; did you mean synthetic?"),
        ],
    )
    def test_a_file_that_the_coordinator_names_is_not_run(
        self,
        run: Run,
        address: str,
        operator: ScriptedOperator,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        said: str,
    ) -> None:
        for file in (tmp_path / "evil.py", tmp_path / "evil"):
            file.write_text("from pathlib import Path\nPath(__file__).with_name('executed').write_text('')\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*sys.path, str(tmp_path)]))
        method = {"method": name.format(file=tmp_path / "evil.py")}
        monkeypatch.setattr(operator, "declaration", json.dumps(DECLARATION.to_json() | method).encode())
        code, _, err = run("export", "--out", str(tmp_path / "e.safetensors"), "--address", address)
        assert (code, said in err) == (2, True), err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["evil", "evil.py"]

    @pytest.mark.parametrize("content", [b"[" * 100_000, b"null", b"\xff", b'{"method": "synthetic"}'])
    def test_what_is_no_declaration_is_refused(
        self, run: Run, address: str, operator: ScriptedOperator, tmp_path: Path, content: bytes,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(operator, "declaration", content)
        code, _, err = run("export", "--out", str(tmp_path / "e.safetensors"), "--address", address)
        assert (code, "no declaration of a method" in err) == (2, True), err
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_written(
        self, run: Run, address: str, operator: ScriptedOperator, tmp_path: Path
    ) -> None:
        code, _, err = run(
            "export", "--out", str(tmp_path / "absent" / "e.safetensors"), "--address", address
        )
        assert code == 4
        assert "cannot be written" in err
