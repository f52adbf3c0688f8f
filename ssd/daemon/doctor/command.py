"""`doctor` of a daemon. What looks at things is imported when it runs: other commands stay quick."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from ssd.daemon.cli.config_commands import Decorator
from ssd.daemon.cli.exit_codes import EXIT_OK, EXIT_REFUSED
from ssd.daemon.cli.guard import colour
from ssd.daemon.cli.options import FORM
from ssd.daemon.doctor.findings import Finding, Level, as_json, as_lines, healthy
from ssd.daemon.printable import json_text

if TYPE_CHECKING:
    from ssd.daemon.config_loading import Section

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "red"}


def doctor_command(
    help_text: str,
    load: Callable[..., Section],
    settings: Decorator,
    examine: Callable[[Any, float, dt.datetime], Iterable[Finding]],
) -> click.Command:
    """The command.

    Args:
        help_text: what it looks at.
        load: options -> the configuration.
        settings: adds the options that `load` takes.
        examine: (configuration, seconds for one check, aware time) -> every finding, in the order in which things are needed.
    """

    @click.command("doctor", help=help_text)
    @settings
    @click.option("--patience", type=click.FloatRange(min=0.1, max=600), default=10.0, show_default=True,
                  help="Seconds that one check may take.")  # fmt: skip
    @FORM
    def doctor(patience: float, form: str, **options: Any) -> int:
        # gRPC's own chatter does not look like a finding; it reads this when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        found = list(examine(load(**options), patience, dt.datetime.now(dt.UTC)))
        if form == "json":
            click.echo(json_text(as_json(found)))
        else:
            for level, line in as_lines(found):
                click.echo(click.style(line, fg=_COLOURS[level]), color=colour())
        return EXIT_OK if healthy(found) else EXIT_REFUSED

    return doctor
