"""The guard around a command line: whatever a command raises becomes a sentence and a documented exit code."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence

import click

from ssd.daemon.cli.exit_codes import EXIT_DEFECT, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from ssd.daemon.cli.extras import what_is_missing
from ssd.daemon.printable import printable_lines


def run_guarded(
    command: click.Command,
    program: str,
    arguments: Sequence[str] | None,
    exit_code_of: Callable[[Exception], int | None],
) -> int:
    """Runs a command line; the process's exit code.

    Args:
        command: the whole command line.
        program: what it is called.
        arguments: what was typed after the program's name; None: what this process was started with.
        exit_code_of: an error that a command raised -> the code to end with after telling it; None: it is not expected, and
            is raised on with its traceback.
    """
    try:
        code = command.main(arguments, prog_name=program, standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except SystemExit as ended:
        # click itself ends the process with 1 over any broken pipe. A reader (head, less) that has seen enough is no fault.
        if ended.code == EXIT_DEFECT and _reader_is_gone():
            return EXIT_OK
        raise
    except Exception as error:
        found = exit_code_of(error)
        missing = what_is_missing(error) if found in (None, EXIT_DEFECT) else None
        if missing is not None:
            complain(missing)
            return EXIT_USAGE
        if found is None:
            raise
        report = " (a defect; please report it with the log)" if found == EXIT_DEFECT else ""
        complain(f"{error}{report}")
        return found
    return code if isinstance(code, int) else EXIT_OK


def _reader_is_gone() -> bool:
    """Whether it is standard output that is a broken pipe, and not one of the program's own connections."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(flags & select.POLLERR for _, flags in poll.poll(0))


def complain(message: str) -> None:
    """An error on standard error."""
    click.echo(
        click.style("error: ", fg="red", bold=True) + printable_lines(message), err=True, color=colour()
    )


def colour() -> bool | None:
    """Whether output is coloured, for `click.echo`; None lets it decide by whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") else None
