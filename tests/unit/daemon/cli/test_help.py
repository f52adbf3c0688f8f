"""Every command of the three programs shows in its help an example that works as typed, and what its exit codes mean."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from coordinator.cli.examples import EXAMPLES as COORDINATOR
from coordinator.cli.main import cli as coordinator_cli
from ssd.cli import cli as ssd_cli
from ssd.daemon.cli.help_text import commands
from ssd.examples import EXAMPLES as SSD
from worker.cli.examples import EXAMPLES as WORKER
from worker.cli.main import cli as worker_cli

PROGRAMS = {
    "ssd-coordinator": (coordinator_cli, COORDINATOR),
    "ssd-worker": (worker_cli, WORKER),
    "ssd": (ssd_cli, SSD),
}


def every_command() -> Iterator[tuple[str, tuple[str, ...], click.Command]]:
    for program, (root, _) in PROGRAMS.items():
        for path, command in commands(root):
            yield program, path, command


ALL = list(every_command())


@pytest.mark.parametrize(
    ("program", "path", "command"), ALL, ids=[" ".join((p, *path)) for p, path, _ in ALL]
)
def test_the_help_has_examples_and_exit_codes(
    program: str, path: tuple[str, ...], command: click.Command
) -> None:
    shown = CliRunner().invoke(PROGRAMS[program][0], [*path, "--help"])
    assert shown.exit_code == 0
    name = " ".join((program, *path))
    assert re.search(r"^\s*Examples?:$", shown.output, re.MULTILINE), f"give {name} an example in examples.py"
    (block,) = re.findall(r"^\s*Examples?:\n((?:\s+ssd\S* ?.*\n)+)", shown.output, re.MULTILINE)
    assert f"{program} {' '.join(path)}".strip() in block
    codes = shown.output[shown.output.index("Exit codes:") :]
    assert set(re.findall(r"\b(?:0|1|2|3|4|130)\b", codes)) >= {"0", "2", "3", "4", "130"}
    assert command.help, f"{name} says nothing about itself"


@pytest.mark.parametrize("program", PROGRAMS)
def test_examples_are_of_commands_that_exist_and_parse_as_typed(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("token", "north-garden.client"):
        (tmp_path / file).touch()
    root, examples = PROGRAMS[program]
    known = {" ".join(path): command for path, command in commands(root)}
    assert set(examples) <= set(known)
    for name, lines in examples.items():
        for line in lines:
            typed = shlex.split(re.split(r"\s{3,}", line)[0])
            assert line.startswith(name)
            found = parsed(root, typed)
            assert name == "" or isinstance(known[name], click.Group) or found == name, line


def parsed(root: click.Command, typed: list[str]) -> str:
    """The command that a line names, its options and arguments parsed as a shell would hand them over."""
    context, path = root.make_context("x", list(typed)), []
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            break
        name, command, rest = context.command.resolve_command(context, rest)
        assert name is not None
        assert command is not None
        path.append(name)
        context = command.make_context(name, rest, parent=context)
    return " ".join(path)


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_example_that_is_wrong_would_be_noticed(program: str) -> None:
    with pytest.raises(click.UsageError):
        parsed(PROGRAMS[program][0], ["no-such-command"])
    with pytest.raises(click.UsageError):
        parsed(PROGRAMS[program][0], ["--no-such-option"])
