"""`ssd-coordinator ca init|issue|show`: which files they make, what they refuse, and that nothing is overwritten."""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import stat
from pathlib import Path

import pytest

from coordinator.cli.main import main
from ssd.trust.authority import Credential, fingerprint, subject_of_certificate, validity
from ssd.trust.names import Role, Subject

NAMES = ["ca.key", "ca.pem", "coordinator.key", "coordinator.pem", "operator.key", "operator.pem"]


def ca(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as done:
        main(["ca", *map(str, arguments)])
    assert isinstance(done.value.code, int)
    return done.value.code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def pki(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "pki"
    assert ca("init", "--out", folder, "--host", "localhost", "--host", "127.0.0.1", "--federation", "f") == 0
    capsys.readouterr()
    return folder


class TestInit:
    def test_makes_the_authority_the_coordinator_and_an_operator_private_from_the_start(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = os.umask(0)
        assert ca("init", "--out", tmp_path / "deep" / "pki", "--host", "localhost") == 0
        os.umask(before)
        folder = tmp_path / "deep" / "pki"
        said = capsys.readouterr()
        assert sorted(path.name for path in folder.iterdir()) == NAMES
        assert sorted(Path(line).name for line in said.out.split()) == NAMES
        assert "ca.key secret" in said.err
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}

    def test_names_the_coordinator_and_the_operator_of_that_federation(self, pki: Path) -> None:
        held = contents(pki)
        assert subject_of_certificate(held["coordinator.pem"]) == Subject(
            "f", Role.COORDINATOR, "coordinator"
        )
        assert subject_of_certificate(held["operator.pem"]) == Subject("f", Role.OPERATOR, "operator")
        for name in ("ca", "coordinator", "operator"):
            assert Credential(held[f"{name}.pem"], held[f"{name}.key"]).matches()

    def test_a_tls_client_that_trusts_the_authority_accepts_the_coordinator_by_each_host(
        self, pki: Path
    ) -> None:
        for host in ("localhost", "127.0.0.1"):
            assert handshake(pki, host)
        assert not handshake(pki, "elsewhere.example")

    def test_lives_as_long_as_it_is_told(self, tmp_path: Path) -> None:
        folder = tmp_path / "pki"
        assert ca("init", "--out", folder, "--host", "h", "--days", "2", "--certificate-days", "7") == 0
        ends = {name: validity((folder / name).read_bytes())[1] for name in ("ca.pem", "operator.pem")}
        assert ends["ca.pem"] == ends["operator.pem"]  # nothing outlives its authority
        assert abs(ends["ca.pem"] - dt.datetime.now(dt.UTC) - dt.timedelta(days=2)) < dt.timedelta(minutes=10)

    @pytest.mark.parametrize("name", NAMES)
    def test_overwrites_nothing_and_writes_nothing_beside_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        (tmp_path / name).write_bytes(b"precious")
        assert ca("init", "--out", tmp_path, "--host", "h") == 3
        assert contents(tmp_path) == {name: b"precious"}
        said = capsys.readouterr().err
        assert f"{tmp_path / name} exists" in said
        assert "--out" in said

    def test_a_disk_that_fails_half_way_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        calls = []
        real = os.fsync

        def fails_at_the_third(handle: int) -> None:
            calls.append(handle)
            if len(calls) == 3:
                raise OSError(28, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", fails_at_the_third)
        assert ca("init", "--out", tmp_path / "pki", "--host", "h") == 3
        assert contents(tmp_path / "pki") == {}
        assert "No space left" in capsys.readouterr().err

    def test_without_a_host_it_asks_for_one(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert ca("init", "--out", tmp_path / "pki") == 2
        assert "--host" in capsys.readouterr().err
        assert not (tmp_path / "pki").exists()

    @pytest.mark.parametrize("federation", ["", "two words", "a/b", "ä", "a" * 65])
    def test_a_name_no_certificate_can_carry_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], federation: str
    ) -> None:
        assert ca("init", "--out", tmp_path / "pki", "--host", "h", "--federation", federation) == 3
        assert "federation" in capsys.readouterr().err
        assert not (tmp_path / "pki").exists()

    @pytest.mark.parametrize("host", ["", "two words", "ä.example", "http://h", "h:7443", "*"])
    def test_a_host_that_is_none_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str
    ) -> None:
        assert ca("init", "--out", tmp_path / "pki", "--host", host) == 3
        assert "host" in capsys.readouterr().err
        assert not (tmp_path / "pki").exists()


class TestIssue:
    @pytest.mark.parametrize(
        ("role", "stem"),
        [
            ("operator", "operator"),
            ("observer", "operator"),
            ("worker", "worker"),
            ("evaluator", "worker"),
            ("coordinator", "coordinator"),
        ],
    )
    def test_writes_what_the_holders_program_looks_for(
        self, pki: Path, tmp_path: Path, role: str, stem: str
    ) -> None:
        out = tmp_path / "holder"
        assert ca("issue", "--role", role, "--name", "n-1", "--out", out, "--pki", pki, "--host", "h") == 0
        held = contents(out)
        assert sorted(held) == sorted(["ca.pem", f"{stem}.key", f"{stem}.pem"])
        assert held["ca.pem"] == (pki / "ca.pem").read_bytes()
        assert subject_of_certificate(held[f"{stem}.pem"]) == Subject("f", Role(role), "n-1")
        assert Credential(held[f"{stem}.pem"], held[f"{stem}.key"]).matches()
        assert stat.S_IMODE((out / f"{stem}.key").stat().st_mode) == 0o600

    def test_joins_a_folder_of_the_same_authority_and_refuses_anothers(
        self, pki: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ca("init", "--out", tmp_path / "other", "--host", "h") == 0
        for name, code in (("pki", 0), ("other", 3)):
            assert (
                ca("issue", "--role", "worker", "--name", "w", "--out", tmp_path / name, "--pki", pki) == code
            )
        assert "another authority's" in capsys.readouterr().err
        assert not (tmp_path / "other" / "worker.key").exists()

    def test_overwrites_nothing(self, pki: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        issue = ("issue", "--role", "worker", "--name", "w", "--out", tmp_path / "w", "--pki", pki)
        assert ca(*issue) == 0
        before = contents(tmp_path / "w")
        assert ca(*issue) == 3
        assert contents(tmp_path / "w") == before
        assert "worker.pem exists" in capsys.readouterr().err

    def test_a_coordinator_needs_a_host(
        self, pki: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ca("issue", "--role", "coordinator", "--name", "c", "--out", tmp_path / "c", "--pki", pki) == 3
        assert "--host" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda pki: (pki / "ca.key").unlink(), "ca init"),
            (lambda pki: (pki / "ca.key").write_bytes((pki / "operator.key").read_bytes()), "not the key of"),
            (lambda pki: (pki / "ca.pem").write_bytes((pki / "operator.pem").read_bytes()), "no authority"),
            (lambda pki: (pki / "ca.key").write_bytes(b"garbage"), "not a PEM private key"),
        ],
        ids=["no key", "another's key", "no authority", "garbage"],
    )
    def test_an_authority_that_is_none_is_refused(
        self, pki: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object, said: str
    ) -> None:
        damage(pki)  # type: ignore[operator]
        assert ca("issue", "--role", "worker", "--name", "w", "--out", tmp_path / "w", "--pki", pki) == 3
        assert said in capsys.readouterr().err
        assert not (tmp_path / "w").exists()


def test_show_says_whose_each_certificate_is_until_when_and_the_pin(
    pki: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ca("show", "--pki", pki, "--format", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["holder"] for each in shown] == [
        "f",
        "ssd://f/coordinator/coordinator",
        "ssd://f/operator/operator",
    ]
    assert shown[0]["sha256"] == fingerprint((pki / "ca.pem").read_bytes())
    assert ca("show", "--pki", pki) == 0
    assert shown[0]["sha256"] in capsys.readouterr().out


def test_show_of_an_empty_folder_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ca("show", "--pki", tmp_path) == 3
    assert "ca init" in capsys.readouterr().err


def handshake(pki: Path, host: str) -> bool:
    """Whether a client that trusts the authority alone takes the coordinator for `host`; in memory."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pki / "coordinator.pem", pki / "coordinator.key")
    client_side = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(up, down, server_side=True)
    client = client_side.wrap_bio(down, up, server_hostname=host)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in (client, server):
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return True
