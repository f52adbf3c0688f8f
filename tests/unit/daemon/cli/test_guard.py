"""The guard around the three command lines: what a command raises, and what the process ends with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from ssd.daemon.cli.exit_codes import exit_codes
from ssd.daemon.cli.guard import colour, complain, run_guarded

ROOT = Path(__file__).parents[4]


class Refused(Exception):
    """A fault of the operator."""


class Defect(Exception):
    """A fault of ours."""


def code_of(error: Exception) -> int | None:
    return {Refused: 3, Defect: 1}.get(type(error))


def ended(raised: BaseException | None = None, returned: object = None) -> int:
    """The exit code of a command that raises or returns."""

    @click.command()
    def command() -> object:
        if raised is not None:
            raise raised
        return returned

    return run_guarded(command, "program", [], code_of)


def test_a_code_that_a_command_returns_is_the_processs_and_anything_else_is_success() -> None:
    assert [ended(returned=value) for value in (None, 0, 3, "text")] == [0, 0, 3, 0]


def test_an_expected_fault_is_a_sentence_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(Refused("no: try again")) == 3
    assert capsys.readouterr().err == "error: no: try again\n"


def test_a_defect_is_asked_to_be_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(Defect("odd")) == 1
    assert capsys.readouterr().err == "error: odd (a defect; please report it with the log)\n"


def test_what_nobody_expects_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        ended(ZeroDivisionError())


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_is_130(raised: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(raised) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_wrong_usage_is_2_and_an_exit_is_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(click.UsageError("what?")) == 2
    assert "what?" in capsys.readouterr().err
    assert ended(click.exceptions.Exit(4)) == 4


PIPES = """
import errno, os, sys, click
from ssd.daemon.cli.guard import run_guarded
@click.command()
@click.argument("what")
def command(what):
    if what == "print":
        for _ in range(100000):
            click.echo("line")
    raise BrokenPipeError(errno.EPIPE, "of a connection")
sys.exit(run_guarded(command, "program", sys.argv[1:], lambda error: 4))
"""


def test_a_reader_that_has_seen_enough_is_no_fault() -> None:
    line = f"{sys.executable} -c '{PIPES}' print 2>&1 >&3 | cat; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", f"exec 3> >(head -n 1 > /dev/null); {line}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_broken_connection_is_not_taken_for_such_a_reader() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PIPES, "raise"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 1


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour() is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert colour() is False
    complain("plain")
    assert capsys.readouterr().err == "error: plain\n"


def test_every_program_has_the_same_numbers() -> None:
    assert exit_codes(usage="u", refused="r", storage="s") == {
        0: "done",
        1: "a defect",
        2: "u",
        3: "r",
        4: "s",
        130: "interrupted",
    }
