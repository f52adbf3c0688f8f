"""`ssd-worker doctor`. What it needs is imported when it runs: other commands stay quick."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable
from typing import Any

import click

from ssd.daemon.cli.exit_codes import EXIT_REFUSED
from ssd.daemon.doctor.findings import Level, as_json, as_lines, healthy
from worker.config.sections import WorkerConfig

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "red"}


def doctor_command(load_config: Callable[..., WorkerConfig], settings: Callable[..., Any]) -> click.Command:
    """The command.

    Args:
        load_config: options -> the configuration.
        settings: adds the options that `load_config` takes.
    """

    @click.command()
    @settings
    @click.option("--patience", type=click.FloatRange(min=0.1, max=600), default=10.0, show_default=True,
                  help="Seconds that one check may take.")  # fmt: skip
    @click.option(
        "--format", "form", type=click.Choice(["human", "json"]), default="human", show_default=True
    )
    def doctor(patience: float, form: str, **options: Any) -> int:
        """Check network, certificates, clock, disk, data, GPU and versions, and say what to do. Changes nothing."""
        # gRPC's own chatter does not look like a finding; it reads this when it is imported.
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        from worker.cli.doctor import examine

        found = list(examine(load_config(**options), patience, dt.datetime.now(dt.UTC)))
        if form == "json":
            click.echo(json.dumps(as_json(found), ensure_ascii=False))
        else:
            colour = False if os.environ.get("NO_COLOR") else None
            for level, line in as_lines(found):
                click.echo(click.style(line, fg=_COLOURS[level]), color=colour)
        return 0 if healthy(found) else EXIT_REFUSED

    return doctor
