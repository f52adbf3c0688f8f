"""`ssd-worker enroll`: what it refuses before it says a word to anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssd.trust.join_token import JoinToken
from ssd.trust.names import Role, Subject
from worker.cli.main import main

TOKEN = JoinToken(Subject("f", Role.WORKER, "w1"), "127.0.0.1:1", bytes(32), bytes(range(32)))


def enroll(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["enroll", "--state-dir", str(tmp_path / "state"), *arguments])
    said = capsys.readouterr()
    assert TOKEN.text() not in said.out + said.err
    assert not (tmp_path / "state").exists()
    return code, said.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "--token-file"),
        (("--token", "x", "--token-file", "/dev/null"), 2, "--token-file"),
        (("--token", "nonsense"), 3, "no join token"),
        (("--token", TOKEN.text()[:-1]), 3, "damaged"),
        (("--token-file", "/dev/null"), 3, "no join token"),
        (("--token", TOKEN.text(), "--coordinator", "nowhere"), 3, "no address"),
        (("--token", TOKEN.text(), "--coordinator", "unix:/x"), 3, "host:port"),
        (("--token", TOKEN.text()), 3, "[enrolment] listen"),
    ],
)
def test_what_makes_no_sense_is_refused_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, err = enroll(tmp_path, capsys, *arguments)
    assert found == code
    assert said in err


def test_the_token_may_come_from_the_environment_or_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN.text() + "\n")
    assert "no enrolment at 127.0.0.1:1" in enroll(tmp_path, capsys, "--token-file", str(file))[1]
    monkeypatch.setenv("SSD_JOIN_TOKEN", TOKEN.text())
    assert "no enrolment at 127.0.0.1:1" in enroll(tmp_path, capsys)[1]


def test_a_token_without_an_address_asks_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = JoinToken(TOKEN.subject, "", TOKEN.pin, TOKEN.secret)
    code, err = enroll(tmp_path, capsys, "--token", token.text())
    assert code == 3
    assert "--coordinator" in err


def test_a_token_for_another_name_than_the_configuration_gives_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "worker.toml"
    config.write_text('[worker]\nname = "other"\n')
    code, err = enroll(tmp_path, capsys, "--token", TOKEN.text(), "--config", str(config))
    assert code == 3
    assert "'other'" in err
    assert "'w1'" in err
