"""From a worker's signing key to a registry it accepts, with the commands an operator types."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator.cli.main import cli as coordinator
from coordinator.errors import OperatorFault
from processes.pki import Pki
from ssd.trust.participants import decode
from ssd.trust.registry_pin import accept, read_pin
from worker.cli.main import cli as worker
from worker.errors import OperatorFault as WorkerFault

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(program: object, *arguments: object) -> Result:
        return CliRunner().invoke(program, [str(each) for each in arguments])  # type: ignore[arg-type]  # a group

    return call


def introduction(run: Run, pki: Pki, name: str, *options: str) -> Path:
    pki.worker(name)
    done = run(worker, "identity", "init", "--set", f"transport.identity_dir={pki.folder / 'workers' / name}",
               "--name", name, *options)  # fmt: skip
    assert done.exit_code == 0, (done.output, done.exception)
    path = Path(f"{name}.json")
    path.write_text(done.stdout)
    return path


def test_the_whole_way(run: Run, tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    signer = run(coordinator, "registry", "keygen", "--out", "signer.key").stdout.strip()
    assert len(signer) == 64
    assert stat.S_IMODE(Path("signer.key").stat().st_mode) == 0o600
    alpha = introduction(run, pki, "alpha", "--signer", signer)
    beta = introduction(run, pki, "beta")
    folder = pki.folder / "workers" / "alpha"
    assert stat.S_IMODE((folder / "signing.key").stat().st_mode) == 0o600
    # Asked again, it is the same key.
    assert introduction(run, pki, "alpha").read_text() == alpha.read_text()
    for who, clients in ((beta, "c"), (alpha, "b,a")):
        entered = run(coordinator, "registry", "add", "draft", who, "--clients", clients, "--max-weight", 10)
        assert entered.exit_code == 0, entered.exception
    for version in (1, 2):
        signed = run(coordinator, "registry", "sign", "draft", "--key", "signer.key", "--out", "signed")
        assert f"version {version}, 2 participants" in signed.output, signed.exception
    assert "good: version 2" in run(coordinator, "registry", "verify", "signed", "--signer", signer,
                                    "--federation", "test").output  # fmt: skip
    shown = json.loads(run(coordinator, "registry", "show", "signed", "--format", "json").output)
    assert [(each["worker"], each["clients"]) for each in shown["participants"]] == [
        ("alpha", ["a", "b"]),
        ("beta", ["c"]),
    ]
    assert "alpha" in run(coordinator, "registry", "show", "draft").output
    assert accept(folder / "participants.pin", Path("signed").read_bytes()).version == 2
    assert read_pin(folder / "participants.pin").version == 2


def test_a_registry_begins_with_nobody_so_that_a_coordinator_can_start_before_any_worker_is_enrolled(
    run: Run, tmp_path: Path
) -> None:
    signer = run(coordinator, "registry", "keygen", "--out", "signer.key").stdout.strip()
    assert run(coordinator, "registry", "new", "draft", "--federation", "test").exit_code == 0
    for participants in (0, 1):
        signed = run(coordinator, "registry", "sign", "draft", "--key", "signer.key", "--out", "signed")
        assert f"version {participants + 1}, {participants} participants" in signed.output, signed.exception
        found = decode(Path("signed").read_bytes(), signer, "test")
        assert len(found.participants) == participants
        alpha = introduction(run, Pki(tmp_path / f"pki-{participants}"), "alpha")
        entered = ["add", "draft", alpha, "--clients", "a", "--max-weight", 1]
        assert run(coordinator, "registry", *entered).exit_code == 0


def test_what_is_wrong_is_refused_with_a_sentence(run: Run, tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    run(coordinator, "registry", "keygen", "--out", "signer.key")
    other = run(coordinator, "registry", "keygen", "--out", "other.key").stdout.strip()
    alpha = introduction(run, pki, "alpha")
    told = json.loads(alpha.read_text())
    Path("lying.json").write_text(
        json.dumps({**told, "worker": "beta"}, sort_keys=True, separators=(",", ":"))
    )
    run(coordinator, "registry", "add", "draft", alpha, "--clients", "a", "--max-weight", 1)
    run(coordinator, "registry", "sign", "draft", "--key", "signer.key", "--out", "signed")
    cases = [
        (["keygen", "--out", "signer.key"], "choose another name"),
        (["new", "draft", "--federation", "test"], "there already"),
        (["new", "fresh", "--federation", "no/such name"], "federation"),
        (["add", "fresh", "lying.json", "--clients", "b", "--max-weight", 1], "not proved"),
        (["add", "draft", "nowhere", "--clients", "b", "--max-weight", 1], "cannot be read"),
        (["add", "draft", introduction(run, pki, "gamma"), "--clients", "a", "--max-weight", 1], "client a"),
        (["sign", "draft", "--key", "draft", "--out", "new"], "no private key"),
        (["sign", "draft", "--key", "other.key", "--out", "signed"], "not signed by its signer"),
        (["verify", "signed", "--signer", other, "--federation", "test"], "not signed by its signer"),
    ]
    before = Path("draft").read_bytes(), Path("signed").read_bytes()
    for arguments, words in cases:
        refused = run(coordinator, "registry", *arguments)
        assert isinstance(refused.exception, OperatorFault), (arguments, refused.output)
        assert words in str(refused.exception)
    assert (Path("draft").read_bytes(), Path("signed").read_bytes()) == before


def test_a_worker_without_a_certificate_or_a_key_is_told_what_to_do(run: Run, tmp_path: Path) -> None:
    where = ["--set", f"transport.identity_dir={tmp_path / 'nothing'}", "--name", "alpha"]
    refused = run(worker, "identity", "init", *where)
    assert isinstance(refused.exception, WorkerFault)
    assert "ssd-worker enroll" in str(refused.exception)
    pki = Pki(tmp_path / "pki")
    pki.worker("alpha")
    where[1] = f"transport.identity_dir={pki.folder / 'workers' / 'alpha'}"
    refused = run(worker, "identity", "show", *where)
    assert isinstance(refused.exception, WorkerFault)
    assert "identity init" in str(refused.exception)
