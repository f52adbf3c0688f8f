"""What an experiment file may tell `ssd partition make` and `ssd evaluate`: their own options, by their long names.

The commands are asked what they take, so an option they learn can be used in a file at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ssd.data.command import partition
from ssd.evaluation.command import evaluate
from ssd.settings import unknown_key

Json = Any
PARTITION_OWN = frozenset({"data", "root", "download", "clients", "seed", "out", "force"})
EVALUATE_OWN = frozenset(
    {
        "root",
        "download",
        "partition",
        "probe",
        "projector",
        "head",
        "threads",
        "format",
        "device",
        "beside",
        "pretrained",
        "as",
    }
)
"""Options the runner gives itself."""

COMMANDS: Mapping[str, click.Command] = {"partition": partition, "evaluate": evaluate}


def command(*path: str) -> click.Command:
    """The command `ssd PATH...`."""
    found = COMMANDS[path[0]]
    for name in path[1:]:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def accepted(found: click.Command, own: frozenset[str]) -> dict[str, click.Option]:
    """The options a file may give, by their long name with underscores."""
    options = {}
    for option in found.params:
        if isinstance(option, click.Option):
            name = max(option.opts, key=len).removeprefix("--").replace("-", "_")
            if name not in own:
                options[name] = option
    return options


def arguments(
    options: Mapping[str, Json], known: Mapping[str, click.Option], where: str
) -> tuple[list[str], list[str]]:
    """Command-line arguments for `options`, and what is wrong with them.

    Args:
        options: name -> a number, a text, true or false for a flag, a list for what may be repeated.
        known: from `accepted`.
        where: how messages name the table.
    """
    given: list[str] = []
    mistakes = []
    for name, value in options.items():
        if name not in known:
            mistakes.append(unknown_key(name, list(known), where))
            continue
        option = known[name]
        flag = max(option.opts, key=len)
        if option.is_flag:
            if not isinstance(value, bool):
                mistakes.append(f"{where}.{name} must be true or false, got {value!r}")
            given += [flag] if value else []
        elif isinstance(value, list | tuple):
            if not option.multiple:
                mistakes.append(f"{where}.{name} takes one value, got a list")
            given += [part for each in value for part in (flag, str(each))]
        else:
            try:
                option.type.convert(value, option, None)
            except click.BadParameter as error:
                mistakes.append(f"{where}.{name}: {error.message}")
            given += [flag, str(value)]
    return given, mistakes
