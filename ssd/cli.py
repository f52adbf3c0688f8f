"""`ssd`: try a federation, split a data set among clients, measure an encoder.

Its exit codes are `ssd.daemon.cli.terminal.EXIT_CODES`. torch is imported only by a command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ssd.api.command import embed
from ssd.daemon.cli.completion import completion_command
from ssd.daemon.cli.exit_codes import EXIT_STORAGE, EXIT_USAGE
from ssd.daemon.cli.guard import run_guarded
from ssd.daemon.cli.help_text import add_examples
from ssd.daemon.cli.terminal import CODES
from ssd.data.command import partition
from ssd.data.images.errors import DataError
from ssd.demo.command import demo_command
from ssd.evaluation.command import evaluate
from ssd.examples import EXAMPLES
from ssd.experiment.command import experiment, report
from ssd.export.command import export

_EXAMPLES = """\b
Examples:
  ssd demo                                     a whole federation on this machine, a minute or two
  ssd demo --rounds 5 --out runs/quick         a shorter one, elsewhere
  ssd partition make --data digits --clients 10 --alpha 0.1 --out digits.json
  ssd partition show digits.json
  ssd evaluate runs/demo/ssd/encoder.safetensors --data digits
  ssd evaluate encoder.safetensors --data folder --probe photographs/probe --format json
  ssd embed encoder.safetensors photographs --out features.npz
  ssd export runs/demo/ssd/encoder.safetensors --out home

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script; ends the process with a documented exit code."""
    sys.exit(run_guarded(cli, "ssd", arguments, _exit_code))


def _exit_code(error: Exception) -> int | None:
    if isinstance(error, DataError):
        return EXIT_USAGE
    return EXIT_STORAGE if isinstance(error, OSError) else None


@click.group(epilog=_EXAMPLES + CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ssd-federated", message="%(prog)s %(version)s")
def cli() -> None:
    """Soft separation and distillation: one good image encoder out of data that stays where it is."""


cli.add_command(demo_command)
cli.add_command(partition)
cli.add_command(evaluate)
cli.add_command(embed)
cli.add_command(export)
cli.add_command(experiment)
cli.add_command(report)
cli.add_command(completion_command("ssd"))


add_examples(cli, "ssd", EXAMPLES, CODES)


if __name__ == "__main__":
    main()
