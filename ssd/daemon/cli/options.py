"""Options that several commands of both daemons have, and what `--set` means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

Json = Any

FORM = click.option(
    "--format", "form", type=click.Choice(["human", "json"]), default="human", show_default=True
)
SET = click.option(
    "--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE", help="Any setting, as TOML value."
)


def settings_of(assignments: Sequence[str], named: Mapping[str, Json]) -> dict[str, Json]:
    """The settings that a command line gives, as `ssd.daemon.config_loading.load` takes them.

    Args:
        assignments: the values of `--set`.
        named: dotted key -> value of an option of its own, which wins; None: the option was not given.

    Raises:
        click.UsageError: an assignment has no `=`.
    """
    found: dict[str, Json] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set {assignment}: write table.key=value, for example log.level=debug")
        found[key.strip()] = value.strip()
    return found | {key: value for key, value in named.items() if value is not None}
