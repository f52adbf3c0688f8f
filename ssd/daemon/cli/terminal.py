"""What the subcommands of `ssd` share: their exit codes, a console, and where a data set's files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from ssd.daemon.cli.exit_codes import exit_codes
from ssd.daemon.cli.help_text import codes_sentence

Command = TypeVar("Command", bound=Callable[..., Any])

EXIT_CODES = exit_codes(
    usage="usage, settings or data",
    refused="refused, in use or a process of the demo failed",
    storage="a file cannot be read or written",
)
"""What `ssd` ends with, and what it means."""
CODES = codes_sentence(EXIT_CODES)
KINDS = ("digits", "cifar10", "cifar100", "mnist")
"""The built-in data sets; a copy of `ssd.data.images.builtin.KINDS`, whose module imports torch."""
_PLAIN_WIDTH = 116


def console() -> Console:
    """Standard output; a file or pipe gets plain text of a fixed width."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def data_options(command: Command) -> Command:
    """Where a built-in set's files are."""
    command = click.option(
        "--download", is_flag=True, help="Fetch the set into --root when it is not there."
    )(command)
    return click.option(
        "--root", type=click.Path(path_type=Path, file_okay=False), help="Folder of CIFAR or MNIST files."
    )(command)
