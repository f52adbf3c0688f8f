"""`ssd-worker config init|show|check`: what a new file holds, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ssd.daemon.cli import config_commands
from ssd.daemon.cli.config_commands import Daemon, Decorator, Options
from worker.errors import ConfigInvalid

if TYPE_CHECKING:
    from worker.config.sections import WorkerConfig

Load = Callable[..., "WorkerConfig"]

_ALWAYS = (
    "worker.name", "worker.coordinator", "worker.state_dir", "worker.http_listen", "worker.device",
    "transport.identity_dir", "data.kind", "data.clients", "data.folders", "secure_aggregation.level", "log.level",
)  # fmt: skip
_FOLDERS = {"client-a": Path("photographs/a"), "client-b": Path("photographs/b")}


def config_group(load_config: Load, settings: Decorator) -> click.Group:
    """The commands.

    Args:
        load_config: options -> the configuration.
        settings: adds the options that `load_config` takes.
    """
    return config_commands.config_group(
        Daemon(
            program="ssd-worker",
            load=load_config,
            settings=settings,
            begin=lambda options: _to_begin_with(load_config, options),
            problems=lambda options: _problems(load_config, options),
            always=_ALWAYS,
            example=("worker.name", "site-north"),
            check_help=(
                "Say everything that is wrong with the configuration. `ssd-worker doctor` looks at what it names, too."
            ),
        )
    )


def _to_begin_with(load_config: Load, options: Options) -> WorkerConfig:
    """What flags say; where they say nothing of the data, folders of photographs to be replaced by one's own."""
    asked = tuple(options["assignments"])
    if not any(each.startswith("data.") for each in asked) and not options["partition"]:
        folders = ", ".join(f'{name} = "{path}"' for name, path in _FOLDERS.items())
        options = {
            **options,
            "assignments": (*asked, "data.kind=folder", f"data.folders={{ {folders} }}"),
            "clients": options["clients"] or "*",
        }
    return load_config(**options, environ={})


def _problems(load_config: Load, options: Options) -> list[str]:
    try:
        load_config(**options)
    except ConfigInvalid as error:
        return str(error).splitlines()
    return []
