"""Whether a command line of one of the three programs would be understood; nothing runs."""

from __future__ import annotations

import shlex

import click

from coordinator.cli.main import cli as coordinator
from ssd.cli import cli as ssd
from worker.cli.main import cli as worker

PROGRAMS: dict[str, click.Command] = {"ssd-coordinator": coordinator, "ssd-worker": worker, "ssd": ssd}


def check(line: str) -> None:
    """Walk down to the command and let it parse; values are not looked at.

    Raises:
        click.UsageError: an unknown command or option, or arguments that it does not take.
    """
    program, *words = shlex.split(line, comments=True)
    command, path, context = PROGRAMS[program], [program], None
    while True:
        context = click.Context(command, info_name=path[-1], parent=context)
        # A group leaves what follows its command's name; a command has to use every word up.
        _, words, _ = command.make_parser(context).parse_args(list(words))
        if not isinstance(command, click.Group):
            break
        if not words:
            return  # (its help)
        name, *words = words
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"{' '.join(path)} has no command {name!r}")
        command, path = found, [*path, name]
    if words:
        raise click.UsageError(f"{' '.join(path)} takes no {words!r}")
