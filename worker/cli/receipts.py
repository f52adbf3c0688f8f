"""`ssd-worker receipts`: this worker's side of every masked sum it uploaded for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ssd.daemon.cli.options import FORM
from ssd.daemon.printable import json_text

if TYPE_CHECKING:
    from worker.config.sections import WorkerConfig

Load = Callable[..., "WorkerConfig"]


def receipts_command(load: Load, settings: Callable[..., Any]) -> click.Command:
    """The command, with the options and the configuration of the other ones."""

    @click.command()
    @settings
    @FORM
    def receipts(form: str, **options: Any) -> None:
        """List the attempts this worker uploaded for: round, model, and the set it signed. Works beside a running worker.

        The JSON form is what `ssd-coordinator audit --receipts` compares with the transcripts.
        """
        from ssd.secagg.client.receipts import to_json
        from worker.store.secure_memory import read_receipts

        config = load(**options)
        found = read_receipts(config.worker.state_dir)
        if form == "json":
            click.echo(json_text(to_json(config.worker.name, found)))
            return
        for each in found:
            what = f"signed a set of {len(each.signed)}" if each.signed else "signed nothing"
            click.echo(
                f"round {each.round}, attempt {each.attempt}: model {each.base_digest.hex()[:16]},"
                f" {len(each.roster)} in the roster, {what}"
            )
        click.echo(f"{len(found)} receipts")

    return receipts
