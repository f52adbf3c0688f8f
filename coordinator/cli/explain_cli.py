"""`ssd-coordinator explain ROUND`: out of the state directory, whether or not a coordinator is running on it."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli import tables
from coordinator.errors import OperatorFault
from ssd.daemon.cli.options import FORM


class NothingToExplain(OperatorFault):
    """There is no such round, or no run."""

    code = "nothing_to_explain"


@click.command()
@click.argument("number", metavar="ROUND", type=click.IntRange(min=1))
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="TOML file that names the state_dir."
)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="coordinator.state_dir, if not from --config."
)
@FORM
def explain(number: int, config_path: Path | None, state_dir: Path | None, form: str) -> None:
    """What happened to every client that ROUND invited: asked when, by which worker, taken, refused, failed or late.

    Read from the state directory, so it works whether or not the coordinator runs. Notes are written when an attempt
    ends.
    """
    from coordinator.cli import explain as explanation
    from coordinator.config.sections import load
    from coordinator.store.journal.reading import read_round

    where = state_dir or load(config_path).coordinator.state_dir
    found = read_round(where, number)
    if found is None:
        raise NothingToExplain(
            f"there is no run in {where}: name the right folder with --state-dir or --config"
        )
    if not found.attempts:
        newest = f"the newest is {found.newest_round}" if found.newest_round else "none was opened yet"
        raise NothingToExplain(f"round {number} was never opened: {newest}")
    tables.show(explanation.explain(number, found), form, explanation.text)
